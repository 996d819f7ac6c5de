package recalled

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/replication/catalog"
)

// merge makes one manifest of what packs of a series hold, nil for those that could
// not be opened: of each SOP Instance UID the version that counts. whole: it is the set
// of instances that the catalogue knows of. nil if there is none.
func (c *Client) merge(h *catalog.Holder, packs []*listed) (m *far.Manifest, whole bool) {
	m = &far.Manifest{Node: h.Node, Study: h.Study, Series: h.Series}
	versions := map[string][]far.Instance{}
	for _, l := range packs {
		if l == nil {
			continue
		}
		for _, in := range l.entries {
			in.Pack = len(m.Packs)
			versions[in.Record.Sop] = append(versions[in.Record.Sop], in)
		}
		m.Packs = append(m.Packs, l.pack)
	}
	accepted, _ := c.o.Catalog.Accepted(h.Study, h.Series)
	var deleted []far.Instance
	for sop, all := range versions {
		hash, over := accepted.Versions[sop]
		if !over {
			hash = [32]byte{}
		}
		one, ok := counting(all, hash[:])
		switch {
		case !ok:
		case c.o.Catalog.Hidden(h.Study, h.Series, sop, one.Record.Hash):
			deleted = append(deleted, one)
		default:
			m.Instances = append(m.Instances, one)
		}
	}
	some, whole := restOf(h, m.Instances, deleted)
	m.Instances = append(m.Instances, some...)
	if len(m.Instances) == 0 {
		return nil, whole && h.Instances == 0
	}
	slices.SortFunc(m.Instances, func(a, b far.Instance) int { return strings.Compare(a.Record.Sop, b.Record.Sop) })
	dropUnused(m)
	return m, whole
}

// counting returns the version that counts of those that were packed under a SOP
// Instance UID, as one that does; false if none does. It is the one that was accepted
// over a tombstone, by its hash; else of those that counted when they were packed the
// one that an operator decided for last, and else the first: who comes later under a
// known UID is quarantined (DESIGN §2, Duplicates). Of the same bytes the last is
// taken: it came because the others were lost.
func counting(all []far.Instance, accepted []byte) (far.Instance, bool) {
	canonical := func(in *far.Instance) bool { return in.Record.State == archivepb.State_CANONICAL }
	best := -1
	for i := range all {
		switch in := &all[i]; {
		case bytes.Equal(in.Record.Hash, accepted):
			best = i
		case !canonical(in) || best >= 0 && bytes.Equal(all[best].Record.Hash, accepted):
		case best < 0 || before(in.Record, all[best].Record):
			best = i
		}
	}
	if best < 0 {
		return far.Instance{}, false
	}
	one := all[best]
	for i := range all {
		in := &all[i]
		if in.Record.Number > one.Record.Number && in.Record.Syntax == one.Record.Syntax && bytes.Equal(in.Record.Hash, one.Record.Hash) && canonical(in) {
			one = *in
		}
	}
	one.Record.State = archivepb.State_CANONICAL // for who accepted it
	return one, true
}

// before reports whether a version counts rather than another.
func before(a, b *archivepb.Instance) bool {
	return cmp.Or(cmp.Compare(b.Decided, a.Decided), cmp.Compare(a.Number, b.Number)) < 0
}

// maxGuessed is how many deleted instances are tried in all combinations: of more, all
// or none.
const maxGuessed = 12

// restOf finds which of the deleted instances the catalogue still counts at the node,
// which may have gone before it told that they are: with them, the set is what the
// catalogue says. Nobody is shown them. Of what the node stored after it told last
// (Number above AsOf) the catalogue knows nothing, and it is no less whole for it.
func restOf(h *catalog.Holder, shown, deleted []far.Instance) (some []far.Instance, whole bool) {
	all, told := sumOf(h.UIDHash), sumOf(h.UIDHash)
	for _, in := range shown {
		one := sumOfUID(in.Record.Sop)
		if all = all.minus(one); in.Record.Number <= h.AsOf {
			told = told.minus(one)
		}
	}
	for _, lack := range []sum{all, told} {
		if some, whole = guess(lack, deleted); whole {
			return some, true
		}
	}
	return nil, false
}

// guess returns the instances whose UIDs are what is lacking.
func guess(lack sum, of []far.Instance) (some []far.Instance, ok bool) {
	if lack == (sum{}) {
		return nil, true
	}
	if len(of) > maxGuessed {
		for _, in := range of {
			lack = lack.minus(sumOfUID(in.Record.Sop))
		}
		return of, lack == sum{}
	}
	for set := uint(1); set < 1<<len(of); set++ {
		left := lack
		for rest := set; rest != 0; rest &= rest - 1 {
			left = left.minus(sumOfUID(of[bits.TrailingZeros(rest)].Record.Sop))
		}
		if left != (sum{}) {
			continue
		}
		for rest := set; rest != 0; rest &= rest - 1 {
			some = append(some, of[bits.TrailingZeros(rest)])
		}
		return some, true
	}
	return nil, false
}

// sum is the hash of a set of UIDs as the catalogue keeps it: the lower half of a sum
// modulo 2^256, little endian ([archive.AddUID]), so that differences of it are those
// of the sets.
type sum struct{ low, high uint64 }

func sumOf(b [16]byte) sum {
	return sum{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

func sumOfUID(uid string) sum {
	var all [32]byte
	archive.AddUID(&all, uid)
	return sumOf([16]byte(all[:16]))
}

func (s sum) minus(o sum) sum {
	low, borrow := bits.Sub64(s.low, o.low, 0)
	high, _ := bits.Sub64(s.high, o.high, borrow)
	return sum{low, high}
}

// dropUnused leaves out packs that no instance is in.
func dropUnused(m *far.Manifest) {
	at := make([]int, len(m.Packs)) // place of a pack, from 1
	var packs []far.Pack
	for i := range m.Instances {
		in := &m.Instances[i]
		if at[in.Pack] == 0 {
			packs = append(packs, m.Packs[in.Pack])
			at[in.Pack] = len(packs)
		}
		in.Pack = at[in.Pack] - 1
	}
	m.Packs = packs
}
