package archive

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
)

func TestEveryPackIsToldOfAndVisited(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	var mu sync.Mutex
	var told []pack.ID
	o.Packed = func(ids []pack.ID) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, ids...)
	}
	b := open(t, o)
	defer b.close()
	for n := range 40 {
		b.store(serial(n))
	}
	b.pack()
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(told, func(x, y pack.ID) int { return bytes.Compare(x[:], y[:]) })
	if len(told) < 5 {
		t.Fatalf("told of %d packs", len(told))
	}
	visit := func(after pack.ID, most int) (ids []pack.ID) {
		t.Helper()
		err := b.EachPack(t.Context(), after, func(p *archivepb.Pack) (bool, error) {
			ids = append(ids, pack.ID(p.Id))
			return len(ids) < most, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	if got := visit(pack.ID{}, 1<<20); !slices.Equal(got, told) {
		t.Errorf("visited %x, told of %x", got, told)
	}
	if got := visit(told[1], 2); !slices.Equal(got, told[2:4]) {
		t.Errorf("visited %x behind %x", got, told[1])
	}
}

func TestBusyIsUntilALittleAfterTheLastArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Archive
		check := func(want bool, when string) {
			t.Helper()
			if a.Busy() != want {
				t.Errorf("busy: %t, %s", !want, when)
			}
		}
		check(false, "before the first")
		one, other := a.taking.begin(), a.taking.begin()
		time.Sleep(time.Hour)
		check(true, "while two come")
		one()
		time.Sleep(time.Hour)
		check(true, "while one comes")
		other()
		time.Sleep(busyFor - time.Millisecond)
		check(true, "soon after")
		time.Sleep(2 * time.Millisecond)
		check(false, "later")
	})
}

func TestPacksThatGoToOtherSitesDoNotWaitForATableForLong(t *testing.T) {
	for _, test := range []struct {
		gather time.Duration
		spread bool
		want   time.Duration
	}{{time.Hour, false, time.Hour}, {time.Hour, true, spreadGather}, {time.Second, true, time.Second}} {
		p := &packer{Archive: idle(t, func(o *Options) {
			o.Gather, o.Spread = test.gather, func() bool { return test.spread }
		})}
		if got := p.gather(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
