package catalog

import (
	"slices"

	"pelago/cluster/fault"
)

// Limits of what a fact may name.
const (
	maxUID     = 128 // the standard's 64, and what real files hold
	maxName    = 256 // node, site, issuer, registry names
	maxClasses = 1024
)

// check returns what a fact says, fault.Invalid if it names what cannot be.
func (f *SeriesFact) check() (*saying, error) {
	if !isUID(f.Study) || !isUID(f.Series) || !isName(f.Origin) || len(f.Site) > maxName ||
		len(f.Issuer) > maxName || len(f.Classes) > maxClasses {
		return nil, fault.New(fault.Invalid, "catalog: a series fact names what cannot be")
	}
	for _, class := range f.Classes {
		if !isUID(class) {
			return nil, fault.New(fault.Invalid, "catalog: a series fact has a SOP class of %d bytes", len(class))
		}
	}
	as, err := f.attrs()
	if err != nil {
		return nil, err
	}
	s := &saying{
		site: f.Site, asOf: f.AsOf, issuer: f.Issuer, attrs: as, instances: f.Instances,
		bytes: f.Bytes, uidHash: [uidHashBytes]byte(f.UIDHash[:uidHashBytes]), classes: f.Classes, reserved: f.Reserved, arrived: f.Arrived,
	}
	s.anonymous()
	return s, nil
}

// anonymous drops an issuer that issued nothing.
func (s *saying) anonymous() {
	if s.attrs.text(codePatientID) == "" {
		s.issuer = ""
	}
}

// fact changes the transaction by a fact of a place. The first error is the
// fact's result, the second ends the transaction.
func (t *txn) fact(f *SeriesFact, at place) (result, err error) {
	s, bad := f.check()
	if bad != nil {
		return bad, nil
	}
	st, err := t.study(f.Study, s.instances > 0 && f.leans == nil)
	if err != nil || st == nil {
		if err == nil && f.leans != nil {
			result = fault.New(fault.NotFound, "catalog: a fact leans on one of an unknown study")
		}
		return result, err
	}
	x, err := st.findSeries(f.Series)
	if err != nil {
		return nil, err
	}
	if f.leans != nil {
		if result, err := st.complete(f, x, s, at); result != nil || err != nil {
			return result, err
		}
	}
	if x == nil || x.cur == nil {
		if s.instances == 0 {
			return nil, nil
		}
		return nil, st.newSeries(x, f.Series, f.Origin, s, at)
	}
	st.changeSeries(x, f.Origin, s, at)
	return nil, nil
}

// newSeries adds a series to the study. If it is the last in announcement, the
// study's fold goes on where it was.
func (st *studyState) newSeries(was *seriesState, uid, node string, s *saying, at place) error {
	deleted, err := st.t.covered(st.cur.uid, uid)
	if err != nil {
		return err
	}
	if st.cur.ahead > 0 && at.committed() {
		st.refold = true
	}
	x := &series{uid: uid, deleted: deleted}
	o := origin{node: node}
	st.place(x, &o, s, at)
	x.origins = []origin{o}
	if !at.committed() {
		st.cur.ahead++
	}
	if was == nil {
		st.loaded[uid] = &seriesState{cur: x, changed: true}
	} else {
		was.cur, was.changed, st.refold = x, true, true
	}
	if x.visible() && !st.refold {
		st.cur.add(x)
	}
	st.t.rows.set(seriesUIDKey(uid, st.cur.uid), nil)
	return nil
}

// place lets an origin of the series say something of a place.
func (st *studyState) place(x *series, o *origin, s *saying, at place) {
	st.t.number(name{o.node, s.site}) // in the order of saying
	if !at.committed() {
		if o.said == nil && o.ahead == nil {
			o.first = place{uncommitted, st.cur.nextAhead}
			st.cur.nextAhead++
		}
		o.ahead = s
		return
	}
	t := st.t
	if o.said != nil {
		t.scratch = appendSaying(t.scratch[:0], st.cur.uid, x.uid, o)
		t.hash.sub(t.scratch)
	} else {
		o.first = at
	}
	o.said = s
	t.scratch = appendSaying(t.scratch[:0], st.cur.uid, x.uid, o)
	t.hash.add(t.scratch)
}

