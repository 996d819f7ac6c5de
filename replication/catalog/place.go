package catalog

import (
	"cmp"
	"math"
)

// place is when something was announced: by which entry, and as which of its
// facts. What is not committed yet stands behind all that is, in the order in
// which this node said it.
type place struct {
	index   uint64
	ordinal uint32
}

// uncommitted is the index of what is not committed yet.
const uncommitted = math.MaxUint64

func (p place) committed() bool { return p.index != uncommitted }

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.index, other.index), cmp.Compare(p.ordinal, other.ordinal))
}
