package scp

import (
	"context"
	"net"
	"sync"
	"time"
)

// Shutdown ends the server in order: it closes the listeners, closes
// connections that have not asked for an association yet, lets associations
// finish, and aborts each once it has been without an operation for a second
// (only a requestor can release). When ctx ends first it aborts the rest and
// returns the error of ctx. Serve then returns.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.drain() {
		_ = c.Close() // silent peers are not waited for
	}
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for {
		open, ended := s.associations()
		if len(open) == 0 {
			return nil
		}
		abort(open, func(a *association) bool { return a.idle(drainIdle) })
		select {
		case <-ended:
		case <-ticker.C:
		case <-ctx.Done():
			s.abortAll()
			return ctx.Err()
		}
	}
}

// drain stops taking connections and returns what must be closed.
func (s *Server) drain() []interface{ Close() error } {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	var closers []interface{ Close() error }
	for l := range s.listeners {
		closers = append(closers, l)
	}
	for _, c := range s.waiting {
		closers = append(closers, c)
	}
	return closers
}

// abortAll aborts every association and waits a little for their ends.
func (s *Server) abortAll() {
	open, _ := s.associations()
	abort(open, func(*association) bool { return true })
	grace := time.NewTimer(abortGrace)
	defer grace.Stop()
	for {
		open, ended := s.associations()
		if len(open) == 0 {
			return
		}
		select {
		case <-ended:
		case <-grace.C:
			s.log().Warn("associations did not end in time", "count", len(open))
			return
		}
	}
}

// abort aborts the associations that are chosen, all at once: each may take a
// second to let its peer read the A-ABORT.
func abort(open []*association, chosen func(*association) bool) {
	var aborts sync.WaitGroup
	for _, a := range open {
		if chosen(a) {
			aborts.Go(a.abort)
		}
	}
	aborts.Wait()
}

// associations returns those that are open, and a channel that is closed when
// the next one ends.
func (s *Server) associations() ([]*association, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*association, 0, len(s.open))
	for a := range s.open {
		open = append(open, a)
	}
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	return open, s.ended
}

// Associations returns how many associations are open.
func (s *Server) Associations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// track counts an association as open; false when the server is shutting down.
func (s *Server) track(a *association) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.open == nil {
		s.open = map[*association]struct{}{}
	}
	s.open[a] = struct{}{}
	return true
}

func (s *Server) untrack(a *association) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, a)
	if s.ended != nil {
		close(s.ended)
		s.ended = nil
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.listeners == nil {
		s.listeners = map[net.Listener]struct{}{}
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}
