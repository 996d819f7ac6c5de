package work

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pelago/cluster/pause"
)

// SlowStop is how long a task may take to stop before it is logged by name, and
// again each time that much has passed.
const SlowStop = 5 * time.Second

// Group is an ordered set of tasks. It is made by [New] and run once.
type Group struct {
	log   *slog.Logger
	tasks []*task
}

// task is a Task with what Run keeps of it.
type task struct {
	Task
	progress *Progress
	stop     context.CancelFunc // nil until started
	ended    chan struct{}      // closed when its goroutine has ended
}

// New makes a group of tasks in their starting order. A name that is empty or
// there twice, or a task without Run, is a fault of the program and panics.
func New(log *slog.Logger, tasks ...Task) *Group {
	g := &Group{log: log}
	names := make(map[string]bool)
	for _, t := range tasks {
		if t.Name == "" || names[t.Name] || t.Run == nil {
			panic(fmt.Sprintf("work: task %q is not complete, or there twice", t.Name))
		}
		names[t.Name] = true
		g.tasks = append(g.tasks, &task{Task: t, progress: newProgress(t.Name), ended: make(chan struct{})})
	}
	return g
}

// Statuses lists the tasks in their starting order.
func (g *Group) Statuses() []Status {
	all := make([]Status, len(g.tasks))
	for i, t := range g.tasks {
		all[i] = t.progress.read()
	}
	return all
}

// Run starts the tasks in order and returns when all have ended: because ctx
// ended (nil), because each was done (nil), or because one failed for good (its
// error, with its name). Values of ctx reach the tasks; its end reaches them one
// by one, the last started first.
func (g *Group) Run(ctx context.Context) error {
	var failure error // written before broken ends
	broken, fail := context.WithCancel(ctx)
	defer fail()
	var once sync.Once
	g.start(broken, func(err error) {
		once.Do(func() { failure = err; fail() })
	})
	allEnded := make(chan struct{})
	go func() {
		defer close(allEnded)
		for _, t := range g.tasks {
			if t.stop != nil {
				<-t.ended
			}
		}
	}()
	select {
	case <-broken.Done():
	case <-allEnded:
	}
	g.stop()
	<-allEnded
	return failure
}

// start starts the tasks until ctx ends, which a failure for good does.
func (g *Group) start(ctx context.Context, failed func(error)) {
	base := context.WithoutCancel(ctx)
	for _, t := range g.tasks {
		if ctx.Err() != nil {
			return
		}
		var own context.Context
		own, t.stop = context.WithCancel(base)
		go g.supervise(own, t, failed)
		if t.Gate {
			select {
			case <-t.progress.ready:
			case <-ctx.Done():
			}
		}
	}
}

// stop ends the tasks in reverse, each before the one it may rely on.
func (g *Group) stop() {
	for i := len(g.tasks) - 1; i >= 0; i-- {
		t := g.tasks[i]
		if t.stop == nil {
			t.progress.state(Done)
			continue
		}
		select {
		case <-t.ended:
		default:
			t.progress.state(Stopping)
		}
		t.stop()
		g.await(t)
	}
}

func (g *Group) await(t *task) {
	begin := time.Now()
	tick := time.NewTicker(SlowStop)
	defer tick.Stop()
	for {
		select {
		case <-t.ended:
			return
		case <-tick.C:
			g.log.Warn("task is slow to stop", "task", t.Name, "waited_seconds", time.Since(begin).Seconds())
		}
	}
}

// supervise runs one task until it is done, stopped or failed for good.
func (g *Group) supervise(ctx context.Context, t *task, failed func(error)) {
	defer close(t.ended)
	defer t.stop()
	defer t.progress.Ready()
	for failures := 0; ; {
		began := time.Now()
		t.progress.update(func(s *Status) { s.State, s.Started = Running, began })
		err := t.Run(ctx, t.progress)
		if err == nil || ctx.Err() != nil {
			if err != nil && !errors.Is(err, ctx.Err()) {
				t.progress.Note(err)
				g.log.Warn("task stopped with an error", "task", t.Name, "error", err)
			}
			t.progress.state(Done)
			return
		}
		t.progress.Note(err)
		if t.Restart == nil {
			t.progress.state(Failed)
			g.log.Error("task failed", "task", t.Name, "error", err)
			failed(fmt.Errorf("%s: %w", t.Name, err))
			return
		}
		if _, highest := t.Restart.bounds(); time.Since(began) > highest {
			failures = 0
		}
		failures++
		wait := t.Restart.delay(failures)
		t.progress.update(func(s *Status) { s.State = Backoff; s.Restarts++ })
		g.log.Warn("task failed and will be run again", "task", t.Name, "error", err, "wait_seconds", wait.Seconds())
		if !pause.For(ctx, wait) {
			t.progress.state(Done)
			return
		}
	}
}
