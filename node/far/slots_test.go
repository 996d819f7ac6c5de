package far

import (
	"context"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
)

// enter lets a node in, for as long as the test takes.
func enter(t *testing.T, s *slots, node string) {
	t.Helper()
	leave, err := s.enter(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
}

func TestTurnsComeInOrderAndToOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(8, 8)
		enter(t, s, "A")
		enter(t, s, "B")
		first, err := s.turn(t.Context(), "A", 0)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var got []uint64
		for _, order := range []uint64{7, 3, 9, 5} {
			go func() {
				leave, err := s.turn(t.Context(), "A", order)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, order)
				time.Sleep(time.Second)
				leave()
			}()
			synctest.Wait()
		}
		other, err := s.turn(t.Context(), "B", 8) // another node's turn is its own
		if err != nil || time.Now() != began {
			t.Errorf("another node waited: %v", err)
		}
		other()
		if len(got) > 0 {
			t.Errorf("%d were sent beside the first", len(got))
		}
		first()
		synctest.Wait()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if want := []uint64{3, 5, 7, 9}; !slices.Equal(got, want) {
			t.Errorf("sent in the order %v, want %v", got, want)
		}
		free, err := s.turn(t.Context(), "A", 1)
		if err != nil || len(s.peers["A"].waiting) > 0 {
			t.Errorf("somebody waits still, %v", err)
		}
		free()
	})
}

func TestWhoWaitsForHisTurnTooLongOrIsGoneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(8, 8)
		enter(t, s, "A")
		first, err := s.turn(t.Context(), "A", 0)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		late, err := s.turn(t.Context(), "A", 1)
		if waited := time.Since(began); err != nil || waited != queueFor {
			t.Errorf("sent beside the first after %v, %v; want %v", waited, err, queueFor)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.turn(ctx, "A", 2); err == nil {
			t.Error("an asker that is gone got a turn")
		}
		late() // which had none to give back
		if p := s.peers["A"]; !p.taken || len(p.waiting) > 0 {
			t.Errorf("the turn is taken: %t, %d wait for it", p.taken, len(p.waiting))
		}
		first()
		if s.peers["A"].taken {
			t.Error("the turn was not given back")
		}
	})
}

func TestAPlaceInTheOrderIsANumber(t *testing.T) {
	for query, want := range map[string]uint64{"": 0, "insist": 0, "ahead=1": 1, "insist&ahead=9223372036854775807": 1<<63 - 1} {
		values, _ := url.ParseQuery(query)
		if got, err := aheadOf(values); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", query, got, err, want)
		}
	}
	for _, query := range []string{"ahead", "ahead=", "ahead=0", "ahead=-1", "ahead=x", "ahead=18446744073709551615"} {
		values, _ := url.ParseQuery(query)
		if _, err := aheadOf(values); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", query, err)
		}
	}
}
