package work

import (
	"context"
	"math/rand/v2"
	"time"

	"pelago/cluster/pause"
)

// Task is one background activity.
type Task struct {
	// Name is unique in its group, in snake case: it is a metric label.
	Name string

	// Run does the work until ctx ends, or until it is done (nil). It must return
	// soon after ctx ends; what it returns then is not held to be a failure.
	Run func(ctx context.Context, p *Progress) error

	// Gate holds the start of the next task until this one has called
	// Progress.Ready or has ended.
	Gate bool

	// Restart asks for another Run after an error. Without it an error ends the
	// whole group.
	Restart *Restart
}

// Restart says how long to wait before a task that failed is run again: from
// Min, doubling up to Max, give or take a quarter at random. A run that lasted
// longer than Max before it failed begins at Min again.
type Restart struct {
	Min time.Duration // 0: 1 s
	Max time.Duration // 0: 1 min
}

func (r Restart) bounds() (lowest, highest time.Duration) {
	lowest, highest = r.Min, r.Max
	if lowest <= 0 {
		lowest = time.Second
	}
	if highest <= 0 {
		highest = time.Minute
	}
	return lowest, max(lowest, highest)
}

// delay is the wait after the given number of failures in a row (from 1).
func (r Restart) delay(failures int) time.Duration {
	d, highest := r.bounds()
	for ; failures > 1 && d < highest; failures-- {
		d *= 2
	}
	return jitter(min(d, highest))
}

// jitter returns d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - d/4 + rand.N(d/2)
}

// Every makes a task's Run of something that is due again and again: at once,
// then interval after it has ended, give or take a quarter. An error of it ends
// Run with that error, so the task wants a Restart.
func Every(interval time.Duration, once func(ctx context.Context, p *Progress) error) func(context.Context, *Progress) error {
	return func(ctx context.Context, p *Progress) error {
		for {
			begin := time.Now()
			if err := once(ctx, p); err != nil {
				return err
			}
			p.ran(begin)
			if !pause.For(ctx, jitter(interval)) {
				return nil
			}
		}
	}
}
