package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
)

// packs is a node's keys and seals in memory. It survives crashes, as durable rows do.
type packs struct {
	mu      sync.Mutex
	last    uint64
	rows    map[uint64]PackFact
	of      map[shard.Stripe]uint64 // the row of a seal
	keys    map[[16]byte]bool       // that have a row
	refused []error
	asked   int
}

func newPacks() *packs {
	return &packs{rows: map[uint64]PackFact{}, of: map[shard.Stripe]uint64{}, keys: map[[16]byte]bool{}}
}

func (p *packs) clone() *packs {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &packs{last: p.last, rows: maps.Clone(p.rows), of: maps.Clone(p.of), keys: maps.Clone(p.keys)}
}

// put writes a row, in place of that of the same stripe, and leaves a gap before it
// now and then.
func (p *packs) put(f PackFact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last += 1 + p.last%3
	if f.Seal != nil {
		delete(p.rows, p.of[f.Seal.Stripe])
		p.of[f.Seal.Stripe] = p.last
	}
	p.rows[p.last] = f
}

// pack has a study's key, and a seal of pack i in it, whose receipts are those of a
// revision.
func (p *packs) pack(study string, i int, revision uint64) {
	key := &catalog.KeyFact{Origin: "n", Study: study, ID: [16]byte{1}, Epoch: 1}
	copy(key.ID[1:], study)
	p.mu.Lock()
	known := p.keys[key.ID]
	p.keys[key.ID] = true
	p.mu.Unlock()
	if !known {
		p.put(PackFact{Key: key})
	}
	s := &catalog.SealFact{
		By: "n", Study: study, Series: study + ".1", Stripe: shard.Stripe{Pack: [16]byte{2, byte(i), byte(i >> 8)}, Generation: 1},
		Origin: "n", Key: key.ID, Size: 40_000, Instances: 3, Code: shard.Code{K: 1, M: 2}, Root: [32]byte{3, byte(i)},
		Revision: revision, Receipts: uint16(1)<<min(1+revision, 3) - 1, Virtual: 0,
	}
	p.put(PackFact{Seal: s})
}

func (p *packs) After(_ context.Context, after uint64, yield func(uint64, PackFact) error) error {
	p.mu.Lock()
	p.asked++
	rows := maps.Clone(p.rows)
	p.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(rows)) {
		if number <= after {
			continue
		}
		if err := yield(number, rows[number]); err != nil {
			return err
		}
	}
	return nil
}

func (p *packs) Refused(f PackFact, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = append(p.refused, why)
}

// packed waits until the network has all rows.
func (n *node) packed(t testing.TB, p *packs) {
	t.Helper()
	end := time.Now().Add(time.Hour)
	for {
		p.mu.Lock()
		last := p.last
		p.mu.Unlock()
		n.j.mu.Lock()
		said := n.j.state.packs
		n.j.mu.Unlock()
		if said == last {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("rows are said up to %d of %d: %+v", said, last, n.j.Status())
		}
		time.Sleep(50 * time.Millisecond)
	}
	n.drained(t)
}

// sealed checks that the network has just what rows say, and that the log has each
// fact in one batch, however often that was proposed.
func (o *order) sealed(t testing.TB, p *packs, when string) {
	t.Helper()
	c := o.observe(t)
	defer c.Close()
	v := c.View()
	defer v.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := 0
	for _, f := range p.rows {
		if f.Key != nil {
			if k, ok, err := v.Key(f.Key.ID); err != nil || !ok || k.Wrapped != f.Key.Wrapped {
				t.Fatalf("%s: a key is not known: %v", when, err)
			}
			keys++
			continue
		}
		s, ok, err := v.Stripe(f.Seal.Stripe)
		if err != nil || !ok || s.Revision != f.Seal.Revision || s.Receipts != f.Seal.Receipts || s.Root != f.Seal.Root {
			t.Fatalf("%s: of %v revision %d is known, %t, %v, want %d", when, f.Seal.Stripe, s.Revision, ok, err, f.Seal.Revision)
		}
	}
	if len(p.refused) > 0 {
		t.Errorf("%s: refused: %v", when, p.refused)
	}
	o.saidOnce(t, c, when)
	if err := c.Verify(context.Background(), func(err error) { t.Errorf("%s: %v", when, err) }); err != nil {
		t.Fatal(err)
	}
}

// saidOnce checks that no key, and no revision of a seal, is in two batches that were
// taken.
func (o *order) saidOnce(t testing.TB, c *catalog.Catalog, when string) {
	t.Helper()
	batches, said := map[string]bool{}, map[string]bool{}
	for i, entry := range o.entries {
		e, err := catalog.DecodeEntry(entry)
		if err != nil {
			t.Fatal(err)
		}
		results, ok := c.Results(uint64(i + 1))
		if !ok {
			t.Fatalf("%s: no results of entry %d", when, i+1)
		}
		if e.Batch == nil || batches[string(entry)] || errors.Join(results...) != nil {
			continue
		}
		batches[string(entry)] = true
		var names []string
		for _, k := range e.Batch.Keys {
			names = append(names, fmt.Sprintf("key %x", k.ID))
		}
		for _, s := range e.Batch.Seals {
			names = append(names, fmt.Sprintf("%v, revision %d", s.Stripe, s.Revision))
		}
		for _, name := range names {
			if said[name] {
				t.Fatalf("%s: %s is said twice", when, name)
			}
			said[name] = true
		}
	}
}

func TestKeysAndSealsAreSaidOnceAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, p := newOrder(t), newPacks()
		n, s := openPacker(t, vfs.NewMem(), o, p), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		n.drained(t)
		before := n.j.Status().Logged
		for i := range 20 {
			p.pack(fmt.Sprint("1.", i%4), i, 0)
			n.j.Offer()
		}
		n.packed(t, p)
		if got := n.j.Status().Logged - before; got != 1 {
			t.Errorf("20 seals took %d batches", got)
		}
		whole := o.bytes
		for i := range 20 {
			p.pack(fmt.Sprint("1.", i%4), i, 1)
			n.j.Offer()
		}
		n.packed(t, p)
		if news := o.bytes - whole; news > 1400 {
			t.Errorf("20 revisions take %d bytes, the seals took %d", news, whole)
		}
		asked := p.asked
		time.Sleep(time.Minute)
		if p.asked != asked {
			t.Errorf("nothing is new, and rows are read %d times", p.asked-asked)
		}
	})
}

// Whatever becomes of proposals, what rows say is committed once.
func TestEverySealIsCommittedOnce(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			o, p, r := newOrder(t), newPacks(), randomly(seed)
			o.fortune, o.delay = whatever(seed), time.Duration(r.IntN(300))*time.Millisecond
			n, s := openPacker(t, vfs.NewMem(), o, p), newSource()
			defer n.close(t)
			stop := n.run(t, s)
			for i := range 60 {
				study := fmt.Sprint("1.", i/3%6)
				n.j.Dirty(s.store(study, study+".1"), study, study+".1")
				p.pack(study, i/3, uint64(i%3))
				n.j.Offer()
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
			}
			n.packed(t, p)
			stop()
			o.sealed(t, p, fmt.Sprint("seed ", seed))
			o.agree(t, s, fmt.Sprint("seed ", seed))
		})
	}
}

// A crash at any operation on the disk loses no row that was durable, and repeats none.
func TestCrashAtAnyOperationLosesNoSeal(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			o, s, p, r := newOrder(t), newSource(), newPacks(), randomly(seed)
			o.fortune, o.delay = whatever(seed), 20*time.Millisecond
			c := &crashes{mem: vfs.NewCrashableMem(), source: s, order: o, packs: p, seed: seed << 32}
			n := openPacker(t, c.fs(), o, p)
			stop := n.run(t, s)
			for i := range 12 {
				p.pack(fmt.Sprint("1.", i/6), i/3, uint64(i%3))
				n.j.Offer()
				time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			}
			n.packed(t, p)
			stop()
			n.close(t)
			if len(c.points) < 30 {
				t.Fatalf("only %d operations", len(c.points))
			}
			for _, at := range c.points {
				o := &order{entries: at.network.entries, delayed: at.network.delayed}
				n := openPacker(t, at.disk, o, at.packed)
				stop := n.run(t, newSource())
				n.packed(t, at.packed)
				at.packed.pack("1.9", 99, 0) // with which late ones may come
				n.j.Offer()
				n.packed(t, at.packed)
				stop()
				o.sealed(t, at.packed, at.op)
				if st := n.j.Status(); st.Incarnation != 1 {
					t.Fatalf("%s: incarnation %d", at.op, st.Incarnation)
				}
				n.close(t)
			}
		})
	}
}

// While the network takes nothing no more is logged than may be, what is known of
// series finds room, and nobody waits; then all is said.
func TestANodeThatWasAwaySaysAllItsSeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, p := newOrder(t), newPacks()
		var away bool
		o.fortune = func() fortune {
			if away {
				return refused
			}
			return committed
		}
		n, s := openPacker(t, vfs.NewMem(), o, p), newSource()
		defer n.close(t)
		stop := n.run(t, s)
		n.drained(t)
		o.mu.Lock()
		away = true
		o.mu.Unlock()
		const sealed = 200 // a batch has 256
		for turn := range 60 {
			for i := range sealed {
				p.pack(fmt.Sprint("1.", i%20), sealed*turn+i, 0)
			}
			n.j.Offer()
			study := fmt.Sprint("2.", turn)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			began := time.Now()
			if err := n.j.Settle(t.Context()); err != nil || time.Since(began) != 0 {
				t.Fatal(err, time.Since(began))
			}
			time.Sleep(time.Minute)
			if st := n.j.Status(); st.Logged-st.Committed > maxBacklog+1 {
				t.Fatalf("%d batches wait", st.Logged-st.Committed)
			}
		}
		n.j.mu.Lock()
		left, full := n.j.left, n.j.offered.full
		n.j.mu.Unlock()
		if st := n.j.Status(); !st.Left || !full {
			t.Errorf("rows are left: %t, %+v", full, st)
		}
		if left != 0 && left <= 20 {
			t.Errorf("series from %d on found no room beside seals", left)
		}
		o.mu.Lock()
		away = false
		o.mu.Unlock()
		n.j.Retry()
		n.packed(t, p)
		if st := n.j.Status(); st.Left || st.Pending != 0 || n.j.Kept() != 0 {
			t.Errorf("in the end %+v, kept for %v", st, n.j.Kept())
		}
		stop()
		o.agree(t, s, "in the end")
		c := o.observe(t)
		defer c.Close()
		if got := c.Sealed(); got.Packs != 60*sealed || got.Keys != 20 {
			t.Errorf("the network knows %+v", got)
		}
	})
}

