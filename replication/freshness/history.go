package freshness

import (
	"math"
	"slices"
	"sort"
	"sync"
	"time"
)

// maxRemembered bounds a history, in indexes.
const maxRemembered = 512

// History remembers when a node's catalogue stood where, so that another's lag
// in entries can be told in seconds: as long as it is since the first entry
// that the other lacks was applied here. The zero value remembers nothing.
type History struct {
	mu    sync.Mutex
	noted []note // ascending in both
}

type note struct {
	index uint64
	at    time.Time
}

// Note remembers that the catalogue stands at an index. How often it is called
// is the resolution; what is long ago is remembered more coarsely.
func (h *History) Note(now time.Time, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.noted); n > 0 && index <= h.noted[n-1].index {
		return
	}
	if len(h.noted) == maxRemembered {
		h.forgetLocked(now)
	}
	h.noted = append(h.noted, note{index, now})
}

// forgetLocked forgets the note that is missed least: the one whose neighbours
// lie closest, for its age. The first stays, for what lies before it is not known.
func (h *History) forgetLocked(now time.Time) {
	least, miss := 1, math.Inf(1)
	for i := 1; i < len(h.noted)-1; i++ {
		gap, age := h.noted[i+1].at.Sub(h.noted[i-1].at), now.Sub(h.noted[i].at)
		if m := float64(gap) / float64(age+time.Second); m < miss {
			least, miss = i, m
		}
	}
	h.noted = slices.Delete(h.noted, least, least+1)
}

// Behind returns how long before now the first entry after an index was applied
// here, as far as was noted. It is false when nothing after the index has been
// applied, and when that was before the first note.
func (h *History) Behind(now time.Time, index uint64) (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := sort.Search(len(h.noted), func(i int) bool { return h.noted[i].index > index })
	if i == 0 || i == len(h.noted) {
		return 0, false
	}
	return max(0, now.Sub(h.noted[i].at)), true
}
