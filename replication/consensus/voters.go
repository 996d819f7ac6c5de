package consensus

import (
	"cmp"
	"slices"
)

// Site is a site as the choice of voters sees it: what fails together.
type Site struct {
	Name string
	// Founder marks the site of the node that founded the network.
	Founder bool
	// Witness marks a site that votes and holds nothing.
	Witness bool
	Nodes   []Eligible
}

// Eligible is a node of a site.
type Eligible struct {
	ID    string
	Voter bool // in the membership now
	// Healthy: heard of lately, and close to the end of the log. Who decides it
	// does so slowly, or votes move with every hiccup.
	Healthy bool
	// Barred: may never vote, because it came back older than it was (DESIGN §6).
	Barred bool
}

// VoterCount returns how many sites vote so that the loss of any t leaves a
// majority: 2t+1, at most 7, and never an even number or more than there are.
// With two sites one votes: a second voter would make the loss of either of
// them the loss of both.
func VoterCount(t, sites int) int {
	if t < 0 || sites < 1 {
		return 0
	}
	n := min(2*t+1, 7, sites)
	if n%2 == 0 {
		n--
	}
	return n
}

// VoterChange is one change of the membership.
type VoterChange struct {
	Promote bool // else demote
	ID      string
}

// ChooseVoters returns the next change that brings the voters to where they
// should be, false when there is none: VoterCount(t, sites) of them, one a site.
// A leader carries it out, lets it be committed, and asks again; it gives
// leadership away before it demotes itself.
//
// It keeps who votes and is healthy, replaces who is not, and prefers the
// founder, then sites that hold data, then names in order. Votes are given before
// they are taken, so that a failed change leaves one voter too many, not too few;
// only who may not vote at all loses it first. Who is unhealthy keeps its vote
// while there is nobody to take its place.
func ChooseVoters(t int, sites []Site) (VoterChange, bool) {
	var seats []seat
	for _, s := range sites {
		var voters []Eligible
		for _, e := range s.Nodes {
			if e.Voter && e.Barred {
				return VoterChange{ID: e.ID}, true
			}
			if e.Voter {
				voters = append(voters, e)
			}
		}
		if st, ok := seatOf(s); ok {
			st.voters = voters
			seats = append(seats, st)
		}
	}
	slices.SortFunc(seats, compareSeats)
	n := min(VoterCount(t, len(seats)), len(seats))
	for _, s := range seats[:n] {
		if !s.node.Voter {
			return VoterChange{Promote: true, ID: s.node.ID}, true
		}
	}
	for i, s := range seats {
		for _, v := range s.voters {
			if i >= n || v.ID != s.node.ID {
				return VoterChange{ID: v.ID}, true
			}
		}
	}
	return VoterChange{}, false
}

// seat is a site with the node that would vote for it.
type seat struct {
	site   Site
	node   Eligible
	voters []Eligible // of this site now
}

// seatOf picks the node of a site that votes or would: a healthy voter, another
// healthy node, or the voter that it has.
func seatOf(s Site) (seat, bool) {
	var of []Eligible
	for _, e := range s.Nodes {
		if !e.Barred && (e.Healthy || e.Voter) {
			of = append(of, e)
		}
	}
	if len(of) == 0 {
		return seat{}, false
	}
	best := slices.MinFunc(of, func(a, b Eligible) int {
		return cmp.Or(trueFirst(a.Healthy, b.Healthy), trueFirst(a.Voter, b.Voter), cmp.Compare(a.ID, b.ID))
	})
	return seat{site: s, node: best}, true
}

func compareSeats(a, b seat) int {
	votes := func(s seat) bool { return len(s.voters) > 0 }
	return cmp.Or(
		trueFirst(a.node.Healthy, b.node.Healthy),
		trueFirst(a.site.Founder, b.site.Founder),
		trueFirst(votes(a), votes(b)),
		trueFirst(!a.site.Witness, !b.site.Witness),
		cmp.Compare(a.site.Name, b.site.Name),
	)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
