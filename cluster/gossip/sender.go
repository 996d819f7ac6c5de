package gossip

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// send writes the packets of one peer until none has come for idleTime. Packets
// that come while the peer cannot be reached are dropped: a late one would say
// that somebody was alive.
func (t *Transport) send(to memberlist.Address, queue chan []byte) {
	s := sender{transport: t, to: to}
	defer s.drop()
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-idle.C:
			if t.retire(to, queue) {
				return
			}
			idle.Reset(idleTime)
		case frame := <-queue:
			s.write(frame)
			idle.Reset(idleTime)
		}
	}
}

// retire forgets a queue that is empty; nobody can put a packet into it any more.
func (t *Transport) retire(to memberlist.Address, queue chan []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(queue) != 0 {
		return false
	}
	delete(t.out, to)
	return true
}

// sender is the kept connection to one peer. It belongs to one goroutine.
type sender struct {
	transport *Transport
	to        memberlist.Address
	conn      net.Conn
	ended     chan struct{} // closed when the peer has closed conn
	retryAt   time.Time
	pause     time.Duration
}

// write sends one frame over the kept connection or a new one, or drops it.
func (s *sender) write(frame []byte) {
	if s.conn != nil {
		select {
		case <-s.ended:
			s.drop()
		default:
		}
	}
	if s.conn == nil && !s.redial() {
		return
	}
	err := s.conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = s.conn.Write(frame)
	}
	if err != nil {
		s.drop()
		return
	}
	s.pause = 0
}

// redial connects, unless it was tried a moment ago. The pause doubles with each
// failure.
func (s *sender) redial() bool {
	if time.Now().Before(s.retryAt) {
		return false
	}
	ctx, cancel := context.WithTimeout(s.transport.ctx, dialTime)
	defer cancel()
	conn, err := s.transport.open(ctx, s.to, kindPackets)
	s.pause = min(max(2*s.pause, redialPause), redialPauses)
	s.retryAt = time.Now().Add(s.pause)
	if err != nil {
		return false
	}
	s.conn, s.ended = conn, make(chan struct{})
	// The peer sends nothing: a read returns when it has closed or refused us,
	// which a write would only notice much later.
	ended := s.ended
	s.transport.work.Go(func() {
		defer close(ended)
		var b [1]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	})
	return true
}

func (s *sender) drop() {
	if s.conn == nil {
		return
	}
	s.conn.Close()
	<-s.ended
	s.conn = nil
}
