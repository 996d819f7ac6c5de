package spread

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// evict has a pack evicted as node/evict does it: its shard is at its owner, and the
// network knows. It is read through what is returned from then on.
func (w *world) evict(id pack.ID) *shards {
	w.t.Helper()
	f := w.seals(id)[0].SealFact
	o := w.packs.all[id]
	if f.Virtual != catalog.NoShard {
		head, err := w.Head(f.Stripe)
		if err != nil {
			w.t.Fatal(err)
		}
		y, err := stripe.NewCoder().Copy(w.t.Context(), bytes.NewReader(o.bytes), head)
		if err != nil {
			w.t.Fatal(err)
		}
		cut, err := y.Shard(w.t.Context(), f.Virtual)
		if err != nil {
			w.t.Fatal(err)
		}
		var b bytes.Buffer
		if err := cut.Write(w.t.Context(), &b); err != nil {
			w.t.Fatal(err)
		}
		owner, _ := w.place.State().Owner(f.Stripe, f.Virtual)
		claim := held.Claim{Entry: held.Entry{Name: held.Name{Stripe: f.Stripe, Index: f.Virtual}, Root: f.Root}, Bytes: int64(b.Len())}
		if _, err := w.stores[owner.ID].Land(w.t.Context(), []held.Claim{claim}, &b); err != nil {
			w.t.Fatal(err)
		}
		f.By, f.Base, f.Revision, f.Virtual = self, f.Revision, f.Revision+1, catalog.NoShard
		if err := w.Tell(&f); err != nil {
			w.t.Fatal(err)
		}
		w.until("told", func() bool { return w.seals(id)[0].Virtual == catalog.NoShard })
	}
	record := proto.Clone(o.record).(*archivepb.Pack)
	record.Evicted = true
	s := &shards{bytes: o.bytes}
	w.packs.put(&one{record: record, bytes: o.bytes, from: s})
	return s
}

// shards are those of an evicted pack, as it is read from them.
type shards struct {
	mu     sync.Mutex
	bytes  []byte
	failed error
	reads  int64 // bytes
}

func (s *shards) set(b []byte, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.failed = b, failed
}

func (s *shards) read() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func (s *shards) ReadAt(b []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	if off >= int64(len(s.bytes)) {
		return 0, io.EOF
	}
	n := copy(b, s.bytes[off:])
	s.reads += int64(n)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func TestEvictedPacksGrowWithTheNetwork(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		a, b, hot := w.pack(1, large), w.pack(2, 30_000), w.pack(3, large)
		for _, id := range []pack.ID{a, b, hot} {
			w.settled(id, shard.Code{K: 1, M: 2})
		}
		from := map[pack.ID]*shards{a: w.evict(a), b: w.evict(b)}
		rested := 0
		for _, sites := range []int{4, 6} {
			w.grow(sites)
			code := w.place.State().Code
			for _, id := range []pack.ID{a, b, hot} {
				code := code.For(int64(len(w.packs.all[id].bytes)))
				f := w.settled(id, code)
				if f.Withdrawn != f.Stripe.Generation-1 || (f.Virtual == catalog.NoShard) == (id == hot) {
					t.Errorf("%d sites: %+v", sites, f.SealFact)
				}
				if owner, ok := w.ownerOf(&f.SealFact, self); ok && id != hot {
					rested++
					if _, err := w.stores[self].Shard(held.Name{Stripe: f.Stripe, Index: owner}); err != nil {
						t.Errorf("shard %d of %v: %v", owner, f.Stripe, err)
					}
				}
			}
		}
		if rested == 0 {
			t.Error("no shard rests at the origin: the test proves nothing")
		}
		for id, s := range from {
			if most := 2 * 2 * int64(len(w.packs.all[id].bytes)); s.read() > most {
				t.Errorf("%d bytes were read from shards of %d for two growths", s.read(), len(w.packs.all[id].bytes))
			}
		}
		read := from[a].read()
		w.restart() // nothing is left to do, and nothing is read
		time.Sleep(7 * time.Hour)
		if n, _ := w.Waiting(); n != 0 || from[a].read() != read {
			t.Errorf("%d wait, %d bytes were read again", n, from[a].read()-read)
		}
	})
}

// ownerOf is the shard of a stripe that a node has by its row.
func (w *world) ownerOf(f *catalog.SealFact, node string) (int, bool) {
	for i, n := range rowOf(w.place.State(), f)[:f.Code.N()] {
		if n.ID == node {
			return i, true
		}
	}
	return 0, false
}

func TestAnEvictedPackThatCannotBeReadWaits(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		id := w.pack(1, large)
		before := w.settled(id, shard.Code{K: 1, M: 2})
		s := w.evict(id)
		whole := s.bytes
		other := bytes.Clone(whole)
		other[len(other)/2] ^= 1
		stays := func(why string) {
			t.Helper()
			time.Sleep(time.Hour)
			if seals := w.seals(id); len(seals) != 1 || seals[0].Stripe != before.Stripe || seals[0].Spare() != before.Spare() {
				t.Errorf("%s: %+v", why, seals)
			}
		}
		s.set(whole, fault.New(fault.Unavailable, "too few answer"))
		w.grow(6)
		stays("it cannot be read")
		s.set(other, nil)
		stays("what is read is not what was sealed")
		s.set(whole, nil)
		w.stores[self].fail(fault.New(fault.Full, "no room"))
		time.Sleep(time.Hour)
		seals := w.seals(id)
		if len(seals) == 0 || seals[0].Stripe.Generation != 2 || seals[0].Virtual != catalog.NoShard {
			t.Fatalf("without room for its shard: %+v", seals)
		}
		if i, ok := w.ownerOf(&seals[0].SealFact, self); !ok || seals[0].Receipts>>i&1 == 1 {
			t.Errorf("shard %d of %v has a receipt without resting anywhere", i, seals[0].Stripe)
		}
		w.stores[self].fail(nil)
		w.settled(id, shard.Code{K: 3, M: 3})
	})
}

// What is said to be cut from a copy that is gone, as when a pack is evicted in the
// moment in which the network grows, is made up for.
func TestWhatWasCutFromAnEvictedCopyComesToRest(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		id := w.pack(1, large)
		f := w.settled(id, shard.Code{K: 1, M: 2})
		if f.Virtual == catalog.NoShard {
			t.Fatal("none is virtual: the test proves nothing")
		}
		o := w.packs.all[id]
		record := proto.Clone(o.record).(*archivepb.Pack)
		record.Evicted = true
		w.packs.put(&one{record: record, bytes: o.bytes, from: &shards{bytes: o.bytes}})
		w.restart()
		w.until("told", func() bool { s := w.seals(id); return s[0].Virtual == catalog.NoShard && s[0].Spare() == 2 })
		if now := w.check(id); now.Stripe != f.Stripe || now.Receipts != f.Receipts {
			t.Errorf("%+v", now)
		}
	})
}

func TestACrashWhileEvictedPacksGrowIsFinishedByTheNextStart(t *testing.T) {
	var ids []pack.ID
	crashed(t, 3, func(w *world) []pack.ID {
		ids = []pack.ID{w.pack(1, large)}
		w.settled(ids[0], shard.Code{K: 1, M: 2})
		w.evict(ids[0])
		return ids
	}, func(w *world) { w.grow(6) },
		func(w *world, _ []pack.ID) {
			if f := w.settled(ids[0], shard.Code{K: 3, M: 3}); f.Stripe.Generation != 2 || f.Withdrawn != 1 || f.Virtual != catalog.NoShard {
				w.t.Errorf("%+v", f.SealFact)
			}
			w.consistent()
		})
}
