package reach

import (
	"cmp"
	"context"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/replication/catalog"
)

// wanted is what a manifest is asked for: a series, or an instance of it. What of
// that is read first comes with it.
type wanted struct {
	sop string // "": the series
	archive.Hint
	ahead int64 // bytes of a series that is read whole, behind its manifest
}

// wholeBytes is how much of an instance that is read whole comes with its
// manifest: about what a link of 1 Gb/s carries while the rest is asked for. Over
// a slow one it must not keep a client waiting for long.
const wholeBytes = 4 << 20

const (
	// aheadBytes is how much of a series that is read whole follows its manifest,
	// while the ranges behind it are asked for: 1 Gb/s for 67 ms.
	aheadBytes = 8 << 20
	// laterBytes is the same of each series of a study but the first, whose turn
	// comes later: about an image.
	laterBytes = 512 << 10
)

// of is the question to a node.
func (w wanted) of(name seriesAt, from string) far.Want {
	want := far.Want{Study: name.study, Series: name.series, SOP: w.sop}
	if from != name.node {
		want.Origin = name.node
	}
	if w.sop != "" {
		want.Frame = w.Frame
	}
	switch {
	case w.sop == "":
		want.Bytes = w.ahead
	case w.Whole:
		want.Bytes = wholeBytes
	}
	return want
}

// instanceAt names an instance that a node holds.
type instanceAt struct {
	series seriesAt
	sop    string
}

// openingOf names a manifest that is coming: what a node holds of a series, as it
// or another tells, or the shards of its packs ([far.Shards]).
type openingOf struct {
	series seriesAt
	from   string
}

// opening is a manifest that is coming, for all who want it.
type opening struct {
	want  wanted        // of who asked first
	early chan struct{} // closed when first is set, if it ever is
	first *known        // of the instance alone that who asked first wants
	done  chan struct{} // closed when all or err is set
	all   *known
	err   error
}

// fetch gets the manifest of a series, from its node or from one that was told it,
// and keeps it. Of an instance that is wanted it returns as soon as that is known,
// with a manifest of it alone. Those who ask at the same time share the answer; one
// who gives up does not take it from the others. old is what was at hand when the
// caller looked; nil: nothing.
func (r *Reader) fetch(ctx context.Context, name seriesAt, from string, w wanted, h catalog.Holder, old *known) (*known, error) {
	for {
		if _, bad := r.contact.ask(from); bad && !r.o.Nodes.Alive(from) {
			return nil, fault.New(fault.Unavailable, "node %s has just not answered", from)
		}
		o, err := r.opening(ctx, openingOf{name, from}, w, h, old)
		if err != nil {
			return nil, err
		}
		k, err := o.wait(ctx, w.sop)
		if !fault.Is(err, fault.NotFound) || o.want.sop == w.sop || o.want.sop == "" || ctx.Err() != nil {
			return k, err
		}
		// It lacks the instance of who asked first: that says nothing of this one's.
	}
}

// opening returns the one that is under way, or has ended since the caller looked,
// or begins it.
func (r *Reader) opening(ctx context.Context, of openingOf, w wanted, h catalog.Holder, old *known) (*opening, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.openings[of]; o != nil {
		return o, nil
	}
	if k, ok := r.known.Get(of.series); ok && k.by == "" && of.from == of.series.node && k.newer(old) {
		done := make(chan struct{})
		close(done)
		return &opening{done: done, all: k}, nil
	}
	if r.closed {
		return nil, fault.New(fault.Unavailable, "reach: the node is stopping")
	}
	o := &opening{want: w, early: make(chan struct{}), done: make(chan struct{})}
	r.openings[of] = o
	ctx = context.WithoutCancel(ctx)
	r.work.Go(func() {
		o.all, o.err = r.bring(ctx, o, of, h)
		r.mu.Lock()
		delete(r.openings, of)
		r.mu.Unlock()
		close(o.done)
	})
	return o, nil
}

// newer reports whether a manifest was asked for after another, nil for none: one that
// went from memory and was read from store/ again is another value, and no newer. What
// is in store/ has lost the digits below a microsecond.
func (k *known) newer(old *known) bool {
	return old == nil || k.Asked.UnixMicro() > old.Asked.UnixMicro()
}

// wait returns the manifest, or that of a wanted instance alone.
func (o *opening) wait(ctx context.Context, sop string) (*known, error) {
	early := o.early
	if sop == "" {
		early = nil
	}
	for {
		select {
		case <-early:
			if _, ok := o.first.index(sop); ok {
				return o.first, nil
			}
			early = nil
		case <-o.done:
			return o.all, o.err
		case <-ctx.Done():
			return nil, fault.New(fault.KindOf(ctx.Err()), "reach: %w", ctx.Err())
		}
	}
}

