package spread

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/shard/stripe"
)

const (
	// maxFlights is how many rounds are under way, and maxTurns how many of them have
	// their packs in memory: one is encoded while another's shards go out. Beyond these
	// are rounds whose holders are slow.
	maxFlights = 8
	maxTurns   = 2
	// busyPatience is how long a new pack waits while somebody sends, and how long it
	// is between packs that are striped anew meanwhile.
	busyPatience = time.Minute
	// busyLook is how often it is looked whether somebody still sends.
	busyLook = 250 * time.Millisecond
)

// drive plans and encodes, round after round, until ctx ends.
func (s *Spread) drive(ctx context.Context, progress *work.Progress) error {
	d := &driver{Spread: s, progress: progress, failed: make(chan error, 1), turns: make(chan struct{}, maxTurns), places: make(chan struct{}, maxFlights)}
	defer d.flying.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.forgetFlights()
	for {
		moved := s.o.Placement.Changed()
		state := s.o.Placement.State()
		if err := s.answerRefusals(); err != nil {
			return err
		}
		d.adapt(state)
		next, err := s.flush(time.Now())
		if err != nil {
			return err
		}
		begun, wait := false, time.Time{}
		if state.Striped() {
			if begun, wait, err = d.next(ctx, state); err != nil {
				return err
			}
		}
		progress.Set(int64(s.stats.Packs.Load()), 0)
		if begun {
			continue
		}
		if err := d.await(ctx, earliest(next, wait), moved); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// forgetFlights puts what an earlier run of the driver had under way back in line.
func (s *Spread) forgetFlights() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.queue.items {
		it.flying = false
	}
}

// driver is one run of drive.
type driver struct {
	*Spread
	progress *work.Progress
	flying   sync.WaitGroup
	failed   chan error    // why a flight could not write rows
	turns    chan struct{} // taken by rounds whose packs are in memory
	places   chan struct{} // taken by rounds

	placed  *placement.State // by which the line was made
	trickle time.Time        // when the last pack was striped anew while somebody sent
}

// await waits until there may be something to do.
func (d *driver) await(ctx context.Context, until time.Time, moved <-chan struct{}) error {
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
	case err := <-d.failed:
		return err
	case <-d.wake:
	case <-moved:
	case <-alarm:
	}
	return nil
}

// earliest is the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// adapt has what waits looked at anew when the placement has changed.
func (d *driver) adapt(state *placement.State) {
	if state == d.placed {
		return
	}
	d.placed = state
	d.mu.Lock()
	if state.Striped() {
		d.queue.reset(time.Now())
	} else {
		d.queue.clear()
	}
	d.mu.Unlock()
	d.peers.reset()
	poke(d.look)
}

// next begins a round, if one is due and may begin, or returns when to look again.
func (d *driver) next(ctx context.Context, state *placement.State) (begun bool, wait time.Time, err error) {
	busy := d.o.Packs.Busy()
	items, wait := d.choose(time.Now(), busy)
	if len(items) == 0 {
		return false, wait, nil
	}
	for _, to := range []chan struct{}{d.places, d.turns} {
		select {
		case to <- struct{}{}:
			continue
		case err = <-d.failed:
		case <-ctx.Done():
		}
		if to == d.turns {
			<-d.places
		}
		for _, it := range items {
			d.back(it)
		}
		return false, wait, err
	}
	d.begin(ctx, state, items)
	return true, wait, nil
}

