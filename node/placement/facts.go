package placement

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"pelago/cluster/layout"
	"pelago/node/member"
	"pelago/shard"
)

// facts are what the registry says, as of a moment, and what all choices are made
// from. They are never changed.
type facts struct {
	members []member.Member // in good standing, by site and id
	removed []member.Member // for good
	layouts []written       // ascending by version; the last is the newest
	// spoilt are layout records that nobody can have meant: they are dropped. foreign
	// says that there is one that a newer program wrote: this node changes nothing then.
	spoilt  map[string][]byte
	foreign bool

	codeRaw []byte // as it is in the registry; nil: there is none
	code    *code  // nil: none was chosen yet
	// unread says that the record is none, and code what is meant by it instead.
	unread  bool
	pledges map[string]int64
	lost    map[string]loss
	placed  map[string]uint64
}

// written is a layout with its record.
type written struct {
	*layout.Layout
	raw []byte
}

// newest is the layout by which shards belong; nil: there is none yet.
func (f *facts) newest() *layout.Layout {
	if len(f.layouts) == 0 {
		return nil
	}
	return f.layouts[len(f.layouts)-1].Layout
}

// changing reports whether shards may still be where an older layout says.
func (f *facts) changing() bool { return len(f.layouts) > 1 }

// state is what the facts say to those who place, read and repair.
func (f *facts) state() *State {
	s := &State{lost: map[string]bool{}, sites: map[string]string{}}
	s.View.New = f.newest()
	if f.changing() {
		s.View.Old = f.layouts[len(f.layouts)-2].Layout
	}
	if f.code != nil {
		s.Code, s.Survives = f.code.code(), f.code.Survives
	}
	for _, l := range f.layouts { // whom the registry does not know any more
		for _, n := range l.Nodes {
			s.sites[n.ID] = n.Site
		}
	}
	for _, m := range f.removed {
		s.sites[m.Node], s.lost[m.Node] = m.Site, true
	}
	for _, m := range f.members {
		s.sites[m.Node] = m.Site
		if _, lost := f.lost[m.Node]; lost {
			s.lost[m.Node] = true
		}
	}
	return s
}

// steady is by how much a pledge may differ from that of the newest layout without
// shards being moved for it: a tenth of what it was.
const steady = 10

// holders are the members with what they pledge. A pledge that is nearly that of the
// newest layout is taken as that: nothing moves for a small change.
func (f *facts) holders() []layout.Holder {
	was := map[string]int64{}
	if l := f.newest(); l != nil {
		for _, n := range l.Nodes {
			was[n.ID] = n.Pledge
		}
	}
	var all []layout.Holder
	for _, m := range f.members {
		if m.Witness {
			continue
		}
		bytes, told := f.pledges[m.Node]
		if before := was[m.Node]; before > 0 && (!told || bytes > 0 && max(bytes, before)-min(bytes, before) <= before/steady) {
			bytes = before
		}
		_, lost := f.lost[m.Node]
		all = append(all, layout.Holder{
			Node: layout.Node{ID: m.Node, Site: m.Site, Pledge: bytes}, Drained: m.Drained, Lost: lost,
		})
	}
	return all
}

// sites counts the sites of those that hold shards.
func sites(holders []layout.Holder) int {
	seen := map[string]bool{}
	for _, h := range holders {
		if h.Pledge > 0 && !h.Drained && !h.Lost {
			seen[h.Site] = true
		}
	}
	return len(seen)
}

// counts reports whether a change waits for a member: not for a witness, which holds
// nothing, nor for a node that was declared lost.
func (f *facts) counts(m member.Member) bool {
	_, lost := f.lost[m.Node]
	return !m.Witness && !lost
}

// waiting lists the members that a change waits for, by site and id; drained ones
// too, which give up what they hold.
func (f *facts) waiting() []member.Member {
	if !f.changing() {
		return nil
	}
	version := f.newest().Version
	var all []member.Member
	for _, m := range f.members {
		if f.counts(m) && f.placed[m.Node] < version {
			all = append(all, m)
		}
	}
	return all
}

// step is what is due next. Its zero is nothing.
type step struct {
	drop     []string // names of spoilt records
	complete bool     // the change under way: the older layouts go
	code     *code
	next     *layout.Layout
}

func (s step) any() bool { return len(s.drop) > 0 || s.complete || s.code != nil || s.next != nil }

// due chooses what is due next. An error is of holders that no layout can be made of
// (fault.Invalid).
func (f *facts) due() (step, error) {
	if f.foreign {
		return step{}, nil
	}
	if len(f.spoilt) > 0 {
		return step{drop: slices.Sorted(maps.Keys(f.spoilt))}, nil
	}
	if f.changing() { // no third version before the second is complete
		return step{complete: len(f.waiting()) == 0 && slices.ContainsFunc(f.members, f.counts)}, nil
	}
	holders := f.holders()
	n := sites(holders)
	if n == 0 || n == 1 && f.newest() == nil {
		return step{}, nil // packs stay whole at a site alone
	}
	var s step
	chosen := f.code
	if f.unread {
		s.code = f.code // before the sites change by which it was guessed
	}
	if rise := f.rise(n); rise != nil {
		s.code, chosen = rise, rise
	}
	width := n
	if chosen != nil {
		width = min(chosen.code().N(), n)
	}
	next, err := layout.Compute(f.newest(), holders, min(width, layout.MaxRow))
	if err != nil {
		return step{}, err
	}
	if was := f.newest(); was == nil || !next.Places(was) {
		s.next = next
	}
	return s, nil
}

// rise chooses the code of so many sites where it is better than what there is; nil:
// what there is stays. It never falls here, nor does one that an operator has set
// change.
func (f *facts) rise(sites int) *code {
	c, survives := shard.Default(sites)
	next := &code{Version: recordVersion, K: c.K, M: c.M, Survives: survives, Sites: sites}
	switch was := f.code; {
	case sites < 2:
		return nil
	case was == nil:
		return next
	case was.By != "" || sites <= was.Sites || survives < was.Survives || c == was.code() && survives == was.Survives:
		return nil
	}
	return next
}

// equal reports whether two readings are of the same records.
func (f *facts) equal(o *facts) bool {
	same := func(a, b written) bool { return a.Layout == b.Layout }
	sameLoss := func(a, b loss) bool { return bytes.Equal(a.raw, b.raw) }
	return f.foreign == o.foreign && bytes.Equal(f.codeRaw, o.codeRaw) && slices.EqualFunc(f.layouts, o.layouts, same) &&
		maps.EqualFunc(f.spoilt, o.spoilt, bytes.Equal) && maps.Equal(f.pledges, o.pledges) &&
		maps.EqualFunc(f.lost, o.lost, sameLoss) && maps.Equal(f.placed, o.placed) &&
		slices.EqualFunc(f.members, o.members, alike) && slices.EqualFunc(f.removed, o.removed, alike)
}

// alike reports whether two records of a member are the same for placement.
func alike(a, b member.Member) bool {
	return a.Node == b.Node && a.Site == b.Site && a.Witness == b.Witness && a.Drained == b.Drained
}

func byVersion(a, b written) int { return cmp.Compare(a.Version, b.Version) }
