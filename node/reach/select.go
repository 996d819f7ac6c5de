package reach

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/far"
	"pelago/replication/catalog"
)

// SelectAt yields what another node holds of a series now, whatever the catalogue
// here says: for those who were told by somebody that it is there.
func (r *Reader) SelectAt(ctx context.Context, node, study, series string) iter.Seq2[archive.Ref, error] {
	return func(yield func(archive.Ref, error) bool) {
		hint := archive.HintOf(ctx)
		w := wanted{Hint: hint}
		if hint.Whole {
			w.ahead = aheadBytes
		}
		name := seriesAt{study, series, node}
		k, err := r.fetch(ctx, name, node, w, catalog.Holder{}, r.recall(name))
		if err != nil {
			yield(archive.Ref{}, err)
			return
		}
		if hint.Whole {
			k.readWhole()
		}
		for i := range k.Instances {
			if r.deleted(study, series, k.Instances[i].Record) {
				continue
			}
			if !yield(version{k, i}.ref(), nil) {
				return
			}
		}
	}
}

// selectAll yields a study or a series. What is whole here is streamed from here.
func (r *Reader) selectAll(ctx context.Context, study, series string) iter.Seq2[archive.Ref, error] {
	if study == "" && series == "" {
		return r.o.Archive.Select(ctx, study, series, "")
	}
	return func(yield func(archive.Ref, error) bool) {
		holders, err := r.holders(study, series)
		if err != nil {
			yield(archive.Ref{}, err)
			return
		}
		here := r.o.Archive.Select(ctx, study, series, "")
		if !r.elsewhere(holders) {
			here(yield)
			return
		}
		parts, err := gather(here)
		if err != nil {
			yield(archive.Ref{}, err)
			return
		}
		parts.add(holders)
		found := false
		for ref, err := range r.merge(ctx, parts) {
			found = true
			var missing *archive.Missing
			if !yield(ref, err) || err != nil && !errors.As(err, &missing) {
				return
			}
		}
		if !found {
			yield(archive.Ref{}, errNothing())
		}
	}
}

// part is what is known of one series.
type part struct {
	study, series string
	here          []archive.Ref
	holders       []catalog.Holder // in the order of their first announcement
}

// parts are the series of a selection.
type parts struct {
	all []*part
	at  map[[2]string]*part
}

func (p *parts) of(study, series string) *part {
	name := [2]string{study, series}
	one := p.at[name]
	if one == nil {
		one = &part{study: study, series: series}
		p.at[name] = one
		p.all = append(p.all, one)
	}
	return one
}

// gather collects what is here.
func gather(refs iter.Seq2[archive.Ref, error]) (*parts, error) {
	p := &parts{at: map[[2]string]*part{}}
	for ref, err := range refs {
		if fault.Is(err, fault.NotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		one := p.of(ref.Study, ref.Series)
		one.here = append(one.here, ref)
	}
	return p, nil
}

func (p *parts) add(holders []catalog.Holder) {
	for _, h := range holders {
		one := p.of(h.Study, h.Series)
		one.holders = append(one.holders, h)
	}
}

// merge yields the instances of all series in the order of their UIDs. Manifests
// of several series are asked for at a time.
func (r *Reader) merge(ctx context.Context, p *parts) iter.Seq2[archive.Ref, error] {
	slices.SortFunc(p.all, func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.study, b.study), cmp.Compare(a.series, b.series))
	})
	return func(yield func(archive.Ref, error) bool) {
		seen := map[string]bool{}
		for _, one := range p.all {
			for i := range one.here {
				seen[one.here[i].SOP] = true
			}
		}
		for some := range slices.Chunk(p.all, askAtOnce) {
			others := make([]told, len(some))
			var group errgroup.Group
			for i, one := range some {
				group.Go(func() error {
					others[i] = r.others(ctx, one, one == p.all[0])
					return nil
				})
			}
			_ = group.Wait() // they answer for themselves
			if err := ctx.Err(); err != nil {
				yield(archive.Ref{}, fault.New(fault.KindOf(err), "reach: %w", err))
				return
			}
			for i, one := range some {
				if !r.yieldPart(one, others[i], seen, yield) {
					return
				}
			}
		}
	}
}

