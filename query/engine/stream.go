package engine

import (
	"bytes"
	"slices"

	"pelago/replication/catalog"
)

// stream yields orders of studies, ascending. SeekGE returns the first at or
// above o; callers never seek back.
type stream interface {
	SeekGE(o catalog.Order) (catalog.Order, bool, error)
}

func compare(a, b catalog.Order) int { return bytes.Compare(a[:], b[:]) }

// list is a stream of what was collected: ascending.
type list struct{ orders []catalog.Order }

func (l *list) SeekGE(o catalog.Order) (catalog.Order, bool, error) {
	i, _ := slices.BinarySearchFunc(l.orders, o, compare)
	if l.orders = l.orders[i:]; len(l.orders) == 0 {
		return o, false, nil
	}
	return l.orders[0], true, nil
}

// both is what is in every one of its streams, by leapfrog: each stream in turn
// jumps to where the others are.
type both struct{ streams []stream }

func (b *both) SeekGE(o catalog.Order) (catalog.Order, bool, error) {
	for agreed := 0; ; {
		for _, s := range b.streams {
			at, ok, err := s.SeekGE(o)
			if err != nil || !ok {
				return o, false, err
			}
			if at == o {
				agreed++
			} else {
				o, agreed = at, 1
			}
			if agreed >= len(b.streams) {
				return o, true, nil
			}
		}
	}
}

// either is what is in any of its streams.
type either struct{ heads []head }

// head is a stream and where it stands.
type head struct {
	s     stream
	at    catalog.Order
	known bool // at is valid
	ended bool
}

func (e *either) SeekGE(o catalog.Order) (least catalog.Order, found bool, err error) {
	for i := range e.heads {
		h := &e.heads[i]
		if h.ended {
			continue
		}
		if !h.known || compare(h.at, o) < 0 {
			at, ok, err := h.s.SeekGE(o)
			if err != nil {
				return o, false, err
			}
			h.at, h.known, h.ended = at, ok, !ok
			if !ok {
				continue
			}
		}
		if !found || compare(h.at, least) < 0 {
			least, found = h.at, true
		}
	}
	return least, found, nil
}
