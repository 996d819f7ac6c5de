package journal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// crashes is a file system that keeps what would be left if the power failed at
// any of its operations.
type crashes struct {
	mem    *vfs.MemFS
	source *source
	order  *order
	packs  *packs // nil: none
	seed   uint64

	mu     sync.Mutex
	points []crashPoint
}

// crashPoint is the world at a crash: what the disk holds, what was acknowledged,
// what the network has agreed on.
type crashPoint struct {
	op      string
	disk    *vfs.MemFS
	stored  int
	packed  *packs
	network agreed
}

func (c *crashes) fs() vfs.FS { return inOrder{errorfs.Wrap(c.mem, c)} }

// inOrder makes names durable in the order in which Pebble needs them, as the
// file system under a node's stores does (decision 0003).
type inOrder struct{ vfs.FS }

func (o inOrder) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := o.sync(name); err != nil {
		return nil, err
	}
	return o.FS.Create(name, category)
}

func (o inOrder) Remove(name string) error {
	return errors.Join(o.sync(name), o.FS.Remove(name))
}

func (o inOrder) sync(name string) error {
	if !strings.HasPrefix(o.PathBase(name), "marker.") {
		return nil
	}
	f, err := o.OpenDir(o.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (c *crashes) String() string { return "crashes" }

// MaybeError implements [errorfs.Injector]; it injects nothing.
func (c *crashes) MaybeError(op errorfs.Op) error {
	switch op.Kind.ReadOrWrite() {
	case errorfs.OpIsRead:
		return nil
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source.mu.Lock()
	stored := len(c.source.log)
	c.source.mu.Unlock()
	p := crashPoint{op: fmt.Sprintf("operation %d, %v of %s", len(c.points), op.Kind, op.Path), stored: stored, network: *c.order.seen.Load()}
	if c.packs != nil {
		p.packed = c.packs.clone()
	}
	r := randomly(c.seed + uint64(len(c.points)))
	p.disk = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
	c.points = append(c.points, p)
	return nil
}

// restart runs a node on what a crash has left until the network knows all of it.
func (p crashPoint) restart(t *testing.T, s *source, late bool, incarnation uint64) {
	t.Helper()
	left := s.upTo(p.stored)
	o := &order{entries: p.network.entries}
	if late {
		o.delayed = p.network.delayed
	}
	n := openNode(t, p.disk, o)
	defer n.close(t)
	defer n.run(t, left)()
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.knows(t, left, p.op)
	// More is stored, of which the first batch may bring forth late ones.
	n.told(t, left, "7", 2)
	o.agree(t, left, p.op)
	n.knows(t, left, p.op)
	if st := n.j.Status(); st.Incarnation != incarnation {
		t.Fatalf("%s: incarnation %d, want %d", p.op, st.Incarnation, incarnation)
	}
}

// A crash at any operation on the disk, while proposals meet any fortune, loses
// nothing that was acknowledged, and the network takes nothing twice.
func TestCrashAtAnyOperationLosesNoFact(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			o, s, r := newOrder(t), newSource(), randomly(seed)
			o.fortune, o.delay = whatever(seed), 20*time.Millisecond
			c := &crashes{mem: vfs.NewCrashableMem(), source: s, order: o, seed: seed << 32}
			n := openNode(t, c.fs(), o)
			stop := n.run(t, s)
			for range 12 {
				study := fmt.Sprint("1.2.", r.IntN(4))
				n.j.Dirty(s.store(study, study+".1"), study, study+".1")
				switch r.IntN(4) {
				case 0:
					if err := n.j.Settle(t.Context()); err != nil {
						t.Fatal(err)
					}
				case 1:
					n.j.Ended(study)
				}
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			n.drained(t)
			stop()
			n.close(t)
			if len(c.points) < 30 {
				t.Fatalf("only %d operations", len(c.points))
			}
			for i, p := range c.points {
				p.restart(t, s, i%2 == 0, 1)
			}
		})
	}
}

// So does a crash while a new incarnation begins.
func TestCrashWhileANewIncarnationBeginsLosesNoFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, s, o := vfs.NewCrashableMem(), newSource(), newOrder(t)
		n := openNode(t, mem, o)
		stop := n.run(t, s)
		n.told(t, s, "1", 3)
		stop()
		n.close(t)
		c := &crashes{mem: mem.CrashClone(vfs.CrashCloneCfg{}), source: s, order: o}
		n = openNode(t, mem, o)
		stop = n.run(t, s)
		n.told(t, s, "2", 3)
		stop()
		n.close(t)

		n = openNode(t, c.fs(), o) // the backup: three batches are used that it does not know
		stop = n.run(t, s)
		n.told(t, s, "3", 3)
		stop()
		n.close(t)
		for _, p := range c.points {
			p.restart(t, s, true, 2)
		}
	})
}
