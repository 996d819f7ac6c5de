package cache

import (
	"errors"
	"math/rand/v2"
	"sync"
)

// part is a cache for values of similar sizes.
type part[K comparable] struct {
	mapped bool

	mu    sync.Mutex // guards what follows, and the slots' fields that say so
	limit int64
	slots map[K]*slot[K]
	kept  []*slot[K]       // filled, in no order
	free  map[int][]memory // by size: what was given up and is still ours
	bytes int64            // of all memory: kept, free, or only looked at
	looks uint64           // how often a value was asked for
}

// slot is a value that is kept or being filled.
type slot[K comparable] struct {
	key    K
	ready  chan struct{} // closed when value or err stand
	value  []byte        // never changed afterwards
	memory memory
	err    error
	users  int    // who look or wait; guarded by part.mu
	place  int    // in part.kept, or -1; guarded by part.mu
	seen   uint64 // part.looks when it was asked for last; guarded by part.mu
}

var errFill = errors.New("cache: filling a value was interrupted")

func newPart[K comparable](limit int64, mapped bool) *part[K] {
	return &part[K]{mapped: mapped, limit: limit, slots: map[K]*slot[K]{}, free: map[int][]memory{}}
}

func (p *part[K]) view(key K, size int, fill, look func([]byte) error) error {
	p.mu.Lock()
	p.looks++
	s := p.slots[key]
	if s != nil {
		s.users++
		s.seen = p.looks
		p.mu.Unlock()
		<-s.ready
	} else {
		s = &slot[K]{key: key, ready: make(chan struct{}), err: errFill, users: 1, place: -1, seen: p.looks}
		p.slots[key] = s
		p.mu.Unlock()
		p.fill(s, size, fill)
	}
	defer p.leave(s)
	if s.err != nil {
		return s.err
	}
	return look(s.value)
}

// fill makes the value of a slot. Should fill panic, nobody waits for ever.
func (p *part[K]) fill(s *slot[K], size int, fill func([]byte) error) {
	whole := false
	defer func() {
		p.settle(s)
		if !whole {
			p.leave(s)
		}
	}()
	s.memory = p.take(rounded(size))
	s.value = s.memory.bytes[:size:size]
	s.err = fill(s.value)
	whole = true
}

// settle lets others see a slot's outcome, and keeps what was filled.
func (p *part[K]) settle(s *slot[K]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.err != nil {
		delete(p.slots, s.key)
	} else {
		s.place = len(p.kept)
		p.kept = append(p.kept, s)
	}
	close(s.ready)
}

// leave is the end of a look. A value that is not kept, or that there is no room
// for, goes with the last one.
func (p *part[K]) leave(s *slot[K]) {
	p.mu.Lock()
	s.users--
	if s.users > 0 || s.place >= 0 && p.bytes <= p.limit {
		p.mu.Unlock()
		return
	}
	if s.place >= 0 {
		p.forgetLocked(s)
	}
	left := s.memory
	s.memory, s.value = memory{}, nil
	if p.bytes <= p.limit && left.bytes != nil {
		p.free[len(left.bytes)] = append(p.free[len(left.bytes)], left)
		left = memory{}
	}
	p.bytes -= int64(len(left.bytes))
	p.mu.Unlock()
	left.release()
}

// forgetLocked takes a kept slot out; its memory is the caller's to give up.
func (p *part[K]) forgetLocked(s *slot[K]) {
	last := p.kept[len(p.kept)-1]
	p.kept[s.place], last.place = last, s.place
	p.kept[len(p.kept)-1] = nil
	p.kept = p.kept[:len(p.kept)-1]
	s.place = -1
	delete(p.slots, s.key)
}

// take returns memory of a rounded size, for which others go if they must.
func (p *part[K]) take(size int) memory {
	p.mu.Lock()
	if m, ok := p.popLocked(size); ok {
		p.mu.Unlock()
		return m
	}
	var gone []memory
	for p.bytes+int64(size) > p.limit {
		m, ok := p.giveUpLocked()
		if !ok {
			break // all are being looked at: this one comes on top
		}
		if len(m.bytes) == size {
			p.mu.Unlock()
			release(gone)
			return m
		}
		p.bytes -= int64(len(m.bytes))
		gone = append(gone, m)
	}
	p.bytes += int64(size)
	p.mu.Unlock()
	release(gone)
	return allocate(size, p.mapped)
}

// popLocked takes free memory of a size.
func (p *part[K]) popLocked(size int) (memory, bool) {
	list := p.free[size]
	if len(list) == 0 {
		return memory{}, false
	}
	m := list[len(list)-1]
	list[len(list)-1] = memory{}
	if list = list[:len(list)-1]; len(list) > 0 {
		p.free[size] = list
	} else {
		delete(p.free, size)
	}
	return m, true
}

const (
	// draws is how often a victim is drawn before all are taken to be in use.
	draws = 16
	// staleDraws is how many of them, which nobody looks at, are compared.
	staleDraws = 8
	// staleAfter: what nobody asked for while so many times as many as there are
	// were asked for belongs to nothing that is being read. A loop over more than
	// this would hardly find anything in any case.
	staleAfter = 2
)

// giveUpLocked returns memory that is free, or that a value loses which nobody
// looks at now.
func (p *part[K]) giveUpLocked() (memory, bool) {
	for size := range p.free {
		return p.popLocked(size)
	}
	s := p.victimLocked()
	if s == nil {
		return memory{}, false
	}
	m := s.memory
	p.forgetLocked(s)
	s.memory, s.value = memory{}, nil
	return m, true
}

// victimLocked draws a value that nobody looks at: one that is stale, if a few
// draws find one, else the first. Nil if all seem to be in use.
func (p *part[K]) victimLocked() *slot[K] {
	var first *slot[K]
	unused := 0
	for range min(draws, len(p.kept)) {
		s := p.kept[rand.IntN(len(p.kept))] //nolint:gosec // chance, not a secret
		if s.users > 0 {
			continue
		}
		if p.looks-s.seen > staleAfter*uint64(len(p.kept)) {
			return s
		}
		if first == nil {
			first = s
		}
		if unused++; unused == staleDraws {
			break
		}
	}
	return first
}

// close lets go of everything that nobody looks at; the rest goes with its users.
func (p *part[K]) close() {
	p.mu.Lock()
	p.limit = 0
	var gone []memory
	for size, list := range p.free {
		gone = append(gone, list...)
		p.bytes -= int64(size * len(list))
	}
	clear(p.free)
	for i := len(p.kept) - 1; i >= 0; i-- {
		s := p.kept[i]
		if s.users > 0 {
			continue
		}
		gone = append(gone, s.memory)
		p.bytes -= int64(len(s.memory.bytes))
		p.forgetLocked(s)
		s.memory, s.value = memory{}, nil
	}
	p.mu.Unlock()
	release(gone)
}

func (p *part[K]) taken() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
