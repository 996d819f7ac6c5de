package pause

import (
	"context"
	"time"
)

// For waits and reports whether it did to the end: false once ctx has ended, also
// when it had before. A time that is not positive is over at once.
func For(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
