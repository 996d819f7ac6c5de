package held

import (
	"bytes"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A shard of a pack that was purged is not taken, whether it was ever here or not, nor
// one whose pack is purged while it comes.
func TestShardsOfPurgedPacksAreRefused(t *testing.T) {
	gone := map[[16]byte]uint64{}
	h := open(t, vfs.NewMem(), func(o *Options) {
		o.Purged = func(pack [16]byte) (uint64, error) { return gone[pack], nil }
	})
	defer h.close()
	before, meanwhile, never := encode(t, 1, small, 20_000), encode(t, 2, small, 30_000), encode(t, 3, small, 4_000)
	gone[before.name(0).Pack] = 7
	claims, body := batch(before.offer(0), meanwhile.offer(0), never.offer(0))
	l, err := h.Land(t.Context(), claims, readFirst{bytes.NewReader(body), func() { gone[meanwhile.name(0).Pack] = 8 }})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[*made]Outcome{before: Refused, meanwhile: Refused, never: Stored} {
		for j, c := range claims {
			if c.Name == i.name(0) && l.Outcomes[j] != want {
				t.Errorf("pack %x: %v, want %v", c.Pack[:2], l.Outcomes[j], want)
			}
		}
	}
	if len(l.Receipt.Entries) != 1 || l.Receipt.Entries[0] != never.entry(0) {
		t.Errorf("a receipt for %v", l.Receipt.Entries)
	}
	if st, err := h.Status(meanwhile.name(0)); err != nil || st.State != Dropped || st.Reason != (Purged{8}) {
		t.Errorf("%+v, %v", st, err)
	}
	h.checkGone(before.name(0))
	h.checkGone(meanwhile.name(0))
	h.check(never, 0)
}

// readFirst calls do with the first read.
type readFirst struct {
	io.Reader
	do func()
}

func (r readFirst) Read(p []byte) (int, error) { r.do(); return r.Reader.Read(p) }
