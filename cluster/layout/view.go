package layout

import (
	"fmt"

	"pelago/cluster/fault"
)

// Kind is that of the catalogue's records of layouts.
const Kind = "layout"

// RecordName is the name of a version's record.
func RecordName(version uint64) string { return fmt.Sprintf("%016x", version) }

// View is what is valid of a network's layouts: none before the first, one, or two
// during a change.
type View struct {
	New *Layout // where shards belong
	Old *Layout // where they may still be; nil when no change is under way
}

// ReadView makes a view of the values of all records of [Kind], in any order.
// fault.Invalid is for what is no layout, and for more than two of them or two that do
// not follow each other.
func ReadView(records [][]byte) (View, error) {
	var v View
	if len(records) > 2 {
		return v, fault.New(fault.Invalid, "layout: %d versions at once", len(records))
	}
	for _, b := range records {
		l, err := Parse(b)
		if err != nil {
			return View{}, err
		}
		if v.New == nil || v.New.Version < l.Version {
			v.New, v.Old = l, v.New
		} else {
			v.Old = l
		}
	}
	if v.Old != nil && v.Old.Version+1 != v.New.Version {
		return View{}, fault.New(fault.Invalid, "layout: version %d beside %d", v.New.Version, v.Old.Version)
	}
	return v, nil
}

// Candidates are the nodes that shard i from 0 of a pack may be at, by the layouts and
// in the order in which to ask: by the new row, then by the old one. There is none
// where no row is so long.
func (v View) Candidates(spread uint64, i int) []Node {
	var nodes []Node
	for _, l := range []*Layout{v.New, v.Old} {
		if l == nil || i < 0 || i >= l.width {
			continue
		}
		node := l.At(l.Group(spread), i)
		if len(nodes) == 0 || nodes[0].ID != node.ID {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// Move is a change of one position of a group's row.
type Move struct {
	Group    int  // among the larger of both numbers of groups
	Position int  // from 0: the shard's number
	From, To Node // by the old and by the new layout
}

// Diff lists what moves from one layout to another for stripes of n shards, by group
// and position. Shards at positions that one of the rows does not have are not among
// them: they stay until their stripe is made again.
func Diff(from, to *Layout, n int) []Move {
	var moves []Move
	groups := max(from.Groups, to.Groups)
	for g := range groups {
		for i := range min(n, from.width, to.width) {
			a, b := from.At(g*from.Groups/groups, i), to.At(g*to.Groups/groups, i)
			if a.ID != b.ID {
				moves = append(moves, Move{Group: g, Position: i, From: a, To: b})
			}
		}
	}
	return moves
}
