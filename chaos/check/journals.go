package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Journal names a journal: of a node, in one of its incarnations.
type Journal struct {
	Node        Node
	Incarnation uint64
}

// String returns the name as "node/incarnation".
func (j Journal) String() string { return fmt.Sprintf("%s/%d", j.Node, j.Incarnation) }

// Record is an entry of a journal, numbered from 1 without gaps.
type Record struct {
	Journal Journal
	Number  uint64
	Hash    Hash // of its content
}

// Applied are the records that one node applied, in the order in which it did.
type Applied struct {
	Node    Node
	Records []Record
	// After are the numbers up to which the node had each journal without
	// applying it: by copying the state of another.
	After map[Journal]uint64
}

// Journals judges how journals were applied.
type Journals struct {
	// Logged are the records that are durable in their journals.
	Logged []Record
	// Applied are the nodes. One that copied the state of another while the
	// history lasted begins anew with an entry of its own.
	Applied []Applied
	// Settled is whether the network was whole and had time: then nothing may
	// be missing at any node.
	Settled bool
}

// Check returns where the history breaks [Twice], [Skipped], [Forged] or
// [Unapplied]: node by node in the order of application, then what is missing
// there by journal.
func (h *Journals) Check() []Violation {
	logged := map[Journal]map[uint64]Hash{}
	var found []Violation
	for _, r := range h.Logged {
		if logged[r.Journal] == nil {
			logged[r.Journal] = map[uint64]Hash{}
		}
		if before, ok := logged[r.Journal][r.Number]; ok && before != r.Hash {
			found = append(found, violation(Forged, r.Journal.Node, r, "logged as %s and as %s", before, r.Hash))
		}
		logged[r.Journal][r.Number] = r.Hash
	}
	for _, a := range h.Applied {
		done, bad := a.check(logged)
		found = append(found, bad...)
		if h.Settled {
			found = append(found, a.missing(logged, done)...)
		}
	}
	return found
}

// check follows one node and returns how far it has come in each journal.
func (a *Applied) check(logged map[Journal]map[uint64]Hash) (done map[Journal]uint64, found []Violation) {
	done = maps.Clone(a.After)
	if done == nil {
		done = map[Journal]uint64{}
	}
	for _, r := range a.Records {
		last := done[r.Journal]
		switch {
		case r.Number <= last:
			found = append(found, violation(Twice, a.Node, r, "after %d", last))
		case r.Number > last+1:
			found = append(found, violation(Skipped, a.Node, r, "after %d", last))
		}
		done[r.Journal] = max(last, r.Number)
		if want, ok := logged[r.Journal][r.Number]; !ok {
			found = append(found, violation(Forged, a.Node, r, "nobody logged it"))
		} else if want != r.Hash {
			found = append(found, violation(Forged, a.Node, r, "applied %s, logged %s", r.Hash, want))
		}
	}
	return done, found
}

// missing finds the first record of each journal that the node has not come to.
// What it skipped was found before.
func (a *Applied) missing(logged map[Journal]map[uint64]Hash, done map[Journal]uint64) []Violation {
	var found []Violation
	for _, j := range slices.SortedFunc(maps.Keys(logged), compareJournals) {
		if last := slices.Max(slices.Collect(maps.Keys(logged[j]))); last > done[j] {
			next := Record{Journal: j, Number: done[j] + 1}
			found = append(found, violation(Unapplied, a.Node, next, "of %d", last))
		}
	}
	return found
}

func compareJournals(a, b Journal) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
}

func violation(r Rule, n Node, of Record, note string, args ...any) Violation {
	return Violation{Rule: r, Node: n, What: fmt.Sprintf("%s #%d", of.Journal, of.Number), Note: fmt.Sprintf(note, args...)}
}