// choose takes the packs of the next round out of the line, if it may begin now, or
// returns when to look again.
func (d *driver) choose(now time.Time, busy bool) (items []*item, wait time.Time) {
	d.measure(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	line, wait := d.queue.line(now)
	line = slices.DeleteFunc(line, func(it *item) bool { return it.bytes == 0 })
	if len(line) == 0 {
		return nil, wait
	}
	if busy && !line[0].hurried.Load() {
		// Each kind by its own pause: packs from before, of which there may be very many,
		// do not keep new ones waiting.
		i := slices.IndexFunc(line, func(it *item) bool {
			if it.fresh {
				return now.Sub(it.since) >= busyPatience
			}
			return now.Sub(d.trickle) >= busyPatience
		})
		if i < 0 {
			return nil, earliest(wait, now.Add(busyLook))
		}
		if !line[i].fresh {
			d.trickle = now
		}
		line = line[i : i+1]
	}
	items = round(line)
	for _, it := range items {
		it.flying = true
	}
	return items, wait
}

// measure finds out how long the packs are that are next in line and were only named,
// and drops those that are gone.
func (d *driver) measure(now time.Time) {
	d.mu.Lock()
	line, _ := d.queue.line(now)
	line = slices.DeleteFunc(line, func(it *item) bool { return it.bytes > 0 })
	d.mu.Unlock()
	for _, it := range line[:min(len(line), maxBatch)] {
		p, _, err := d.o.Packs.Ciphertext(it.id)
		if err != nil {
			d.leftOut(it, err)
			continue
		}
		d.mu.Lock()
		it.bytes = p.BlobBytes
		d.mu.Unlock()
	}
}

// leftOut takes an item that cannot be read out of the line, for good or for a while.
func (d *driver) leftOut(it *item, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it.flying = false
	if gone(err) {
		delete(d.queue.items, it.id)
		d.o.Log.Info("a pack is not here to be spread", "pack", it.id, "error", err)
		return
	}
	it.due, it.tries = time.Now().Add(retryAfter(it.tries)), it.tries+1
	d.progress.Note(err)
}

// begin plans and encodes the packs of a round, and sends them on their way.
func (d *driver) begin(ctx context.Context, state *placement.State, items []*item) {
	land := sync.OnceFunc(func() { <-d.turns })
	f := &flight{Spread: d.Spread, began: time.Now(), land: land}
	for _, it := range items {
		w, err := d.prepare(ctx, state, it)
		switch {
		case ended(ctx, err):
			d.back(it)
		case err != nil:
			d.leftOut(it, err)
		case w == nil:
			d.done(it)
		default:
			f.works = append(f.works, w)
		}
	}
	if len(f.works) == 0 {
		land()
		<-d.places
		return
	}
	d.flying.Go(func() {
		err := f.fly(ctx)
		<-d.places
		if err != nil {
			select {
			case d.failed <- err:
			default:
			}
		}
		poke(d.wake)
	})
}

// back puts an item back into the line.
func (d *driver) back(it *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it.flying = false
}

// done takes an item out of the line that needs nothing.
func (d *driver) done(it *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it.flying = false
	if it.again {
		it.again = false
		return
	}
	delete(d.queue.items, it.id)
}

// prepare plans a pack and encodes it, if it is not.
func (d *driver) prepare(ctx context.Context, state *placement.State, it *item) (*job, error) {
	w, err := d.plan(state, it)
	if err != nil || w == nil {
		return nil, err
	}
	yield := d.yielding(it.hurried.Load())
	if !d.reads(w) {
		return w, nil
	}
	if err := w.from.load(ctx, yield); err != nil {
		return nil, err
	}
	if w.encoded() {
		return w, nil
	}
	from := &paced{ReaderAt: w.from, ctx: ctx, yield: yield}
	head, err := d.coder.Encode(ctx, from, *w.head, make([]io.Writer, w.head.Code.N()))
	if err != nil {
		w.from.unload()
		if errors.Is(err, stripe.ErrMiscoded) || fault.Is(err, fault.Corrupt) && !gone(d.readable(it)) {
			// The bytes were read, and are not what was sealed, or parity does not prove
			// itself: memory or processor. It may do so later.
			d.o.Log.Error("a pack's stripe does not prove itself", "stripe", w.of().String(), "error", err)
			return nil, fault.New(fault.Other, "%w", err)
		}
		return nil, err
	}
	if w.root != [32]byte{} && head.Root() != w.root {
		w.from.unload()
		d.mu.Lock()
		it.taken = max(it.taken, w.of().Generation)
		d.mu.Unlock()
		return nil, fault.New(fault.Conflict, "spread: %v is sealed with another root", w.of())
	}
	w.head = head
	return w, nil
}

// readable is why a pack cannot be read; nil: it can.
func (d *driver) readable(it *item) error {
	_, _, err := d.o.Packs.Ciphertext(it.id)
	return err
}

// reads reports whether a pack's bytes are needed: to encode it, or for a shard that
// somebody may take.
func (d *driver) reads(w *job) bool {
	if !w.encoded() {
		return true
	}
	now := time.Now()
	for _, i := range w.lacks() {
		owner, ok := w.state.Owner(w.of(), i)
		if ok && (owner.ID == d.o.Self || d.peers.usable(owner.ID, now)) {
			return true
		}
	}
	return false
}
