package schedule

import (
	"context"
	"time"

	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
)

// evictable are a node's packs where they are evicted: none may go of which not every
// shard is where the committed seal says, each at a site of its own.
type evictable struct {
	*archive.Archive
	s *node
}

// Evict implements [evict.Packs].
func (e evictable) Evict(id pack.ID) (int64, error) {
	seals, err := e.s.seals(id)
	if err != nil || len(seals) != 1 {
		e.s.n.failf("pack %x is evicted with %d stripes (%v)", id[:2], len(seals), err)
		return e.Archive.Evict(id)
	}
	if f := seals[0]; f.Virtual != catalog.NoShard || f.Spare() != f.Code.M {
		e.s.n.failf("pack %x is evicted, and its seal has receipts %b and the virtual shard %d", id[:2], f.Receipts, f.Virtual)
	} else {
		e.proven(&f)
	}
	return e.Archive.Evict(id)
}

// promised checks that holders have what they gave receipts for: readers may get by
// without it, by what they have in memory.
func (l *life) promised(when string) {
	l.t.Helper()
	origin := l.nodes[0]
	err := origin.archive.EachPack(context.Background(), pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		seals, err := origin.seals(pack.ID(p.Id))
		for _, f := range seals {
			for i := range f.Code.N() {
				s := l.holder(&f, i)
				if f.Receipts&(1<<i) != 0 && i != f.Virtual && s != nil && !s.has(held.Name{Stripe: f.Stripe, Index: i}, f.Root) {
					l.failf("%s: shard %d of pack %x is not at %s, whose receipt is told", when, i, f.Stripe.Pack[:2], s.site)
				}
			}
		}
		return true, err
	})
	if err != nil && !l.restart() {
		l.failf("%s: packs: %v", when, err)
	}
}

// holder is where a shard is by its seal.
func (n *network) holder(f *catalog.Seal, shard int) *node {
	owner, _ := n.state.Owner(f.Stripe, shard)
	name := owner.ID
	for _, other := range f.Elsewhere {
		if other.Shard == shard {
			name = other.Node
		}
	}
	return n.ids[name]
}

// proven looks at what holders have. Those that lost power are looked at by readers, later.
func (e evictable) proven(f *catalog.Seal) {
	at := map[string]bool{}
	for i := range f.Code.N() {
		s := e.s.n.holder(f, i)
		if s == nil || at[s.site] {
			e.s.n.failf("shard %d of pack %x is at no site of its own when it is evicted", i, f.Stripe.Pack[:2])
			continue
		}
		at[s.site] = true
		if !s.has(held.Name{Stripe: f.Stripe, Index: i}, f.Root) {
			e.s.n.failf("shard %d of pack %x is not at %s when the copy is evicted", i, f.Stripe.Pack[:2], s.site)
		}
	}
}

// has reports whether a node has a shard, or cannot be asked.
func (s *node) has(name held.Name, root [32]byte) bool {
	s.serving.RLock()
	defer s.serving.RUnlock()
	store := s.held.Load()
	if s.n.away(s) || store == nil {
		return true
	}
	sh, err := store.Shard(name)
	return s.dead.Load() || err == nil && sh.Head().Root() == root
}

// spreadPacks are a node's packs, and what is told of them, where they are purged.
type spreadPacks struct {
	*archive.Archive
	s *node
}

// DropPurged implements [purge.Archive].
func (p spreadPacks) DropPurged(ctx context.Context, ids ...pack.ID) error {
	for _, id := range ids {
		p.s.purged("a pack", id)
	}
	if err := p.Archive.DropPurged(ctx, ids...); err != nil {
		return err
	}
	return p.s.spread.Purged(ids...)
}

// purged holds what every drop must: that the network has purged it, and the grace is over
// by time that has really passed.
func (s *node) purged(what string, id pack.ID) {
	if index, err := s.catalog.Purged(id); err != nil || index == 0 {
		s.n.failf("%s %x is dropped at %s, and was not purged (%v)", what, id[:2], s.site, err)
	}
	s.graceOver(what)
}

// A tombstone counts from where the network's clock stood, which is up to a tick behind.
const ticks = 5 * time.Second

func (s *node) graceOver(what string) {
	if at := s.n.deletedAt.Load(); at == nil || time.Since(*at) < grace-ticks {
		s.n.failf("%s is dropped at %s before the grace is over, after %v", what, s.site, time.Since(*at))
	}
}

// purgeable are held shards where they are purged.
type purgeable struct {
	*held.Store
	s *node
}

// Drop implements [purge.Held].
func (p purgeable) Drop(ctx context.Context, why held.Reason, names ...held.Name) (int, error) {
	for _, n := range names {
		p.s.purged("a shard of pack", pack.ID(n.Pack))
	}
	return p.Store.Drop(ctx, why, names...)
}

// ring is a ring of keys where they are forgotten: last of all.
type ring struct {
	*keys.Ring
	s *node
}

// ForgetKeys implements [purge.Ring].
func (r ring) ForgetKeys(ids ...[16]byte) error {
	for _, id := range ids {
		if gone, err := r.s.catalog.Forgotten(id); err != nil || !gone {
			r.s.n.failf("key %x is forgotten at %s, and was not given up (%v)", id[:2], r.s.site, err)
		}
		r.s.graceOver("a key")
		for _, other := range r.s.n.nodes {
			if name, ok := other.under(id); ok {
				r.s.n.failf("key %x is forgotten at %s while %s has shard %v under it", id[:2], r.s.site, other.site, name)
			}
		}
	}
	return r.Ring.ForgetKeys(ids...)
}

// under returns a shard that a node has under a key.
func (s *node) under(key [16]byte) (found held.Name, ok bool) {
	s.serving.RLock()
	defer s.serving.RUnlock()
	store := s.held.Load()
	if s.n.away(s) || store == nil {
		return found, false
	}
	err := store.List(0, 1<<64-1, nil, func(h held.Status) (bool, error) {
		if sh, err := store.Shard(h.Name); err == nil && sh.Head().Key == key {
			found, ok = h.Name, true
		}
		return !ok, nil
	})
	return found, ok && err == nil && !s.dead.Load()
}
