package check

import "fmt"

// State is the state of one node at one moment: the index that it has applied,
// and the hash of all that it holds, read together.
type State struct {
	Node  Node
	Index uint64
	Hash  Hash
}

// States is what was seen of the nodes' states, in any order, from the whole
// history.
type States []State

// Check returns where the history breaks [Diverged]: every state that differs
// from the first seen at its index, in order.
func (s States) Check() []Violation {
	first := map[uint64]State{}
	var found []Violation
	for _, state := range s {
		other, ok := first[state.Index]
		switch {
		case !ok:
			first[state.Index] = state
		case other.Hash != state.Hash:
			found = append(found, Violation{
				Rule: Diverged, Node: state.Node, What: fmt.Sprintf("index %d", state.Index),
				Note: fmt.Sprintf("%s, but %s at %s", state.Hash, other.Hash, other.Node),
			})
		}
	}
	return found
}
