package admin

import (
	"cmp"
	"slices"
	"time"

	"pelago/node/transfers"
)

// State is how a node or a site is, as this node sees it: a hint.
type State string

// The states. Of its nodes that were not removed a site is alive when all are,
// partial when some are not, drained when all that is left of it is, and else
// silent.
const (
	Alive   State = "alive"
	Partial State = "partial" // of a site only
	Silent  State = "silent"  // not heard by gossip
	Drained State = "drained" // alive, and takes nothing new in, by an operator's word
	Removed State = "removed" // for good, by an operator's word
)

// Member is a node of the network, with what is heard of it.
type Member struct {
	Node, Site, Address string // Address: of the peer port
	Self                bool   // this node
	Alive               bool   // as gossip says
	Voter, Witness      bool
	Signs               bool // lets others join
	Drained, Removed    bool
	Lost                bool  // declared so
	Pledge              int64 // bytes of shards that it will hold
	Owed                int64 // bytes of shards that it is to hold; -1: not known
	Room                int64 // bytes that it is to keep free for those of a site that is lost; -1: not known
	// Barred nodes never vote: they were restored from a backup.
	Barred bool
	// What follows is as the node told last; zero when nothing was heard.
	DICOM, Web     string
	AppliedIndex   uint64
	Capacity, Used int64         // bytes
	Held, Lacking  int64         // bytes of shards, of what it owes those that it has not; -1: not known
	RoundTrip      time.Duration // 0: not measured
}

// Site is a hospital in the status.
type Site struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Nodes []Node `json:"nodes"`
	// OwedBytes, RoomBytes, HeldBytes and LackingBytes are those of its nodes together;
	// -1: they are not known of all.
	OwedBytes    int64 `json:"owed_bytes"`
	RoomBytes    int64 `json:"room_bytes"`
	HeldBytes    int64 `json:"held_bytes"`
	LackingBytes int64 `json:"lacking_bytes"`
}

// Node is a node in the status.
type Node struct {
	ID            string `json:"id"`
	Address       string `json:"address"` // of its peer port
	State         State  `json:"state"`
	CapacityBytes int64  `json:"capacity_bytes"`
	UsedBytes     int64  `json:"used_bytes"`
	PledgeBytes   int64  `json:"pledge_bytes,omitempty"` // of shards that it will hold
	// OwedBytes of shards belong to it by the layout and what is sealed. HeldBytes of
	// shards rest there, with their hashes, and with those that belong to others;
	// LackingBytes of what it owes do not. -1: not known.
	OwedBytes    int64 `json:"owed_bytes"`
	HeldBytes    int64 `json:"held_bytes"`
	LackingBytes int64 `json:"lacking_bytes"`
	// RoomBytes are what it would have to take in if the one site were lost whose loss
	// asks most of it. -1: not known.
	RoomBytes int64 `json:"room_bytes"`

	Self    bool   `json:"self,omitempty"`
	Leader  bool   `json:"leader,omitempty"`
	Voter   bool   `json:"voter,omitempty"`
	Witness bool   `json:"witness,omitempty"`
	Signs   bool   `json:"signs,omitempty"` // lets others join
	Barred  bool   `json:"barred,omitempty"`
	Lost    bool   `json:"lost,omitempty"`  // declared so, until it is back
	DICOM   string `json:"dicom,omitempty"` // where clients reach it
	Web     string `json:"web,omitempty"`
	// AppliedIndex is how far the node's catalogue is, as heard last.
	AppliedIndex uint64 `json:"applied_index"`
	// LagEntries are the committed entries that this node has applied, and that
	// one had not when it was last heard; LagSeconds is how long ago the first of
	// them was applied here. -1: not known.
	LagEntries int64   `json:"lag_entries"`
	LagSeconds float64 `json:"lag_seconds"`
	// RoundTripSeconds is the latest that gossip measured from here; 0: none.
	RoundTripSeconds float64 `json:"round_trip_seconds"`
}

// Vantage is where this node stands when it looks at the others.
type Vantage struct {
	Leader       string // node id
	AppliedIndex uint64 // here
	CommitIndex  uint64 // as the leader told last
	// Staleness of this node's own catalogue; false: not known.
	Staleness      time.Duration
	StalenessKnown bool
	// Behind returns how long ago this node applied the first entry after an
	// index; false if that is longer ago than it remembers. nil: remembers nothing.
	Behind func(index uint64) (time.Duration, bool)
}

// StalenessSeconds is the staleness as the status tells it.
func (v Vantage) StalenessSeconds() float64 {
	if !v.StalenessKnown {
		return unknown
	}
	return v.Staleness.Seconds()
}

