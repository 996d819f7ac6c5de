package archive

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/query"
	"pelago/shard/bulk"
	"pelago/shard/pack"
)

// restingImages stores images, packs them, and starts twice, so that only bulk/
// has their bytes.
func restingImages(t *testing.T, o Options, count int) []image {
	t.Helper()
	b := open(t, o)
	var images []image
	for n := range count {
		images = append(images, serial(n))
		b.store(images[n])
	}
	b.pack()
	b.close()
	b = open(t, o) // lets the segment go that was being written
	b.close()
	return images
}

// removeTables takes the files in which packs rest.
func removeTables(t *testing.T, fs vfs.FS) {
	t.Helper()
	tables, err := fs.List("data/bulk/tables")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		if strings.HasSuffix(name, ".sst") {
			if err := fs.Remove("data/bulk/tables/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// refOf is the blob that an image's pack rests in.
func (b *bench) refOf(m image) bulk.Ref {
	b.t.Helper()
	for ref, err := range b.Select(b.t.Context(), m.study, m.series, m.sop) {
		if err != nil {
			b.t.Fatal(err)
		}
		location, err := b.location(ref.Number)
		if err != nil {
			b.t.Fatal(err)
		}
		id, err := packID(location.Pack)
		if err != nil {
			b.t.Fatal(err)
		}
		p, err := b.Archive.pack(id)
		if err != nil {
			b.t.Fatal(err)
		}
		return packRef(p)
	}
	return bulk.Ref{}
}

// available is what the archive says of an image, of its series and of its
// study.
func (b *bench) available(m image) (is, series, study query.Availability) {
	b.t.Helper()
	k := b.Instances()
	for ref, err := range b.Select(b.t.Context(), m.study, m.series, m.sop) {
		if err != nil {
			b.t.Fatal(err)
		}
		is = k.Availability(b.t.Context(), m.study, m.series, ref.Number)
	}
	return is, k.Availability(b.t.Context(), m.study, m.series, 0), k.Availability(b.t.Context(), m.study, "", 0)
}

func TestWhatIsLostIsUnavailableUntilItIsSentAgain(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	images := restingImages(t, testOptions(fs, keys), 16) // two studies of two series of four
	b := open(t, testOptions(fs, keys))
	all := func() query.Availability { return b.Instances().Availability(t.Context(), "", "", 0) }
	check := func(when string, m image, wantIs, wantSeries, wantStudy query.Availability) {
		t.Helper()
		if is, series, study := b.available(m); is != wantIs || series != wantSeries || study != wantStudy {
			t.Errorf("%s, %s: %s, its series %s, its study %s", when, m.sop, is, series, study)
		}
	}
	const online, lost = query.Online, query.Unavailable
	for _, m := range images {
		check("before", m, online, online, online)
	}
	packs, err := b.Packs(t.Context(), images[0].study)
	if err != nil || len(packs) != 2 {
		t.Fatalf("packs %v, %v", packs, err)
	}
	b.lost([]bulk.Ref{b.refOf(images[0])}, fault.New(fault.Corrupt, "a test"))
	for range 2 {
		check("lost", images[0], lost, lost, lost)
		check("lost", images[3], lost, lost, lost)
		check("lost", images[4], online, online, lost)
		check("lost", images[8], online, online, online)
		if all() != lost {
			t.Error("of everything here, nothing is lost")
		}
		b.close()
		b = open(t, testOptions(fs, keys))
	}
	for i, m := range images[:4] {
		if s := b.store(m); s.Outcome != New {
			t.Errorf("%s: outcome %d", m.sop, s.Outcome)
		}
		check("sent again", m, online, map[bool]query.Availability{true: online, false: lost}[i == 3], map[bool]query.Availability{true: online, false: lost}[i == 3])
	}
	b.close()
	b = open(t, testOptions(fs, keys)) // lets go of the pack that everything left
	defer b.close()
	if all() != online || b.damage.noted.Load() {
		t.Error("everything is there again, and damage is still noted")
	}
}

func TestDeletedInstancesDoNotMakeAStudyUnavailable(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	images := restingImages(t, testOptions(fs, keys), 8)
	removeTables(t, fs)
	b := open(t, testOptions(fs, keys))
	defer b.close()
	for _, m := range images {
		if is, _, study := b.available(m); is != query.Unavailable || study != query.Unavailable {
			t.Errorf("%s: %s, its study %s", m.sop, is, study)
		}
	}
	if err := b.Delete(t.Context(), images[0].study, images[0].series, "", "a test"); err != nil {
		t.Fatal(err)
	}
	k := b.Instances()
	if got := k.Availability(t.Context(), images[0].study, images[0].series, 0); got != query.Online {
		t.Errorf("a deleted series is %s", got)
	}
	if got := k.Availability(t.Context(), images[0].study, "", 0); got != query.Unavailable {
		t.Errorf("its study, of which another series is lost, is %s", got)
	}
}

func TestAvailabilityCostsNothingWhileNothingIsLost(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	k := b.Instances()
	// A look into store/ allocates.
	if n := testing.AllocsPerRun(100, func() { k.Availability(t.Context(), "1.2.0", "", 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// meanwhile is a log whose reader does something at a line, once.
type meanwhile struct {
	slog.Handler
	line string
	do   func()
	once *sync.Once
}

func (m meanwhile) Handle(_ context.Context, r slog.Record) error {
	if r.Message == m.line {
		m.once.Do(m.do)
	}
	return nil
}

func (m meanwhile) Enabled(context.Context, slog.Level) bool { return true }

// What is evicted or purged while damage looks for its pack stays evicted or purged:
// nothing of it is lost. Damage says, of a row that sorts first and does not parse, that
// it is on its way.
func TestDamageDoesNotUndoWhatGoesOnMeanwhile(t *testing.T) {
	fs, keys, shards := vfs.NewMem(), newRing(), newShards()
	images := restingImages(t, evicting(fs, keys, shards), 16)
	var b *bench
	var evicted, purged, lost pack.ID
	var going []uint64
	o := evicting(fs, keys, shards)
	o.Log = slog.New(meanwhile{slog.DiscardHandler, "a pack's record does not parse", func() {
		if _, err := b.Evict(evicted); err != nil {
			t.Error(err)
		}
		if gone, err := b.purgeInstances(going); err != nil || gone != len(going) {
			t.Errorf("%d are purged, %v", gone, err)
		}
	}, &sync.Once{}})
	b = openPurged(t, o)
	defer b.close()
	shards.spread(t, b.Archive)
	var refs []bulk.Ref
	for i, id := range []*pack.ID{&evicted, &purged, &lost} { // a series each
		for ref, err := range b.Select(t.Context(), images[4*i].study, images[4*i].series, "") {
			if err != nil {
				t.Fatal(err)
			}
			location, err := b.location(ref.Number)
			if err != nil {
				t.Fatal(err)
			}
			if *id = pack.ID(location.Pack); id == &purged {
				going = append(going, ref.Number)
			}
		}
		refs = append(refs, b.refOf(images[4*i]))
	}
	if err := b.Delete(t.Context(), images[4].study, images[4].series, "", "a test"); err != nil {
		t.Fatal(err)
	}
	none := keyPack(pack.ID{})
	if err := b.Archive.store.Set(none, []byte{0xff}, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	b.lost(refs, errors.New("a test"))
	if err := b.unset(none); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Archive.pack(evicted); err != nil || !p.Evicted || p.Lost {
		t.Errorf("the evicted pack: %+v, %v", p, err)
	}
	if _, err := b.Archive.pack(purged); !fault.Is(err, fault.NotFound) {
		t.Errorf("the purged pack: %v", err)
	}
	var all []pack.ID
	if err := b.EachLost(t.Context(), func(id pack.ID) (bool, error) { all = append(all, id); return true, nil }); err != nil || len(all) != 1 || all[0] != lost {
		t.Errorf("lost are %x, not %x: %v", all, lost, err)
	}
	for _, m := range images[:4] {
		b.same(m)
	}
}
