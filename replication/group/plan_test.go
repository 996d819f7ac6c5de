package group

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pelago/replication"
	"pelago/replication/consensus"
)

// at reads records: "id site flags", flags being letters of witness, barred,
// founder, drained, revoked.
func recordsOf(lines ...string) (all []Record) {
	for _, line := range lines {
		f := append(strings.Fields(line), "", "")
		r := Record{ID: f[0], Site: f[1], Address: "at " + f[0]}
		for _, flag := range f[2] {
			switch flag {
			case 'w':
				r.Witness = true
			case 'b':
				r.Barred = true
			case 'f':
				r.Founder = true
			case 'd':
				r.Drained = true
			case 'r':
				r.Revoked = true
			}
		}
		all = append(all, r)
	}
	return all
}

// membersOf reads ids, those that vote in capitals' stead with an asterisk.
func membersOf(ids string) (all []replication.Member) {
	for id := range strings.FieldsSeq(ids) {
		name, votes := strings.CutSuffix(id, "*")
		m := replication.Member{ID: name, Address: "at " + name, Suffrage: replication.Nonvoter}
		if votes {
			m.Suffrage = replication.Voter
		}
		all = append(all, m)
	}
	return all
}

func TestTheNextChangeOfTheMembership(t *testing.T) {
	for name, c := range map[string]struct {
		records []string
		members string
		sick    string
		want    string
	}{
		"nothing is known before the founding is applied":     {nil, "a*", "", ""},
		"one node is all there is":                            {[]string{"a A f"}, "a*", "", ""},
		"who is missing comes in":                             {[]string{"a A f", "b B"}, "a*", "", "admit b"},
		"two sites have one voter":                            {[]string{"a A f", "b B"}, "a* b", "", ""},
		"three sites have three":                              {[]string{"a A f", "b B", "c C"}, "a* b c", "", "promote b"},
		"a witness makes the third":                           {[]string{"a A f", "b B", "c C w"}, "a* b* c", "", "promote c"},
		"who is not well is given no vote":                    {[]string{"a A f", "b B", "c C"}, "a* b c", "b c", ""},
		"one node a site votes":                               {[]string{"a A f", "b B", "c C", "d C"}, "a* b* c* d", "", ""},
		"a node of the same site takes the vote over":         {[]string{"a A f", "b B", "c C", "d C"}, "a* b* c* d", "c", "promote d"},
		"and then it is taken":                                {[]string{"a A f", "b B", "c C", "d C"}, "a* b* c* d*", "c", "demote c"},
		"nobody to take it over, it stays":                    {[]string{"a A f", "b B", "c C"}, "a* b* c*", "c", ""},
		"the revoked goes before anything else":               {[]string{"a A f", "b B", "c C r", "d D"}, "a* b* c* x", "", "remove c"},
		"who is in no record goes":                            {[]string{"a A f", "b B"}, "a* b x", "", "remove x"},
		"a leader that was revoked gives way":                 {[]string{"a A r", "b B", "c C"}, "a* b* c*", "", "abdicate"},
		"a leader that was revoked and votes alone finds one": {[]string{"a A r", "b B", "c C"}, "a* b c", "", "promote b"},
		"the barred loses its vote":                           {[]string{"a A f", "b B b", "c C"}, "a* b* c*", "", "demote b"},
		"the drained is replaced first":                       {[]string{"a A f", "b B d", "c C", "d D"}, "a* b* c* d", "", "promote d"},
		"then it loses its vote":                              {[]string{"a A f", "b B d", "c C", "d D"}, "a* b* c* d*", "", "demote b"},
		"and goes on receiving what is decided":               {[]string{"a A f", "b B d", "c C", "d D"}, "a* b c* d*", "", ""},
		"if it is out, it comes back without a vote":          {[]string{"a A f", "b B d", "c C", "d D"}, "a* c* d*", "", "admit b"},
		"until it is revoked":                                 {[]string{"a A f", "b B dr", "c C", "d D"}, "a* b c* d*", "", "remove b"},
		"with three sites the drained votes until it is gone": {[]string{"a A f", "b B d", "c C"}, "a* b* c*", "", ""},
		"a drained leader gives way":                          {[]string{"a A fd", "b B", "c C", "d D"}, "a* b* c* d*", "", "abdicate"},
		"nobody is left to take over from the drained":        {[]string{"a A fd"}, "a*", "", ""},
		"five sites have five":                                {[]string{"a A f", "b B", "c C", "d D", "e E"}, "a* b* c* d e", "", "promote d"},
		"six sites have five":                                 {[]string{"a A f", "b B", "c C", "d D", "e E", "g G"}, "a* b* c* d* e* g", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := plan("a", recordsOf(c.records...), membersOf(c.members), func(id string) bool { return !strings.Contains(c.sick, id) }, nobody)
			got := ""
			if ok {
				got = strings.TrimSpace(fmt.Sprintf("%v %s", s.do, s.id))
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	all := recordsOf("a A f", "b B")
	all[1].Address = "elsewhere"
	if s, ok := plan("a", all, membersOf("a* b"), func(string) bool { return true }, nobody); !ok || s != (step{admit, "b", "elsewhere"}) {
		t.Errorf("who has moved: %v, %t", s, ok)
	}
	all[0].Address = "elsewhere"
	if s, ok := plan("a", all[:1], membersOf("a*"), func(string) bool { return true }, nobody); !ok || s != (step{promote, "a", "elsewhere"}) {
		t.Errorf("a voter that has moved: %v, %t", s, ok)
	}
}

// Raft has an address once: who is drained goes for who comes where it was, and keeps
// nobody's vote where it is meanwhile.
func TestTheDrainedGiveWayToWhoComesWhereTheyWere(t *testing.T) {
	for members, want := range map[string]step{
		"a* b c*":    {do: remove, id: "b"},
		"a* c*":      {do: admit, id: "e"},
		"a* c* e*":   {},
		"a* b* c* d": {do: promote, id: "d"},
	} {
		all := recordsOf("a A f", "b B d", "c C", "e B")
		all[3].Address = "at b"
		now := membersOf(members)
		for i, m := range now {
			switch m.ID {
			case "d":
				all = append(all, recordsOf("d D")...)
			case "e":
				now[i].Address = "at b"
			}
		}
		s, _ := plan("a", all, now, func(string) bool { return true }, nobody)
		if s.do != want.do || s.id != want.id {
			t.Errorf("%s: %v, want %v", members, s, want)
		}
	}
}

// Whatever the records say, the changes end, and end where no other is due.
func TestEveryPlanEnds(t *testing.T) {
	for seed := range 2000 {
		var lines []string
		members := "a*"
		bits := uint64(seed)*0x9E3779B97F4A7C15 + 1
		next := func(n uint64) uint64 {
			bits ^= bits << 13
			bits ^= bits >> 7
			bits ^= bits << 17
			return bits % n
		}
		for i := range 1 + next(9) {
			flags := []string{"", "", "", "w", "b", "d", "r"}[next(7)]
			if i == 0 {
				flags += "f"
			}
			lines = append(lines, fmt.Sprintf("%c S%d %s", 'a'+i, next(6), flags))
			if i > 0 {
				members += fmt.Sprintf(" %c%s", 'a'+i, []string{"", "*"}[next(2)])
			}
		}
		now := membersOf(members)
		healthy := func(id string) bool { return (uint64(id[0])*31+uint64(seed))%4 > 0 }
		for steps := 0; ; steps++ {
			s, ok := plan("a", recordsOf(lines...), now, healthy, nobody)
			if !ok || s.do == abdicate {
				break
			}
			if steps > 50 {
				t.Fatalf("%v with %v: still %v", lines, now, s)
			}
			now = carryOut(t, now, s)
		}
	}
}

func carryOut(t *testing.T, members []replication.Member, s step) (after []replication.Member) {
	t.Helper()
	found := false
	for _, m := range members {
		if m.ID != s.id {
			after = append(after, m)
			continue
		}
		found = true
		switch s.do {
		case promote:
			m.Suffrage, m.Address = replication.Voter, s.address
		case demote:
			m.Suffrage = replication.Nonvoter
		case admit:
			m.Address = s.address
		}
		if s.do != remove {
			after = append(after, m)
		}
	}
	if !found {
		if s.do != admit {
			t.Fatalf("%v of a stranger", s)
		}
		after = append(after, replication.Member{ID: s.id, Address: s.address, Suffrage: replication.Nonvoter})
	}
	for _, m := range after {
		if m.Suffrage == replication.Voter {
			return after
		}
	}
	t.Fatalf("%v leaves nobody who votes", s)
	return nil
}

func TestHealthChangesSlowly(t *testing.T) {
	h := &health{steady: 10 * time.Second, doubt: time.Minute}
	now := time.Unix(0, 0)
	see := func(id string, voter, well bool, after time.Duration) bool {
		now = now.Add(after)
		h.see(id, voter, well, now)
		return h.healthy(id)
	}
	if !see("v", true, false, 0) || see("n", false, true, 0) {
		t.Error("of voters the first opinion is good, of others not")
	}
	if !see("v", true, false, 59*time.Second) || see("v", true, false, time.Second) {
		t.Error("doubt takes a minute")
	}
	if !see("n", false, true, 0) {
		t.Error("who has been well for ten seconds is healthy")
	}
	see("v", true, true, 9*time.Second)
	see("v", true, false, 0)
	if see("v", true, true, 5*time.Second) || !see("v", true, true, 10*time.Second) {
		t.Error("a hiccup begins the time again")
	}
	h.keep(membersOf("n"))
	if h.healthy("v") || !h.healthy("n") {
		t.Error("who is no member is kept, or who is one is not")
	}
}

func nobody(string) bool { return false }

// Who has forgotten what it confirmed loses its vote at once, and is barred until it
// has been caught up.
func TestWhoForgetsIsBarredUntilItIsCaughtUp(t *testing.T) {
	all := recordsOf("a A f", "b B", "c C")
	now := time.Now()
	h := &health{steady: 10 * time.Second, doubt: time.Minute}
	look := func(members []replication.Member, of consensus.Heard, last uint64) (bool, step) {
		forgot := false
		for _, m := range members {
			x := consensus.Heard{Last: last}
			if m.ID == "b" {
				x = of
			}
			forgot = h.remember(m, x, last) || forgot
			h.see(m.ID, m.Suffrage == replication.Voter, true, now)
		}
		s, _ := plan("a", all, members, h.healthy, h.barred)
		now = now.Add(time.Minute)
		return forgot, s
	}
	voters, without := membersOf("a* b* c*"), membersOf("a* b c*")
	if forgot, s := look(voters, consensus.Heard{Last: 100}, 100); forgot || s != (step{}) {
		t.Errorf("at first: %t, %v", forgot, s)
	}
	if forgot, s := look(voters, consensus.Heard{Last: 40, Forgot: 1}, 110); !forgot || s != (step{do: demote, id: "b"}) {
		t.Errorf("it forgot: %t, %v", forgot, s)
	}
	if forgot, s := look(voters, consensus.Heard{Last: 120, Forgot: 1}, 120); forgot || s != (step{do: demote, id: "b"}) {
		t.Errorf("it was caught up and still votes: %t, %v", forgot, s)
	}
	if _, s := look(without, consensus.Heard{Last: 90, Forgot: 1}, 120); s.id == "b" {
		t.Errorf("it is behind: %v", s)
	}
	for range 2 {
		look(without, consensus.Heard{Last: 130, Forgot: 1}, 130)
	}
	if _, s := look(without, consensus.Heard{Last: 130, Forgot: 1}, 130); s.do != promote || s.id != "b" {
		t.Errorf("caught up: %v", s)
	}
	if forgot, s := look(voters, consensus.Heard{Last: 50, Forgot: 2}, 140); !forgot || s != (step{do: demote, id: "b"}) {
		t.Errorf("it forgot again: %t, %v", forgot, s)
	}
	h.enter()
	if forgot, s := look(voters, consensus.Heard{Last: 150}, 150); forgot || s != (step{do: demote, id: "b"}) {
		t.Errorf("in a new term: %t, %v", forgot, s)
	}
	look(without, consensus.Heard{Last: 150}, 150)
	if forgot, s := look(voters, consensus.Heard{Last: 60, Forgot: 1}, 160); !forgot || s != (step{do: demote, id: "b"}) {
		t.Errorf("it forgot in the new term: %t, %v", forgot, s)
	}
}
