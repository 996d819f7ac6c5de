package evict

import (
	"context"
	"io"
	"math/bits"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// asked is what a pack's eviction goes by.
type asked struct {
	id    pack.ID
	state *placement.State
	seal  catalog.SealFact
	head  *stripe.Head
	at    []string // nodes, by shard
	began time.Time
}

// Pack goes on with the eviction of a pack, whatever the rule says: it returns how many bytes it freed, 0 while
// the network has yet to learn of the shard that stands for the copy. An error says
// why the pack may not go now; nothing was given up then.
func (e *Evict) Pack(ctx context.Context, id pack.ID) (freed int64, err error) {
	a, err := e.check(id)
	if err != nil {
		return 0, err
	}
	if a.seal.Virtual != catalog.NoShard {
		if err := e.prove(ctx, a, a.seal.Virtual); err != nil {
			return 0, err
		}
		if err := e.write(ctx, a); err != nil {
			return 0, err
		}
		return 0, e.tell(a)
	}
	if err := e.prove(ctx, a, catalog.NoShard); err != nil {
		return 0, err
	}
	if err := e.o.Survives(ctx, id); err != nil {
		return 0, err
	}
	now, err := e.check(id)
	if err != nil {
		return 0, err
	}
	if now.state != a.state || now.seal.Stripe != a.seal.Stripe || now.seal.Revision != a.seal.Revision || now.seal.Virtual != catalog.NoShard {
		return 0, fault.New(fault.Unavailable, "evict: the seal or the layout changed meanwhile")
	}
	if time.Since(a.began) > e.o.Fresh {
		return 0, fault.New(fault.Unavailable, "evict: the proofs are too old")
	}
	return e.o.Packs.Evict(id)
}

// check reads what is committed of a pack, and reports whether all its shards should be
// where they belong, each at a site of its own.
func (e *Evict) check(id pack.ID) (*asked, error) {
	a := &asked{id: id, state: e.o.Placement(), began: time.Now()}
	seals, err := e.o.Seals(id)
	if err != nil {
		return nil, err
	}
	if len(seals) != 1 {
		return nil, fault.New(fault.Unavailable, "evict: %d stripes of the pack stand, not one", len(seals))
	}
	a.seal = seals[0].SealFact
	s, st := &a.seal, a.state
	n := s.Code.N()
	switch {
	case seals[0].Deleted:
		return nil, fault.New(fault.Unavailable, "evict: the pack is deleted: it is about to go altogether")
	case !st.Striped() || st.View.Old != nil || s.Layout > st.View.New.Version:
		// A seal of an earlier layout stands for those after it: no stripe is told anew
		// because of a change that is complete. Where its shards are by now, is proved.
		return nil, fault.New(fault.Unavailable, "evict: the shards are not placed by the present layout, or it is changing")
	case s.Origin != e.o.Self:
		return nil, fault.New(fault.Invalid, "evict: the pack is of another node")
	case s.Code != st.Code.For(s.Size) || s.Code.M < st.Survives:
		return nil, fault.New(fault.Unavailable, "evict: the pack is of another code than the network's")
	case bits.OnesCount16(s.Receipts) != n || int(s.Receipts) != 1<<n-1:
		return nil, fault.New(fault.Unavailable, "evict: %d of %d shards have receipts", bits.OnesCount16(s.Receipts), n)
	}
	if a.head, err = e.o.Spread.Head(s.Stripe); err != nil {
		return nil, err
	}
	if a.head.Root() != s.Root || a.head.Code != s.Code {
		return nil, fault.New(fault.Corrupt, "evict: the head of %v is not the one that is sealed", s.Stripe)
	}
	return a, e.places(a)
}

// places works out who holds each shard. That of the copy is to be at its owner, which
// is at this site.
func (e *Evict) places(a *asked) error {
	sites := map[string]bool{}
	for i := range a.seal.Code.N() {
		owner, ok := a.state.Owner(a.seal.Stripe, i)
		if !ok {
			return fault.New(fault.Unavailable, "evict: the row has no place for shard %d", i)
		}
		node := owner.ID
		for _, elsewhere := range a.seal.Elsewhere {
			if elsewhere.Shard == i && i != a.seal.Virtual {
				node = elsewhere.Node
			}
		}
		site, counts := e.o.Site(node)
		if site == "" || sites[site] || !counts {
			return fault.New(fault.Unavailable, "evict: shard %d is at no site of its own that is there", i)
		}
		if here, _ := e.o.Site(e.o.Self); i == a.seal.Virtual && site != here {
			return fault.New(fault.Unavailable, "evict: the shard of the copy belongs to another site")
		}
		sites[site] = true
		a.at = append(a.at, node)
	}
	return nil
}

// prove has every shard but one proved by who holds it, now.
func (e *Evict) prove(ctx context.Context, a *asked, but int) error {
	for i, node := range a.at {
		if i == but {
			continue
		}
		name := held.Name{Stripe: a.seal.Stripe, Index: i}
		err := e.proveOne(ctx, a, i, node)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Corrupt) {
			e.o.Doubt(name, node)
		}
		if err != nil {
			return fault.New(fault.KindOf(err), "evict: shard %v at node %s: %w", name, node, err)
		}
	}
	return nil
}

