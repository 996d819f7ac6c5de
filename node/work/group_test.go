package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/pause"
)

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, " ")
}

// waiter is a task that runs until it is stopped.
func waiter(j *journal, name string) Task {
	return Task{Name: name, Gate: true, Run: func(ctx context.Context, p *Progress) error {
		j.add("+%s", name)
		p.Ready()
		<-ctx.Done()
		j.add("-%s", name)
		return ctx.Err()
	}}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestTasksStartInOrderAndStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := New(quiet(), waiter(&j, "a"), waiter(&j, "b"), waiter(&j, "c"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := j.String(); got != "+a +b +c -c -b -a" {
			t.Errorf("%s", got)
		}
		for _, s := range g.Statuses() {
			if s.State != Done || s.LastError != "" {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestAGateHoldsTheNextTaskUntilReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var second time.Duration
		g := New(quiet(),
			Task{Name: "slow", Gate: true, Run: func(ctx context.Context, p *Progress) error {
				pause.For(ctx, time.Minute)
				p.Ready()
				<-ctx.Done()
				return nil
			}},
			Task{Name: "next", Run: func(context.Context, *Progress) error {
				second = time.Since(begin)
				return errors.New("enough")
			}},
		)
		if err := g.Run(t.Context()); err == nil || err.Error() != "next: enough" {
			t.Fatal(err)
		}
		if second != time.Minute {
			t.Errorf("started after %v", second)
		}
	})
}

func TestCancellationDuringTheStartReachesWhatHasStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		never := Task{Name: "never", Gate: true, Run: func(ctx context.Context, _ *Progress) error {
			<-ctx.Done()
			return nil
		}}
		g := New(quiet(), waiter(&j, "a"), never, waiter(&j, "c"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := j.String(); got != "+a -a" {
			t.Errorf("%s", got)
		}
	})
}

func TestAFailureForGoodStopsTheOthersAndIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		boom := errors.New("boom")
		g := New(quiet(), waiter(&j, "a"),
			Task{Name: "bad", Run: func(ctx context.Context, _ *Progress) error { pause.For(ctx, time.Second); return boom }},
			waiter(&j, "c"))
		if err := g.Run(t.Context()); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if got := j.String(); got != "+a +c -c -a" {
			t.Errorf("%s", got)
		}
		if s := g.Statuses()[1]; s.State != Failed || s.LastError != "boom" {
			t.Errorf("%+v", s)
		}
	})
}

func TestAFailureEndsAStartThatWaitsAtAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(quiet(),
			Task{Name: "bad", Run: func(ctx context.Context, _ *Progress) error { pause.For(ctx, time.Second); return errors.New("boom") }},
			Task{Name: "never", Gate: true, Run: func(ctx context.Context, _ *Progress) error { <-ctx.Done(); return nil }},
			Task{Name: "next", Run: func(context.Context, *Progress) error { panic("must not start") }},
		)
		if err := g.Run(t.Context()); err == nil || err.Error() != "bad: boom" {
			t.Fatal(err)
		}
	})
}

func TestAGroupWhoseTasksAreAllDoneReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(quiet(), Task{Name: "once", Run: func(_ context.Context, p *Progress) error {
			p.Set(3, 10)
			p.Add(4)
			return nil
		}})
		if err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := g.Statuses()[0]; s.Done != 7 || s.Total != 10 || s.State != Done {
			t.Errorf("%+v", s)
		}
	})
}

func TestRestartBacksOffAndBeginsAnewAfterALongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var starts []time.Time
		g := New(quiet(), Task{
			Name:    "shaky",
			Restart: &Restart{Min: time.Second, Max: 16 * time.Second},
			Run: func(ctx context.Context, _ *Progress) error {
				starts = append(starts, time.Now())
				switch len(starts) {
				case 8:
					pause.For(ctx, time.Minute)
				case 9: // the delays are drawn, so their number ends the test and no clock
					time.AfterFunc(0, cancel)
				}
				return errors.New("shaky")
			},
		})
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 16, 16, 61} {
			if i+1 >= len(starts) {
				t.Fatalf("%d starts", len(starts))
			}
			got := starts[i+1].Sub(starts[i])
			if want *= time.Second; want == 61*time.Second {
				got -= time.Minute
				want = time.Second
			}
			if got < want*3/4 || got > want*5/4 {
				t.Errorf("start %d after %v, want about %v", i+1, got, want)
			}
		}
		s := g.Statuses()[0]
		if s.Restarts < 8 || s.LastError != "shaky" || s.State != Done {
			t.Errorf("%+v", s)
		}
	})
}

func TestStatusesTellBackoffAndStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(quiet(),
			Task{Name: "stubborn", Run: func(ctx context.Context, _ *Progress) error {
				<-ctx.Done()
				time.Sleep(time.Minute)
				return nil
			}},
			Task{Name: "shaky", Restart: &Restart{Min: time.Hour, Max: time.Hour}, Run: func(context.Context, *Progress) error {
				return errors.New("x")
			}},
		)
		if s := g.Statuses()[0]; s.State != Waiting {
			t.Errorf("before: %+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		if s := g.Statuses(); s[0].State != Running || s[1].State != Backoff {
			t.Errorf("running: %+v", s)
		}
		cancel()
		synctest.Wait()
		if s := g.Statuses(); s[0].State != Stopping || s[1].State != Done {
			t.Errorf("stopping: %+v", s)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestASlowStopIsLoggedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := New(slog.New(slog.NewTextHandler(&out, nil)), Task{Name: "stubborn", Run: func(ctx context.Context, _ *Progress) error {
			<-ctx.Done()
			time.Sleep(2*SlowStop + time.Second)
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel2 := time.AfterFunc(time.Second, cancel)
		defer cancel2.Stop()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "task=stubborn"); n != 2 {
			t.Errorf("logged %d times: %s", n, out.String())
		}
	})
}

func TestEveryRunsAtOnceAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		g := New(quiet(), Task{Name: "round", Run: Every(time.Hour, func(context.Context, *Progress) error {
			rounds++
			time.Sleep(time.Minute)
			return nil
		})})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Hour, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// A round and the wait after it take 46 to 76 minutes, as it is drawn.
		if rounds < 8 || rounds > 14 {
			t.Errorf("%d rounds in ten hours", rounds)
		}
		if s := g.Statuses()[0]; s.LastTook != time.Minute || s.LastRun.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

func TestNewRefusesTasksThatCannotBeTold(t *testing.T) {
	run := func(context.Context, *Progress) error { return nil }
	for name, tasks := range map[string][]Task{
		"no name": {{Run: run}}, "no run": {{Name: "a"}}, "twice": {{Name: "a", Run: run}, {Name: "a", Run: run}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			New(quiet(), tasks...)
		})
	}
}
