package web

import (
	"container/list"
	"sync"
)

// lru keeps the values last used, up to a number of bytes.
type lru[K comparable, V any] struct {
	limit int64

	mu    sync.Mutex // guards what follows
	order *list.List // of lruEntry, the last used in front
	at    map[K]*list.Element
	used  int64
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	return &lru[K, V]{limit: limit, order: list.New(), at: make(map[K]*list.Element)}
}

// get returns the value of a key.
func (c *lru[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[key]
	if !ok {
		var none V
		return none, false
	}
	c.order.MoveToFront(e)
	return e.Value.(lruEntry[K, V]).value, true
}

// put keeps a value of a size; one that would take over a quarter of the room is
// not kept, so that a giant does not empty the cache.
func (c *lru[K, V]) put(key K, value V, bytes int64) {
	if bytes > c.limit/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[key]; ok {
		c.used -= e.Value.(lruEntry[K, V]).bytes
		c.order.Remove(e)
	}
	c.at[key] = c.order.PushFront(lruEntry[K, V]{key, value, bytes})
	c.used += bytes
	for c.used > c.limit {
		last := c.order.Back()
		old := last.Value.(lruEntry[K, V])
		c.order.Remove(last)
		delete(c.at, old.key)
		c.used -= old.bytes
	}
}
