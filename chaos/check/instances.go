package check

import (
	"fmt"
	"maps"
	"slices"
)

// Store is an instance that was sent to some node.
type Store struct {
	UID  string // SOP Instance UID
	Hash Hash   // of the data set
	// Acknowledged is whether success came back. What was not acknowledged may
	// be kept or not.
	Acknowledged bool
}

// Returned is what one node returned once the network was whole and settled.
type Returned struct {
	Node      Node
	Instances map[string]Hash // by SOP Instance UID
}

// Instances judges what became of everything that was stored.
type Instances struct {
	Stores []Store
	// Quarantined is what operators find set aside, at any node: of several
	// contents under one UID, all but one.
	Quarantined []Store
	// Deleted are the UIDs under which a deletion was acknowledged, and
	// MaybeDeleted those of which nobody knows whether it took effect.
	Deleted, MaybeDeleted []string
	Returned              []Returned
}

// Check returns where the history breaks [Lost], [Changed], [Invented],
// [Revived] or [Disagreed], sorted by UID and then in the order of Returned.
func (h *Instances) Check() []Violation {
	known := map[string]*instance{}
	at := func(uid string) *instance {
		if known[uid] == nil {
			known[uid] = &instance{contents: map[Hash]fate{}}
		}
		return known[uid]
	}
	for _, s := range h.Stores {
		f := at(s.UID).contents[s.Hash]
		f.acknowledged = f.acknowledged || s.Acknowledged
		at(s.UID).contents[s.Hash] = f
	}
	for _, q := range h.Quarantined {
		f, stored := at(q.UID).contents[q.Hash]
		f.found = true
		f.invented = f.invented || !stored
		at(q.UID).contents[q.Hash] = f
	}
	for _, uid := range h.Deleted {
		at(uid).deleted = true
	}
	for _, uid := range h.MaybeDeleted {
		at(uid).maybeDeleted = true
	}
	for _, r := range h.Returned {
		for uid := range r.Instances {
			at(uid)
		}
	}
	var found []Violation
	for _, uid := range slices.Sorted(maps.Keys(known)) {
		found = append(found, known[uid].check(uid, h.Returned)...)
	}
	return found
}

// instance is all that is known of a UID.
type instance struct {
	contents              map[Hash]fate
	deleted, maybeDeleted bool
}

// fate is what became of one content of a UID.
type fate struct {
	acknowledged, found, invented bool
}

// check follows one UID through all nodes.
func (i *instance) check(uid string, returned []Returned) []Violation {
	var found []Violation
	add := func(r Rule, n Node, note string, args ...any) {
		found = append(found, Violation{Rule: r, Node: n, What: uid, Note: fmt.Sprintf(note, args...)})
	}
	var first Hash
	var firstAt Node
	expected := i.acknowledged() && !i.deleted && !i.maybeDeleted
	var without []Node
	for _, r := range returned {
		got, ok := r.Instances[uid]
		if !ok {
			if expected {
				add(Lost, r.Node, "acknowledged and not returned")
			} else {
				without = append(without, r.Node)
			}
			continue
		}
		f, stored := i.contents[got]
		switch {
		case i.deleted:
			add(Revived, r.Node, "%s", got)
		case !i.stored():
			add(Invented, r.Node, "%s", got)
		case !stored || f.invented:
			add(Changed, r.Node, "%s was never stored", got)
		}
		if stored {
			f.found = true
			i.contents[got] = f
		}
		if firstAt == "" {
			first, firstAt = got, r.Node
		} else if got != first {
			add(Disagreed, r.Node, "%s, but %s at %s", got, first, firstAt)
		}
	}
	if firstAt != "" && !i.deleted {
		for _, n := range without {
			add(Disagreed, n, "not returned, but %s at %s", first, firstAt)
		}
	}
	return append(found, i.missing(uid)...)
}

// missing finds contents that are neither returned nor in quarantine, and those
// in quarantine that nobody stored.
func (i *instance) missing(uid string) []Violation {
	var found []Violation
	for _, h := range slices.SortedFunc(maps.Keys(i.contents), func(a, b Hash) int { return slices.Compare(a[:], b[:]) }) {
		f := i.contents[h]
		switch {
		case f.invented:
			found = append(found, Violation{Rule: Invented, What: uid, Note: h.String() + " in quarantine"})
		case f.acknowledged && !f.found && !i.deleted && !i.maybeDeleted:
			found = append(found, Violation{Rule: Lost, What: uid, Note: h.String() + " is nowhere, nor in quarantine"})
		}
	}
	return found
}

func (i *instance) acknowledged() bool {
	for _, f := range i.contents {
		if f.acknowledged {
			return true
		}
	}
	return false
}

// stored reports whether anything was sent under the UID.
func (i *instance) stored() bool {
	for _, f := range i.contents {
		if !f.invented {
			return true
		}
	}
	return false
}
