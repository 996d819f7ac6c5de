package capacity

import (
	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/replication/catalog"
)

// Report is what is owed, as of a moment. Bytes are of shards.
type Report struct {
	Layout uint64           // version that it is by; 0: there is none, and nobody owes anything
	Owed   map[string]int64 // by node, of all in the layout
	// Placeless is what no node owes, since rows are shorter than the stripes are wide:
	// there are fewer sites than the code needs.
	Placeless int64
}

// Slots visit how many bytes of shards the seals have in each slot that has any;
// [catalog.Catalog.EachSlot] is one.
type Slots func(visit func(at catalog.Slot, bytes int64)) bool

// Count says what is owed by a state; nil as long as slots are not known.
func Count(state *placement.State, each Slots) *Report {
	r := &Report{Owed: map[string]int64{}}
	l := state.View.New
	if l == nil {
		return r
	}
	r.Layout = l.Version
	sites := map[string]string{}
	for _, of := range []*layout.Layout{state.View.Old, l} {
		if of == nil {
			continue
		}
		for _, n := range of.Nodes {
			sites[n.ID] = n.Site
		}
	}
	for _, n := range l.Nodes {
		r.Owed[n.ID] = 0
	}
	known := each(func(at catalog.Slot, bytes int64) {
		if int(at.Shard) >= l.Width() {
			r.Placeless += bytes
			return
		}
		owner := l.At(int(at.Group)*l.Groups/catalog.SlotGroups, int(at.Shard))
		if at.Cut != "" && sites[at.Cut] == owner.Site && !state.Lost(at.Cut) {
			return
		}
		r.Owed[owner.ID] += bytes
	})
	if !known {
		return nil
	}
	return r
}
