package capacity

import (
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
	// Losses are what the loss of each site would ask of the others, by the name of the
	// site: of those alone whose loss has a remedy, for which there are more sites than
	// the code needs. Nil while they are not known of this layout.
	Losses []Loss
	// Fits is how many bytes of shards, spread evenly, the pledges have room for so that
	// the loss of any one site could still be made anew; 0: none could, or it is not known.
	Fits int64
	// Room is, for each node, the most that one of the losses asks of it: what it is to
	// keep free for shards. While those of a new layout are worked out it is that of the
	// one before; nil: it is not known yet.
	Room map[string]int64
}

// Slots visit how many bytes of shards the seals have in each slot that has any;
// [catalog.Catalog.EachSlot] is one.
type Slots func(visit func(at catalog.Slot, bytes int64)) bool

// Count says what is owed by a state, and nothing of losses; nil as long as slots are
// not known.
func Count(state *placement.State, each Slots) *Report {
	r := &Report{Owed: map[string]int64{}}
	l := state.View.New
	if l == nil {
		return r
	}
	r.Layout = l.Version
	sites := sitesOf(state.View.Old, l)
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
