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

func TestUntilEndsWithItsEvent(t *testing.T) {
	for _, test := range []struct {
		name       string
		event, d   time.Duration // event: when it comes; 0: never
		want       bool
		afterwards time.Duration
	}{
		{"it comes", time.Second, time.Minute, true, time.Second},
		{"it comes too late", time.Hour, time.Minute, true, time.Minute},
		{"it never comes", 0, time.Minute, true, time.Minute},
		{"the context ends first", 3 * time.Hour, 5 * time.Hour, false, 2 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				var event chan struct{}
				if test.event > 0 {
					event = make(chan struct{})
					time.AfterFunc(test.event, func() { close(event) })
				}
				began := time.Now()
				if got := Until(ctx, event, test.d); got != test.want || time.Since(began) != test.afterwards {
					t.Errorf("%v after %v", got, time.Since(began))
				}
			})
		})
	}
}
