package archive

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// late is what comes again, as something else, after it was deleted.
func late(n int) image {
	m := serial(n)
	m.seed = 99
	return m
}

func TestALateArrivalIsAcceptedOverItsTombstone(t *testing.T) {
	for _, tt := range []struct {
		name             string
		series, instance bool // what is deleted; neither: the study
		want             uint64
	}{{"of the study", false, false, 1}, {"of the series", true, false, 5}, {"of the instance", true, true, 8}} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			fs, keys := vfs.NewMem(), newRing()
			b := open(t, testOptions(fs, keys))
			for n := range 8 {
				b.store(serial(n))
			}
			m := late(3)
			series, instance := "", ""
			if tt.series {
				series = m.series
			}
			if tt.instance {
				instance = m.sop
			}
			if err := b.Delete(ctx, m.study, series, instance, "test"); err != nil {
				t.Fatal(err)
			}
			s := b.store(m)
			if s.Outcome != Quarantined || !s.Deleted {
				t.Fatalf("a late arrival: %+v", s)
			}
			if err := b.Committed(ctx, ctClass, m.sop, "MODALITY"); !fault.Is(err, fault.Conflict) {
				t.Errorf("commitment: %v", err)
			}
			if err := b.Decide(ctx, s.Number, Accept); err != nil {
				t.Fatal(err)
			}
			check := func(b *bench) {
				t.Helper()
				b.same(m)
				if err := b.Committed(ctx, ctClass, m.sop, "MODALITY"); err != nil {
					t.Errorf("commitment: %v", err)
				}
				if st, err := b.Catalog().Study(m.study); err != nil || st.Instances != tt.want {
					t.Errorf("the study: %+v, %v; want %d instances", st, err, tt.want)
				}
				if _, err := b.read(serial(2)); (err == nil) != tt.instance {
					t.Errorf("what was deleted beside it: %v", err)
				}
				b.sound()
			}
			check(b)
			if s := b.store(m); s.Outcome != Same {
				t.Errorf("the same again: %+v", s)
			}
			again := serial(3).incoming(serial(3).encode(t))
			again.Sender.CallingAE = "ANOTHER"
			if s, err := b.Store(ctx, again); err != nil || s.Outcome != Quarantined {
				t.Errorf("what was deleted, again: %+v, %v", s, err)
			}
			if err := b.Restore(ctx, m.study, series, instance, "test"); !fault.Is(err, fault.Conflict) {
				t.Errorf("restoring what another stands in the place of: %v", err)
			}
			if err := b.purge(ctx, purgeTime(b)); err != nil {
				t.Fatal(err)
			}
			check(b)
			b.close()
			b = open(t, testOptions(fs, keys))
			defer b.close()
			check(b)
			if err := b.Delete(ctx, m.study, series, instance, "test"); err != nil {
				t.Fatal(err)
			}
			if _, err := b.read(m); !fault.Is(err, fault.NotFound) {
				t.Errorf("deleted again: %v", err)
			}
			if err := b.Restore(ctx, m.study, series, instance, "test"); err != nil {
				t.Errorf("and restored: %v", err)
			}
			b.same(m)
			b.sound()
		})
	}
}

// await waits until the catalogue says that a study has so many instances; 0: that
// there is none.
func (b *bench) await(study string, want uint64) {
	b.t.Helper()
	for limit := time.Now().Add(2 * time.Minute); ; {
		changed := b.Catalog().Changed()
		s, err := b.Catalog().Study(study)
		if err == nil && s.Instances == want || fault.Is(err, fault.NotFound) && want == 0 {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Until(limit)):
			b.t.Fatalf("the study has %+v, %v; want %d instances", s, err, want)
		}
	}
}

// elsewhere has the network decide as another node does, of which this one is not
// told but by the catalogue.
func (b *bench) elsewhere(command catalog.Command) {
	b.t.Helper()
	results, err := b.o.Decide.Decide(context.Background(), nil, command)
	if err != nil || results[0] != nil {
		b.t.Fatal(results, err)
	}
}

func TestWhatIsDeletedElsewhereIsHiddenAndCountedHere(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 8 {
		b.store(serial(n))
	}
	one := serial(2)
	b.await(one.study, 8)
	now := time.Now().Unix()
	b.elsewhere(&catalog.TombstoneFact{Study: one.study, Series: one.series, Instance: one.sop, Tick: now, By: "them"})
	b.await(one.study, 7)
	if _, err := b.read(one); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted instance: %v", err)
	}
	b.elsewhere(&catalog.RestoreFact{Study: one.study, Series: one.series, Instance: one.sop, Tick: now, By: "them"})
	b.await(one.study, 8)
	b.elsewhere(&catalog.TombstoneFact{Study: one.study, Tick: now, By: "them"})
	b.await(one.study, 0)
	if s := b.store(late(3)); s.Outcome != Quarantined || !s.Deleted {
		t.Errorf("a late arrival: %+v", s)
	}
	b.sound()
}

func TestAcceptanceElsewhereTakesWhatWasDeletedOutOfTheCount(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 8 {
		b.store(serial(n))
	}
	one := serial(2)
	b.await(one.study, 8)
	b.elsewhere(&catalog.TombstoneFact{Study: one.study, Tick: time.Now().Unix(), By: "them"})
	accepted := catalog.Accepted{Study: one.study, Series: one.series, Versions: map[string][32]byte{one.sop: {1, 2, 3}}}
	b.elsewhere(&catalog.RegistryFact{Kind: catalog.KindAccepted, Name: catalog.AcceptedName(one.study, one.series), Value: accepted.Encode()})
	b.await(one.study, 0) // nothing that is here: the accepted version is another
	b.sound()
}

func TestWhatOthersHoldCanBeDeletedHere(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	b.store(serial(0))
	b.await(serial(0).study, 1)
	for _, uids := range [][3]string{{"", "", ""}, {"9.9", "", ""}, {serial(0).study, "9.9", ""}, {serial(0).study, serial(0).series, "9.9"}} {
		if err := b.Delete(ctx, uids[0], uids[1], uids[2], "test"); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v: %v", uids, err)
		}
	}
}
