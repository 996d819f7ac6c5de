package pause

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestForWaitsToTheEndOrUntilTheContextHasEnded(t *testing.T) {
	for _, test := range []struct {
		name       string
		limit, d   time.Duration // limit: of the context
		want       bool
		afterwards time.Duration
	}{
		{"to the end", time.Minute, time.Second, true, time.Second},
		{"cut short", time.Second, time.Minute, false, time.Second},
		{"no time", time.Minute, 0, true, 0},
		{"less than none", time.Minute, -time.Second, true, 0},
		{"ended before", -time.Second, time.Minute, false, 0},
		{"ended before, and no time", -time.Second, 0, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.limit)
				defer cancel()
				began := time.Now()
				if got := For(ctx, test.d); got != test.want || time.Since(began) != test.afterwards {
					t.Errorf("%v after %v", got, time.Since(began))
				}
			})
		})
	}
}
