package repair

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/shard/held"
	"pelago/shard/stripe"
)

// crew are goroutines that do the same.
type crew struct{ sync.WaitGroup }

func newCrew(n int, do func()) *crew {
	var c crew
	for range n {
		c.Go(do)
	}
	return &c
}

// wakeAll lets workers look for work; each wakes the next one.
func (r *Repair) wakeAll() { poke(r.wake) }

// works brings shards until ctx ends.
func (r *Repair) works(ctx context.Context, progress *work.Progress) {
	for r.pace.enter(ctx) {
		all := r.take(time.Now())
		if len(all) == 0 {
			r.pace.leave()
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		r.wakeAll()
		r.bring(ctx, all, progress)
		r.pace.leave()
	}
}

// duty is a shard that a worker has taken.
type duty struct {
	item
	class int
}

const (
	// besideBytes are brought beside others before they land, or besideShards, or what
	// came in besideTime: together, for each time that shards land costs a table, syncs,
	// and the merging of the table. Alone, shards that land at one moment are together
	// anyway. What was made and has not landed is made again after a crash.
	besideBytes  = 4 << 20
	besideShards = 64
	besideTime   = 3 * time.Second
)

// take takes what is next: a shard, or beside others small ones of one exposure that are
// to land together, but none of a stripe that can lose no more. While workers wait for
// a walk only what cannot lose a shard more is taken.
func (r *Repair) take(now time.Time) (all []duty) {
	most := 1
	if r.pace.beside() {
		most = besideShards
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	q, holding, bytes := r.queue, now.Before(r.holdTill), int64(0)
	fits := func(it item, class int) bool {
		if len(all) == 0 {
			return !holding || class <= classOf(0)
		}
		return class == all[0].class && class > classOf(0) && isSmall(all[0].item) && isSmall(it) && bytes+it.bytes <= besideBytes
	}
	for len(all) < most {
		it, class, ok := q.take(fits)
		switch {
		case !ok:
			return all
		case now.Before(r.fullTill) && it.bytes >= r.fullFrom:
			q.later(it, class, r.fullTill)
		default:
			all, bytes = append(all, duty{it, class}), bytes+it.bytes
		}
	}
	return all
}

func isSmall(it item) bool { return it.bytes <= held.MaxSmall }

// errUnwanted is that of a shard that need not be here, or is.
var errUnwanted = errors.New("repair: the shard need not be brought")

// bring has shards land here: each as it is made, or several when all are, or after
// besideTime. Every step may be taken again after a crash, or beside another node that
// does the same.
func (r *Repair) bring(ctx context.Context, all []duty, progress *work.Progress) {
	var together []rebuilt
	land := func() {
		for i, err := range r.landTogether(ctx, together) {
			r.ended(ctx, together[i].duty, err, progress)
		}
		together = nil
	}
	began := time.Now()
	for _, d := range all {
		from, claim, err := r.from(ctx, d.item)
		waits := false
		switch {
		case err != nil || from == nil:
		case len(all) == 1 || claim.Bytes > held.MaxSmall:
			land() // a large one may have to wait
			err = r.land(ctx, from, claim)
		default:
			one := rebuilt{duty: d, claim: claim}
			if err = r.rebuild(ctx, &one.bytes, from, claim.Index); err == nil {
				together, waits = append(together, one), true
			}
		}
		if !waits {
			r.ended(ctx, d, err, progress)
		}
		if time.Since(began) > besideTime {
			land()
			began = time.Now()
		}
	}
	land()
}

// from finds where a shard can be made from, and what it is to be: nil if it is here.
func (r *Repair) from(ctx context.Context, it item) (*sources, held.Claim, error) {
	claim := held.Claim{Entry: it.Entry}
	p := r.plan()
	seal, ok, err := r.sealOf(it.Stripe)
	if err != nil {
		return nil, claim, err
	}
	if !ok || seal.Root != it.Root || !p.duty(seal, it.Index) {
		return nil, claim, errUnwanted
	}
	st, err := r.o.Held.Status(it.Name)
	switch {
	case err != nil && !fault.Is(err, fault.NotFound):
		return nil, claim, err
	case err == nil && st.State == held.Held && st.Root == it.Root:
		return nil, claim, nil
	case p.cut(seal, it.Index, r.has):
		return nil, claim, errUnwanted
	}
	from, err := r.find(p, seal, it.Index)
	if err == nil {
		err = from.findHead(ctx, it.Index)
	}
	if err == nil {
		claim.Bytes, err = from.head.Length(it.Index)
	}
	if r.bug == bugTrustsSource && err == nil {
		claim.Root = from.head.Root()
	}
	return from, claim, err
}

// land rebuilds a shard into the store of this node, which verifies it again.
func (r *Repair) land(ctx context.Context, from *sources, claim held.Claim) error {
	if claim.Bytes > held.MaxSmall {
		done, err := r.large.take(ctx, claim.Bytes, func() float64 { return r.made.perSecond(time.Now()) })
		if err != nil {
			return err
		}
		defer done()
	}
	ctx, cancel := context.WithCancel(ctx)
	in, out := io.Pipe()
	var failed error
	var all sync.WaitGroup
	all.Go(func() {
		failed = r.rebuild(ctx, out, from, claim.Index)
		out.CloseWithError(failed) // never fails
	})
	landed, err := r.o.Held.Land(ctx, []held.Claim{claim}, in)
	cancel()
	in.CloseWithError(io.ErrClosedPipe) // never fails
	all.Wait()
	if err != nil {
		// Land tells of a sender that broke off; why, the sender knows.
		if failed != nil && !errors.Is(failed, io.ErrClosedPipe) && !errors.Is(failed, context.Canceled) {
			return failed
		}
		return err
	}
	return r.landed(claim, landed.Outcomes[0])
}

// rebuilt is a shard that was made, and waits for others to land with.
type rebuilt struct {
	duty
	claim held.Claim
	bytes bytes.Buffer
}

// landTogether has small shards land at one time, or each by itself if they cannot:
// for all there may be no room. It sorts them, and returns an error for each.
func (r *Repair) landTogether(ctx context.Context, all []rebuilt) []error {
	slices.SortFunc(all, func(a, b rebuilt) int { return held.Compare(a.claim.Name, b.claim.Name) })
	failed := make([]error, len(all))
	some := func(from, to int) error {
		var claims []held.Claim
		var in []io.Reader
		for i := range all[from:to] {
			one := &all[from+i]
			claims, in = append(claims, one.claim), append(in, bytes.NewReader(one.bytes.Bytes()))
		}
		landed, err := r.o.Held.Land(ctx, claims, io.MultiReader(in...))
		if err != nil {
			return err
		}
		for i, o := range landed.Outcomes {
			failed[from+i] = r.landed(claims[i], o)
		}
		return nil
	}
	if len(all) == 0 {
		return nil
	}
	err := some(0, len(all))
	for i := range all {
		switch {
		case err == nil:
		case ctx.Err() != nil:
			failed[i] = err
		default:
			if alone := some(i, i+1); alone != nil {
				failed[i] = alone
			}
		}
	}
	return failed
}

// landed is what an outcome means here.
func (r *Repair) landed(claim held.Claim, o held.Outcome) error {
	switch o {
	case held.Stored:
		r.stats.Rebuilt.Add(1)
		r.stats.Bytes.Add(uint64(claim.Bytes))
		return nil
	case held.Known:
		return nil
	case held.Busy:
		return fault.New(fault.Unavailable, "repair: shard %v is being sent by another", claim.Name)
	default:
		return fault.New(fault.Conflict, "repair: shard %v cannot be here: %s", claim.Name, o)
	}
}

// ended ends a worker's duty.
func (r *Repair) ended(ctx context.Context, d duty, err error, progress *work.Progress) {
	if ctx.Err() != nil {
		r.mu.Lock()
		delete(r.queue.running, d.Name) // the next run finds it again
		r.mu.Unlock()
		return
	}
	r.brought(d.item, d.class, err, progress)
}

// rebuild writes a shard, compared with the stripe's root as it is written.
func (r *Repair) rebuild(ctx context.Context, to io.Writer, from *sources, want int) error {
	ctx, cancel := context.WithCancel(ctx)
	b := from.body(ctx, want)
	defer b.close()
	defer cancel()
	at, _ := from.head.TailRange()
	out := bufio.NewWriterSize(metered{to, &r.made}, 256<<10)
	if err := stripe.Rebuild(ctx, out, from.head, want, b, &tail{s: from, ctx: ctx, at: at}); err != nil {
		return err
	}
	return out.Flush()
}

// metered counts what is written.
type metered struct {
	to io.Writer
	of *meter
}

func (m metered) Write(p []byte) (int, error) {
	n, err := m.to.Write(p)
	m.of.add(int64(n), time.Now())
	return n, err
}

// brought notes how an attempt ended.
func (r *Repair) brought(it item, class int, err error, progress *work.Progress) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queue
	switch {
	case err == nil:
		q.done(it.Name)
		r.settle(it.bytes)
		r.fullTill = time.Time{}
		progress.Add(1)
		r.news.add(it.Name, false)
		poke(r.told)
		return
	case errors.Is(err, errUnwanted):
		q.done(it.Name)
		r.settle(it.bytes)
		return
	case fault.Is(err, fault.Full):
		// Smaller ones may find room; those of this length wait together.
		if now.After(r.fullTill) || it.bytes < r.fullFrom {
			r.fullFrom = it.bytes
		}
		r.fullTill = now.Add(fullPause)
		q.later(it, class, r.fullTill)
		progress.Note(err)
		return
	}
	hopeless := errors.Is(err, errHopeless) || fault.Is(err, fault.Conflict)
	tries := q.failed(it, class, now, hopeless)
	r.stats.Failed.Add(1)
	progress.Note(err)
	if tries == 1 {
		r.o.Log.Warn("a shard that is lacking here cannot be had yet", "shard", it.Name.String(), "error", err)
	}
	if tries > 1 || hopeless {
		// A receipt that this node gave does not stand for what it cannot have soon.
		r.news.add(it.Name, true)
		poke(r.told)
	}
}

// fullPause is how long shards for which there was no room wait.
const fullPause = 30 * time.Second

// settle counts a shard down that is not lacking any more. r.mu is held.
func (r *Repair) settle(bytes int64) {
	r.dirty = true
	r.lacking, r.lackingB = max(0, r.lacking-1), max(0, r.lackingB-bytes)
}