// SitesOf groups members by site, both in the order of their names, this node
// and its site first.
func SitesOf(members []Member, from Vantage) []Site {
	members = slices.Clone(members)
	own := ""
	for _, m := range members {
		if m.Self {
			own = m.Site
		}
	}
	slices.SortFunc(members, func(a, b Member) int {
		if away := cmp.Compare(order(a.Site != own), order(b.Site != own)); away != 0 {
			return away
		}
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(order(!a.Self), order(!b.Self)), cmp.Compare(a.Node, b.Node))
	})
	sites := []Site{}
	for _, m := range members {
		if last := len(sites) - 1; last < 0 || sites[last].Name != m.Site {
			sites = append(sites, Site{Name: m.Site})
		}
		s := &sites[len(sites)-1]
		s.Nodes = append(s.Nodes, from.node(m))
	}
	for i := range sites {
		sites[i].State = siteState(sites[i].Nodes)
		sites[i].sum()
	}
	return sites
}

func order(last bool) int {
	if last {
		return 1
	}
	return 0
}

// sum sums up the shards of a site's nodes. Those that are removed owe nothing, and
// what they hold counts for nothing.
func (s *Site) sum() {
	for _, n := range s.Nodes {
		if n.State == Removed || n.Witness {
			continue
		}
		for _, one := range []struct {
			to *int64
			n  int64
		}{{&s.OwedBytes, n.OwedBytes}, {&s.RoomBytes, n.RoomBytes}, {&s.HeldBytes, n.HeldBytes}, {&s.LackingBytes, n.LackingBytes}} {
			if one.n < 0 || *one.to < 0 {
				*one.to = unknown
			} else {
				*one.to += one.n
			}
		}
	}
}

// siteState sums up the states of a site's nodes.
func siteState(nodes []Node) State {
	count := map[State]int{}
	for _, n := range nodes {
		count[n.State]++
	}
	switch {
	case count[Silent] == 0 && count[Alive] > 0:
		return Alive
	case count[Alive] > 0:
		return Partial
	case count[Silent] > 0:
		return Silent
	case count[Drained] > 0:
		return Drained
	}
	return Removed
}

// node is a member in the status.
func (v Vantage) node(m Member) Node {
	n := Node{
		ID: m.Node, Address: m.Address, State: Silent, CapacityBytes: m.Capacity, UsedBytes: m.Used,
		Self: m.Self, Leader: m.Node == v.Leader, Voter: m.Voter, Witness: m.Witness, Signs: m.Signs, Barred: m.Barred,
		Lost: m.Lost, PledgeBytes: m.Pledge, OwedBytes: m.Owed, RoomBytes: m.Room, HeldBytes: unknown, LackingBytes: unknown,
		DICOM: m.DICOM, Web: m.Web, AppliedIndex: m.AppliedIndex, RoundTripSeconds: m.RoundTrip.Seconds(),
	}
	switch {
	case m.Removed:
		n.State = Removed
	case !m.Alive && !m.Self:
	case m.Drained:
		n.State = Drained
	default:
		n.State = Alive
	}
	if n.State == Alive || n.State == Drained { // of others there is no word
		n.HeldBytes, n.LackingBytes = m.Held, m.Lacking
	}
	n.LagEntries, n.LagSeconds = v.lag(m)
	return n
}

// lag tells how far a member's catalogue is behind. This node's own is its
// staleness, which the leader confirms; of others it is what gossip says, held
// against what is applied here, and so a hint.
func (v Vantage) lag(m Member) (entries int64, seconds float64) {
	if m.Self {
		if !v.StalenessKnown {
			return unknown, unknown
		}
		return int64(max(v.CommitIndex, v.AppliedIndex) - v.AppliedIndex), v.Staleness.Seconds()
	}
	switch {
	case m.AppliedIndex == 0:
		return unknown, unknown
	case m.AppliedIndex >= v.AppliedIndex:
		return 0, 0
	}
	entries, seconds = int64(v.AppliedIndex-m.AppliedIndex), unknown
	if v.Behind != nil {
		if behind, ok := v.Behind(m.AppliedIndex); ok {
			seconds = behind.Seconds()
		}
	}
	return entries, seconds
}

// Transfer is what moves between this node and another.
type Transfer struct {
	Kind     string `json:"kind"` // images, catalogue
	Incoming bool   `json:"incoming"`
	Node     string `json:"node"`
	// Calls are under way just now; none: the next is awaited for a moment.
	Calls   int     `json:"calls"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"` // since it began
}

// TransfersOf lists transfers for the status.
func TransfersOf(running []transfers.Transfer, now time.Time) []Transfer {
	all := make([]Transfer, len(running))
	for i, t := range running {
		all[i] = Transfer{
			Kind: string(t.Kind), Incoming: t.Incoming, Node: t.Node, Calls: t.Calls, Bytes: t.Bytes,
			Seconds: max(0, now.Sub(t.Began).Seconds()),
		}
	}
	return all
}
