package archive

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

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
	b.halt() // the journal must not number batches beside what this test applies
	_, err := b.catalog.Apply(b.catalog.Applied()+1, []catalog.Command{&catalog.SeriesFact{
		Origin: b.o.Node, Site: b.o.Site, AsOf: 1 << 40, Study: m.study, Series: m.series, Instances: 7, Arrived: time.Now().UnixMicro(),
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
		if err := b.verifySeries(t.Context(), r, name, known{settle: func(context.Context) error { return nil }, has: func(seriesName) bool { return true }}); err != nil {
			t.Fatal(err)
		}
		if found := len(r.Findings) > 0; found == left {
			t.Errorf("left to be told %v: findings %v", left, r.Findings)
		}
	}
}
