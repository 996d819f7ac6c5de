package archive

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// The queue is looked at before the packer holds still: what a purge takes in
// between leaves no key behind.
func TestNoKeyIsMadeForWhatAPurgeHasTaken(t *testing.T) {
	for _, purged := range []bool{false, true} {
		keys := newRing()
		b := open(t, testOptions(vfs.NewMem(), keys))
		m := serial(0)
		b.store(m)
		p := &packer{Archive: b.Archive, skip: newSkipping()}
		l, err := p.lookAt(t.Context(), nil, 1<<30, true, p.skip)
		if err != nil || len(l.bursts) != 1 {
			t.Fatalf("%d bursts, %v", len(l.bursts), err)
		}
		if purged {
			if err := b.Delete(t.Context(), m.study, "", "", "test"); err != nil {
				t.Fatal(err)
			}
			if err := b.purge(t.Context(), purgeTime(b)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.packTable(t.Context(), l.bursts, false); err != nil {
			t.Errorf("purged %v: %v", purged, err)
		}
		keys.mu.Lock()
		if _, made := keys.of[m.study]; made == purged {
			t.Errorf("purged %v: key %v", purged, made)
		}
		keys.mu.Unlock()
		b.sound()
		b.close()
	}
}

// A count that the catalogue has wrong is a finding, unless it is durably noted
// that it is still to be told.
func TestVerifyKnowsWhatIsLeftToBeTold(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	m := serial(0)
	b.store(m)
	b.sound()
	err := b.catalog.Ahead([]*catalog.SeriesFact{{
		Origin: b.o.Node, Site: b.o.Site, AsOf: 1 << 60, Study: m.study, Series: m.series, Instances: 7, Arrived: time.Now().UnixMicro(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	name := seriesName{m.study, m.series}
	for _, left := range []bool{false, true} {
		if left {
			if err := b.Archive.store.Set(keyAgain(name), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		r := &Report{}
		if err := b.verifySeries(t.Context(), r, name, known{settle: b.journal.Settle, has: func(seriesName) bool { return true }}); err != nil {
			t.Fatal(err)
		}
		if found := len(r.Findings) > 0; found == left {
			t.Errorf("left to be told %v: findings %v", left, r.Findings)
		}
	}
}

// unheard is a network whose answers are lost: what it is asked for is decided later.
type unheard struct {
	Decider
	later chan struct{} // closed when it is
	done  chan error
}

func (u *unheard) Decide(_ context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	go func() {
		<-u.later
		results, err := u.Decider.Decide(context.Background(), conditions, commands...)
		u.done <- errors.Join(append(results, err)...)
	}()
	return nil, fault.New(fault.Unavailable, "the outcome is not known")
}

// A deletion of which nobody was told whether it was decided leaves nothing behind
// that waits for the next start.
func TestADecisionWithoutAnOutcomeLeavesNothingToTheNextStart(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 8 {
		b.store(serial(n))
	}
	one := serial(2)
	b.await(one.study, 8)
	u := &unheard{Decider: b.o.Decide, later: make(chan struct{}), done: make(chan error, 1)}
	b.Archive.o.Decide = u
	if err := b.Delete(t.Context(), one.study, one.series, one.sop, "test"); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	if n := b.toBeTold(); n != 1 {
		t.Fatalf("%d series are noted to be told", n)
	}
	close(u.later)
	if err := <-u.done; err != nil {
		t.Fatal(err)
	}
	b.await(one.study, 7)
	for end := time.Now().Add(2 * time.Minute); b.toBeTold() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a series waits for the next start to be told")
		}
	}
	b.sound()
}

// toBeTold counts the series that are noted to be told anew.
func (b *bench) toBeTold() (n int) {
	b.t.Helper()
	if err := b.each([]byte{rowAgain}, func(_, _ []byte) error { n++; return nil }); err != nil {
		b.t.Fatal(err)
	}
	return n
}
