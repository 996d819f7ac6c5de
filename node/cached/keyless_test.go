package cached

import (
	"bytes"
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/far"
	"pelago/shard/seal"
)

// A node that has just joined has no epoch keys for a moment.
func TestNothingIsKeptOrDroppedForWantOfAKey(t *testing.T) {
	fs, epoch := vfs.NewMem(), seal.NewKey()
	d := open(t, fs, epoch, 64<<20)
	p, q := newPack(t, "1", 1000), newPack(t, "2", 1000)
	d.keep(p)
	d.close()
	without := open(t, fs, seal.Key{}, 64<<20)
	for range 2 {
		if err := without.Keep(context.Background(), q.Pack, bytes.NewReader(q.cipher)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a pack: %v", err)
		}
		if err := without.Tell(Told{Manifest: &far.Manifest{Node: "a", Study: "1", Series: "1.1"}}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a manifest: %v", err)
		}
	}
	if done, err := without.Verify(context.Background(), nil); err != nil || done.Dropped != 0 || !without.Has(p.ID) {
		t.Errorf("verified without a key: %+v, %v", done, err)
	}
	without.close()
	d = open(t, fs, epoch, 64<<20)
	defer d.close()
	if done, err := d.Verify(context.Background(), nil); err != nil || done.Copies != 1 || done.Dropped != 0 {
		t.Errorf("verified with it: %+v, %v", done, err)
	}
}
