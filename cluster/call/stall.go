package call

import (
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
)

// Stall ends a context when nothing has come, or gone, for a time: a deadline for
// each piece instead of one for all, so that what is long may take long.
type Stall struct {
	timer  *time.Timer
	within time.Duration
	cancel context.CancelCauseFunc
}

// NewStall returns a context that ends with fault.Unavailable once Moved was not
// called for so long. Stop must be called.
func NewStall(ctx context.Context, within time.Duration) (context.Context, *Stall) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stall{within: within, cancel: cancel}
	s.timer = time.AfterFunc(within, func() {
		cancel(fault.New(fault.Unavailable, "call: nothing moved for %v", within))
	})
	return ctx, s
}

// Moved begins the time anew.
func (s *Stall) Moved() { s.timer.Reset(s.within) }

// Stop ends the context.
func (s *Stall) Stop() {
	s.timer.Stop()
	s.cancel(nil)
}

// Reader reads from r and counts what comes as movement.
func (s *Stall) Reader(r io.Reader) io.Reader { return &movedReader{s, r} }

type movedReader struct {
	stall *Stall
	from  io.Reader
}

func (m *movedReader) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	if n > 0 {
		m.stall.Moved()
	}
	return n, err
}
