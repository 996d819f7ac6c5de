package scp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
)

// Limits and time limits of a server unless it says otherwise.
const (
	defaultLimit    = 500
	defaultResponse = 5 * time.Minute
	maxAcceptDelay  = time.Second            // between tries while accept fails
	drainPoll       = 100 * time.Millisecond // how often Shutdown looks for idle associations
	drainIdle       = time.Second            // an association this long without an operation is idle
	abortGrace      = 5 * time.Second        // for providers to notice that their association is gone
)

// Rejections that the server itself makes (PS3.8 table 9-21).
var (
	rejectLimit      = assoc.Reject{Result: 2, Source: 3, Reason: 2} // transient, local limit exceeded
	rejectCongestion = assoc.Reject{Result: 2, Source: 3, Reason: 1} // transient, temporary congestion
	rejectCalling    = assoc.Reject{Result: 1, Source: 1, Reason: 3} // calling AE title not recognized
	rejectNoReason   = assoc.Reject{Result: 1, Source: 1, Reason: 1}
)

// Server serves associations. Its exported fields must not change once Serve
// was called; it must not be copied.
type Server struct {
	Config assoc.Config
	Admit  Admitter

	// Limit is how many associations may be open; 0: 500. As many connections
	// may wait for their association request besides: when more come, the one
	// that has waited longest is closed, so that silent ones keep nobody out.
	Limit int
	// Reserve is the share of Limit that only associations that propose to
	// store may use; 0: a fifth.
	Reserve int
	// Refused is told of every association request that is refused without
	// asking Admit: the server is full, or about to end. nil: nobody is told.
	Refused func(*assoc.Request, *assoc.Reject)
	// Response bounds the wait for the response to a request that the server
	// makes (C-GET sub-operations, N-EVENT-REPORT); 0: 5 min.
	Response time.Duration

	mu        sync.Mutex // guards what is below
	listeners map[net.Listener]struct{}
	waiting   []net.Conn // without an association yet, oldest first
	open      map[*association]struct{}
	admitted  int // associations that hold a place: those open, and those being answered
	ended     chan struct{}
	draining  bool
}

// Serve accepts connections from the listener until ctx ends or Shutdown is
// called, and returns once every association from it has ended: nil after
// Shutdown, else the cause. The end of ctx aborts all associations at once. The
// listener is closed. For DICOM TLS it is a TLS listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.addListener(listener) {
		return errors.Join(errShutdown, listener.Close())
	}
	defer s.removeListener(listener)
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()

	var connections sync.WaitGroup
	err := s.accept(ctx, listener, &connections)
	if err != nil {
		cancel()
	}
	connections.Wait()
	return err
}

var errShutdown = fault.New(fault.Unavailable, "scp: the server was shut down")

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, listener net.Listener, connections *sync.WaitGroup) error {
	delay := time.Millisecond
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			delay = time.Millisecond
			connections.Go(func() { s.serveConn(ctx, conn) })
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.isDraining():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		// Descriptors or memory have run out, or a connection was reset before
		// it was accepted: those pass.
		s.log().Warn("accept failed", "error", err, "retry_after", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, maxAcceptDelay)
	}
}

func (s *Server) log() *slog.Logger {
	if s.Config.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Config.Log
}

// serveConn serves one connection. Nothing that goes wrong with it, a panic
// included, reaches further.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	log := s.log().With("remote", conn.RemoteAddr().String())
	defer func() {
		if p := recover(); p != nil {
			log.Error("association panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if !s.enqueue(conn) {
		return
	}
	defer s.dequeue(conn)

	admission := admission{server: s}
	defer admission.release()
	established, err := assoc.Accept(ctx, conn, s.Config, admission.decide)
	s.dequeue(conn)
	if err != nil {
		admission.closed(err)
		log.Info("association refused", "calling_ae", admission.calling, "called_ae", admission.called, "error", err)
		return
	}
	a := newAssociation(s, established, admission.session, log)
	if !s.track(a) {
		_ = established.Abort()
		admission.closed(errShutdown)
		return
	}
	defer s.untrack(a)
	a.serve(ctx)
}

// enqueue counts a connection as waiting for its request, and makes room for it.
func (s *Server) enqueue(conn net.Conn) bool {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return false
	}
	var oldest net.Conn
	if len(s.waiting) >= s.limit() {
		oldest, s.waiting = s.waiting[0], s.waiting[1:]
	}
	s.waiting = append(s.waiting, conn)
	s.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return true
}

func (s *Server) dequeue(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.waiting {
		if c == conn {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

// limit and reserve return the limits in force.
func (s *Server) limit() int {
	if s.Limit > 0 {
		return s.Limit
	}
	return defaultLimit
}

func (s *Server) reserve() int {
	if s.Reserve > 0 {
		return min(s.Reserve, s.limit())
	}
	return s.limit() / 5
}

// admission is the answer to one association request.
type admission struct {
	server  *Server
	holds   bool // a place among the associations
	session *Session

	calling, called string // as the request has them; empty until there is one
}

// decide answers a request: it takes a place and asks the admitter.
func (a *admission) decide(ctx context.Context, r *assoc.Request) assoc.Decision {
	a.calling, a.called = r.Calling, r.Called
	if reject := a.server.takePlace(stores(r)); reject != nil {
		if a.server.Refused != nil {
			a.server.Refused(r, reject)
		}
		return assoc.Decision{Reject: reject}
	}
	a.holds = true
	session, err := a.server.Admit.Admit(ctx, r)
	if err != nil {
		return assoc.Decision{Reject: rejection(err)}
	}
	a.session = session
	return Negotiate(r, session)
}

// closed tells the session that its association did not come about.
func (a *admission) closed(err error) {
	if a.session != nil && a.session.Closed != nil {
		a.session.Closed(err)
	}
}

func (a *admission) release() {
	if a.holds {
		a.server.mu.Lock()
		a.server.admitted--
		a.server.mu.Unlock()
	}
}

// takePlace counts an association in, or returns why it cannot.
func (s *Server) takePlace(storing bool) *assoc.Reject {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.limit()
	if !storing {
		limit -= s.reserve()
	}
	if s.draining {
		reject := rejectCongestion
		return &reject
	}
	if s.admitted >= limit {
		reject := rejectLimit
		return &reject
	}
	s.admitted++
	return nil
}

// rejection turns an admitter's error into A-ASSOCIATE-RJ.
func rejection(err error) *assoc.Reject {
	var exact *assoc.Reject
	if errors.As(err, &exact) {
		return exact
	}
	reject := rejectNoReason
	switch fault.KindOf(err) {
	case fault.Denied:
		reject = rejectCalling
	case fault.Full, fault.Unavailable, fault.Canceled:
		reject = rejectCongestion
	}
	return &reject
}