// yieldPart yields what is here and what others told of a series.
func (r *Reader) yieldPart(one *part, others told, seen map[string]bool, yield func(archive.Ref, error) bool) bool {
	refs := one.here
	for _, k := range others.manifests {
		for i := range k.Instances {
			if sop := k.Instances[i].Record.Sop; !seen[sop] && !r.deleted(one.study, one.series, k.Instances[i].Record) {
				seen[sop] = true
				refs = append(refs, version{k, i}.ref())
			}
		}
	}
	if len(others.manifests) > 0 {
		slices.SortFunc(refs, func(a, b archive.Ref) int { return cmp.Compare(a.SOP, b.SOP) })
	}
	for _, ref := range refs {
		if !yield(ref, nil) {
			return false
		}
	}
	if others.silent == nil {
		return true
	}
	missing := &archive.Missing{Study: one.study, Series: one.series, Instances: max(1, others.most-len(refs))}
	return yield(archive.Ref{}, fault.New(fault.Unavailable, "reach: %w: %w", missing, others.silent))
}

// told is what other nodes told of a series.
type told struct {
	manifests []*known // that of whom announced it first in front
	silent    error    // why some of it is not known; nil: it is
	most      int      // of what is not known, the largest number of instances that one node has
}

// others asks the other nodes that hold a series, unless it is whole here. Of
// those that hold the same set of instances one is asked, and another if that one
// does not answer. next says that the series is what is read first.
func (r *Reader) others(ctx context.Context, one *part, next bool) told {
	var t told
	hint := archive.HintOf(ctx)
	var first wanted
	if hint.Whole && len(one.here) == 0 {
		first = wanted{Hint: archive.Hint{Whole: true}, ahead: laterBytes}
		if next {
			first.ahead = aheadBytes
		}
	}
	done := map[[16]byte]bool{setOf(one.here): true}
	for i := range one.holders {
		h := &one.holders[i]
		if h.Node == r.o.Node || done[h.UIDHash] {
			continue
		}
		done[h.UIDHash] = true
		k, err := r.askAny(ctx, one.holders[i:], h.UIDHash, first)
		first = wanted{} // the others' instances come later
		if k != nil {
			t.manifests = append(t.manifests, k)
			if hint.Whole {
				k.readWhole()
			}
		}
		if err != nil {
			t.silent = errors.Join(t.silent, err)
			t.most = max(t.most, int(h.Instances))
		}
	}
	return t
}

// setOf is the hash of a set of instances as the catalogue keeps it.
func setOf(refs []archive.Ref) (set [16]byte) {
	var sum [32]byte
	for i := range refs {
		archive.AddUID(&sum, refs[i].SOP)
	}
	copy(set[:], sum[:])
	return set
}

// askAny asks those of the holders that hold a set until one answers: first those
// that are believed to. If none does, others may have been told what they hold.
func (r *Reader) askAny(ctx context.Context, holders []catalog.Holder, set [16]byte, w wanted) (stale *known, err error) {
	var silent []*catalog.Holder
	for _, alive := range []bool{true, false} {
		for i := range holders {
			h := &holders[i]
			if h.UIDHash != set || h.Node == r.o.Node || r.o.Nodes.Alive(h.Node) != alive {
				continue
			}
			k, failed := r.ask(ctx, h, w)
			if failed == nil {
				return k, nil
			}
			if w.sop != "" && fault.Is(failed, fault.NotFound) {
				continue // it does not have that one
			}
			if !answered(failed) {
				silent = append(silent, h)
			}
			stale = more(k, stale)
			err = errors.Join(err, failed)
		}
	}
	for _, h := range silent {
		k, failed := r.askAround(ctx, h, w.sop)
		if failed == nil {
			return k, nil
		}
		stale = more(k, stale)
	}
	return stale, err
}

