package reach

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// Shards reads what a node stores from the shards of its packs, while the node is
// silent; *recalled.Client is one. [far.Options.Packs] are the same packs.
type Shards interface {
	// Series returns what a node holds of a series. The error says why it is not what the
	// catalogue knows of, with what could be read of it: nil if that is nothing.
	Series(ctx context.Context, h *catalog.Holder) (*far.Manifest, error)
	// Reachable and Has report whether what a node holds of a series, or a pack, can be
	// read now: hints, without a message.
	Reachable(h *catalog.Holder) bool
	Has(id pack.ID) bool
}

// silentAfter is how long a node that is believed to answer has to, before the shards
// of its packs are asked beside it.
const silentAfter = time.Second

// silentFor is how long a node is waited for that may tell what is known already.
const silentFor = 3 * time.Second

// away reports whether a node is believed not to answer, or has just not.
func (r *Reader) away(node string) bool {
	_, bad := r.contact.ask(node)
	return bad || !r.o.Nodes.Alive(node)
}

// manifestOr is a manifest, or why there is none, or not all of one.
type manifestOr struct {
	k   *known
	err error
}

// tell gets a manifest from its node and, if that is silent, from the shards of its
// packs: from these first if it is known to be; old is what was at hand. A node that
// answers is believed, but for one that has nothing of a series that it announced: it
// may have lost it. Of one that has not a single instance see [Reader.doubt]. With an
// error, it may be part of what is wanted.
func (r *Reader) tell(ctx context.Context, h *catalog.Holder, w wanted, old *known) (*known, error) {
	name := seriesAt{h.Study, h.Series, h.Node}
	if r.o.Shards == nil {
		return r.fetch(ctx, name, h.Node, w, *h, old)
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	node, shards := make(chan manifestOr, 1), make(chan manifestOr, 1)
	begun := map[chan manifestOr]bool{}
	begin := func(from chan manifestOr) {
		if begun[from] {
			return
		}
		begun[from] = true
		asking.Go(func() {
			var m manifestOr
			if from == node {
				m.k, m.err = r.fetch(ctx, name, h.Node, w, *h, old)
			} else {
				m.k, m.err = r.fromShards(ctx, h, w)
			}
			from <- m
		})
	}
	patience := time.NewTimer(silentAfter)
	defer patience.Stop()
	if r.away(h.Node) {
		begin(shards)
	} else {
		begin(node)
	}
	var some *known
	var failed [2]error // the node's in front
	for failed[0] == nil || failed[1] == nil {
		select {
		case m := <-node:
			lost := w.sop == "" && fault.Is(m.err, fault.NotFound)
			if m.err == nil || answered(m.err) && !lost || ctx.Err() != nil {
				return more(some, m.k), m.err
			}
			failed[0], some = m.err, more(some, m.k)
		case m := <-shards:
			if m.err == nil || ctx.Err() != nil {
				return more(some, m.k), m.err
			}
			failed[1], some = m.err, more(some, m.k)
		case <-patience.C:
		}
		begin(shards)
		if failed[1] != nil {
			begin(node)
		}
	}
	return some, errors.Join(failed[0], failed[1])
}

// doubt looks for an instance that a node which answers says it has not, in all that
// the node announced of the series: it may have lost its rows, or have been put back
// from an earlier copy, and the shards of its packs have what it knew. It costs the
// manifest of the series, once. whole: what is known now is all that the catalogue says
// that the node has. fault.NotFound if it is not there; any other error says that it may
// be in what nobody tells of.
func (r *Reader) doubt(ctx context.Context, h *catalog.Holder, sop string) (_ version, whole bool, _ error) {
	k, err := r.ask(ctx, h, wanted{})
	if k != nil {
		whole = k.set == h.UIDHash
		if at, ok := k.index(sop); ok && !r.deleted(h.Study, h.Series, k.Instances[at].Record) {
			return version{k, at}, whole, nil
		}
	}
	switch {
	case err == nil:
		err = errNothing()
	case fault.Is(err, fault.NotFound): // it says that it has nothing, and announced that it has
		err = fault.New(fault.Unavailable, "reach: node %s has not what it announced: %w", h.Node, err)
	}
	return version{}, whole, err
}

// doubtAll is [Reader.doubt] of all holders that say they have not an instance: denied
// has the sets of instances that these hold.
func (r *Reader) doubtAll(ctx context.Context, holders []catalog.Holder, denied map[[16]byte]bool, sop string) (v version, unknown error) {
	for i := range holders {
		h := &holders[i]
		if h.Node == r.o.Node || !denied[h.UIDHash] {
			continue
		}
		v, whole, err := r.doubt(ctx, h, sop)
		if err == nil {
			return v, nil
		}
		if whole {
			denied[h.UIDHash] = false // who else holds that set has it neither
		}
		if !fault.Is(err, fault.NotFound) {
			unknown = errors.Join(unknown, err)
		}
	}
	return version{}, unknown
}

// more returns that of two manifests which has more instances; nil has none. Of equals
// it is the second.
func more(a, b *known) *known {
	if a == nil || b != nil && len(b.Instances) >= len(a.Instances) {
		return b
	}
	return a
}

// fromShards gets a manifest from the shards of a node's packs, if that was not tried
// just now.
func (r *Reader) fromShards(ctx context.Context, h *catalog.Holder, w wanted) (*known, error) {
	name := seriesAt{h.Study, h.Series, h.Node}
	if r.o.Shards == nil {
		return nil, fault.New(fault.NotFound, "reach: there are no shards")
	}
	if k, ok := r.known.Get(name); ok && k.by == far.Shards && k.fits(h) && time.Since(k.Asked) < goodFor {
		return k, nil
	}
	if _, bad := r.contact.ask(shardsOf(name)); bad {
		return nil, fault.New(fault.Unavailable, "reach: the shards of node %s were just not to be had", h.Node)
	}
	return r.fetch(ctx, name, far.Shards, wanted{Hint: archive.Hint{Whole: w.Whole}}, *h, nil)
}

// shardsOf is under what is remembered whether the shards of a series could be read.
func shardsOf(name seriesAt) string {
	return far.Shards + "\x00" + name.study + "\x00" + name.series + "\x00" + name.node
}

// gather makes a manifest of shards.
func (r *Reader) gather(ctx context.Context, h catalog.Holder) (*known, error) {
	name := seriesAt{h.Study, h.Series, h.Node}
	asked := time.Now()
	m, err := r.o.Shards.Series(ctx, &h)
	if err == nil && m == nil {
		err = errNothing()
	}
	if ctx.Err() == nil || err == nil {
		r.contact.note(shardsOf(name), err == nil)
	}
	if err != nil {
		r.log.Info("a series of a node that is away cannot be read from its shards", "study", h.Study, "series", h.Series, "node", h.Node, "error", err)
	}
	if m == nil {
		return nil, err
	}
	k := newKnown(cached.Told{Manifest: m, UIDHash: h.UIDHash, Asked: asked})
	k.by = far.Shards
	if err != nil {
		k.partial = true
		if more(k, r.recall(name)) == k {
			r.known.Put(name, k, k.size()) // better than nothing
		}
		return k, err
	}
	k.AsOf = h.AsOf
	r.take(k)
	return k, nil
}

// holder returns what the catalogue says that a node has of a series; nil: nothing.
func (r *Reader) holder(name seriesAt) *catalog.Holder {
	holders, err := r.holders(name.study, name.series)
	if err != nil {
		return nil
	}
	i := slices.IndexFunc(holders, func(h catalog.Holder) bool { return h.Node == name.node })
	if i < 0 {
		return nil
	}
	return &holders[i]
}

// onShards reports whether what a node holds of a series can be read from shards.
func (r *Reader) onShards(h *catalog.Holder) bool {
	return r.o.Shards != nil && r.o.Shards.Reachable(h)
}

// maxUnnamed is how many series of a study are looked through at most for an instance of
// which not all names are known.
const maxUnnamed = 64

// among looks for an instance among the series that a node holds of a study which does
// not answer, or, denied, says that it has it not. silent: it may yet be in one that
// nobody tells of.
func (r *Reader) among(ctx context.Context, holders []catalog.Holder, node, sop string, denied bool) (v version, silent bool) {
	looked := 0
	for i := range holders {
		h := &holders[i]
		if h.Node != node {
			continue
		}
		if looked++; looked > maxUnnamed || ctx.Err() != nil {
			return version{}, silent || !denied || ctx.Err() != nil
		}
		k, err := r.ask(ctx, h, wanted{})
		silent = silent || err != nil
		if k == nil {
			continue
		}
		if at, ok := k.index(sop); ok && !r.deleted(h.Study, h.Series, k.Instances[at].Record) {
			return version{k, at}, false
		}
	}
	return version{}, silent
}

// reserved looks for a Non-Patient Object, which is asked for by its own name alone
// (DESIGN §9), in the series that nodes which do not answer hold of such.
func (r *Reader) reserved(ctx context.Context, sop string) (version, bool) {
	if r.o.Shards == nil || r.gone(archive.ReservedStudy, "", sop) {
		return version{}, false
	}
	holders, err := r.holders(archive.ReservedStudy, "")
	if err != nil {
		r.log.Warn("who holds Non-Patient Objects was not looked up", "error", err)
		return version{}, false
	}
	looked := map[string]bool{r.o.Node: true}
	for i := range holders {
		node := holders[i].Node
		if looked[node] || !r.away(node) {
			continue
		}
		looked[node] = true
		if v, _ := r.among(ctx, holders, node, sop, false); v.known != nil {
			r.sought.note(v.name())
			return v, true
		}
	}
	return version{}, false
}
