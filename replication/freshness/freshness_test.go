package freshness_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"pelago/replication/freshness"
)

func TestStalenessCountsFromTheRequest(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	type step struct {
		kind   byte // 'a': answered, 'p': applied, 'r': reset
		second int  // when the request was sent
		index  uint64
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  int // seconds at second 100; -1: not known
	}{
		{"nothing", nil, -1},
		{"an answer alone", []step{{'a', 10, 5}}, -1},
		{"applying alone", []step{{'p', 0, 5}}, -1},
		{"applied", []step{{'a', 10, 5}, {'p', 0, 5}}, 90},
		{"applied beyond", []step{{'a', 10, 5}, {'p', 0, 50}}, 90},
		{"not far enough", []step{{'a', 10, 5}, {'p', 0, 4}}, -1},
		{"the newest that is applied", []step{{'a', 10, 5}, {'a', 20, 6}, {'a', 30, 7}, {'p', 0, 6}}, 80},
		{"answers in the wrong order", []step{{'a', 20, 6}, {'a', 10, 5}, {'p', 0, 5}}, 90},
		{"answers in the wrong order, all applied", []step{{'a', 20, 6}, {'a', 10, 5}, {'p', 0, 6}}, 80},
		{"the same index later", []step{{'a', 10, 5}, {'a', 20, 5}, {'p', 0, 5}}, 80},
		{"an earlier request does not make it staler", []step{{'a', 20, 5}, {'p', 0, 5}, {'a', 10, 5}, {'p', 0, 5}}, 80},
		{"an old answer with a higher index is useless", []step{{'a', 20, 5}, {'a', 10, 9}, {'p', 0, 9}}, 80},
		{"reset", []step{{'a', 10, 5}, {'p', 0, 5}, {'r', 0, 0}}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f freshness.Tracker
			for _, s := range tt.steps {
				switch s.kind {
				case 'a':
					f.Answered(at(s.second), s.index)
				case 'p':
					f.Applied(s.index)
				default:
					f.Reset()
				}
			}
			got, ok := f.Staleness(at(100))
			if ok != (tt.want >= 0) || ok && got != time.Duration(tt.want)*time.Second {
				t.Errorf("%v %v, want %d s", got, ok, tt.want)
			}
		})
	}
}

// A model of everything said: the staleness is never less than what a node with
// a perfect memory of the answers would say, and with few of them no more.
func TestStalenessIsNeverUnderstated(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var f freshness.Tracker
		start := time.Now()
		now, commit, applied := start, uint64(1), uint64(0)
		type said struct {
			sent   time.Time
			commit uint64
		}
		var all []said
		var truth time.Time
		for range 300 {
			now = now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
			commit += random.Uint64N(3)
			if random.IntN(3) > 0 {
				s := said{now, commit}
				all = append(all, s)
				// Answers arrive late, and in any order.
				if late := all[random.IntN(len(all))]; random.IntN(2) == 0 {
					f.Answered(late.sent, late.commit)
				}
				f.Answered(s.sent, s.commit)
			} else {
				applied = min(commit, applied+random.Uint64N(8))
				f.Applied(applied)
				for _, s := range all {
					if s.commit <= applied && s.sent.After(truth) {
						truth = s.sent
					}
				}
			}
			got, ok := f.Staleness(now)
			if !ok {
				continue
			}
			if want := now.Sub(truth); got < want {
				t.Fatalf("seed %d: %v, and %v is true", seed, got, want)
			}
		}
		if _, ok := f.Staleness(now); !ok {
			t.Fatalf("seed %d: nothing is known", seed)
		}
	}
}
