package catalog

import (
	"bytes"
	"slices"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// Most of what is told of a series was told before: by its last fact, or by that
// of another series of its study. A fact may lean on such a saying, which it names
// by a hash, and tell what differs. Who applies it looks only among what the same
// node has committed, so that all nodes find the same.

// leanBytes is the length of the hash by which a fact names what it leans on.
const leanBytes = 8

// lean is what a fact that was decoded leans on.
type lean struct {
	hash    [leanBytes]byte
	dropped []byte // codes of attributes that the fact has not
}

// maxLooked bounds the series of a study among which Shorten looks.
const maxLooked = 16

// description names what a saying says that is not of one moment.
func (s *saying) description() [leanBytes]byte {
	var room [1024]byte
	b := appendString(room[:0], s.issuer)
	b = append(appendAttrs(b, s.attrs), flag(s.reserved))
	sum := blake3.Sum256(appendStrings(b, s.classes))
	return [leanBytes]byte(sum[:leanBytes])
}

// beyond returns what must be told of attributes to who knows others, and the
// codes of those that the others have in excess.
func (as attrs) beyond(known attrs) (more attrs, dropped []byte) {
	for _, a := range as {
		if i, ok := known.find(a.code); !ok || !bytes.Equal(known[i].value, a.value) {
			more = append(more, a)
		}
	}
	for _, k := range known {
		if _, ok := as.find(k.code); !ok {
			dropped = append(dropped, k.code)
		}
	}
	return more, dropped
}

// with is the reverse of beyond.
func (as attrs) with(more attrs, dropped []byte) attrs {
	all := make(attrs, 0, len(as)+len(more))
	for _, a := range as {
		if _, told := more.find(a.code); !told && !slices.Contains(dropped, a.code) {
			all = append(all, a)
		}
	}
	all = append(all, more...)
	slices.SortFunc(all, func(x, y attr) int { return int(x.code) - int(y.code) })
	return all
}

// mayLean reports whether a fact can be told by what differs from a saying.
func (s *saying) mayLean(on *saying) bool {
	return s.issuer == on.issuer && s.reserved == on.reserved && (len(s.classes) > 0 || len(on.classes) == 0)
}

// leaned is what is told of a fact that leans on a saying.
func (s *saying) leaned(on *saying) (more attrs, dropped []byte, classes []string) {
	more, dropped = s.attrs.beyond(on.attrs)
	if !slices.Equal(s.classes, on.classes) {
		classes = s.classes
	}
	return more, dropped, classes
}

// restore completes a saying that was told by what differs from another.
func (s *saying) restore(on *saying, dropped []byte) {
	s.issuer, s.reserved, s.attrs = on.issuer, on.reserved, on.attrs.with(s.attrs, dropped)
	if len(s.classes) == 0 {
		s.classes = on.classes
	}
}

// cost is about how many bytes more a fact takes for what it tells.
func cost(more attrs, dropped []byte, classes []string) int {
	n := len(dropped)
	for _, a := range more {
		n += 2 + len(a.value)
	}
	for _, class := range classes {
		n += 2 + len(class)
	}
	return n
}

// Shorten returns facts as they should be told: those that repeat what the same
// node has committed lean on it, and encode to a fraction. They must be the facts
// of the node's next batch, all batches before it being committed and applied
// here. They lean on no series that is told in the same batch, so that who applies
// the batch always finds what they lean on.
func (c *Catalog) Shorten(facts []*SeriesFact) ([]*SeriesFact, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type name struct{ study, series string }
	told := map[name]bool{}
	for _, f := range facts {
		told[name{f.Study, f.Series}] = true
	}
	t := c.begin()
	short := make([]*SeriesFact, len(facts))
	for i, f := range facts {
		short[i] = f
		s, bad := f.check()
		if bad != nil || f.leans != nil {
			continue
		}
		on, err := t.support(f, s, func(series string) bool { return told[name{f.Study, series}] })
		if err != nil {
			return nil, err
		}
		if on != nil {
			leaning := *f
			leaning.support = on
			short[i] = &leaning
		}
	}
	return short, nil
}

// Leans reports whether a decoded fact leans on another, without which it says
// nothing.
func (f *SeriesFact) Leans() bool { return f.leans != nil }

// support returns what the node has committed of the series, else the
// best of what it has of others of the study that are not told anew; nil for none.
func (t *txn) support(f *SeriesFact, s *saying, told func(series string) bool) (*saying, error) {
	st, err := t.study(f.Study, false)
	if err != nil || st == nil {
		return nil, err
	}
	x, err := st.findSeries(f.Series)
	if err != nil {
		return nil, err
	}
	if on := said(x, f.Origin, false); on != nil && s.mayLean(on) {
		return on, nil
	}
	if err := st.loadAll(); err != nil {
		return nil, err
	}
	var best *saying
	least, looked := cost(s.attrs, nil, s.classes)-leanBytes, 0
	for _, x := range st.inOrder() {
		on := said(x, f.Origin, false)
		if on == nil || told(x.cur.uid) || !s.mayLean(on) {
			continue
		}
		if n := cost(s.leaned(on)); n < least {
			best, least = on, n
		}
		if looked++; looked == maxLooked {
			break
		}
	}
	return best, nil
}

// said returns what a node said of a series: with ahead, the last; else the last
// that is committed.
func said(x *seriesState, node string, ahead bool) *saying {
	if x == nil || x.cur == nil {
		return nil
	}
	for i := range x.cur.origins {
		if o := &x.cur.origins[i]; o.node == node {
			if ahead {
				return o.now()
			}
			return o.said
		}
	}
	return nil
}

// complete makes the saying of a fact that leans on another whole. Its result is
// fault.NotFound when there is no such other: of this series, or of another one of
// the study, whose order of announcement decides between equals.
func (st *studyState) complete(f *SeriesFact, x *seriesState, s *saying, at place) (result, err error) {
	supports := func(x *seriesState) bool {
		for _, ahead := range [...]bool{false, true} {
			if on := said(x, f.Origin, ahead); on != nil && (!ahead || !at.committed()) && on.description() == f.leans.hash {
				s.restore(on, f.leans.dropped)
				s.anonymous()
				return true
			}
		}
		return false
	}
	found := supports(x)
	if !found {
		if err := st.loadAll(); err != nil {
			return nil, err
		}
		found = slices.ContainsFunc(st.inOrder(), supports)
	}
	if !found {
		return fault.New(fault.NotFound, "catalog: a fact leans on one that is not known"), nil
	}
	if !s.attrs.bounded() {
		return fault.New(fault.Invalid, "catalog: a fact has more attributes than it may"), nil
	}
	return nil, nil
}

// inOrder returns the loaded series in the order of announcement.
func (st *studyState) inOrder() []*seriesState {
	var all []*seriesState
	for _, x := range st.loaded {
		if x.cur != nil {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b *seriesState) int { return a.cur.place().compare(b.cur.place()) })
	return all
}
