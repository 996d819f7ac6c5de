package engine

import (
	"context"
	"iter"
	"slices"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/match"
)

var _ query.Prober = (*Engine)(nil)

// Probe implements [query.Prober] over this node's own instances.
func (e *Engine) Probe(ctx context.Context, p query.Probe, candidates []query.Candidate) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		q, err := e.newProbe(ctx, p)
		if err != nil {
			yield(query.Found{}, err)
			return
		}
		for i, c := range candidates {
			for f, err := range q.series(c) {
				f.Candidate = i
				if !yield(f, err) || err != nil {
					return
				}
			}
		}
	}
}

// Locate implements [query.Prober].
func (e *Engine) Locate(ctx context.Context, sops []string) ([]query.Instance, error) {
	var all []query.Instance
	for _, sop := range sops {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.KindOf(err), "query: %w", err)
		}
		found, err := e.instances.Find(ctx, sop)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// probe is a probe of this node's own instances under way.
type probe struct {
	query.Probe
	engine         *Engine
	ctx            context.Context //nolint:containedctx // lives as long as one call of Probe
	matcher        *match.Matcher
	header, listed []dict.Tag // keys of Match by who answers them
	sops           map[string]bool
}

func (e *Engine) newProbe(ctx context.Context, p query.Probe) (*probe, error) {
	if p.Keys == nil {
		p.Keys = dicom.NewDataset()
	}
	matcher, err := match.Compile(p.Keys, match.Options{
		Fuzzy: p.Fuzzy, CombinedDateTime: p.CombinedDateTime, Timezone: p.Timezone, FoldText: p.FoldText,
	})
	if err != nil {
		return nil, err
	}
	q := &probe{Probe: p, engine: e, ctx: ctx, matcher: matcher}
	for _, t := range p.Match {
		if scopeOf(t) == ofListing {
			q.listed = append(q.listed, t)
		} else {
			q.header = append(q.header, t)
		}
	}
	if len(p.Instances) > 0 {
		q.sops = make(map[string]bool, len(p.Instances))
		for _, sop := range p.Instances {
			q.sops[sop] = true
		}
	}
	return q, nil
}

// series yields what is found of one series.
func (q *probe) series(c query.Candidate) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		for i, err := range q.engine.instances.List(q.ctx, c.Study, c.Series) {
			if fault.Is(err, fault.NotFound) {
				return
			}
			if err == nil {
				err = q.ctx.Err()
			}
			if err != nil {
				yield(query.Found{}, err)
				return
			}
			if i.SOP <= c.After {
				continue
			}
			f := query.Found{Instance: i}
			ok, err := q.instance(&f, c, func(ctx context.Context) (*dicom.Header, error) { return q.engine.header(ctx, i.Number) })
			if err != nil {
				yield(query.Found{}, err)
				return
			}
			f.Availability = q.engine.instances.Availability(q.ctx, i.Study, i.Series, i.Number)
			if ok && (!yield(f, nil) || c.First) {
				return
			}
		}
	}
}

// instance matches one instance and adds to it what is to be answered.
func (q *probe) instance(f *query.Found, c query.Candidate, header func(context.Context) (*dicom.Header, error)) (bool, error) {
	i := &f.Instance
	if q.sops != nil && !q.sops[i.SOP] {
		return false, nil
	}
	among := func(tags []dict.Tag) func(dict.Tag) bool {
		return func(t dict.Tag) bool { return slices.Contains(tags, t) }
	}
	if len(q.listed) > 0 && !q.matcher.Match(listing(i), among(q.listed)) {
		return false, nil
	}
	if q.All || len(q.header)+len(q.Return)+len(c.Return) > 0 {
		h, err := header(q.ctx)
		if fault.Is(err, fault.NotFound) {
			return false, nil // deleted meanwhile
		}
		if err != nil {
			return false, err
		}
		if len(q.header) > 0 && !q.matcher.Match(h.Dataset, among(q.header)) {
			return false, nil
		}
		if f.Header, err = q.extract(h, slices.Concat(q.header, q.Return, c.Return)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// extract returns what is asked for of a header, as far as it is no bulk.
// Private attributes keep their places and bring the creators of their group.
func (q *probe) extract(h *dicom.Header, tags []dict.Tag) (*dicom.Header, error) {
	picked := map[dict.Tag]bool{dict.TimezoneOffsetFromUTC: q.Timezone}
	groups := map[uint16]bool{}
	for _, t := range tags {
		if t.IsPrivate() {
			groups[t.Group()] = true
			at, ok := place(h.Dataset, t, q.Keys.String(creatorOf(t)))
			if !ok {
				continue
			}
			t = at
		}
		picked[t] = true
	}
	var elements []dicom.Element
	for _, e := range h.Dataset.Elements {
		creator := e.Tag.IsPrivate() && e.Tag.Element() < 0x100 && groups[e.Tag.Group()]
		if (picked[e.Tag] || creator || q.All && answerable(e.Tag)) && !holdsCut(&e) {
			elements = append(elements, e)
		}
	}
	out := dicom.NewDataset()
	out.Set(dict.SpecificCharacterSet, dict.CS, "ISO_IR 192")
	if len(elements) > 0 {
		if err := transfer(out, h, elements); err != nil {
			return nil, err
		}
	}
	return &dicom.Header{Syntax: out.Syntax, Dataset: out}, nil
}

// answerable reports whether an attribute of a header may be answered at all.
func answerable(t dict.Tag) bool {
	return t.Group() >= 8 && !t.IsGroupLength() && scopeOf(t) != ofNobody
}