func (e *Evict) proveOne(ctx context.Context, a *asked, i int, node string) error {
	if node != e.o.Self {
		errs, err := e.o.Holders.Prove(ctx, node, []held.Audit{{Head: a.head, Index: i}})
		if err == nil {
			err = errs[0]
		}
		return err
	}
	// At rest, not cut from the copy: and all of it, it is near.
	sh, err := e.o.Own.Shard(held.Name{Stripe: a.seal.Stripe, Index: i})
	if err != nil {
		return err
	}
	if sh.Head().Root() != a.seal.Root {
		return fault.New(fault.Corrupt, "evict: it is of another stripe")
	}
	g, err := a.head.Geometry()
	if err != nil {
		return err
	}
	const run = 256
	leaves := (g.ShardBytes(i) + shard.LeafBytes - 1) / shard.LeafBytes
	for at := int64(0); at < leaves; at += run {
		if err := ctx.Err(); err != nil {
			return fault.New(fault.Canceled, "evict: %w", err)
		}
		if _, _, err := sh.Range(at, min(run, leaves-at)); err != nil {
			return err
		}
	}
	return nil
}

// write writes the shard that was cut from the copy where it belongs, and returns once
// its holder has given a receipt.
func (e *Evict) write(ctx context.Context, a *asked) error {
	i := a.seal.Virtual
	name := held.Name{Stripe: a.seal.Stripe, Index: i}
	cut, err := e.o.Copies.Cut(ctx, name)
	if err != nil {
		return err
	}
	length, err := a.head.Length(i)
	if err != nil {
		return err
	}
	claim := held.Claim{Entry: held.Entry{Name: name, Root: a.seal.Root}, Bytes: length}
	var landed *held.Landed
	if a.at[i] == e.o.Self {
		landed, err = e.land(ctx, claim, cut)
	} else {
		landed, err = e.o.Holders.Upload(ctx, a.at[i], []held.Offer{{Claim: claim, Write: cut.Write}})
	}
	if err != nil {
		return err
	}
	if len(landed.Outcomes) != 1 || !landed.Outcomes[0].Here() || landed.Receipt == nil || landed.Receipt.Holder != a.at[i] || !landed.Receipt.Covers(claim.Entry) {
		return fault.New(fault.Unavailable, "evict: node %s has not taken shard %v", a.at[i], name)
	}
	e.stats.Written.Add(1)
	return nil
}

// land writes a shard here.
func (e *Evict) land(ctx context.Context, claim held.Claim, cut *stripe.Shard) (*held.Landed, error) {
	from, to := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := cut.Write(ctx, to)
		written <- err
		to.CloseWithError(err) //nolint:errcheck // it never fails
	}()
	landed, err := e.o.Own.Land(ctx, []held.Claim{claim}, from)
	from.CloseWithError(io.ErrClosedPipe) //nolint:errcheck // who writes on ends
	if wrote := <-written; wrote != nil && err != nil && !fault.Is(wrote, fault.Other) {
		return nil, wrote // it says why
	}
	return landed, err
}

// tell has the network learn that no shard is cut from the copy any more.
func (e *Evict) tell(a *asked) error {
	f := a.seal
	f.By, f.Base, f.Revision, f.Virtual = e.o.Self, a.seal.Revision, a.seal.Revision+1, catalog.NoShard
	f.Layout = a.state.View.New.Version // by which they were proved to be there
	return e.o.Spread.Tell(&f)
}
