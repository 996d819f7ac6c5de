package main

import (
	"context"
	"net/http"
	"sync"
)

// gate counts the requests under way, so that what they use can be closed after
// the last of them: closing an http.Server ends connections, not handlers.
type gate struct {
	next http.Handler

	mu     sync.Mutex // guards what is below
	inside int
	shut   chan struct{} // set by close; closed when nobody is inside
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.enter() {
		w.Header().Set("Connection", "close")
		http.Error(w, "the node is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer g.leave()
	g.next.ServeHTTP(w, r)
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.shut != nil {
		close(g.shut)
	}
}

// close lets nobody in any more and waits until everybody has left, or ctx has
// ended. It is called once.
func (g *gate) close(ctx context.Context) error {
	g.mu.Lock()
	g.shut = make(chan struct{})
	if g.inside == 0 {
		close(g.shut)
	}
	left := g.shut
	g.mu.Unlock()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
