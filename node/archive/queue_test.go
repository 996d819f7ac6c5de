package archive

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// queue writes queue rows alone.
func queue(t testing.TB, a *Archive, study, series string, first uint64, n int, bytes int64, arrived time.Time) {
	t.Helper()
	batch := a.store.NewBatch()
	defer batch.Close()
	for i := range n {
		if err := batch.Set(keyQueue(study, series, first+uint64(i)), queueValue(bytes, arrived.UnixMicro()), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

// idle opens an archive whose tasks do not run.
func idle(t testing.TB, change func(*Options)) *Archive {
	t.Helper()
	o := testOptions(vfs.NewMem(), newRing())
	o.Quiet, o.Age, o.Gather = 30*time.Second, 2*time.Minute, 15*time.Minute
	if change != nil {
		change(&o)
	}
	a, err := openAlone(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeAlone(a); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestABurstIsPackedOnceItHasEnded(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name    string
		n       int
		bytes   int64
		arrived time.Time
		pressed bool
		taken   bool
	}{
		{"still arriving", 3, 100, now, false, false},
		{"still arriving, staging is pressed", 3, 100, now, true, true},
		{"quiet", 3, 100, now.Add(-31 * time.Second), false, true},
		{"a pack is full", 3, 100 << 10, now, false, true},
		{"the clock was set back", 3, 100, now.Add(time.Hour), false, true},
	} {
		a := idle(t, nil)
		queue(t, a, "1.2", "1.2.3", 1, test.n, test.bytes, test.arrived)
		l, err := a.lookAt(context.Background(), nil, 1<<40, test.pressed, newSkipping())
		if err != nil {
			t.Fatal(err)
		}
		if taken := len(l.bursts) == 1; taken != test.taken {
			t.Errorf("%s: %+v", test.name, l)
		}
		if test.taken && (l.bytes != int64(test.n)*test.bytes || l.instances != test.n || l.oldest != test.arrived.UnixMicro()) {
			t.Errorf("%s: %+v", test.name, l)
		}
		if !test.taken && l.waiting != test.arrived.UnixMicro() {
			t.Errorf("%s: the waiting burst is not remembered: %+v", test.name, l)
		}
	}
}

func TestALookEndsWhereATableIsFullAndTheNextGoesOnThere(t *testing.T) {
	a := idle(t, nil)
	for s := range 10 {
		queue(t, a, "1.2", fmt.Sprintf("1.2.%d", s), uint64(100*s+1), 5, 10, time.Now().Add(-time.Hour))
	}
	var seen []string
	var from []byte
	looks := 0
	for {
		l, err := a.lookAt(context.Background(), from, 150, false, newSkipping())
		if err != nil {
			t.Fatal(err)
		}
		looks++
		for _, b := range l.bursts {
			if len(b.numbers) != 5 {
				t.Errorf("series %s was cut: %v", b.series, b.numbers)
			}
			seen = append(seen, b.series)
		}
		if from = l.next; from == nil {
			break
		}
	}
	if looks != 4 || len(seen) != 10 || !slices.IsSorted(seen) {
		t.Errorf("%d looks saw %v", looks, seen)
	}
}

func TestASeriesOfMoreThanATableIsCut(t *testing.T) {
	a := idle(t, nil)
	queue(t, a, "1.2", "1.2.3", 1, maxTable+10, 1, time.Now().Add(-time.Hour))
	l, err := a.lookAt(context.Background(), nil, 1<<40, false, newSkipping())
	if err != nil || l.instances != maxTable || l.next == nil {
		t.Fatalf("first look: %d instances, next %x, %v", l.instances, l.next, err)
	}
	l, err = a.lookAt(context.Background(), l.next, 1<<40, false, newSkipping())
	if err != nil || l.instances != 10 || l.next != nil {
		t.Fatalf("second look: %d instances, next %x, %v", l.instances, l.next, err)
	}
}

func TestWhatIsSetAsideKeepsNobodyWaiting(t *testing.T) {
	a := idle(t, nil)
	old := time.Now().Add(-time.Hour)
	queue(t, a, "1", "1.1", 1, 2, 10, old)
	queue(t, a, "2", "2.1", 3, 2, 10, old)
	queue(t, a, "3", "3.1", 5, 2, 10, old)
	skip := newSkipping()
	skip.corrupt[3] = true
	skip.aside[seriesName{"1", "1.1"}] = time.Now().Add(time.Minute)
	skip.aside[seriesName{"3", "3.1"}] = time.Now().Add(-time.Minute) // it is over
	l, err := a.lookAt(context.Background(), nil, 1<<40, false, skip)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []uint64
	for _, b := range l.bursts {
		numbers = append(numbers, b.numbers...)
	}
	if !slices.Equal(numbers, []uint64{4, 5, 6}) {
		t.Errorf("to be packed: %v", numbers)
	}
}

// failingKeys has no key for one study.
type failingKeys struct {
	*ring
	study string
}

func (k failingKeys) ForStudy(study string) (id [16]byte, key seal.Key, err error) {
	if study == k.study {
		return id, key, fault.New(fault.Corrupt, "its key is rotten")
	}
	return k.ring.ForStudy(study)
}

func (k failingKeys) Prepare(studies ...string) error { return nil }

func TestAStudyThatCannotBePackedStaysAloneInStaging(t *testing.T) {
	keys := failingKeys{newRing(), serial(0).study}
	b := open(t, testOptions(vfs.NewMem(), keys))
	defer b.close()
	for n := range 24 {
		b.store(serial(n))
	}
	if err := b.Pack(context.Background()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("first packing: %v", err)
	}
	b.pack()
	packed := 0
	for n := range 24 {
		m := serial(n)
		b.same(m)
		packs, err := b.Packs(context.Background(), m.study)
		if err != nil {
			t.Fatal(err)
		}
		if packs[0].ID != "staging" {
			packed++
		}
	}
	if packed != 16 {
		t.Errorf("%d instances of other studies are packed, want 16", packed)
	}
}

func TestCorruptStagedBytesAreLeftOutAndTheRestIsPacked(t *testing.T) {
	mem := vfs.NewMem()
	b := open(t, testOptions(mem, newRing()))
	var numbers []uint64
	for n := range 4 {
		numbers = append(numbers, b.store(serial(n)).Number)
	}
	// Rot in the record's hash is what rot in the bytes looks like.
	r, _, err := b.instance(numbers[1])
	if err != nil {
		t.Fatal(err)
	}
	r.Hash[31] ^= 1
	if err := b.Archive.store.Set(keyNumber(rowInstance, r.Number), marshal(r), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := b.Pack(context.Background()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("first packing: %v", err)
	}
	b.pack()
	packs, err := b.Packs(context.Background(), serial(0).study)
	if err != nil {
		t.Fatal(err)
	}
	inStaging := 0
	for _, p := range packs {
		if p.ID == "staging" {
			inStaging += p.Instances
		}
	}
	if inStaging != 1 {
		t.Errorf("%d instances are left in staging, want the corrupt one", inStaging)
	}
	report, err := b.Verify(context.Background(), nil)
	if err != nil || len(report.Findings) == 0 {
		t.Errorf("verify finds nothing: %+v, %v", report, err)
	}
	b.close()
}

func BenchmarkLookAtAMillionQueued(b *testing.B) {
	a := idle(b, nil)
	for s := range 1000 {
		queue(b, a, fmt.Sprintf("1.2.840.113619.2.55.3.%d", s), "1.2.840.113619.2.55.3.604688119.1", uint64(1000*s+1), 1000, 8<<10, time.Now())
	}
	for b.Loop() {
		if _, err := a.lookAt(context.Background(), nil, 1<<40, false, newSkipping()); err != nil {
			b.Fatal(err)
		}
	}
}
