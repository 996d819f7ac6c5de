package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/pause"
)

const (
	// minRepair and maxRepair are the first and the longest pause between attempts to
	// take a fenced node's catalogue anew.
	minRepair = time.Minute
	maxRepair = time.Hour
	// repairOnce is for how long a node is not repaired by itself again: what has gone
	// wrong twice is a fault of the machine or of ours, which copies would hide.
	repairOnce = 7 * 24 * time.Hour

	fenceFile  = "fence" // in the data directory
	fenceMagic = "PelFenc\x01"
	fenceBytes = 1 + 8 + 8
)

// The bits of the file's first byte.
const (
	fenceStands = 1 << iota
	fenceBroken
	fenceUnverified
)

// fence is what a node remembers, over restarts, of its catalogue's having become
// another one than that of most nodes, or of its being a copy that nobody has
// verified yet.
type fence struct {
	fs     vfs.FS
	dir    string
	raised chan struct{} // to Group.repair; capacity 1

	mu sync.Mutex // held over writing the file
	is fenced
}

// fenced is what the file has.
type fenced struct {
	stands     bool
	broken     bool      // why: its records do not fit each other
	unverified bool      // it is a copy that has not been verified to its end
	index      uint64    // at which the state was another one
	repaired   time.Time // when the catalogue was taken anew by itself; zero: never
}

func (f fenced) encode() []byte {
	b := []byte{0}
	for _, is := range [...]struct {
		so  bool
		bit byte
	}{{f.stands, fenceStands}, {f.broken, fenceBroken}, {f.unverified, fenceUnverified}} {
		if is.so {
			b[0] |= is.bit
		}
	}
	b = binary.BigEndian.AppendUint64(b, f.index)
	at := int64(0)
	if !f.repaired.IsZero() {
		at = f.repaired.Unix()
	}
	return binary.BigEndian.AppendUint64(b, uint64(at))
}

// err is what a node says that stands behind the fence.
func (f fenced) err() error {
	why, next := "is another one than at most nodes", "; the catalogue is taken anew from one of them"
	if f.broken {
		why = "is not what its records add up to"
	}
	if !f.repaired.IsZero() {
		next = ", although the catalogue was taken anew at " + f.repaired.UTC().Format(time.RFC3339)
	}
	return fault.New(fault.Corrupt, "group: fenced: the state at %d %s%s", f.index, why, next)
}

// openFence reads the file. One that is rotten stands for a fence: a copy too many
// harms nobody.
func openFence(fs vfs.FS, dir string) (*fence, error) {
	f := &fence{fs: fs, dir: dir, raised: make(chan struct{}, 1)}
	b, err := identity.ReadFramed(fs, fs.PathJoin(dir, fenceFile), fenceMagic)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return f, nil
	case fault.Is(err, fault.Corrupt), err == nil && len(b) != fenceBytes:
		f.is.stands = true
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("group: fence: %w", err)
	}
	f.is = fenced{stands: b[0]&fenceStands != 0, broken: b[0]&fenceBroken != 0, unverified: b[0]&fenceUnverified != 0, index: binary.BigEndian.Uint64(b[1:])}
	if at := int64(binary.BigEndian.Uint64(b[9:])); at != 0 {
		f.is.repaired = time.Unix(at, 0)
	}
	return f, nil
}

func (f *fence) read() fenced {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.is
}

func (f *fence) change(change func(*fenced)) (fenced, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.is
	change(&next)
	if next == f.is {
		return next, nil
	}
	if err := identity.WriteFile(f.fs, f.dir, fenceFile, identity.Frame(fenceMagic, next.encode())); err != nil {
		return next, fmt.Errorf("group: fence: %w", err)
	}
	f.is = next
	return next, nil
}

// standing is what consensus must hear at the start and after each copy: one may be
// found broken before Raft has begun to apply to it.
func (g *Group) standing() error {
	if is := g.fence.read(); is.stands {
		return is.err()
	}
	return nil
}

// raise fences this node. It stands behind the fence even if that cannot be written.
func (g *Group) raise(index uint64, broken bool) {
	now, err := g.fence.change(func(f *fenced) {
		f.stands, f.broken, f.index = true, broken, index
		if time.Since(f.repaired) > repairOnce {
			f.repaired = time.Time{}
		}
	})
	if err != nil {
		g.log.Error("a restart will not know of the fence", "error", err)
	}
	g.node.Halt(now.err())
	select {
	case g.fence.raised <- struct{}{}:
	default:
	}
}

// takeDown notes that the catalogue is another node's now, as Replaced is.
func (g *Group) takeDown() error {
	_, err := g.fence.change(func(f *fenced) {
		if f.stands {
			*f = fenced{unverified: f.unverified, repaired: time.Now().Truncate(time.Second)}
		}
	})
	return err
}

// repair takes the catalogue of a fenced node anew, until ctx ends: once, and after
// that not again for repairOnce. The journal and the log stay.
func (g *Group) repair(ctx context.Context) {
	for rest := minRepair; ; {
		if is := g.fence.read(); !is.stands || !is.repaired.IsZero() {
			rest = minRepair
			select {
			case <-ctx.Done():
				return
			case <-g.fence.raised:
			}
			continue
		}
		if !pause.For(ctx, rest) {
			return
		}
		if err := g.takeAnew(ctx); err != nil && ctx.Err() == nil {
			rest = min(2*rest, maxRepair)
			g.log.Error("a fenced catalogue could not be taken anew", "error", err, "again", rest)
		}
	}
}

// takeAnew puts the catalogue of a node that agrees with most in the place of this
// one's, while nothing is applied here, and goes on applying from there.
func (g *Group) takeAnew(ctx context.Context) error {
	g.copying.Lock()
	defer g.copying.Unlock()
	if !g.fence.read().stands {
		return nil // a copy that the leader asked for has done it
	}
	generation, known := g.node.Generation()
	if !known {
		return fault.New(fault.Unavailable, "group: no generation is known")
	}
	// What the log has cut it could not apply again.
	first, _ := g.raftlog.Bounds()
	least := max(first, g.o.Catalogue.Position().Index)
	var errs []error
	for _, node := range g.sources(nil) {
		if ctx.Err() != nil {
			break
		}
		err := g.copyFrom(ctx, node, generation, least, g.confirmByMost)
		if err == nil {
			g.log.Warn("the catalogue of this fenced node was taken anew", "from", node, "index", g.o.Catalogue.Position().Index)
			g.node.Resume()
			return nil
		}
		errs = append(errs, err)
	}
	return fault.New(fault.Unavailable, "group: %w", errors.Join(append(errs, errNobody)...))
}

// confirmByMost finds out whether most of the nodes that know have the state that a
// source offers, of two at least if there are so many.
func (g *Group) confirmByMost(ctx context.Context, source string, m *manifest) error {
	others := g.others()
	same, other := g.states(ctx, source, m, others, len(others))
	if other >= same || same < 2 && len(others) > 1 {
		return fault.New(fault.Corrupt, "group: the state of %s at %d is known for that of %d nodes, and not for that of %d", source, m.Index, same, other)
	}
	return nil
}
