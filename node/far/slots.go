package far

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// queueFor is how long an answer waits for its turn: longer than a range takes
// over a slow link, shorter than its asker waits before he asks elsewhere.
const queueFor = 5 * time.Second

// slots bounds answers under way, in all and to one node.
type slots struct {
	all     chan struct{}
	perPeer int

	mu    sync.Mutex
	peers map[string]*peerSlots // of nodes with answers under way, or waiting
}

type peerSlots struct {
	free  chan struct{}
	users int

	taken   bool       // the turn of what is sent ahead
	waiting []*waiting // for it, the next in front
}

func newSlots(all, perPeer int) *slots {
	return &slots{all: make(chan struct{}, all), perPeer: perPeer, peers: map[string]*peerSlots{}}
}

// enter waits for a turn and returns how to give it back.
func (s *slots) enter(ctx context.Context, node string) (leave func(), err error) {
	s.mu.Lock()
	p := s.peers[node]
	if p == nil {
		p = &peerSlots{free: make(chan struct{}, s.perPeer)}
		s.peers[node] = p
	}
	p.users++
	s.mu.Unlock()
	gone := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(s.peers, node)
		}
	}
	timer := time.NewTimer(queueFor)
	defer timer.Stop()
	for i, slot := range [...]chan struct{}{p.free, s.all} {
		select {
		case slot <- struct{}{}:
			continue
		case <-timer.C:
			err = fault.New(fault.Unavailable, "far: too many answers at once")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if i == 1 {
			<-p.free
		}
		gone()
		return nil, err
	}
	return func() {
		<-s.all
		<-p.free
		gone()
	}, nil
}

// waiting is who waits for his turn.
type waiting struct {
	order uint64
	turn  chan struct{} // closed when it has come
}

// turn waits until nothing else is sent ahead to a node, and nothing of a lower order
// waits, and returns how to give the turn back. HTTP/2 gives each stream of a
// connection the same share: of ranges that are asked for at once all would come at
// the end, and he who reads them in order would have little to do until then, and
// much after it. Who has waited for long is sent beside the others, lest his asker
// takes this node for dead. The caller is in.
func (s *slots) turn(ctx context.Context, node string, order uint64) (leave func(), err error) {
	s.mu.Lock()
	p := s.peers[node]
	leave = func() { s.pass(p) }
	if !p.taken {
		p.taken = true
		s.mu.Unlock()
		return leave, nil
	}
	w := &waiting{order, make(chan struct{})}
	i, _ := slices.BinarySearchFunc(p.waiting, order+1, func(w *waiting, o uint64) int { return cmp.Compare(w.order, o) })
	p.waiting = slices.Insert(p.waiting, i, w)
	s.mu.Unlock()
	timer := time.NewTimer(queueFor)
	defer timer.Stop()
	select {
	case <-w.turn:
		return leave, nil
	case <-timer.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.mu.Lock()
	i = slices.Index(p.waiting, w)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	s.mu.Unlock()
	switch {
	case i >= 0:
		return func() {}, err
	case err != nil: // and the turn has just come
		leave()
	}
	return leave, err
}

// pass gives the turn to the next.
func (s *slots) pass(p *peerSlots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.taken = len(p.waiting) > 0; p.taken {
		close(p.waiting[0].turn)
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
}

// busy reports whether others should rather be asked, if there are any.
func (s *slots) busy() bool { return 2*len(s.all) > cap(s.all) }
