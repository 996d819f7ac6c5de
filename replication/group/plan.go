package group

import (
	"maps"
	"slices"
	"time"

	"pelago/replication"
	"pelago/replication/consensus"
)

// Record is what the catalogue says of a node.
type Record struct {
	ID, Site, Address string
	Witness           bool // votes, and holds nothing
	Barred            bool // never votes: it came back older than it was
	Founder           bool
	Drained           bool // is given no vote: it gives up what it holds
	Revoked           bool // is no part of it
}

// deed is a kind of change of the membership.
type deed uint8

const (
	remove   deed = iota
	admit         // as one that does not vote, or under another address
	promote       // give a vote, or another address to one that has it
	demote        // take the vote
	abdicate      // give leadership away, so that another leader can do what is due
)

var deeds = [...]string{"remove", "admit", "promote", "demote", "abdicate"}

func (d deed) String() string { return deeds[d] }

// step is one change of the membership.
type step struct {
	do      deed
	id      string
	address string
}

// tolerance is how many sites may be lost without the network's losing its
// majority, by how many there are.
func tolerance(sites int) int {
	switch {
	case sites <= 1:
		return 0
	case sites <= 4:
		return 1
	case sites == 5:
		return 2
	}
	return 3
}

// plan returns the next change that brings the membership to what the catalogue
// says, false when there is none: healthy and barred are the leader's opinions, barred
// of who must not vote for now. Who is revoked goes before anything else, then
// who is not in the catalogue; who is missing comes in; then votes are moved: who is
// drained loses its own where another can have it, and stays until it is revoked or
// another has its address. A leader that must lose its own vote, or its place, gives
// leadership away first.
func plan(self string, records []Record, members []replication.Member, healthy, barred func(id string) bool) (step, bool) {
	known := map[string]Record{}
	for _, r := range records {
		known[r.ID] = r
	}
	present := map[string]replication.Member{}
	others := 0 // that vote
	for _, m := range members {
		present[m.ID] = m
		if m.ID != self && m.Suffrage == replication.Voter && !known[m.ID].Revoked {
			others++
		}
	}
	if s, ok := planLeaving(self, known, members, others); ok {
		return s, true
	}
	if s, ok := planComing(known, present); ok {
		return s, true
	}
	return planVotes(self, known, present, others, healthy, barred)
}

// newVotes returns the votes that are to be given now, one after the other, if giving
// one is what is due: from one voter to three leads over two, of which none may be lost.
func newVotes(self string, records []Record, members []replication.Member, healthy, barred func(id string) bool) (all []step) {
	members = slices.Clone(members)
	for len(all) < len(members) {
		s, ok := plan(self, records, members, healthy, barred)
		i := slices.IndexFunc(members, func(m replication.Member) bool { return m.ID == s.id })
		if !ok || s.do != promote || i < 0 || members[i].Suffrage != replication.Nonvoter {
			break
		}
		members[i].Suffrage = replication.Voter
		all = append(all, s)
	}
	return all
}

func planLeaving(self string, known map[string]Record, members []replication.Member, others int) (step, bool) {
	if len(known) == 0 {
		return step{}, false // the founding is not committed yet
	}
	for _, unknown := range [...]bool{false, true} { // the revoked first
		for _, m := range members {
			r, ok := known[m.ID]
			switch {
			case !r.Revoked && (ok || !unknown):
			case m.ID != self:
				return step{do: remove, id: m.ID}, true
			case others > 0:
				return step{do: abdicate}, true
			}
		}
	}
	for _, m := range members { // Raft has an address once
		if r := known[m.ID]; r.Drained && m.ID != self && m.Suffrage == replication.Nonvoter && replaced(known, m.ID, m.Address) {
			return step{do: remove, id: m.ID}, true
		}
	}
	return step{}, false
}

// replaced reports whether another, who is to stay, is where a node was.
func replaced(known map[string]Record, id, address string) bool {
	for _, r := range known {
		if r.ID != id && r.Address == address && !r.Revoked && !r.Drained {
			return true
		}
	}
	return false
}

// taken reports whether a member is where another is to come.
func taken(present map[string]replication.Member, id, address string) bool {
	for _, m := range present {
		if m.ID != id && m.Address == address {
			return true
		}
	}
	return false
}

func planComing(known map[string]Record, present map[string]replication.Member) (step, bool) {
	for _, id := range slices.Sorted(maps.Keys(known)) {
		r := known[id]
		m, ok := present[id]
		switch {
		case r.Revoked || r.Address == "" || len(r.Address) > replication.MaxMemberBytes || ok && m.Address == r.Address:
		case taken(present, id, r.Address) || r.Drained && !ok && replaced(known, id, r.Address):
		case ok && m.Suffrage == replication.Voter:
			return step{do: promote, id: id, address: r.Address}, true
		default:
			return step{do: admit, id: id, address: r.Address}, true
		}
	}
	return step{}, false
}

