package consensus_test

import (
	"fmt"
	"strings"
	"testing"

	"pelago/replication/consensus"
)

func TestVoterCount(t *testing.T) {
	for _, tt := range []struct{ t, sites, want int }{
		{0, 1, 1}, {0, 5, 1}, {1, 1, 1}, {1, 2, 1}, {1, 3, 3}, {1, 4, 3}, {2, 4, 3}, {2, 5, 5}, {2, 8, 5},
		{3, 6, 5}, {3, 9, 7}, {4, 25, 7}, {9, 50, 7}, {0, 0, 0}, {-1, 3, 0},
	} {
		if got := consensus.VoterCount(tt.t, tt.sites); got != tt.want {
			t.Errorf("t %d, %d sites: %d voters, want %d", tt.t, tt.sites, got, tt.want)
		}
	}
}

// parse reads sites "a:1v,2 b:3!": nodes 1 (a voter) and 2 at site a, node 3 at
// b unhealthy. A site's F is the founder's, W a witness; a node's x is barred.
func parse(text string) []consensus.Site {
	var sites []consensus.Site
	for _, word := range strings.Fields(text) {
		name, nodes, _ := strings.Cut(word, ":")
		s := consensus.Site{
			Name: strings.Trim(name, "FW"), Founder: strings.Contains(name, "F"), Witness: strings.Contains(name, "W"),
		}
		for _, n := range strings.Split(nodes, ",") {
			s.Nodes = append(s.Nodes, consensus.Eligible{
				ID: strings.TrimRight(n, "v!x"), Voter: strings.Contains(n, "v"), Healthy: !strings.Contains(n, "!"), Barred: strings.Contains(n, "x"),
			})
		}
		sites = append(sites, s)
	}
	return sites
}

// steps carries the changes out and returns them, "+" for a vote that was given.
func steps(t *testing.T, level int, sites []consensus.Site) string {
	var done []string
	for len(done) < 20 {
		change, ok := consensus.ChooseVoters(level, sites)
		if !ok {
			return strings.Join(done, " ")
		}
		sign := "-"
		if change.Promote {
			sign = "+"
		}
		done = append(done, sign+change.ID)
		for i := range sites {
			for k := range sites[i].Nodes {
				if sites[i].Nodes[k].ID == change.ID {
					if sites[i].Nodes[k].Voter == change.Promote {
						t.Fatalf("%v changes nothing", done)
					}
					sites[i].Nodes[k].Voter = change.Promote
				}
			}
		}
	}
	t.Fatalf("no end: %v", done)
	return ""
}

func TestChooseVoters(t *testing.T) {
	for _, tt := range []struct {
		name  string
		t     int
		sites string
		want  string
	}{
		{"a network of one", 0, "aF:1v", ""},
		{"a second node of the site does not vote", 0, "aF:1v,2", ""},
		{"two sites: the founder alone", 1, "aF:1v b:2", ""},
		{"two sites, the other votes too: it loses it", 1, "aF:1v b:2v", "-2"},
		{"a witness makes three", 1, "aF:1v b:2 wW:3", "+2 +3"},
		{"a third site makes three", 1, "aF:1v b:2 c:3", "+2 +3"},
		{"a site that holds data is preferred to a witness", 1, "aF:1v b:2 c:4 wW:3", "+2 +4"},
		{"a witness that votes keeps its vote", 1, "aF:1v b:2v c:4 wW:3v", ""},
		{"five sites, t 2", 2, "aF:1v b:2 c:3 d:4 e:5", "+2 +3 +4 +5"},
		{"never two of one site", 1, "aF:1v,2v b:3v c:4v", "-2"},
		{"an unhealthy voter is replaced at its site", 1, "aF:1v b:2v!,5 c:3v", "+5 -2"},
		{"an unhealthy voter is replaced by another site", 1, "aF:1v b:2v! c:3v d:4", "+4 -2"},
		{"an unhealthy voter stays while nobody can replace it", 1, "aF:1v b:2v! c:3v", ""},
		{"even when most are unhealthy", 1, "aF:1v b:2v! c:3v! d:4!", ""},
		{"the founder may be replaced", 1, "aF:1v! b:2v c:3v d:4", "+4 -1"},
		{"the founder takes its seat back", 1, "aF:1 b:2v c:3v d:4v", "+1 -4"},
		{"an unhealthy node is not promoted", 1, "aF:1v b:2! c:3", ""},
		{"who is barred loses its vote first", 1, "aF:1v b:2vx c:3v d:4", "-2 +4"},
		{"who is barred never gets one", 1, "aF:1v b:2x c:3v d:4", "+4"},
		{"t falls: fewer vote", 0, "aF:1v b:2v c:3v", "-2 -3"},
		{"nobody at all", 1, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := steps(t, tt.t, parse(tt.sites)); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.sites, got, tt.want)
			}
		})
	}
}

func TestAnyNetworkSettlesAtOneVoterASite(t *testing.T) {
	for mask := range 1 << 10 {
		// Five sites; per site: is its node healthy, does it vote.
		var text []string
		voted := 0
		for i := range 5 {
			word := fmt.Sprintf("%c:%d", 'a'+i, i)
			if mask>>(2*i)&1 == 1 {
				word += "!"
			}
			if mask>>(2*i+1)&1 == 1 {
				word += "v"
				voted++
			}
			text = append(text, word)
		}
		sites := parse(strings.Join(text, " "))
		steps(t, 2, sites)
		voters, healthy := 0, 0
		for _, s := range sites {
			for _, n := range s.Nodes {
				if n.Healthy {
					healthy++
				}
				if n.Voter {
					voters++
				}
			}
		}
		if voters%2 == 0 && (voted > 0 || healthy > 0) {
			t.Fatalf("%v: %d voters", text, voters)
		}
	}
}
