package consensus_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
)

func TestWhatALogIsOpenedWith(t *testing.T) {
	at := func(index, term uint64) replication.Position { return replication.Position{Index: index, Term: term} }
	for _, tt := range []struct {
		name        string
		first, last uint64
		at          replication.Position
		term        uint64
		want        any
	}{
		{"nothing at all", 0, 0, at(0, 0), 0, consensus.OpenLog},
		{"a copy and no log", 0, 0, at(90, 3), 0, consensus.OpenLog},
		{"a log and nothing applied", 1, 9, at(0, 0), 0, consensus.OpenLog},
		{"a cut log and nothing applied", 2, 9, at(0, 0), 0, consensus.CopyState},
		{"applied within", 5, 9, at(7, 3), 3, consensus.OpenLog},
		{"applied all", 5, 9, at(9, 3), 3, consensus.OpenLog},
		{"applied just before", 5, 9, at(4, 3), 0, consensus.OpenLog},
		{"a gap before the log", 5, 9, at(3, 3), 0, consensus.CopyState},
		{"beyond the log", 5, 9, at(10, 3), 0, consensus.ClearLog},
		{"of another history", 5, 9, at(7, 4), 3, consensus.ClearLog},
	} {
		if got := consensus.OpeningOf(tt.first, tt.last, tt.at, tt.term); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTheOldestSnapshotThatTheLogReachesIsOffered(t *testing.T) {
	for _, tt := range []struct {
		first uint64
		taken []uint64
		want  uint64
	}{
		{0, nil, 0},
		{1, []uint64{10, 20, 30}, 10},
		{10, []uint64{10, 20, 30}, 10},
		{11, []uint64{10, 20, 30}, 20},
		{99, []uint64{10, 20, 30}, 30}, // the newest is the library's own, log or no log
		{1, []uint64{10, 10, 10}, 10},
	} {
		if got := consensus.Offered(tt.first, tt.taken...); got != tt.want {
			t.Errorf("log from %d, taken %v: %d, want %d", tt.first, tt.taken, got, tt.want)
		}
	}
	var many []uint64
	for i := uint64(1); i <= 5000; i++ {
		many = append(many, i)
	}
	if got := consensus.Offered(1, many...); got != 1 {
		t.Errorf("of many %d: the oldest went", got)
	}
}

func TestOnlyVotersAskedSinceConfirm(t *testing.T) {
	all := []replication.Member{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "x", Suffrage: replication.Nonvoter}, {ID: "y", Suffrage: replication.Nonvoter}}
	asked := time.Now()
	before, after := asked.Add(-time.Millisecond), asked.Add(time.Millisecond)
	type note struct {
		id   string
		term uint64
		sent time.Time
	}
	for _, tt := range []struct {
		name  string
		self  string
		notes []note
		want  bool
	}{
		{"nobody", "a", nil, false},
		{"one of two others", "a", []note{{"b", 5, after}}, true},
		{"asked at that moment", "a", []note{{"b", 5, asked}}, true},
		{"asked before", "a", []note{{"b", 5, before}, {"c", 5, before}}, false},
		{"non-voters", "a", []note{{"x", 5, after}, {"y", 5, after}}, false},
		{"of an earlier term", "a", []note{{"b", 4, after}, {"c", 4, after}}, false},
		{"the earlier term after the later", "a", []note{{"b", 5, after}, {"c", 4, after}}, true},
		{"of a later term", "a", []note{{"b", 5, after}, {"c", 6, after}}, false},
		{"late news of an old request", "a", []note{{"b", 5, after}, {"b", 5, before}}, true},
		{"who does not vote does not count itself", "x", []note{{"b", 5, after}}, false},
		{"a majority without self", "x", []note{{"b", 5, after}, {"c", 5, after}}, true},
	} {
		e := consensus.NewEvidence()
		for _, n := range tt.notes {
			e.Note(n.id, n.term, n.sent)
		}
		if got := e.Confirmed(tt.self, all, 5, asked); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// heard records what reaches the network's own transport.
type heard struct {
	consensus.Transport
	handlers int
}

func (h *heard) SetHeartbeatHandler(func(raft.RPC)) { h.handlers++ }

func TestHeartbeatsTakeTheirTurn(t *testing.T) {
	h := &heard{}
	w := consensus.Wrap(h)
	w.SetHeartbeatHandler(func(raft.RPC) { t.Error("a heartbeat off the main loop") })
	if h.handlers != 0 {
		t.Error("the handler reached the transport")
	}
	if _, closes := w.(raft.WithClose); closes {
		t.Error("the library can close the network")
	}
	if _, ok := w.(raft.WithPreVote); !ok {
		t.Error("no pre-votes")
	}
}

// line is a network of one pipeline, which counts what it is given.
type line struct {
	consensus.Transport
	to counted
}

func (l *line) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return &l.to, nil
}

type counted struct {
	raft.AppendPipeline
	sent int
}

func (*counted) Consumer() <-chan raft.AppendFuture { return nil }

func (*counted) Close() error { return nil }

func (c *counted) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	c.sent++
	return nil, nil //nolint:nilnil // nobody looks at it
}

func TestOnlyNewsGoesToAFollower(t *testing.T) {
	type request struct {
		after   time.Duration // the one before
		commit  uint64
		entries int
		sent    bool
	}
	const soon, late = 100 * time.Millisecond, time.Second
	for name, all := range map[string][]request{
		"the first goes":                       {{0, 0, 0, true}},
		"what was told does not":               {{0, 7, 0, true}, {soon, 7, 0, false}, {soon, 7, 0, false}},
		"what is committed since does":         {{0, 7, 0, true}, {soon, 8, 0, true}, {soon, 8, 0, false}},
		"entries do":                           {{0, 7, 0, true}, {soon, 7, 3, true}, {soon, 7, 1, true}},
		"entries tell what is committed":       {{0, 7, 0, true}, {soon, 8, 3, true}, {soon, 8, 0, false}},
		"a follower is asked for now and then": {{0, 7, 0, true}, {late, 7, 0, true}, {soon, 7, 0, false}},
		"what was not sent is no sign of life": {{0, 7, 0, true}, {late / 2, 7, 0, false}, {late / 2, 7, 0, true}},
		"who does not wait is held up":         {{0, 7, 0, true}, {soon, 7, 0, false}, {0, 7, 0, true}, {soon / 2, 7, 0, true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &line{}
				p, err := consensus.Wrap(l).AppendEntriesPipeline("b", "b")
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				for i, r := range all {
					time.Sleep(r.after)
					l.to.sent = 0
					_, err := p.AppendEntries(&raft.AppendEntriesRequest{LeaderCommitIndex: r.commit, Entries: make([]*raft.Log, r.entries)}, &raft.AppendEntriesResponse{})
					if err != nil || (l.to.sent == 1) != r.sent {
						t.Errorf("request %d: sent %d times, %v", i, l.to.sent, err)
					}
				}
			})
		})
	}
}

