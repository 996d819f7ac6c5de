package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Fact is something that the catalogue learnt: a version of a thing, which
// includes all earlier versions, as absolute facts do.
type Fact struct {
	Key     string
	Version uint64 // from 1
	// Gone is whether answers show nothing of the thing from this version on.
	Gone bool
	// Committed is the latest moment at which it can have been committed: when
	// the observer heard of it.
	Committed time.Time
}

// Answer is what one node answered.
type Answer struct {
	Node Node
	// Asked is the earliest moment at which the answer can have been made: when
	// the question was sent. All times are of the observer's one clock.
	Asked time.Time
	// Known is whether the node says how stale its answer may be, and Staleness
	// how stale.
	Known     bool
	Staleness time.Duration
	Versions  map[string]uint64 // that the answer shows, by key
}

// Staleness judges whether answers are as fresh as they say.
type Staleness struct {
	Facts   []Fact
	Answers []Answer
}

// Check returns where the history breaks [Stale]: for each answer in order, the
// facts that were committed before its asking less its staleness and that it
// does not show, by the time of their commit. An answer that does not say how
// stale it is may lack anything.
func (h *Staleness) Check() []Violation {
	facts := slices.Clone(h.Facts)
	slices.SortStableFunc(facts, func(a, b Fact) int {
		return cmp.Or(a.Committed.Compare(b.Committed), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version))
	})
	gone := map[string]uint64{} // the last version of which nothing is shown
	for _, f := range facts {
		if f.Gone {
			gone[f.Key] = max(gone[f.Key], f.Version)
		}
	}
	var found []Violation
	for _, a := range h.Answers {
		if !a.Known {
			continue
		}
		if a.Staleness < 0 {
			found = append(found, Violation{
				Rule: Stale, Node: a.Node, What: "answer", Note: fmt.Sprintf("claims %v: of the future", a.Staleness),
			})
		}
		horizon := a.Asked.Add(-a.Staleness)
		for _, f := range facts {
			if !f.Committed.Before(horizon) {
				break
			}
			has := a.Versions[f.Key]
			// When it went is not known to the observer: it may have gone before.
			mayBeGone := has == 0 && gone[f.Key] >= f.Version
			if has < f.Version && !mayBeGone {
				found = append(found, Violation{
					Rule: Stale, Node: a.Node, What: f.Key,
					Note: fmt.Sprintf("claims %v, shows version %d, but %d was committed %v before",
						a.Staleness, has, f.Version, a.Asked.Sub(f.Committed)),
				})
			}
		}
	}
	return found
}
