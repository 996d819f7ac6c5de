package repair

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
)

const (
	// viewPacks is how many packs one view of the catalogue serves.
	viewPacks = 1024
	// holdTime is how long workers wait for a walk that may find what is more urgent
	// than what it has found so far.
	holdTime = 10 * time.Second
	// leastPause lies between two walks, whatever asks for them.
	leastPause = 3 * time.Second
	// freshTime is how long a shard that has no receipt yet is left to its origin,
	// which may be sending it; maxFresh how many such are remembered. Others on top
	// are brought at once.
	freshTime = 10 * time.Minute
	maxFresh  = 16384
)

// run looks through what is sealed for what is lacking here, and has workers bring it.
func (r *Repair) run(ctx context.Context, progress *work.Progress) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := newCrew(r.o.Workers, func() { r.works(ctx, progress) })
	defer workers.Wait()
	defer cancel()
	fresh := map[held.Name]time.Time{}
	r.hold()
	for {
		changed := r.o.Places.Changed()
		began := time.Now()
		found, err := r.walk(ctx, fresh)
		if err != nil || ctx.Err() != nil {
			return err
		}
		fresh = found.fresh
		r.mu.Lock()
		r.holdTill = time.Time{}
		r.mu.Unlock()
		r.wakeAll()
		poke(r.walked)
		r.completed(ctx, found, progress)
		if !r.rest(ctx, changed, time.Since(began)) {
			return nil
		}
	}
}

