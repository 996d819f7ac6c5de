package group

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

// verification is that of a copied catalogue, which begins once the copy is in
// place: it takes longer than the copying, and what it looks for is a fault that the
// source had before, and answers with as well. What a link or a disk may do to the
// copy was found before.
type verification struct {
	due chan struct{} // a copy may have come; capacity 1

	reading sync.Mutex // held over a verification, and over a replacement

	mu      sync.Mutex
	waiting int                // replacements that wait for reading
	cancel  context.CancelFunc // of the verification under way; else nil
	source  string             // of the copy, as long as this process lasts
}

// putInPlace replaces the catalogue by a copy of a node's, and has it verified.
// A verification under way, of what is replaced, ends.
func (g *Group) putInPlace(ctx context.Context, source, whole string) error {
	c := &g.verification
	c.mu.Lock()
	if c.waiting++; c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.reading.Lock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
		c.reading.Unlock()
		select { // whatever is here now
		case c.due <- struct{}{}:
		default:
		}
	}()
	if _, err := g.fence.change(func(f *fenced) { f.unverified = true }); err != nil { // a crash does not forget it
		return err
	}
	if err := g.machine.replace(ctx, whole); err != nil {
		return err
	}
	c.mu.Lock()
	c.source = source
	c.mu.Unlock()
	return g.takeDown()
}

// verify verifies what was copied, until ctx ends.
func (g *Group) verify(ctx context.Context) {
	for rest := minRepair; ; {
		err := g.verifyCopy(ctx)
		if err == nil {
			rest = minRepair
			select {
			case <-ctx.Done():
				return
			case <-g.verification.due:
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		g.log.Error("a copied catalogue could not be verified", "error", err, "again", rest)
		if !pause.For(ctx, rest) {
			return
		}
		rest = min(2*rest, maxRepair)
	}
}

// verifyCopy verifies the catalogue if it is a copy that has not been, and fences
// this node if it is broken. nil as well when a replacement has ended it.
func (g *Group) verifyCopy(ctx context.Context) error {
	c := &g.verification
	c.reading.Lock()
	defer c.reading.Unlock()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	source := c.source
	if c.waiting > 0 {
		cancel()
	}
	c.cancel = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.cancel = nil
		c.mu.Unlock()
	}()
	if is := g.fence.read(); !is.unverified || is.stands {
		return nil
	}
	var first error
	breaches := 0
	err := g.o.Catalogue.Verify(within, func(breach error) {
		if breaches++; first == nil {
			first = breach
		}
	})
	switch {
	case ctx.Err() == nil && within.Err() != nil:
		return nil
	case breaches == 0 && !fault.Is(err, fault.Corrupt):
		if err == nil {
			_, err = g.fence.change(func(f *fenced) { f.unverified = false })
		}
		if err == nil {
			g.log.Info("the copied catalogue is whole")
		}
		return err
	}
	err = errors.Join(first, err)
	g.log.Error("a copied catalogue is broken", "from", source, "breaches", breaches, "first", fmt.Sprint(err))
	g.mu.Lock()
	g.broken[source] = true
	g.mu.Unlock()
	_, index := g.o.Catalogue.StateHash()
	g.raise(index, true)
	return nil
}
