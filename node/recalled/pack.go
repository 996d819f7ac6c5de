package recalled

import (
	"context"
	"errors"
	"slices"

	"pelago/cluster/fault"
	"pelago/node/far"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/recall"
	"pelago/shard/stripe"
)

// opened is a pack of which the head is known. It is never changed.
type opened struct {
	head     *stripe.Head
	root     [32]byte // of the stripe
	pack     *recall.Pack
	revision uint64 // of the seal that says where its shards are
	state    *placement.State
}

// openedSize is what one takes, about.
func openedSize(head *stripe.Head) int64 { return int64(2<<10 + 64*len(head.Roots)) }

// ReadPack fills b with a pack's ciphertext from off on, all or nothing, as far as the
// seals of the pack tell: fault.NotFound if it was never sealed, or is deleted,
// fault.Unavailable if too few of those answer who have shards, fault.Corrupt if too
// few have what they should. It implements [far.Shards].
func (c *Client) ReadPack(ctx context.Context, p *far.Pack, b []byte, off int64) error {
	seals, err := c.seals(p.ID)
	if err != nil {
		return err
	}
	if len(seals) == 0 {
		return fault.New(fault.NotFound, "recalled: the pack is not sealed")
	}
	var failed []error
	for _, s := range c.byChance(seals) {
		one, err := c.open(ctx, s)
		if err == nil && (one.head.Size != p.Bytes || one.head.Pack != p.Root) {
			err = fault.New(fault.Corrupt, "recalled: stripe %s is of another pack than its node told of", s.Stripe)
		}
		if err == nil {
			_, err = one.pack.ReadAt(ctx, b, off)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	return hopeful(failed)
}

// open returns the reader of a stripe, having its head from a shard that is here, from
// memory, or from any that has one.
func (c *Client) open(ctx context.Context, s *catalog.Seal) (*opened, error) {
	state := c.o.State()
	if one := c.known(s, state); one != nil {
		return one, nil
	}
	leave, err := c.take(ctx, s.Stripe.Pack)
	if err != nil {
		return nil, err
	}
	defer leave()
	if one := c.known(s, state); one != nil { // another has been quicker
		return one, nil
	}
	if one, ok := c.opened.Get(s.Stripe.Pack); ok && one.root == s.Root {
		return c.remember(s, one.head, state) // its shards are elsewhere by now
	}
	head := c.headHere(s)
	if head == nil {
		got, err := c.recall.Open(ctx, sealedBy(s, 0), state.Places(&s.SealFact))
		if err != nil {
			return nil, err
		}
		head = got.Head
	}
	return c.remember(s, head, state)
}

// known returns the reader of a stripe that is in use, if its shards are where it looks
// for them; nil if not.
func (c *Client) known(s *catalog.Seal, state *placement.State) *opened {
	one, ok := c.opened.Get(s.Stripe.Pack)
	if !ok || one.root != s.Root || one.revision != s.Revision || one.state != state {
		return nil
	}
	return one
}

// remember makes the reader of a stripe whose head was checked.
func (c *Client) remember(s *catalog.Seal, head *stripe.Head, state *placement.State) (*opened, error) {
	reader, err := c.recall.Pack(head, state.Places(&s.SealFact))
	if err != nil {
		return nil, err
	}
	one := &opened{head: head, root: s.Root, pack: reader, revision: s.Revision, state: state}
	c.opened.Put(s.Stripe.Pack, one, openedSize(head))
	return one, nil
}

// headHere returns the head of a stripe if a shard of it is here; nil: none is.
func (c *Client) headHere(s *catalog.Seal) *stripe.Head {
	if c.o.Local == nil {
		return nil
	}
	for _, p := range c.o.State().Places(&s.SealFact) {
		if p.Node != c.o.Node {
			continue
		}
		one, err := c.o.Local.Shard(held.Name{Stripe: s.Stripe, Index: p.Index})
		if err == nil && one.Head().Root() == s.Root {
			return one.Head()
		}
	}
	return nil
}

// sealedBy is what a seal says, for shard/recall. tail: how long one is expected; 0:
// unknown.
func sealedBy(s *catalog.Seal, tail int64) recall.Sealed {
	return recall.Sealed{Stripe: s.Stripe, Code: s.Code, Root: s.Root, Tail: tail}
}

// hopeful joins errors of what is sealed under the kind of that which leaves most hope.
// What no node has now is not nothing: it may be on its way, or be repaired.
func hopeful(all []error) error {
	kind := fault.KindOf(slices.MaxFunc(all, func(a, b error) int { return hope(a) - hope(b) }))
	if kind == fault.NotFound {
		kind = fault.Unavailable
	}
	return fault.New(kind, "%w", errors.Join(all...))
}

// hope is how much an error leaves.
func hope(err error) int {
	return slices.Index([]fault.Kind{fault.NotFound, fault.Denied, fault.Corrupt, fault.Unsupported, fault.Unavailable, fault.Canceled}, fault.KindOf(err))
}
