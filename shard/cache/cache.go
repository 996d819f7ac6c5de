package cache

import "math/bits"

const (
	// smallBytes: values below are kept in the Go heap.
	smallBytes = 64 << 10
	// smallShare is the part of the limit that is for them: an eighth.
	smallShare = 8
	// mappedFrom is the limit from which memory is asked of the system. A smaller
	// cache stays in the heap, and need not be closed.
	mappedFrom = 16 << 20
)

// Cache keeps values by their keys. Make it by [New].
type Cache[K comparable] struct{ small, large *part[K] }

// New returns a cache that keeps at most limit bytes of values; 0 keeps nothing,
// but those who look at a value at the same time share it.
func New[K comparable](limit int64) *Cache[K] {
	if limit < mappedFrom {
		all := newPart[K](limit, false)
		return &Cache[K]{small: all, large: all}
	}
	return &Cache[K]{
		small: newPart[K](limit/smallShare, false),
		large: newPart[K](limit-limit/smallShare, true),
	}
}

// View calls look with the value under key, of size bytes, which fill makes if it
// is not here: a key has one size for ever. look must neither change the value nor
// keep it; it may take its time, but the value cannot go meanwhile. An error of
// fill is returned to all who waited for it, and not kept; one of look is returned.
func (c *Cache[K]) View(key K, size int, fill, look func(value []byte) error) error {
	p := c.large
	if size < smallBytes {
		p = c.small
	}
	return p.view(key, size, fill, look)
}

// Close gives the memory back, as soon as nobody looks at it. The cache then
// keeps nothing any more, and is otherwise usable.
func (c *Cache[K]) Close() {
	c.small.close()
	c.large.close()
}

// bytes is the memory taken: of values, and of what waits to be filled again.
func (c *Cache[K]) bytes() int64 {
	n := c.large.taken()
	if c.small != c.large {
		n += c.small.taken()
	}
	return n
}

// rounded is the memory for a value: its size, rounded up to one of four sizes a
// doubling, so that what one value leaves fits the next.
func rounded(size int) int {
	step := 1 << max(0, bits.Len(uint(max(1, size)-1))-3)
	return max(minBytes, (size+step-1)/step*step)
}

// minBytes is the least memory of a value.
const minBytes = 512
