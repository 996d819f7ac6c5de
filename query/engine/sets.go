package engine

import (
	"slices"

	"pelago/query/plan"
	"pelago/replication/catalog"
)

// Limits of what indexes may cost before the records themselves are cheaper.
const (
	// maxCollected bounds the postings gathered for a prefix where nothing else is
	// known. A prefix that more studies have is found fast by going through the
	// studies. maxRare bounds them where something else finds what is frequent.
	maxCollected = 20_000
	maxRare      = 4_000
	// maxDictionary bounds the terms that are enumerated, maxAccepted those that
	// are then read side by side.
	maxDictionary = 4_000
	maxAccepted   = 128
	// maxWords bounds the words of a vocabulary that begin alike.
	maxWords = 4_000
)

// open returns the stream of a plan's sets: nil when no index narrows the query.
func open(v *catalog.View, sets []plan.Set) (stream, error) {
	var streams []stream
	sure := false
	for _, late := range [...]bool{false, true} { // what may cost much, only if nothing else narrows
		if late && sure {
			break
		}
		for _, set := range sets {
			if isCostly(set) != late {
				continue
			}
			s, err := openSet(v, set)
			if err != nil {
				return nil, err
			}
			if s != nil {
				streams, sure = append(streams, s), sure || isSelective(set)
			}
		}
	}
	if len(streams) == 0 {
		return nil, nil
	}
	return all(streams), nil
}

func all(streams []stream) stream {
	if len(streams) == 1 {
		return streams[0]
	}
	return &both{streams}
}

// isCostly reports whether a set is found by reading an index through.
func isCostly(set plan.Set) bool {
	switch set := set.(type) {
	case plan.Prefix, plan.Dictionary:
		return true
	case plan.All:
		return slices.ContainsFunc(set, isCostly)
	case plan.Any:
		return slices.ContainsFunc(set, isCostly)
	}
	return false
}

// isSelective reports whether a set is small as a rule.
func isSelective(set plan.Set) bool {
	switch set := set.(type) {
	case plan.Patient, plan.Studies, plan.SeriesOf:
		return true
	case plan.Any:
		return !slices.ContainsFunc(set, func(s plan.Set) bool { return !isSelective(s) })
	}
	return false
}

// openSet returns the stream of a set, nil when it does not narrow.
func openSet(v *catalog.View, set plan.Set) (stream, error) {
	switch set := set.(type) {
	case nil:
		return nil, nil
	case plan.Term:
		return v.Postings(set.Index, set.Term)
	case plan.Patient:
		return v.Patient(set.Key, "")
	case plan.Studies:
		return ofUIDs(set.UIDs, v.StudyOrders)
	case plan.SeriesOf:
		return ofUIDs(set.UIDs, v.SeriesOrders)
	case plan.Prefix:
		limit := maxCollected
		if set.Else != nil {
			limit = maxRare
		}
		orders, ok, err := v.Collect(set.Index, set.Prefix, limit)
		if err != nil {
			return nil, err
		}
		if !ok {
			return openSet(v, set.Else)
		}
		return &list{orders}, nil
	case plan.Dictionary:
		terms, ok, err := v.Terms(set.Index, maxDictionary, set.Keep)
		if err != nil || !ok || len(terms) > maxAccepted {
			return nil, err
		}
		union := make(plan.Any, len(terms))
		for i, t := range terms {
			union[i] = plan.Term{Index: set.Index, Term: t}
		}
		return openAny(v, union)
	case plan.Words:
		words, complete, err := v.Words(set.Index, set.Prefix, maxWords)
		if err != nil {
			return nil, err
		}
		return openSet(v, set.Make(words, complete))
	case plan.All:
		var streams []stream
		for _, member := range set {
			s, err := openSet(v, member)
			if err != nil {
				return nil, err
			}
			if s != nil {
				streams = append(streams, s)
			}
		}
		if len(streams) == 0 {
			return nil, nil
		}
		return all(streams), nil
	case plan.Any:
		return openAny(v, set)
	}
	panic("engine: a set that nobody can open")
}

func openAny(v *catalog.View, set plan.Any) (stream, error) {
	e := &either{}
	for _, member := range set {
		s, err := openSet(v, member)
		if err != nil || s == nil {
			return nil, err
		}
		e.heads = append(e.heads, head{s: s})
	}
	if len(e.heads) == 1 {
		return e.heads[0].s, nil
	}
	return e, nil
}

func ofUIDs(uids []string, find func(...string) ([]catalog.Order, error)) (stream, error) {
	orders, err := find(uids...)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(orders, compare)
	return &list{slices.Compact(orders)}, nil
}
