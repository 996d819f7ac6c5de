package recalled

import (
	"cmp"
	"slices"

	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// columns is how many shards of a stripe can be had now, as far as seals and gossip
// know: those for which there is a receipt, at a node that is thought to answer.
func (c *Client) columns(s *catalog.Seal) (n int) {
	reached := 0 // as bits
	for _, p := range c.o.State().Places(&s.SealFact) {
		if bit := 1 << p.Index; s.Receipts>>p.Index&1 == 1 && reached&bit == 0 && c.alive(p.Node) {
			reached |= bit
			n++
		}
	}
	return n
}

// readable reports whether a pack of some generations can be read from its shards now.
// Of k shards one has the tail: n − (m + 1) have not.
func (c *Client) readable(generations []catalog.Seal) bool {
	return slices.ContainsFunc(generations, func(s catalog.Seal) bool { return c.columns(&s) >= s.Code.K })
}

// byChance orders the generations of a pack by how likely it is that they can be read:
// the latest of those that can, then the others by what they lack.
func (c *Client) byChance(generations []catalog.Seal) []*catalog.Seal {
	type rated struct {
		seal *catalog.Seal
		lack int
	}
	all := make([]rated, len(generations))
	for i := range generations {
		s := &generations[i]
		all[i] = rated{s, max(0, s.Code.K-c.columns(s))}
	}
	slices.SortStableFunc(all, func(a, b rated) int { return cmp.Compare(a.lack, b.lack) })
	ordered := make([]*catalog.Seal, len(all))
	for i := range all {
		ordered[i] = all[i].seal
	}
	return ordered
}

// generations yields the seals of each pack of an origin, the latest first, of seals
// as [catalog.View.Seals] returns them.
func generations(seals []catalog.Seal, origin string) (packs [][]catalog.Seal) {
	for len(seals) > 0 {
		n := 1
		for n < len(seals) && seals[n].Stripe.Pack == seals[0].Stripe.Pack {
			n++
		}
		if seals[0].Origin == origin {
			packs = append(packs, seals[:n])
		}
		seals = seals[n:]
	}
	return packs
}

// Reachable reports whether what a node holds of a series can be read from shards now.
// It is a hint, and costs no message: the packs that are sealed must be as many
// instances as the node has, and of each as many shards be at nodes that are thought
// to answer as make it.
func (c *Client) Reachable(h *catalog.Holder) bool {
	var seals []catalog.Seal
	err := c.look(func(v *catalog.View) (err error) {
		seals, err = v.Seals(h.Study, h.Series)
		return err
	})
	if err != nil {
		c.log.Warn("seals were not looked up", "series", h.Series, "error", err)
		return false
	}
	sealed := uint64(0)
	for _, one := range generations(seals, h.Node) {
		if !c.readable(one) {
			return false
		}
		sealed += one[0].Instances
	}
	return sealed > 0 && sealed >= h.Instances
}

// Has reports whether a pack can be read from its shards now: a hint.
func (c *Client) Has(id pack.ID) bool {
	seals, err := c.seals(id)
	return err == nil && c.readable(seals)
}