// bring asks for a manifest and takes it in as it comes.
func (r *Reader) bring(ctx context.Context, o *opening, of openingOf, h catalog.Holder) (*known, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if of.from == far.Shards {
		return r.gather(ctx, h)
	}
	asked := time.Now()
	name := of.series
	answer, err := r.o.Client.Open(ctx, of.from, o.want.of(name, of.from))
	r.contact.note(of.from, err == nil || answered(err))
	if err != nil {
		return nil, err
	}
	told := cached.Told{Manifest: answer.First(), Asked: asked}
	if o.want.sop != "" {
		o.first = newKnown(told)
		o.first.by = tellerOf(of)
		if answer.Came() {
			o.first.came = asked
		}
		r.firsts.Put(instanceAt{name, o.want.sop}, o.first, o.first.size())
		close(o.early)
	}
	if told.Manifest, err = answer.Manifest(ctx); err != nil {
		r.contact.note(of.from, answered(err))
		return nil, err
	}
	if m := told.Manifest; m.Node != name.node || m.Study != name.study || m.Series != name.series {
		return nil, fault.New(fault.Invalid, "node %s tells of another series than it was asked for", of.from)
	}
	told.AsOf, told.UIDHash = h.AsOf, h.UIDHash
	if of.from != name.node {
		told.AsOf = 0 // who was told it may know less than the catalogue
	}
	k := newKnown(told)
	k.by = tellerOf(of)
	if k.by != "" && k.set != h.UIDHash {
		r.known.Offer(name, k, k.size()) // better than nothing
		return k, fault.New(fault.NotFound, "node %s was told of another set of instances", of.from)
	}
	r.take(k)
	i, ok := k.index(o.want.sop)
	switch {
	case ok && answer.Came():
		r.begin(k, i)
	case o.want.ahead == aheadBytes && len(k.Instances) > 0:
		k.readWhole()
		r.begin(k, k.inFront()) // while the instances are opened
	}
	return k, nil
}

// tellerOf is who tells what another node holds; "" if a node tells of itself.
func tellerOf(of openingOf) string {
	if of.from == of.series.node {
		return ""
	}
	return of.from
}

// inFront is the index of the instance that rests before the others.
func (k *known) inFront() (first int) {
	for i := range k.Instances {
		if k.Instances[i].Record.Number < k.Instances[first].Record.Number {
			first = i
		}
	}
	return first
}

// begin has what follows an instance read ahead, whose bytes came already.
func (r *Reader) begin(k *known, i int) {
	if in := &k.Instances[i]; in.Pack >= 0 && r.o.Copies.Has(k.Packs[in.Pack].ID) {
		return
	}
	k.mu.Lock()
	bytes := r.bytesLocked(k)
	k.mu.Unlock()
	bytes.Begin(i)
}

// askAround asks the nodes that answer for what one that does not told them of a
// series: copies of what it holds may rest there. Bytes are not asked for, because
// several may have them. What is not all that the catalogue knows of comes with an
// error.
func (r *Reader) askAround(ctx context.Context, h *catalog.Holder, sop string) (*known, error) {
	type told struct {
		k   *known
		err error
	}
	name := seriesAt{h.Study, h.Series, h.Node}
	memo := "around\x00" + name.study + "\x00" + name.series + "\x00" + name.node + "\x00" + sop
	if _, bad := r.contact.ask(memo); bad {
		return nil, fault.New(fault.NotFound, "no node that answers was told of it")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	nodes := r.neighbours(h.Node)
	answers := make(chan told, len(nodes))
	for _, node := range nodes {
		go func() {
			k, err := r.fetch(ctx, name, node, wanted{sop: sop}, *h, nil)
			answers <- told{k, err}
		}()
	}
	var some *known
	for range nodes {
		one := <-answers
		if one.err == nil {
			return one.k, nil
		}
		some = cmp.Or(some, one.k)
	}
	if ctx.Err() == nil && some == nil {
		r.contact.note(memo, false)
	}
	return some, fault.New(fault.NotFound, "no node that answers was told of all of it")
}

// Told is what a node told this one of a series, for others while it is away, as
// [far.HandlerOptions] wants it: without what a tombstone covers by now.
func (r *Reader) Told(_ context.Context, origin, study, series string) (*far.Manifest, error) {
	k := r.recall(seriesAt{study, series, origin})
	if k == nil || r.gone(study, series, "") {
		return nil, errNothing()
	}
	m := *k.Manifest
	m.Instances = slices.DeleteFunc(slices.Clone(m.Instances), func(in far.Instance) bool { return r.deleted(study, series, in.Record) })
	return &m, nil
}
