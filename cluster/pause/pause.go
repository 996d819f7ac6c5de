package pause

import (
	"context"
	"time"
)

// For waits and reports whether it did to the end: false once ctx has ended, also
// when it had before. A time that is not positive is over at once.
func For(ctx context.Context, d time.Duration) bool { return Until(ctx, nil, d) }

// Until waits until an event, a channel that is closed or sent to, or so long if it
// does not come (nil never does). It reports whether it did: false once ctx has ended,
// also when it had before. A time that is not positive is over at once.
func Until(ctx context.Context, event <-chan struct{}, most time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	if most <= 0 {
		return true
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-event:
		return true
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
