package archive

import (
	"container/list"
	"sync"
)

// recent keeps the values that were used last, up to a number of bytes.
type recent[K comparable, V any] struct {
	limit int64

	mu    sync.Mutex // guards what follows
	at    map[K]*list.Element
	order list.List // of recentEntry, the last used in front
	bytes int64
}

type recentEntry[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

// get returns the value of a key.
func (c *recent[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(recentEntry[K, V]).value, true
}

// offer keeps a value of a size unless its key has one.
func (c *recent[K, V]) offer(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[key]; ok {
		return
	}
	if c.at == nil {
		c.at = map[K]*list.Element{}
	}
	c.at[key] = c.order.PushFront(recentEntry[K, V]{key, value, bytes})
	for c.bytes += bytes; c.bytes > c.limit; {
		c.remove(c.order.Back())
	}
}

// forget drops the value of a key if it is one that gone tells.
func (c *recent[K, V]) forget(key K, gone func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[key]; ok && gone(e.Value.(recentEntry[K, V]).value) {
		c.remove(e)
	}
}

// remove drops an entry. mu is held.
func (c *recent[K, V]) remove(e *list.Element) {
	entry := c.order.Remove(e).(recentEntry[K, V])
	delete(c.at, entry.key)
	c.bytes -= entry.bytes
}

// drop forgets every value.
func (c *recent[K, V]) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.at)
	c.order.Init()
	c.bytes = 0
}
