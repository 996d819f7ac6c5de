package group

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
)

// What a member proposes is held back before it is refused, and others do not pay.
func TestAMemberKeepsToItsShareOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shares
		const entry = 256 << 10
		start := time.Now()
		const total = 4 * shareBurst
		for sent := 0; sent < total; sent += entry { // one after another, as a journal does
			if err := s.take(t.Context(), "a", entry); err != nil {
				t.Fatal(err)
			}
		}
		if took, want := time.Since(start), time.Duration((total-shareBurst)/shareRate)*time.Second; took < want-time.Second || took > want+time.Second {
			t.Errorf("%d bytes took %v, want %v", total, took, want)
		}
		if pause, err := s.reserve("b", entry, time.Now()); pause > 0 || err != nil {
			t.Errorf("another member is held back: %v, %v", pause, err)
		}
		var err error
		for range 2 * shareWait / time.Second * shareRate / entry { // at once, as a journal never does
			if _, err = s.reserve("a", entry, time.Now()); err != nil {
				break
			}
		}
		if !fault.Is(err, fault.Full) {
			t.Errorf("far more than its share: %v", err)
		}
		time.Sleep(time.Minute)
		if pause, err := s.reserve("a", entry, time.Now()); pause > 0 || err != nil {
			t.Errorf("after a while: %v, %v", pause, err)
		}
	})
}

// Small entries cost every voter a sync, whatever their bytes.
func TestSmallEntriesCountForMore(t *testing.T) {
	var s shares
	now, n := time.Now(), 0
	for ; n < 1<<20; n++ {
		if pause, err := s.reserve("a", 1, now); err != nil || pause > 0 {
			break
		}
	}
	if want := shareBurst / entryCost; n != want {
		t.Errorf("%d entries of a byte at once, want %d", n, want)
	}
}

// Who proposes in vain, time and again, is refused until a while has passed.
func TestWhatIsProposedInVainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shares
		const entry = 64 << 10
		n := 0
		for ; n < 1000; n++ {
			if _, err := s.reserve("a", entry, time.Now()); err != nil {
				if !fault.Is(err, fault.Full) {
					t.Fatal(err)
				}
				break
			}
			s.charge("a", entry)
		}
		if n != vainBurst/entry {
			t.Errorf("%d entries in vain, want %d", n, vainBurst/entry)
		}
		time.Sleep(time.Minute)
		if _, err := s.reserve("a", entry, time.Now()); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
}

func TestSharesAreRememberedOfSoMany(t *testing.T) {
	var s shares
	now := time.Now()
	for i := range 2 * maxShares {
		if _, err := s.reserve(fmt.Sprint(i), 1, now.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.of) != maxShares || s.of["0"] != nil {
		t.Errorf("%d shares are kept", len(s.of))
	}
}
