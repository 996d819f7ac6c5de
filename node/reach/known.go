package reach

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/replication/catalog"
)

// seriesAt names what a node holds of a series.
type seriesAt struct{ study, series, node string }

// known is a manifest that is at hand.
type known struct {
	cached.Told
	set  [16]byte  // hash of the SOP Instance UIDs in it
	open bool      // some of it was in staging: it will be packed
	by   string    // who told it, if that was not its node: far.Shards for those of its packs
	came time.Time // when bytes were asked for that came with it; zero: none did
	// partial says that its node has told of more, which the shards that are left do not
	// have; set before others see it.
	partial bool

	mu      sync.Mutex // guards what follows; making readers is no I/O
	bytes   Bytes
	whole   bool // all of it is read in order
	helpers bool // other nodes are asked for packs too
	packs   map[int]*plaintext
}

func newKnown(t cached.Told) *known {
	k := &known{Told: t}
	var sum [32]byte
	for i := range t.Instances {
		archive.AddUID(&sum, t.Instances[i].Record.Sop)
		k.open = k.open || t.Instances[i].Pack < 0
	}
	copy(k.set[:], sum[:])
	return k
}

// helped reports whether other nodes are asked for packs too.
func (k *known) helped() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.helpers
}

// name is what the manifest is of.
func (k *known) name() seriesAt { return seriesAt{k.Study, k.Series, k.Node} }

// size is what it takes in memory, about.
func (k *known) size() int64 {
	n := int64(512 + 256*len(k.Packs))
	for i := range k.Instances {
		in := &k.Instances[i]
		n += int64(768 + len(in.Header) + 128*len(in.Chunks))
	}
	return n
}

// index returns the place of a SOP Instance UID; false if it is not there.
func (k *known) index(sop string) (int, bool) {
	return slices.BinarySearchFunc(k.Instances, sop, func(in far.Instance, sop string) int { return cmp.Compare(in.Record.Sop, sop) })
}

// freshFor is how long a manifest is believed without asking again, as long as the
// catalogue says nothing else. What the catalogue cannot tell is an operator's
// decision that makes another version of an instance count: the set of UIDs is
// the same.
//
// One of staged instances is believed for openFor only: they come from their node's
// disk each time they are read, and are kept here once they are packed.
const (
	freshFor = 5 * time.Minute
	openFor  = time.Minute
)

// fresh reports whether a manifest need not be asked for again.
func (k *known) fresh() bool {
	if k.open {
		return time.Since(k.Asked) < openFor
	}
	return time.Since(k.Asked) < freshFor
}

// fits reports whether a manifest is what the catalogue says that the node has.
func (k *known) fits(h *catalog.Holder) bool { return k.AsOf >= h.AsOf || k.set == h.UIDHash }

// recall returns the manifest of a series that is at hand, however old;
// nil if none is.
func (r *Reader) recall(name seriesAt) *known {
	if k, ok := r.known.Get(name); ok {
		return k
	}
	told, err := r.o.Copies.Recall(name.study, name.series, name.node)
	if err != nil {
		if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unavailable) { // whose key is still to come
			r.log.Warn("a manifest that was kept could not be read", "node", name.node, "series", name.series, "error", err)
		}
		return nil
	}
	k := newKnown(told)
	r.known.Offer(name, k, k.size())
	if now, ok := r.known.Get(name); ok { // another has been quicker
		return now
	}
	return k
}

// short reports whether a manifest has fewer instances than its node announced. It may
// have lost the others.
func (k *known) short(h *catalog.Holder) bool {
	return k != nil && k.set != h.UIDHash && uint64(len(k.Instances)) < h.Instances
}

// ask returns the manifest of what a node holds: what is at hand if that is still
// true, else what the node tells, which may be of a wanted instance alone. If it
// does not answer, an older one will do, and the error says why it is older. Where it
// tells of less of a series than it announced, the shards of its packs are asked: they
// have what it lost.
func (r *Reader) ask(ctx context.Context, h *catalog.Holder, w wanted) (*known, error) {
	k, err := r.askNode(ctx, h, w)
	if w.sop != "" || err == nil && !k.short(h) || err != nil && !fault.Is(err, fault.NotFound) {
		return k, err
	}
	if all, failed := r.fromShards(ctx, h, w); failed == nil && more(k, all) == all {
		return all, nil
	}
	return k, err
}

