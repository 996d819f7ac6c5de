package spread

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/stripe"
)

const (
	// sealAfter is how long a seal waits for receipts: who opens the pack when this
	// node is gone needs it, and most of what it says is fixed.
	sealAfter = 10 * time.Second
	// slowAfter is when a round whose holders are slow gives its memory and its turn
	// to the next one, and goes on beside it.
	slowAfter = 30 * time.Second
	// stallAfter is how long a holder may take no bytes; hurriedStall the same, the
	// answer included, if somebody waits and others might stand in for it.
	stallAfter   = 20 * time.Second
	hurriedStall = 10 * time.Second
	// maxWaves is how often a round looks for others to stand in.
	maxWaves = 4
	// refusedFor is how long a holder is left alone about a shard that it dropped: what
	// it knows, a purge or a later generation, this node is about to learn.
	refusedFor = time.Hour
)

// flight is a round under way: packs whose stripes are encoded, and their shards on
// the way.
type flight struct {
	*Spread
	works []*job
	began time.Time
	// land gives the round's turn to the next one; it may be called twice.
	land func()
}

// fly brings the shards of a round to their holders, and writes and tells what came
// of it. Its error is that of rows: the store failed.
func (f *flight) fly(ctx context.Context) error {
	defer f.land()
	for _, w := range f.works {
		defer w.from.unload()
	}
	f.ask(ctx)
	for range maxWaves {
		to := map[string][]place{}
		now := time.Now()
		for _, w := range f.works {
			if w.broken == nil {
				needs := f.assign(w, now, to)
				f.mu.Lock()
				w.it.needs = needs
				f.mu.Unlock()
			}
		}
		if len(to) == 0 || ctx.Err() != nil {
			break
		}
		if err := f.send(ctx, to); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return f.commit(true)
}

// ask asks the nodes that shards are to go to whether they have them since an earlier
// attempt, whose end nobody heard of.
func (f *flight) ask(ctx context.Context) {
	to := map[string][]place{}
	now := time.Now()
	for _, w := range f.works {
		if !w.resumed {
			continue
		}
		for _, i := range w.lacks() {
			if owner, ok := w.state.Owner(w.of(), i); ok && owner.ID != f.o.Self && f.peers.usable(owner.ID, now) && !f.atSite(w, owner.Site) {
				to[owner.ID] = append(to[owner.ID], place{w, i})
			}
		}
	}
	var asking sync.WaitGroup
	answers := make(chan answer, len(to))
	for node, all := range to {
		inOrder(all)
		asking.Go(func() {
			entries := make([]held.Entry, len(all))
			for i, p := range all {
				entries[i] = p.entry()
			}
			limited, cancel := context.WithTimeout(ctx, stallAfter)
			defer cancel()
			landed, err := f.o.Holders.Receipts(limited, node, entries)
			answers <- answer{node: node, of: all, landed: landed, err: err}
		})
	}
	asking.Wait()
	close(answers)
	for a := range answers {
		f.take(ctx, a, false)
	}
}

func (f *flight) atSite(w *job, site string) bool {
	return slices.ContainsFunc(w.at, func(node string) bool { return node != "" && siteOf(w.state, node) == site })
}

func (p place) entry() held.Entry {
	return held.Entry{Name: held.Name{Stripe: p.w.of(), Index: p.index}, Root: p.w.head.Root()}
}

// inOrder sorts shards as uploads have them.
func inOrder(all []place) {
	slices.SortFunc(all, func(a, b place) int {
		x, y := a.w.of(), b.w.of()
		return bytes.Compare(append(x.Pack[:], byte(a.index)), append(y.Pack[:], byte(b.index)))
	})
}

// answer is what came of asking or sending.
type answer struct {
	node   string
	of     []place
	landed *held.Landed
	err    error
	own    bool // the error is this node's
}

// send sends shards to nodes, to all at the same time, and returns when all have
// answered or failed. The network learns of what is there when that takes long.
func (f *flight) send(ctx context.Context, to map[string][]place) error {
	answers := make(chan answer, len(to))
	var sending sync.WaitGroup
	defer sending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for node, all := range to {
		inOrder(all)
		sending.Go(func() { answers <- f.upload(ctx, node, all) })
	}
	tick := time.NewTicker(sealAfter)
	defer tick.Stop()
	for left := len(to); left > 0; {
		select {
		case a := <-answers:
			left--
			f.take(ctx, a, true)
		case <-tick.C:
			if err := f.commit(false); err != nil {
				return err
			}
			if time.Since(f.began) >= slowAfter {
				for _, w := range f.works {
					w.from.unload()
				}
				f.land()
			}
		}
	}
	return nil
}

// upload sends shards to one node.
func (f *flight) upload(ctx context.Context, node string, all []place) answer {
	a := answer{node: node, of: all}
	done, err := f.peers.turn(ctx, node)
	if err != nil {
		a.err = err
		return a
	}
	defer done()
	hurried := slices.ContainsFunc(all, func(p place) bool { return p.w.it.hurried.Load() })
	stall := &stalled{patience: stallAfter, last: hurried}
	if hurried {
		stall.patience = hurriedStall
	}
	ctx, cancel := stall.watch(ctx)
	defer cancel()
	offers := make([]held.Offer, len(all))
	own := make([]error, len(all))
	for i, p := range all {
		length, err := p.w.head.Length(p.index)
		if err != nil {
			own[i] = err
			continue
		}
		offers[i] = held.Offer{Claim: held.Claim{Entry: p.entry(), Bytes: length}, Write: func(ctx context.Context, to io.Writer) error {
			out := &outlet{to: to, stall: stall}
			err := f.write(ctx, p, out)
			if err != nil && out.failed == nil && ctx.Err() == nil {
				own[i] = err
			}
			if i == len(all)-1 && err == nil {
				stall.wrote()
			}
			return err
		}}
	}
	if a.err = errors.Join(own...); a.err == nil {
		a.landed, a.err = f.o.Holders.Upload(ctx, node, offers)
	}
	for i, err := range own {
		if err != nil {
			a.own = true
			f.brokenBy(all[i].w, err)
		}
	}
	if a.err == nil {
		for i, o := range a.landed.Outcomes {
			if o == held.Stored {
				f.stats.Bytes.Add(uint64(offers[i].Bytes))
			}
		}
	}
	return a
}

// brokenBy notes that this node cannot give a pack's shards.
func (f *flight) brokenBy(w *job, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.broken = err
}

// write writes a shard as it rests and travels, of the ciphertext: a column as it is,
// parity computed once more, either compared with the head.
func (f *flight) write(ctx context.Context, p place, to io.Writer) error {
	from := &paced{ReaderAt: p.w.from, ctx: ctx, yield: f.yielding(p.w.it.hurried.Load())}
	head := p.w.head
	g, err := head.Geometry()
	if err != nil {
		return err
	}
	var body io.ReaderAt
	if p.index < g.K || g.K == 1 {
		body, err = stripe.Column(from, head, p.index)
	} else {
		columns := map[int]io.ReaderAt{}
		for i := range g.K {
			offset, length := g.Column(i)
			columns[i] = io.NewSectionReader(from, offset, length)
		}
		body, err = f.coder.Body(g, p.index, columns)
	}
	if err != nil {
		return err
	}
	offset, length := head.TailRange()
	return stripe.Rebuild(ctx, to, head, p.index, body, io.NewSectionReader(from, offset, length))
}

// take notes what an answer says. sent: of shards that were sent, not only asked for.
func (f *flight) take(ctx context.Context, a answer, sent bool) {
	switch {
	case a.err == nil:
		if f.peers.there(a.node) {
			f.mu.Lock()
			f.queue.back(a.node, time.Now())
			f.mu.Unlock()
		}
	case ctx.Err() != nil && !a.own || errors.Is(a.err, errTurn):
		return
	default:
		f.stats.Failed.Add(1)
		f.o.Log.Info("shards did not get to a node", "node", a.node, "shards", len(a.of), "error", a.err, "kind", fault.KindOf(a.err).String())
		if !a.own {
			f.peers.failed(a.node, time.Now())
		}
		return
	}
	for i, p := range a.of {
		o := a.landed.Outcomes[i]
		switch {
		case o.Here() && a.landed.Receipt != nil && a.landed.Receipt.Covers(p.entry()):
			p.w.gets(p.index, a.node)
			f.stats.Shards.Add(1)
		case o == held.Conflict:
			// Shards of two stripes under one name make no pack.
			f.o.Log.Warn("a node holds another shard under a name; the next generation follows", "node", a.node, "shard", p.entry().Name.String())
			f.mu.Lock()
			p.w.it.taken = max(p.w.it.taken, p.w.of().Generation)
			f.mu.Unlock()
			f.brokenBy(p.w, errTaken)
		case o == held.Refused && sent:
			f.o.Log.Warn("a node has given a shard up for good, and does not take it again", "node", a.node, "shard", p.entry().Name.String())
			f.brokenBy(p.w, errRefused)
		}
	}
}

var (
	errTaken   = fault.New(fault.Conflict, "spread: another stripe has the name")
	errRefused = fault.New(fault.Conflict, "spread: a holder refuses the shard")
)

// commit makes durable what holders have given receipts for, and has the network learn
// of it: of a new stripe at once, of later news when it is complete, or with others.
func (f *flight) commit(last bool) error {
	var of []shard.Stripe
	var works []*job
	for _, w := range f.works {
		if w.encoded() && !errors.Is(w.broken, errTaken) {
			of, works = append(of, w.of()), append(works, w)
		}
	}
	now := time.Now()
	news := false
	told, err := f.ledger.change(of, func(i int, r *record) (*record, verdict, error) {
		r, v, err := f.decide(works[i], r, now)
		news = news || v != leave
		return r, v, err
	})
	if err != nil {
		return err
	}
	if told {
		f.o.Offer()
	}
	if last {
		f.finish(now)
	}
	if news {
		f.notify()
	}
	return nil
}

// decide makes the row of a stripe.
func (f *flight) decide(w *job, r *record, now time.Time) (*record, verdict, error) {
	var before *catalog.SealFact
	quiet := leave
	if r != nil {
		if r.seal.Root != w.head.Root() || r.seal.Code != w.head.Code {
			return r, leave, nil // told by another part of this node, of another root
		}
		if r.head == nil {
			// Another part of this node has told of the stripe before this one had encoded
			// it (again): its row goes on from there, and what was read in the catalogue
			// before is older.
			r.head, r.at = w.head, holdersOf(w.state, &r.seal, w.at)
			w.read, quiet = nil, note
		}
		before = &r.seal
		w.merge(r)
	}
	next := w.seal(f.o.Self, before)
	if before != nil {
		switch {
		case same(&next, before) && r.number > 0 && r.told == before.Revision:
			return r, quiet, nil
		case !same(&next, before):
			next.Revision++
		}
	} else {
		r = &record{head: w.head}
		if w.read != nil {
			next.Revision++
		}
	}
	known := r.number > 0
	if w.read != nil && same(&next, w.read) { // it is as it is committed
		next.Revision, r.told = w.read.Revision, w.read.Revision
		r.seal, r.at = next, slices.Clone(w.at)
		return r, note, nil
	}
	r.seal, r.at = next, slices.Clone(w.at)
	if known && len(w.lacks()) > 0 && before.Withdrawn == next.Withdrawn && !w.it.hurried.Load() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, waits := f.untold[w.of()]; !waits {
			f.untold[w.of()] = now
		}
		return r, note, nil
	}
	f.mu.Lock()
	delete(f.untold, w.of())
	f.mu.Unlock()
	return r, tell, nil
}

