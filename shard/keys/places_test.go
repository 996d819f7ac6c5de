package keys

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pelago/cluster/fault"
)

func TestPlacesFindEveryRecordNewestFirst(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := newPlaces(0)
	want := map[uint64][]int64{}
	for at := int64(8); p.used < 20_000; at += 1 + r.Int64N(maxPlace/40_000) {
		hash := r.Uint64()
		switch r.IntN(10) {
		case 0: // the last slots: probing goes on at the front
			hash |= 0xFFFF << 48
		case 1: // a hash that is there already
			for known := range want {
				hash = known
				break
			}
		}
		p.add(hash, at)
		want[hash] = append(want[hash], at)
	}
	for hash, places := range want {
		slices.Reverse(places)
		found := p.find(hash)
		found = slices.DeleteFunc(found, func(at int64) bool { return !slices.Contains(places, at) }) // another's, with the same tag
		if !slices.Equal(found, places) {
			t.Fatalf("%x: found %v, want %v", hash, found, places)
		}
	}
	if len(p.slots)&(len(p.slots)-1) != 0 || p.used > len(p.slots)/4*3 {
		t.Errorf("%d of %d slots are used", p.used, len(p.slots))
	}
}

func TestPlacesAreMadeLargeEnough(t *testing.T) {
	for _, records := range []int64{0, 1, 48, 49, 100_000} {
		p := newPlaces(records)
		slots := len(p.slots)
		for i := range records {
			p.add(uint64(i)*0x9E3779B97F4A7C15, i+8)
		}
		if len(p.slots) != slots {
			t.Errorf("a table for %d records grew from %d slots to %d", records, slots, len(p.slots))
		}
	}
}

func TestARingBeyondItsAddressesIsFull(t *testing.T) {
	p := newPlaces(0)
	if err := p.room(maxKeys, maxPlace); err != nil {
		t.Error(err)
	}
	if err := p.room(maxKeys+1, 8); !fault.Is(err, fault.Full) {
		t.Errorf("too many keys: %v", err)
	}
	if err := p.room(1, maxPlace+1); !fault.Is(err, fault.Full) {
		t.Errorf("too many bytes: %v", err)
	}
}
