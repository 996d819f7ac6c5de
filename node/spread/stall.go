package spread

import (
	"context"
	"io"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// stalled ends an upload to a node that takes no bytes. What comes after the last
// byte, its disk, is bounded by the client; or here, if somebody waits.
type stalled struct {
	patience time.Duration
	last     bool // the answer is waited for no longer either

	mu    sync.Mutex
	timer *time.Timer
}

var errStalled = fault.New(fault.Unavailable, "spread: a node takes no bytes")

// watch returns the context of the upload.
func (s *stalled) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(s.patience, func() { cancel(errStalled) })
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timer.Stop()
		cancel(context.Canceled)
	}
}

func (s *stalled) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Reset(s.patience)
}

// wrote says that all bytes are written.
func (s *stalled) wrote() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last {
		s.timer.Stop()
	}
}

// outlet is where a shard goes, and tells an error of it from one of what is written.
type outlet struct {
	to     io.Writer
	stall  *stalled
	failed error
}

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.failed = err
	} else {
		o.stall.moved()
	}
	return n, err
}
