package web

import "pelago/node/recent"

// lru keeps the values last used, up to a number of bytes.
type lru[K comparable, V any] struct{ values recent.Values[K, V] }

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	c := &lru[K, V]{}
	c.values.Limit = limit
	return c
}

// get returns the value of a key.
func (c *lru[K, V]) get(key K) (V, bool) { return c.values.Get(key) }

// put keeps a value of a size; one that would take over a quarter of the room is
// not kept, so that a giant does not empty the cache.
func (c *lru[K, V]) put(key K, value V, bytes int64) {
	if bytes <= c.values.Limit/4 {
		c.values.Put(key, value, bytes)
	}
}