// askNode is ask without a doubt of what a node that answers tells.
func (r *Reader) askNode(ctx context.Context, h *catalog.Holder, w wanted) (*known, error) {
	name := seriesAt{h.Study, h.Series, h.Node}
	old := r.recall(name)
	if old != nil && old.fits(h) && (old.fresh() || !r.o.Nodes.Alive(h.Node)) {
		return old, nil
	}
	if old != nil && len(old.Packs) > 0 && r.o.Copies.Has(old.Packs[0].ID) {
		w.ahead = 0 // a copy is here
	}
	if old != nil && old.fits(h) {
		ctx, cancel := context.WithTimeout(ctx, silentFor) // what it tells later is taken in all the same
		defer cancel()
		k, err := r.fetch(ctx, name, h.Node, w, *h, old)
		switch {
		case err == nil:
			return k, nil
		case fault.Is(err, fault.NotFound):
			return old, err
		}
		return old, nil // as true as anybody here knows
	}
	k, err := r.tell(ctx, h, w, old)
	if err == nil {
		return k, nil
	}
	return more(k, old), err
}

// take remembers what a node told.
func (r *Reader) take(k *known) {
	r.known.Put(k.name(), k, k.size())
	if err := r.o.Copies.Tell(k.Told); err != nil && !fault.Is(err, fault.Unavailable) { // the copies tell of that
		r.log.Warn("a manifest could not be kept", "node", k.Node, "series", k.Series, "error", err)
	}
}

// takeAs takes a manifest that came without a look at the catalogue: what the
// catalogue says now, the node may not have known when it told.
func (r *Reader) takeAs(m *far.Manifest, holders []catalog.Holder) *known {
	k := newKnown(cached.Told{Manifest: m, Asked: time.Now()})
	for i := range holders {
		if h := &holders[i]; h.Node == m.Node && h.UIDHash == k.set {
			k.AsOf, k.UIDHash = h.AsOf, h.UIDHash
		}
	}
	r.take(k)
	return k
}

// answered reports whether an error is a node's answer, and not its silence.
func answered(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Canceled, fault.Other:
		return false
	}
	return true
}

// version is an instance in a manifest.
type version struct {
	*known
	index int
}

func (v version) instance() *far.Instance { return &v.Instances[v.index] }

func (v version) ref() archive.Ref { return archive.RefOf(v.Node, v.instance().Record) }

// lacks reports whether an instance may be in what could not be read of a manifest.
func (k *known) lacks(sop string) bool {
	_, ok := k.index(sop)
	return !ok && k.partial
}

// find returns an instance by its reference: fault.NotFound if its node has
// another one, or none, in its place by now.
func (r *Reader) find(ctx context.Context, ref archive.Ref) (version, error) {
	name := seriesAt{ref.Study, ref.Series, ref.Origin}
	k := r.recall(name)
	if first, ok := r.firsts.Get(instanceAt{name, ref.SOP}); ok && (k == nil || !first.Asked.Before(k.Asked)) {
		k = first // its bytes are here; the rest of its manifest may still be coming
	}
	var failed error // why the manifest is not whole
	if k == nil || k.lacks(ref.SOP) {
		w := wanted{sop: ref.SOP, Hint: archive.HintOf(ctx)}
		if h := r.holder(name); h != nil {
			k, failed = r.tell(ctx, h, w, nil)
		} else {
			k, failed = r.fetch(ctx, name, ref.Origin, w, catalog.Holder{}, nil)
		}
		if k == nil && !fault.Is(failed, fault.NotFound) {
			return version{}, failed
		}
	}
	i, ok := -1, false
	if k != nil {
		i, ok = k.index(ref.SOP)
	}
	if h := r.holder(name); !ok && h != nil && (failed == nil || fault.Is(failed, fault.NotFound)) {
		v, _, err := r.doubt(ctx, h, ref.SOP)
		if err != nil {
			return version{}, err
		}
		k, i, ok, failed = v.known, v.index, true, nil
	}
	if !ok && failed != nil {
		return version{}, failed // it may be in what could not be read
	}
	if !ok || k.Instances[i].Record.Number != ref.Number {
		return version{}, errNothing()
	}
	return version{k, i}, nil
}
