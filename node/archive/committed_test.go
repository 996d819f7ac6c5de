package archive

import (
	"context"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

func TestASeriesThatIsWaitedForIsPackedAlone(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 16 { // two studies of two series of four
		b.store(serial(n))
	}
	of := func(n int) SeriesName { return SeriesName{serial(n).study, serial(n).series} }
	if err := b.PackSeries(ctx, of(0), of(12)); err != nil {
		t.Fatal(err)
	}
	for n := range 16 {
		at, err := b.Resting(ctx, ctClass, serial(n).sop, "MODALITY")
		if err != nil {
			t.Fatal(err)
		}
		switch asked := of(n) == of(0) || of(n) == of(12); {
		case asked && (len(at.Packs) != 1 || at.Staged != nil || at.Lost):
			t.Errorf("image %d, which was waited for: %+v", n, at)
		case !asked && (at.Packs != nil || !slices.Equal(at.Staged, []SeriesName{of(n)})):
			t.Errorf("image %d: %+v", n, at)
		}
		b.same(serial(n))
	}
	if packed := b.Counters().PackedInstances.Load(); packed != 8 {
		t.Errorf("%d instances were packed, want 8", packed)
	}
	if err := b.PackSeries(ctx, of(0), SeriesName{"1.2.99", "1.2.98"}); err != nil { // nothing is left, and nobody knows it
		t.Error(err)
	}
	if err := b.PackSeries(ctx); err != nil || b.Counters().PackedInstances.Load() != 8 {
		t.Errorf("nothing was asked for: %v", err)
	}
	b.sound()
}

func TestASeriesThatCannotBePackedIsToldAndKeepsNoOtherWaiting(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	var numbers []uint64
	for n := range 8 {
		numbers = append(numbers, b.store(serial(n)).Number)
	}
	r, _, err := b.instance(numbers[1])
	if err != nil {
		t.Fatal(err)
	}
	r.Hash[31] ^= 1 // rot
	if err := b.Archive.store.Set(keyNumber(rowInstance, r.Number), marshal(r), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	err = b.PackSeries(ctx, SeriesName{serial(0).study, serial(0).series}, SeriesName{serial(4).study, serial(4).series})
	if !fault.Is(err, fault.Corrupt) {
		t.Errorf("a rotten image: %v", err)
	}
	for n := range 8 {
		at, err := b.Resting(ctx, ctClass, serial(n).sop, "MODALITY")
		if err != nil {
			t.Fatal(err)
		}
		if packed := len(at.Packs) == 1; packed == (n == 1) {
			t.Errorf("image %d: %+v", n, at)
		}
	}
}

func TestRestingRefusesAsCommittedDoes(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	if _, err := b.Resting(ctx, ctClass, serial(0).sop, "MODALITY"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	b.store(serial(0))
	if _, err := b.Resting(ctx, "1.2.3", serial(0).sop, "MODALITY"); !fault.Is(err, fault.Mismatch) {
		t.Errorf("another class: %v", err)
	}
	other := serial(0)
	other.seed = 77
	b.store(other)
	if _, err := b.Resting(ctx, ctClass, serial(0).sop, "MODALITY"); !fault.Is(err, fault.Conflict) {
		t.Errorf("the last version is quarantined: %v", err)
	}
	if at, err := b.Resting(ctx, ctClass, serial(0).sop, "SOMEBODY"); err != nil || len(at.Staged) != 1 {
		t.Errorf("for somebody else: %+v, %v", at, err)
	}
}