// changeSeries folds a saying about a known series in: by difference where only
// counts rise, else the study is folded again.
func (st *studyState) changeSeries(x *seriesState, node string, s *saying, at place) {
	before, placed, seen := x.cur.counts(), x.cur.place(), x.cur.visible()
	ahead := st.cur.ahead
	change, stored := st.take(x.cur, node, s, at)
	if !stored {
		return
	}
	x.changed = true
	if len(x.cur.origins) == 0 {
		x.cur, st.refold = nil, true
		if !placed.committed() {
			st.cur.ahead--
		}
		return
	}
	if !placed.committed() && x.cur.place().committed() {
		st.cur.ahead--
		if ahead > 1 { // it may have stood behind another that is not committed
			change = changedAll
		}
	}
	if change == changedNothing {
		return
	}
	after := x.cur.counts()
	if change == changedAll || before.approx || after.approx || after.arrived < before.arrived {
		st.refold = true
	}
	if st.refold || !seen || !x.cur.visible() {
		return
	}
	st.cur.instances -= before.instances
	st.cur.bytes -= before.bytes
	st.cur.addCounts(x.cur)
}

// take lets a node say something of a series, and tells how far what counts has
// changed, and whether the record has. A saying older than what is known of the
// node changes nothing; one that is committed takes the place of what was ahead of it.
func (st *studyState) take(x *series, node string, s *saying, at place) (c change, stored bool) {
	i := slices.IndexFunc(x.origins, func(o origin) bool { return o.node == node })
	if i < 0 {
		if s.instances == 0 {
			return changedNothing, false
		}
		o := origin{node: node}
		st.place(x, &o, s, at)
		x.origins = append(x.origins, o)
		x.sort()
		return changedAll, true
	}
	o := &x.origins[i]
	was := o.now()
	if at.committed() {
		stored = st.commit(x, o, s, at)
	} else {
		stored = st.anticipate(x, o, s, at)
	}
	if !stored {
		return changedNothing, false
	}
	c = difference(was, o.now())
	if o.now() == nil {
		x.origins = slices.Delete(x.origins, i, i+1)
	} else if x.sort() {
		c = changedAll
	}
	return c, true
}

// commit lets a known origin say something that is committed. Whether it counts
// depends on nothing that is not.
func (st *studyState) commit(x *series, o *origin, s *saying, at place) (stored bool) {
	if o.said == nil && s.instances > 0 || o.said != nil && s.asOf >= o.said.asOf && !s.equal(o.said) {
		st.place(x, o, s, at)
		stored = true
	}
	if o.ahead != nil && (s.asOf > o.ahead.asOf || s.equal(o.ahead)) {
		o.ahead, stored = nil, true
	}
	return stored
}

// anticipate lets a known origin say something that is not committed yet.
func (st *studyState) anticipate(x *series, o *origin, s *saying, at place) (stored bool) {
	was := o.now()
	if s.asOf < was.asOf || s.equal(was) {
		return false
	}
	if o.said != nil && s.equal(o.said) {
		o.ahead = nil
		return true
	}
	st.place(x, o, s, at)
	return true
}

// sort brings the origins into the order of announcement, and reports whether
// they were in another.
func (x *series) sort() bool {
	byPlace := func(a, b origin) int { return a.first.compare(b.first) }
	if slices.IsSortedFunc(x.origins, byPlace) {
		return false
	}
	slices.SortFunc(x.origins, byPlace)
	return true
}

// isUID reports whether a string may be a UID as real files have them.
func isUID(s string) bool {
	if s == "" || len(s) > maxUID {
		return false
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7E {
			return false
		}
	}
	return true
}

// isName reports whether a string may name a node, or a registry record.
func isName(s string) bool {
	return s != "" && len(s) <= maxName && !slices.Contains([]byte(s), 0)
}
