package protect

import (
	"context"
	"math/bits"
	"time"

	"pelago/cluster/pause"
	"pelago/node/work"
	"pelago/replication/catalog"
)

const (
	// countPage is how many studies are counted in one go: some milliseconds, behind
	// which readers wait. The catalogue, too, holds on to what it has dropped for as long
	// as somebody looks.
	countPage = 128
	// After a page nobody counts for countPauses times as long as it took, beside others
	// for countBeside times: that is a twentieth of a processor, and a hundredth. Counts
	// begin countEvery one after the other at the soonest.
	countPauses = 20
	countBeside = 100
	countRest   = 5 * time.Second // at most, on a slow disk
	countEvery  = time.Second
)

// count is how many studies are protected.
type count struct {
	studies uint64
	at      time.Time // when it was begun; zero: never to the end
}

// Studies is how many studies are protected: all of whose instances, at each node that
// stores any, are in packs that have receipts to survive what the network promises.
// It is of a moment shortly ago (in a large catalogue: minutes, or longer where others use
// this node); false before the
// first count has ended.
func (p *Protect) Studies() (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count.studies, !p.count.at.IsZero()
}

// runCounting counts whenever something has changed, at leisure.
func (p *Protect) runCounting(ctx context.Context, progress *work.Progress) error {
	for ctx.Err() == nil {
		changed, placed := p.o.Catalog.Changed(), p.o.Placement.Changed()
		began := time.Now()
		n, err := p.countStudies(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was cut short
		}
		progress.Note(err)
		if err == nil {
			p.mu.Lock()
			p.count = count{n, began}
			p.mu.Unlock()
		}
		if !pause.For(ctx, countEvery) {
			return nil
		}
		waitFor(ctx, time.Hour, changed, placed)
	}
	return nil
}

func (p *Protect) countStudies(ctx context.Context) (n uint64, err error) {
	st := p.o.Placement.State()
	var next catalog.Order
	for more := true; more && err == nil; {
		if !st.Striped() {
			return 0, nil // they are where they arrived, and nowhere else
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		var some uint64
		began := time.Now()
		some, next, more, err = p.countSome(next, max(st.Survives, 0))
		n += some
		rest := countPauses * time.Since(began)
		if p.o.Busy() {
			rest = countBeside * time.Since(began)
		}
		if more && !pause.For(ctx, min(rest, countRest)) {
			return 0, context.Cause(ctx)
		}
		if now := p.o.Placement.State(); now.Survives != st.Survives || now.Striped() != st.Striped() {
			st, n, next, more = now, 0, catalog.Order{}, true // from the beginning
		}
	}
	return n, err
}

// countSome counts a page of the studies from an order on.
func (p *Protect) countSome(from catalog.Order, t int) (n uint64, next catalog.Order, more bool, err error) {
	v := p.o.Catalog.View()
	defer v.Close()
	all, err := v.All()
	if err != nil {
		return 0, next, false, err
	}
	next = from
	for range countPage {
		at, ok, err := all.SeekGE(next)
		if err != nil || !ok {
			return n, next, false, err
		}
		next = at.Next()
		row, ok, err := v.Study(at)
		if err != nil {
			return n, next, false, err
		}
		if !ok {
			continue
		}
		if good, err := protectedStudy(v, row.UID(), t); err != nil {
			return n, next, false, err
		} else if good {
			n++
		}
		if next == at { // the last there can be
			return n, next, false, nil
		}
	}
	return n, next, true, nil
}

// protectedStudy reports whether all of a study is in packs that have receipts for the
// loss of so many sites. How much a node has not sealed yet, the catalogue tells by
// numbers: what is quarantined is in packs and not among the instances, so of a series
// with such ones a late arrival may be taken for sealed until it is.
func protectedStudy(v *catalog.View, uid string, t int) (bool, error) {
	holders, err := v.Holders(uid, "")
	if err != nil || len(holders) == 0 {
		return false, err
	}
	seals, err := v.Seals(uid, "")
	if err != nil {
		return false, err
	}
	in, good := sealedIn(seals, t)
	if !good {
		return false, nil
	}
	for _, h := range holders {
		if in[ofSeries{h.Node, h.Series}] < h.Instances {
			return false, nil
		}
	}
	return true, nil
}

// ofSeries is what a node stores of a series.
type ofSeries struct{ node, series string }

// sealedIn counts the instances in packs, by who packed them, and tells whether each
// pack has a stripe with receipts for the loss of so many sites.
func sealedIn(seals []catalog.Seal, t int) (in map[ofSeries]uint64, good bool) {
	in, good = map[ofSeries]uint64{}, true
	for i := 0; i < len(seals); {
		one := &seals[i]
		in[ofSeries{one.Origin, one.Series}] += one.Instances
		survives := false
		for ; i < len(seals) && seals[i].Stripe.Pack == one.Stripe.Pack; i++ {
			s := &seals[i]
			survives = survives || s.Code.M >= t && bits.OnesCount16(s.Receipts) >= s.Code.K+t
		}
		good = good && survives
	}
	return in, good
}