var goldenPosition = replication.Position{
	Index: 300, Term: 7, MembersIndex: 299,
	Members: []replication.Member{{ID: "a", Address: "a:7700"}, {ID: "b", Address: "b:7700", Suffrage: replication.Nonvoter}},
}

func TestGoldenPosition(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "position.hex"))
	if err != nil {
		t.Fatal(err)
	}
	b := goldenPosition.Encode()
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
		t.Errorf("position changed:\n%s\nwant\n%s", got, want)
	}
	back, err := replication.DecodePosition(b)
	if err != nil || !reflect.DeepEqual(back, goldenPosition) {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := replication.DecodePosition(append([]byte{2}, b[1:]...)); !fault.Is(err, fault.Unsupported) {
		t.Error("a later version:", err)
	}
	for n := range b {
		if _, err := replication.DecodePosition(b[:n]); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%d bytes of %d: %v", n, len(b), err)
		}
	}
	if _, err := replication.DecodePosition(append(b, 0)); !fault.Is(err, fault.Corrupt) {
		t.Error("bytes behind the end:", err)
	}
}

func FuzzPosition(f *testing.F) {
	f.Add(goldenPosition.Encode())
	f.Add([]byte{1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := replication.DecodePosition(b)
		if err != nil {
			return
		}
		if again, err := replication.DecodePosition(p.Encode()); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%+v, then %+v, %v", p, again, err)
		}
	})
}

// slow is a state machine that takes its time over each step.
type slow struct {
	toy
	begun, ends chan struct{}
}

func (s *slow) Apply(entries []replication.Entry, at replication.Position) error {
	close(s.begun)
	<-s.ends
	return s.toy.Apply(entries, at)
}

// Queries ask how stale they are, and whether anything is wrong: they do not wait for a
// disk, or for a checkpoint that somebody copies.
func TestWhoAsksDoesNotWaitForWhatIsBeingApplied(t *testing.T) {
	m := &slow{begun: make(chan struct{}), ends: make(chan struct{})}
	a := consensus.NewApplier(m)
	applied := make(chan any)
	go func() { applied <- a.Apply(&raft.Log{Index: 7, Term: 1, Type: raft.LogCommand, Data: []byte("x")}) }()
	<-m.begun
	asked := make(chan replication.Position)
	go func() {
		at, _ := a.State()
		asked <- at
	}()
	select {
	case at := <-asked:
		if at.Index != 0 {
			t.Errorf("at %d before it is applied", at.Index)
		}
		close(m.ends)
	case <-time.After(10 * time.Second):
		t.Error("who asks waits")
		close(m.ends)
		<-asked
	}
	if err := <-applied; err != nil {
		t.Error(err)
	}
	if at, halted := a.State(); at.Index != 7 || halted != nil {
		t.Errorf("at %d, %v", at.Index, halted)
	}
}