func planVotes(self string, known map[string]Record, present map[string]replication.Member, others int, healthy, barred func(string) bool) (step, bool) {
	sites := map[string]*consensus.Site{}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		r := known[id]
		m, ok := present[id]
		if !ok || r.Revoked {
			continue
		}
		s := sites[r.Site]
		if s == nil {
			s = &consensus.Site{Name: r.Site, Witness: true}
			sites[r.Site] = s
		}
		s.Founder = s.Founder || r.Founder
		s.Witness = s.Witness && r.Witness
		s.Nodes = append(s.Nodes, consensus.Eligible{
			ID: id, Voter: m.Suffrage == replication.Voter, Barred: r.Barred || barred(id), Healthy: !r.Drained && healthy(id),
		})
	}
	var all []consensus.Site
	staying := 0
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		s := sites[name]
		all = append(all, *s)
		if slices.ContainsFunc(s.Nodes, func(e consensus.Eligible) bool { return !known[e.ID].Drained }) {
			staying++
		}
	}
	change, ok := consensus.ChooseVoters(tolerance(staying), all)
	switch {
	case !ok:
		return step{}, false
	case change.Promote:
		return step{do: promote, id: change.ID, address: present[change.ID].Address}, true
	case change.ID != self:
		return step{do: demote, id: change.ID}, true
	case others > 0:
		return step{do: abdicate}, true
	}
	return step{}, false
}

// health turns what a leader hears of the others into an opinion that changes
// slowly: votes that move with every hiccup are worse than a slow voter.
type health struct {
	steady time.Duration // how long one must be well to be healthy
	doubt  time.Duration // and how long unwell not to be

	opinions map[string]*opinion
	bars     map[string]bar
}

// bar keeps a member from voting that has forgotten what it had confirmed, until it
// has lost its vote, and then stands where the leader stood when that was found out:
// then it is as good as a new one (consensus, comeBack).
type bar struct {
	forgot uint64 // how often, in this term
	until  uint64 // index; 0: it is none any more
}

// remember bars a member that has forgotten something since the last look, which it
// reports, and lets one go that was caught up.
func (h *health) remember(m replication.Member, of consensus.Heard, last uint64) bool {
	b := h.bars[m.ID]
	forgot := of.Forgot > b.forgot
	switch {
	case forgot:
		b = bar{of.Forgot, last}
		h.doubted([]string{m.ID})
	case b.until > 0 && m.Suffrage != replication.Voter && of.Last >= b.until:
		b.until = 0
	default:
		return false
	}
	if h.bars == nil {
		h.bars = map[string]bar{}
	}
	h.bars[m.ID] = b
	return forgot
}

// enter begins a term: consensus counts anew what is forgotten in it.
func (h *health) enter() {
	for id, b := range h.bars {
		b.forgot = 0
		h.bars[id] = b
	}
}

func (h *health) barred(id string) bool { return h.bars[id].until > 0 }

type opinion struct {
	healthy bool
	since   time.Time // when what was seen began to contradict; zero: it does not
}

// see takes what is seen of a node now. Of voters the first opinion is good:
// their leader may be a new one.
func (h *health) see(id string, voter, well bool, now time.Time) {
	if h.opinions == nil {
		h.opinions = map[string]*opinion{}
	}
	o := h.opinions[id]
	if o == nil {
		o = &opinion{healthy: voter}
		h.opinions[id] = o
	}
	if well == o.healthy {
		o.since = time.Time{}
		return
	}
	if o.since.IsZero() {
		o.since = now
	}
	limit := h.doubt
	if well {
		limit = h.steady
	}
	if now.Sub(o.since) >= limit {
		o.healthy, o.since = well, time.Time{}
	}
}

// doubted makes members unhealthy that say so themselves.
func (h *health) doubted(ids []string) {
	if h.opinions == nil {
		h.opinions = map[string]*opinion{}
	}
	for _, id := range ids {
		h.opinions[id] = &opinion{}
	}
}

func (h *health) healthy(id string) bool { return h.opinions[id] != nil && h.opinions[id].healthy }

// keep forgets who is not among the members.
func (h *health) keep(members []replication.Member) {
	maps.DeleteFunc(h.bars, func(id string, _ bar) bool {
		return !slices.ContainsFunc(members, func(m replication.Member) bool { return m.ID == id })
	})
	maps.DeleteFunc(h.opinions, func(id string, _ *opinion) bool {
		return !slices.ContainsFunc(members, func(m replication.Member) bool { return m.ID == id })
	})
}

// lag is how far behind the end of the log a node is that was heard of last at an index.
func lag(end, last uint64) uint64 { return end - min(end, last) }
