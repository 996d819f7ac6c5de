package far

import (
	"context"
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

// busy reports whether others should rather be asked, if there are any.
func (s *slots) busy() bool { return 2*len(s.all) > cap(s.all) }