// selectOne yields one instance: that which is here, else another node's.
func (r *Reader) selectOne(ctx context.Context, study, series, sop string) iter.Seq2[archive.Ref, error] {
	return func(yield func(archive.Ref, error) bool) {
		found := false
		for ref, err := range r.o.Archive.Select(ctx, study, series, sop) {
			if fault.Is(err, fault.NotFound) {
				break
			}
			found = true
			if !yield(ref, err) {
				return
			}
		}
		if found {
			return
		}
		v, err := r.selectAway(ctx, study, series, sop)
		if err != nil {
			yield(archive.Ref{}, err)
			return
		}
		yield(v.ref(), nil)
	}
}

// selectAway finds an instance that is not here.
func (r *Reader) selectAway(ctx context.Context, study, series, sop string) (version, error) {
	if study == "" || series == "" {
		if found, ok := r.nearby(study, series, sop); ok {
			v, err := r.selectAway(ctx, found.study, found.series, sop)
			if !fault.Is(err, fault.NotFound) {
				return v, err
			}
		}
		if v, err, ok := r.placed(ctx, study, series, sop); ok {
			return v, err
		}
		nodes, err := r.candidates(study, series)
		if err != nil {
			return version{}, err
		}
		return r.seek(ctx, nodes, study, series, sop)
	}
	if r.gone(study, series, sop) {
		return version{}, errNothing()
	}
	holders, err := r.holders(study, series)
	if err != nil {
		return version{}, err
	}
	if !r.elsewhere(holders) {
		return version{}, errNothing()
	}
	var silent error
	done, denied := map[[16]byte]bool{}, map[[16]byte]bool{}
	for i := range holders {
		h := &holders[i]
		if h.Node == r.o.Node || done[h.UIDHash] {
			continue
		}
		done[h.UIDHash] = true
		k, err := r.askAny(ctx, holders[i:], h.UIDHash, wanted{sop: sop, Hint: archive.HintOf(ctx)})
		denied[h.UIDHash] = err == nil
		if k != nil {
			if i, ok := k.index(sop); ok && !r.deleted(study, series, k.Instances[i].Record) {
				return version{k, i}, nil
			}
		}
		if err != nil {
			silent = errors.Join(silent, err)
		}
	}
	if r.o.Shards != nil && ctx.Err() == nil {
		v, unknown := r.doubtAll(ctx, holders, denied, sop)
		if v.known != nil {
			return v, nil
		}
		silent = errors.Join(silent, unknown)
	}
	if silent != nil {
		missing := &archive.Missing{Study: study, Series: series, SOP: sop, Instances: 1}
		return version{}, fault.New(fault.Unavailable, "reach: %w: %w", missing, silent)
	}
	return version{}, errNothing()
}

// nearby returns the series of an instance whose own name is all that is known, if
// it is one in which another such was found lately: who names one names the next.
// It costs no round trip, where seeking costs one to every node.
func (r *Reader) nearby(study, series, sop string) (seriesAt, bool) {
	for _, name := range r.sought.last() {
		if study != "" && name.study != study || series != "" && name.series != series {
			continue
		}
		if k, ok := r.known.Get(name); ok {
			if _, ok := k.index(sop); ok {
				return name, true
			}
		}
	}
	return seriesAt{}, false
}

// candidates are the nodes that may hold an instance of which only the study, or
// the series, or nothing is known.
func (r *Reader) candidates(study, series string) ([]string, error) {
	if study == "" && series == "" {
		return r.o.Nodes.Others(), nil
	}
	holders, err := r.holders(study, series)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for i := range holders {
		if h := &holders[i]; h.Node != r.o.Node && !slices.Contains(nodes, h.Node) {
			nodes = append(nodes, h.Node)
		}
	}
	return nodes, nil
}

