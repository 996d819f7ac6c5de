package journal

import (
	"container/heap"
	"time"
)

// gapGrace is how long a local number may be missing before it is taken for one
// that was never used.
const gapGrace = 2 * time.Minute

// cursor follows local numbers that may come out of order: base is the highest
// one up to which all have come.
type cursor struct {
	base  uint64
	ahead arrivals // above base + 1
}

type arrival struct {
	number uint64
	at     time.Time
}

// arrivals is a heap by number.
type arrivals []arrival

func (a arrivals) Len() int           { return len(a) }
func (a arrivals) Less(i, j int) bool { return a[i].number < a[j].number }
func (a arrivals) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)        { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// highest returns the highest number that has come.
func (c *cursor) highest() uint64 {
	highest := c.base
	for _, a := range c.ahead {
		highest = max(highest, a.number)
	}
	return highest
}

// come notes a number.
func (c *cursor) come(number uint64, now time.Time) {
	switch {
	case number <= c.base:
	case number == c.base+1:
		c.base++
		c.advance(now)
	default:
		heap.Push(&c.ahead, arrival{number, now})
	}
}

// advance moves base over what has come and over gaps that are too old.
func (c *cursor) advance(now time.Time) {
	for len(c.ahead) > 0 && (c.ahead[0].number <= c.base+1 || now.Sub(c.ahead[0].at) > gapGrace) {
		c.base = max(c.base, heap.Pop(&c.ahead).(arrival).number)
	}
}
