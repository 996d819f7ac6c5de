package repair

import (
	"context"
	"fmt"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/shard/held"
)

const (
	// maxNews bounds the shards of which the network is to be told; a walk finds those
	// again that find no room.
	maxNews = 65536
	// tellEvery gathers what is told together; tellBatch bounds what is looked at each
	// time.
	tellEvery = time.Second
	tellBatch = 1024
	// toldTime is how long news may take to be committed before it is told again.
	toldTime = 2 * time.Minute
)

// news are shards of which the catalogue says otherwise than this node knows. What it
// should say is worked out when it is told, from what is read then, and again until
// the catalogue says it: of two nodes that tell of one stripe, the second reads what
// the first has told, and goes on from there (decision 0040).
type news struct {
	mu    sync.Mutex
	of    map[held.Name]*one
	order []held.Name // in which they are looked at
}

// one is a shard of which there is news.
type one struct {
	withdraw bool      // it cannot be had soon: a receipt for it does not stand
	revision uint64    // that was told last
	at       time.Time // when; zero: never
}

func (n *news) init() { n.of = map[held.Name]*one{} }

// add has a shard looked at.
func (n *news) add(name held.Name, withdraw bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.of[name]; known != nil {
		known.withdraw = withdraw
		return
	}
	if len(n.of) >= maxNews {
		return
	}
	n.of[name] = &one{withdraw: withdraw}
	n.order = append(n.order, name)
}

// next takes shards to look at, which put or drop must be called with.
func (n *news) next() (names []held.Name, all []one) {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := min(tellBatch, len(n.order))
	names = n.order[:count:count]
	n.order = n.order[count:]
	for _, name := range names {
		all = append(all, *n.of[name])
	}
	return names, all
}

// put has a shard looked at again, unless it was added anew with another word.
func (n *news) put(name held.Name, o one) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o.withdraw = n.of[name].withdraw
	n.of[name] = &o
	n.order = append(n.order, name)
}

// drop forgets a shard that the catalogue is right about, as it was asked for.
func (n *news) drop(name held.Name, o one) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := n.of[name]; now.withdraw != o.withdraw {
		n.order = append(n.order, name)
		return
	}
	delete(n.of, name)
}

func (n *news) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.of)
}

// tellNews tells the network what it does not know, or not any more.
func (r *Repair) tellNews(ctx context.Context, progress *work.Progress) error {
	for {
		if r.news.len() == 0 {
			select {
			case <-r.told:
			case <-ctx.Done():
				return nil
			}
		}
		timer := time.NewTimer(tellEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if err := r.tellBatch(time.Now(), progress); err != nil {
			return err
		}
	}
}

func (r *Repair) tellBatch(now time.Time, progress *work.Progress) error {
	p := r.plan()
	names, all := r.news.next()
	var failed error
	for i, name := range names {
		next, settled, err := r.tellOne(p, name, all[i], now)
		if err != nil && failed == nil {
			failed = fmt.Errorf("repair: news of %v: %w", name, err)
		}
		if settled {
			r.news.drop(name, all[i])
		} else {
			r.news.put(name, next)
		}
	}
	progress.Note(failed)
	return failed
}

// tellOne tells of a shard. settled: there is nothing to tell of it, or nobody to ask.
func (r *Repair) tellOne(p *plan, name held.Name, o one, now time.Time) (next one, settled bool, err error) {
	seal, ok, err := r.sealOf(name.Stripe)
	if err != nil || !ok || name.Index >= seal.Code.N() {
		return o, err == nil, err
	}
	st, err := r.o.Held.Status(name)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return o, false, err
	}
	fact := p.landed(seal, name.Index)
	if err != nil || st.State != held.Held || st.Root != seal.Root {
		if fact = nil; o.withdraw && !p.cut(seal, name.Index, r.has) {
			fact = p.gone(seal, name.Index)
		}
	}
	switch {
	case fact == nil:
		return o, true, nil
	case !o.at.IsZero() && seal.Revision < o.revision && now.Sub(o.at) < toldTime:
		return o, false, nil // on its way
	}
	if err := r.o.Tell(fact); fault.Is(err, fault.Conflict) {
		return o, false, nil // this node has told otherwise, which is on its way
	} else if err != nil {
		return o, false, err
	}
	r.stats.Told.Add(1)
	if fact.Receipts>>name.Index&1 == 0 {
		r.stats.Withdrew.Add(1)
	}
	return one{withdraw: o.withdraw, revision: fact.Revision, at: now}, false, nil
}