// seek asks nodes for an instance, some at a time, and takes that of the node
// which announced the series first.
func (r *Reader) seek(ctx context.Context, nodes []string, study, series, sop string) (version, error) {
	manifests := make([]*far.Manifest, len(nodes))
	failed := make([]error, len(nodes))
	var group errgroup.Group
	group.SetLimit(askAtOnce)
	for i, node := range nodes {
		group.Go(func() error {
			manifests[i], failed[i] = r.findAt(ctx, node, sop)
			return nil
		})
	}
	_ = group.Wait() // they answer for themselves
	var best version
	for _, m := range manifests {
		if m == nil || study != "" && m.Study != study || series != "" && m.Series != series || r.gone(m.Study, m.Series, sop) {
			continue
		}
		v, err := r.takeFound(m, sop)
		if err != nil {
			return version{}, err
		}
		if v.known != nil && !r.deleted(m.Study, m.Series, v.instance().Record) && (best.known == nil || r.earlier(v.known, best.known)) {
			best = v
		}
	}
	if best.known != nil {
		r.sought.note(best.name())
		return best, nil
	}
	return r.seekSilent(ctx, nodes, failed, study, series, sop)
}

// seekSilent looks for an instance that no node which answers has, where the others
// may have it, or where one has lost it: in the manifests of their series, as far as these
// are known and can be had. Of nothing but the instance's own name no series is known but
// those of Non-Patient Objects, which have no other: all that a node ever stored would
// have to be looked through.
func (r *Reader) seekSilent(ctx context.Context, nodes []string, failed []error, study, series, sop string) (version, error) {
	var holders []catalog.Holder
	if study != "" || series != "" {
		var err error
		if holders, err = r.holders(study, series); err != nil {
			return version{}, err
		}
	}
	var silent error
	for i, err := range failed {
		denied := fault.Is(err, fault.NotFound)
		if err == nil || denied && (len(holders) == 0 || r.o.Shards == nil) {
			continue
		}
		if len(holders) > 0 && r.o.Shards != nil {
			v, unknown := r.among(ctx, holders, nodes[i], sop, denied)
			if v.known != nil {
				r.sought.note(v.name())
				return v, nil
			}
			if !unknown {
				continue
			}
		}
		silent = err
	}
	if silent == nil {
		return version{}, errNothing()
	}
	if study == "" && series == "" {
		if v, ok := r.reserved(ctx, sop); ok {
			return v, nil
		}
	}
	return version{}, errSought(study, series, sop, silent)
}

// findAt asks one node for the series of an instance.
func (r *Reader) findAt(ctx context.Context, node, sop string) (*far.Manifest, error) {
	if _, bad := r.contact.ask(node); bad && !r.o.Nodes.Alive(node) {
		return nil, fault.New(fault.Unavailable, "node %s has just not answered", node)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	m, err := r.manifest(ctx, node, wanted{sop: sop, Hint: archive.HintOf(ctx)}.of(seriesAt{node: node}, node))
	if ctx.Err() == nil || err == nil {
		r.contact.note(node, err == nil || answered(err))
	}
	if err == nil && m.Node != node {
		err = fault.New(fault.Invalid, "node %s answers for another", node)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// manifest asks a node for a manifest and waits for all of it.
func (r *Reader) manifest(ctx context.Context, node string, want far.Want) (*far.Manifest, error) {
	answer, err := r.o.Client.Open(ctx, node, want)
	if err != nil {
		return nil, err
	}
	return answer.Manifest(ctx)
}

// takeFound remembers a manifest that an instance was found by.
func (r *Reader) takeFound(m *far.Manifest, sop string) (version, error) {
	holders, err := r.holders(m.Study, m.Series)
	if err != nil {
		return version{}, err
	}
	k := r.takeAs(m, holders)
	i, ok := k.index(sop)
	if !ok {
		return version{}, nil
	}
	return version{k, i}, nil
}

// earlier reports whether the node of one manifest announced the series before
// that of another of the same series.
func (r *Reader) earlier(a, b *known) bool {
	holders, err := r.holders(a.Study, a.Series)
	if err != nil {
		return false
	}
	place := func(node string) int {
		i := slices.IndexFunc(holders, func(h catalog.Holder) bool { return h.Node == node })
		if i < 0 {
			return len(holders)
		}
		return i
	}
	return place(a.Node) < place(b.Node)
}
