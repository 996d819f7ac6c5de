// Package recent keeps the values that were used last, up to a number of bytes,
// and the last one whatever its size: who uses it again and again would make it
// again and again. It starts no goroutine; everything may be called from anywhere.
package recent

import (
	"container/list"
	"sync"
)

// Values keeps the values that were used last. The zero value keeps one.
type Values[K comparable, V any] struct {
	Limit int64 // bytes; set before use

	mu    sync.Mutex // guards what follows
	at    map[K]*list.Element
	order list.List // of entry, the last used in front
	bytes int64
}

type entry[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

// Get returns the value of a key.
func (c *Values[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true
}

// Offer keeps a value of a size unless its key has one.
func (c *Values[K, V]) Offer(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[key]; !ok {
		c.add(key, value, bytes)
	}
}

// Put keeps a value of a size instead of what its key had.
func (c *Values[K, V]) Put(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[key]; ok {
		c.remove(e)
	}
	c.add(key, value, bytes)
}

// add takes in a key that is not there. mu is held.
func (c *Values[K, V]) add(key K, value V, bytes int64) {
	if c.at == nil {
		c.at = map[K]*list.Element{}
	}
	c.at[key] = c.order.PushFront(entry[K, V]{key, value, bytes})
	for c.bytes += bytes; c.bytes > c.Limit && c.order.Len() > 1; {
		c.remove(c.order.Back())
	}
}

// Forget drops the value of a key if it is one that gone tells.
func (c *Values[K, V]) Forget(key K, gone func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[key]; ok && gone(e.Value.(entry[K, V]).value) {
		c.remove(e)
	}
}

// ForgetIf drops the values of the keys that gone tells. It looks at all.
func (c *Values[K, V]) ForgetIf(gone func(K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		one := e
		e = e.Next()
		if gone(one.Value.(entry[K, V]).key) {
			c.remove(one)
		}
	}
}

// remove drops an entry. mu is held.
func (c *Values[K, V]) remove(e *list.Element) {
	gone := c.order.Remove(e).(entry[K, V])
	delete(c.at, gone.key)
	c.bytes -= gone.bytes
}

// Drop forgets every value.
func (c *Values[K, V]) Drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.at)
	c.order.Init()
	c.bytes = 0
}
