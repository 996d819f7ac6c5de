package repair

import (
	"bufio"
	"context"
	"errors"
	"io"
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

// works brings one shard after the other until ctx ends.
func (r *Repair) works(ctx context.Context, progress *work.Progress) {
	for r.pace.enter(ctx) {
		it, class, ok := r.take(time.Now())
		if !ok {
			r.pace.leave()
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		r.wakeAll()
		err := r.bring(ctx, it)
		r.pace.leave()
		if ctx.Err() != nil {
			r.mu.Lock()
			delete(r.queue.running, it.Name) // the next run finds it again
			r.mu.Unlock()
			return
		}
		r.brought(it, class, err, progress)
	}
}

// take takes the next shard, unless workers wait for a walk: what cannot lose a shard
// more is not held.
func (r *Repair) take(now time.Time) (item, int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queue
	if now.Before(r.holdTill) && len(q.lists[urgent]) == 0 && len(q.lists[classOf(0)]) == 0 {
		return item{}, 0, false
	}
	for {
		it, class, ok := q.take()
		if ok && now.Before(r.fullTill) && it.bytes >= r.fullFrom {
			q.later(it, class, r.fullTill)
			continue
		}
		return it, class, ok
	}
}

// errUnwanted is that of a shard that need not be here, or is.
var errUnwanted = errors.New("repair: the shard need not be brought")

// bring has a shard land here: the ways of an attempt, each of which may be taken
// again after a crash, or beside another node that does the same.
func (r *Repair) bring(ctx context.Context, it item) error {
	p := r.plan()
	seal, ok, err := r.sealOf(it.Stripe)
	if err != nil {
		return err
	}
	if !ok || seal.Root != it.Root || !p.duty(seal, it.Index) {
		return errUnwanted
	}
	st, err := r.o.Held.Status(it.Name)
	switch {
	case err != nil && !fault.Is(err, fault.NotFound):
		return err
	case err == nil && st.State == held.Held && st.Root == it.Root:
		return nil
	case p.cut(seal, it.Index, r.has):
		return errUnwanted
	}
	from, err := r.find(p, seal, it.Index)
	if err == nil {
		err = from.findHead(ctx, it.Index)
	}
	if err != nil {
		return err
	}
	length, err := from.head.Length(it.Index)
	if err != nil {
		return err
	}
	if r.bug == bugTrustsSource {
		it.Root = from.head.Root()
	}
	if length > held.MaxSmall {
		done, err := r.large.take(ctx, length, func() float64 { return r.made.perSecond(time.Now()) })
		if err != nil {
			return err
		}
		defer done()
	}
	return r.land(ctx, from, held.Claim{Entry: it.Entry, Bytes: length})
}

// land rebuilds a shard into the store of this node, which verifies it again.
func (r *Repair) land(ctx context.Context, from *sources, claim held.Claim) error {
	ctx, cancel := context.WithCancel(ctx)
	in, out := io.Pipe()
	var made error
	var all sync.WaitGroup
	all.Go(func() {
		made = r.rebuild(ctx, out, from, claim.Index)
		out.CloseWithError(made) // never fails
	})
	landed, err := r.o.Held.Land(ctx, []held.Claim{claim}, in)
	cancel()
	in.CloseWithError(io.ErrClosedPipe) // never fails
	all.Wait()
	if err != nil {
		// Land tells of a sender that broke off; why, the sender knows.
		if made != nil && !errors.Is(made, io.ErrClosedPipe) && !errors.Is(made, context.Canceled) {
			return made
		}
		return err
	}
	switch o := landed.Outcomes[0]; o {
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