// merge takes in what another part of this node has told of the stripe since the round
// began.
func (w *job) merge(r *record) {
	for i, node := range r.holders(w.state) {
		if w.got == nil || !w.got[i] {
			w.at[i] = node
		}
	}
	if w.virtual == catalog.NoShard || w.got == nil || !w.got[w.virtual] {
		w.virtual = r.seal.Virtual
	}
}

// finish puts the items of a round back in line, or out of it.
func (f *flight) finish(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.works {
		it := w.it
		it.flying = false
		lacks := w.lacks()
		switch {
		case errors.Is(w.broken, errRefused):
			it.due, it.tries = now.Add(refusedFor), it.tries+1
		case errors.Is(w.broken, errTaken): // at once, but not without end
			it.due, it.tries = now.Add(retryAfter(it.tries)-minRetry), it.tries+1
		case w.broken != nil:
			f.o.Log.Error("a pack's shards cannot be made", "pack", it.id, "error", w.broken, "kind", fault.KindOf(w.broken).String())
			it.due, it.tries = now.Add(maxRetry), it.tries+1
		case len(lacks) == 0 && !it.again:
			f.stats.Packs.Add(1)
			delete(f.queue.items, it.id)
		case it.again:
			it.due = now
		default:
			it.survives, it.fresh = len(w.at)-len(lacks)-w.head.Code.K, false
			wait := retryAfter(it.tries)
			if it.hurried.Load() {
				wait = min(wait, hurriedRetry)
			}
			it.due, it.tried = now.Add(wait), now
			it.tries++
		}
		it.again = false
	}
}

const (
	minRetry = 5 * time.Second
	maxRetry = 10 * time.Minute
	// hurriedRetry is the most if somebody waits for it, and the least between two
	// tries, however often who waits asks.
	hurriedRetry = 5 * time.Second
)

// retryAfter is how long a pack that lacks shards waits to be looked at again.
func retryAfter(tries int) time.Duration { return min(maxRetry, minRetry<<min(tries, 10)) }