// rest waits until it is time for another walk; false when ctx ends.
func (r *Repair) rest(ctx context.Context, changed <-chan struct{}, took time.Duration) bool {
	pause := time.NewTimer(leastPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-changed:
		r.hold()
		return true
	case <-ctx.Done():
		return false
	}
	period := max(r.o.Every, 50*took)
	next := time.NewTimer(period*3/4 + rand.N(period/2))
	defer next.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-changed:
			r.hold()
			return true
		case <-next.C:
			return true
		case <-r.again:
			return true
		case <-tick.C:
			if r.drained(time.Now()) {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// hold has workers wait until the next walk knows what is most exposed.
func (r *Repair) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holdTill = time.Now().Add(holdTime)
}

// drained puts what is due in line again, and reports whether another walk would tell
// more: of what had no room, or that nothing is lacking any more.
func (r *Repair) drained(now time.Time) bool {
	r.mu.Lock()
	q := r.queue
	q.due(now)
	n := q.len()
	idle := n == 0 && len(q.running) == 0
	again := q.left && n < perClass/4 || idle && r.dirty
	r.mu.Unlock()
	if n > 0 {
		r.wakeAll()
	}
	return again
}

// found is what a walk met.
type found struct {
	layout    *layout.Layout // nil: there is none
	lacking   int64
	bytes     int64
	hopeless  int64
	hopelessB int64
	fresh     map[held.Name]time.Time
	unsettled bool // the layout changed meanwhile
}

// walk looks at every stripe of which a shard belongs here.
func (r *Repair) walk(ctx context.Context, fresh map[held.Name]time.Time) (found, error) {
	p := r.plan()
	f := found{fresh: map[held.Name]time.Time{}}
	r.mu.Lock()
	r.queue.left, r.dirty = false, false
	r.mu.Unlock()
	if err := r.lostHere(p); err != nil || p.view.New == nil {
		return f, err
	}
	f.layout = p.view.New
	w := walker{r: r, p: p, found: &f, before: fresh}
	l := p.view.New
	from := rand.IntN(l.Groups) // what found no room is another thing each time
	for g := range l.Groups {
		group := (from + g) % l.Groups
		for i := range l.Width() {
			if l.At(group, i).ID != p.self {
				continue
			}
			if err := w.group(ctx, group, i); err != nil {
				return f, err
			}
			break
		}
	}
	now := r.o.Places.State().View
	f.unsettled = now.New != p.view.New || now.Old != p.view.Old
	r.mu.Lock()
	r.lacking, r.lackingB, r.hopeless, r.hopelessB = f.lacking, f.bytes, f.hopeless, f.hopelessB
	r.mu.Unlock()
	r.stats.Walks.Add(1)
	return f, nil
}

type walker struct {
	r *Repair
	p *plan
	*found
	before map[held.Name]time.Time
}

// group looks at the stripes of a placement group in whose row this node is.
func (w *walker) group(ctx context.Context, group, position int) error {
	var behind [16]byte
	for {
		n := 0
		view := w.r.o.Catalog.View()
		for seals, err := range view.Group(group, w.p.view.New.Groups, behind) {
			if err == nil {
				err = ctx.Err()
			}
			for i := range seals {
				if err == nil && position < seals[i].Code.N() {
					err = w.look(&seals[i].SealFact, position)
				}
			}
			if err != nil {
				view.Close()
				return err
			}
			behind = seals[0].Stripe.Pack
			if n++; n == viewPacks {
				break
			}
		}
		if err := view.Close(); err != nil || n < viewPacks {
			return err
		}
	}
}

// look puts a shard that is to be here in line if it is lacking, and has news told
// that are not.
func (w *walker) look(seal *catalog.SealFact, i int) error {
	name := held.Name{Stripe: seal.Stripe, Index: i}
	st, err := w.r.o.Held.Status(name)
	switch {
	case err != nil && !fault.Is(err, fault.NotFound):
		return fmt.Errorf("repair: %w", err)
	case err == nil && st.State == held.Held && st.Root == seal.Root:
		if w.p.landed(seal, i) != nil {
			w.r.news.add(name, false)
			poke(w.r.told)
		}
		return nil
	case err == nil && st.State == held.Dropped && final(st.Reason):
		return nil
	case w.p.cut(seal, i, w.r.has):
		return nil
	}
	now := time.Now()
	if w.isFresh(seal, name, now) {
		return nil
	}
	it, err := itemOf(seal, i)
	if err != nil {
		return err
	}
	r := w.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.queue.waits.of[name]; before != nil && before.hopeless {
		w.hopeless, w.hopelessB = w.hopeless+1, w.hopelessB+it.bytes
	} else {
		w.lacking++
		w.bytes += it.bytes
	}
	r.queue.put(it, classOf(w.p.spare(seal, i)), now)
	r.wakeAll()
	return nil
}

// isFresh reports whether a shard may still be on its way from the origin, which has
// not told of a receipt for it. Such a shard is not lacking yet.
func (w *walker) isFresh(seal *catalog.SealFact, name held.Name, now time.Time) bool {
	if seal.Receipts>>name.Index&1 != 0 || seal.Origin == w.p.self || w.p.away(seal.Origin) || w.p.behind(seal) {
		return false
	}
	since, known := w.before[name]
	if !known {
		since = now
	}
	if now.Sub(since) >= freshTime || len(w.fresh) >= maxFresh {
		return false
	}
	w.fresh[name] = since
	return true
}

func itemOf(seal *catalog.SealFact, i int) (item, error) {
	g, err := shard.NewGeometry(seal.Code, seal.Size)
	if err != nil {
		return item{}, err
	}
	return item{held.Entry{Name: held.Name{Stripe: seal.Stripe, Index: i}, Root: seal.Root}, bytesOf(g, i)}, nil
}

// final reports whether a shard that was dropped must not come back.
func final(why held.Reason) bool {
	switch why.(type) {
	case held.Superseded, held.Purged:
		return true
	}
	return false
}

// lostHere puts in line, before all others, the shards whose bytes were here and are
// not any more, as the store remembers them.
func (r *Repair) lostHere(p *plan) error {
	var lost []held.Name
	err := r.o.Held.EachLost(func(st held.Status) (bool, error) {
		lost = append(lost, st.Name)
		return len(lost) < perClass, nil
	})
	if err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	for _, n := range lost {
		if err := r.urgent(p, n); err != nil {
			return err
		}
	}
	return nil
}

// urgent puts a shard in line before all others, if it is to be here.
func (r *Repair) urgent(p *plan, n held.Name) error {
	seal, ok, err := r.sealOf(n.Stripe)
	if err != nil || !ok || n.Index >= seal.Code.N() || !p.duty(seal, n.Index) {
		return err
	}
	it, err := itemOf(seal, n.Index)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if w := r.queue.waits.of[n]; w != nil && w.tries > 0 {
		r.queue.put(it, urgent, now) // in its turn
		return nil
	}
	r.queue.first(it, now)
	return nil
}

// sealOf reads a stripe's seal.
func (r *Repair) sealOf(of shard.Stripe) (*catalog.SealFact, bool, error) {
	view := r.o.Catalog.View()
	defer view.Close()
	seal, ok, err := view.Stripe(of)
	if err != nil || !ok {
		return nil, false, err
	}
	return &seal.SealFact, true, nil
}

// completed tells the network that this node has what a layout gives it, once a whole
// walk found nothing lacking. What nobody has enough for, of all who answered or are
// declared lost, does not keep the network from its next layout.
func (r *Repair) completed(ctx context.Context, f found, progress *work.Progress) {
	r.mu.Lock()
	done := f.layout == nil || r.complete == f.layout || f.lacking > 0 || f.unsettled
	r.mu.Unlock()
	if done {
		return
	}
	if err := r.o.Places.Complete(ctx, f.layout.Version); err != nil {
		if ctx.Err() == nil {
			progress.Note(err)
			r.o.Log.Warn("that this node has what the layout gives it could not be told; it will be", "version", f.layout.Version, "error", err)
			time.AfterFunc(lastPause, func() { poke(r.again) })
		}
		return
	}
	r.mu.Lock()
	r.complete = f.layout
	r.mu.Unlock()
	r.o.Log.Info("this node has all shards that the layout gives it", "version", f.layout.Version)
}

// lastPause is between attempts to tell.
const lastPause = 30 * time.Second