// A new incarnation says what the network lacks, and nothing that it has.
func TestANewIncarnationSaysTheSealsThatAreLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, s, o, p := vfs.NewCrashableMem(), newSource(), newOrder(t), newPacks()
		n := openPacker(t, mem, o, p)
		stop := n.run(t, s)
		p.pack("1.1", 1, 0)
		n.j.Offer()
		n.packed(t, p)
		stop()
		n.close(t)
		backup := mem.CrashClone(vfs.CrashCloneCfg{})
		n = openPacker(t, mem, o, p)
		stop = n.run(t, s)
		p.pack("1.2", 2, 0)
		n.j.Offer()
		n.packed(t, p)
		stop()
		n.close(t)

		p.pack("1.3", 3, 0)
		n = openPacker(t, backup, o, p) // which does not know what was said of 1.2
		stop = n.run(t, s)
		n.packed(t, p)
		n.told(t, s, "7", 1)
		stop()
		o.sealed(t, p, "in the end")
		if st := n.j.Status(); st.Incarnation != 2 {
			t.Errorf("incarnation %d", st.Incarnation)
		}
		n.close(t)
	})
}

// What the network does not take is told, and holds nothing up.
func TestWhatIsRefusedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, p := newOrder(t), newPacks()
		n, s := openPacker(t, vfs.NewMem(), o, p), newSource()
		defer n.close(t)
		stop := n.run(t, s)
		p.pack("1.1", 1, 0)
		n.j.Offer()
		n.packed(t, p)
		// Another node has told news of it meanwhile.
		first := *p.rows[p.of[shard.Stripe{Pack: [16]byte{2, 1}, Generation: 1}]].Seal
		first.By, first.Revision, first.Receipts = "m", 1, 0b110
		entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("m"), catalog.Batch{Node: "m", Site: "s", Incarnation: 1, Number: 1, Seals: []*catalog.SealFact{&first}}, [hashBytes]byte{})
		if err != nil {
			t.Fatal(err)
		}
		o.decide(t, catalogtest.Member("m", "s"))
		o.mu.Lock()
		o.entries = append(o.entries, entry)
		o.mu.Unlock()
		if err := o.bring(n.c); err != nil {
			t.Fatal(err)
		}
		p.pack("1.1", 1, 1)
		p.pack("1.2", 2, 0)
		bad := *p.rows[p.of[shard.Stripe{Pack: [16]byte{2, 2}, Generation: 1}]].Seal
		bad.Stripe.Pack[9], bad.Virtual = 1, -7 // no batch takes it
		p.put(PackFact{Seal: &bad})
		n.j.Offer()
		n.packed(t, p)
		stop()
		if len(p.refused) != 2 || !fault.Is(p.refused[0], fault.Invalid) || !fault.Is(p.refused[1], fault.Conflict) {
			t.Errorf("refused: %v", p.refused)
		}
		c := o.observe(t)
		defer c.Close()
		if got := c.Sealed().Packs; got != 2 {
			t.Errorf("the network knows %d packs", got)
		}
	})
}

func TestRowsThatDoNotAscendEndTheJournal(t *testing.T) {
	for name, f := range map[string]PackFact{"neither": {}, "both": {&catalog.KeyFact{}, &catalog.SealFact{}}} {
		o, p := newOrder(t), newPacks()
		p.put(f)
		n := openPacker(t, vfs.NewMem(), o, p)
		if err := n.j.Run(t.Context(), newSource(), line{o, n.c}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		n.close(t)
	}
	o := newOrder(t)
	n := openPacker(t, vfs.NewMem(), o, backwards{})
	defer n.close(t)
	if err := n.j.Run(t.Context(), newSource(), line{o, n.c}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

type backwards struct{}

func (backwards) After(_ context.Context, _ uint64, yield func(uint64, PackFact) error) error {
	f := PackFact{Key: &catalog.KeyFact{}}
	return errors.Join(yield(2, f), yield(1, f))
}
func (backwards) Refused(PackFact, error) {}
