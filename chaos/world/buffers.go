package world

import "sync"

// Sizes of buffers. A stream reads into a small one until that is too small, so
// that many idle connections hold little.
const (
	smallBuffer  = 2 << 10
	mediumBuffer = 16 << 10
)

// buffers are what segments travel in, used again.
type buffers struct{ small, medium, large sync.Pool }

// pool returns the pool and size of the smallest buffers that hold n bytes.
func (b *buffers) pool(n int) (*sync.Pool, int) {
	switch {
	case n <= smallBuffer:
		return &b.small, smallBuffer
	case n <= mediumBuffer:
		return &b.medium, mediumBuffer
	default:
		return &b.large, maxSegment
	}
}

// get returns a buffer of at least n bytes, which are at most maxSegment.
func (b *buffers) get(n int) []byte {
	pool, size := b.pool(n)
	if p, ok := pool.Get().(*[]byte); ok {
		return (*p)[:size]
	}
	return make([]byte, size)
}

// fit returns the first n bytes of a buffer, in the smallest that holds them:
// what waits in the air must not hold thirty times its size.
func (b *buffers) fit(buf []byte, n int) []byte {
	if _, size := b.pool(n); size < cap(buf) {
		small := b.get(n)[:n]
		copy(small, buf)
		b.put(buf)
		return small
	}
	return buf[:n]
}

// put takes a buffer back, of which nothing may be used any more.
func (b *buffers) put(buf []byte) {
	pool, size := b.pool(cap(buf))
	if cap(buf) == size {
		buf = buf[:0]
		pool.Put(&buf)
	}
}
