package pack

import (
	"container/list"
	"errors"
	"sync"
)

// cache keeps the chunks read last, within a limit of bytes. Who asks for a
// chunk that another is reading waits for it. Loads run without the lock.
type cache struct {
	limit int64

	mu    sync.Mutex
	slots map[cacheKey]*slot
	order list.List // of *slot, the last read in front; loaded slots only
	bytes int64
}

type cacheKey struct {
	pack ID
	at   int64
}

type slot struct {
	key   cacheKey
	ready chan struct{} // closed when data or err stand
	data  []byte        // never changed afterwards
	err   error
	place *list.Element
}

var errLoad = errors.New("pack: reading a chunk was interrupted")

// get returns the chunk under key, by load if it is not here. Errors are not
// kept, but those who waited share one.
func (c *cache) get(key cacheKey, load func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	s := c.slots[key]
	if s != nil {
		if s.place != nil {
			c.order.MoveToFront(s.place)
		}
		c.mu.Unlock()
		<-s.ready
		return s.data, s.err
	}
	if c.slots == nil {
		c.slots = make(map[cacheKey]*slot)
	}
	s = &slot{key: key, ready: make(chan struct{}), err: errLoad}
	c.slots[key] = s
	c.mu.Unlock()

	defer c.settle(s) // even if load panics, nobody waits for ever
	s.data, s.err = load()
	return s.data, s.err
}

func (c *cache) settle(s *slot) {
	close(s.ready)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil || int64(len(s.data)) > c.limit {
		delete(c.slots, s.key)
		return
	}
	s.place = c.order.PushFront(s)
	c.bytes += int64(len(s.data))
	for c.bytes > c.limit {
		last := c.order.Remove(c.order.Back()).(*slot)
		c.bytes -= int64(len(last.data))
		delete(c.slots, last.key)
	}
}
