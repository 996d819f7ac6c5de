package scp

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

const (
	// pendingEvery is the longest time without a pending response.
	pendingEvery = 5 * time.Second
	// pendingGap is the shortest between those that sub-operations cause, so
	// that thousands of small instances do not cost as many responses.
	pendingGap = 200 * time.Millisecond
	// cancelGrace is how long sub-operations towards a Move Destination may go
	// on after C-CANCEL, or after the requestor was lost.
	cancelGrace = 10 * time.Second
	// closeGrace is how long a Move Destination may take to release.
	closeGrace = 5 * time.Second
	// maxParallel bounds the sub-operations on their way.
	maxParallel = 16
)

// retrieve answers a C-MOVE or C-GET: it drives the C-STORE sub-operations,
// sends pending responses and the final one (PS3.4 C.4.2, C.4.3).
func (a *association) retrieve(ctx context.Context, r request) error {
	p := newProgress()
	var retrieval *Retrieval
	err := a.sendPending(ctx, r, p, func() (err error) {
		if retrieval, err = a.plan(ctx, r); err != nil {
			a.log.Info("retrieve refused", "operation", r.operation.String(), "destination_ae", r.set.MoveDestination, "error", err)
			return err
		}
		p.expect(retrieval.Total)
		for range retrieval.Missing {
			p.done("", 0, errMissing)
		}
		return a.subOperations(ctx, r, retrieval, p)
	})
	if errors.Is(err, errPanic) {
		return err
	}
	if err != nil && errors.Is(context.Cause(ctx), errCanceled) {
		err = errCanceled
	}
	outcome, comment := p.outcome(r.operation, err)
	if retrieval != nil && retrieval.Finished != nil {
		retrieval.Finished(outcome)
	}
	r.end()
	return a.sendFinal(context.WithoutCancel(ctx), r, p, outcome, comment)
}

// errMissing is why a sub-operation fails that was never begun.
var errMissing = fault.New(fault.Unavailable, "the instance is held where nobody answers")

// Ended reports whether the association is over.
func (a *association) Ended() bool {
	select {
	case <-a.Done():
		return true
	default:
		return false
	}
}

// plan asks the provider what to send.
func (a *association) plan(ctx context.Context, r request) (*Retrieval, error) {
	root, _, _ := dimse.QueryClass(r.pc.Abstract)
	asked := &RetrieveRequest{
		Root: root, Identifier: r.identifier, Options: a.options(r), Priority: r.set.Priority,
		Destination: r.set.MoveDestination, Calling: a.Request().Calling, MessageID: r.set.MessageID,
	}
	if r.operation == dimse.Get {
		return a.session.Get.Get(ctx, asked)
	}
	return a.session.Move.Move(ctx, asked)
}

// subOperations sends the instances of a retrieval. The error tells why the
// retrieval as a whole stopped early; a failed sub-operation is only counted.
func (a *association) subOperations(ctx context.Context, r request, retrieval *Retrieval, p *progress) error {
	if r.operation == dimse.Get {
		send := func(ctx context.Context, in scu.Instance, _ scu.Originator) (command.Status, error) {
			return a.invoker.Send(ctx, in, scu.Originator{})
		}
		// A C-STORE on this association is never cut short: a half message
		// would end the association, and with it the answer to C-CANCEL.
		return a.each(ctx, context.WithoutCancel(ctx), retrieval, p, send, scu.Originator{}, a.invoker.Window())
	}
	sending, stop := graceful(ctx, cancelGrace)
	defer stop()
	destination, err := retrieval.Connect(ctx)
	if err != nil {
		if status, _ := dimse.StatusOf(dimse.Move, err); status == dimse.MoveDestinationUnknown {
			return err
		}
		a.log.Warn("move destination not reached", "destination_ae", r.set.MoveDestination, "error", err)
		unreachable := func(context.Context, scu.Instance, scu.Originator) (command.Status, error) { return 0, err }
		return a.each(ctx, ctx, retrieval, p, unreachable, scu.Originator{}, 1)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
		defer cancel()
		if err := destination.Close(closing); err != nil {
			a.log.Info("move destination not released", "destination_ae", r.set.MoveDestination, "error", err)
		}
	}()
	from := scu.Originator{AE: a.Request().Calling, MessageID: r.set.MessageID}
	return a.each(ctx, sending, retrieval, p, destination.Store, from, maxParallel)
}

// graceful returns a context that ends some time after ctx does.
func graceful(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var mu sync.Mutex // guards timer and ended
	var timer *time.Timer
	ended := false
	unhook := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			timer = time.AfterFunc(grace, cancel)
		}
	})
	return later, func() {
		unhook()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}

// storeFunc sends one instance.
type storeFunc func(context.Context, scu.Instance, scu.Originator) (command.Status, error)

// each sends every instance of the retrieval, some at once, until ctx ends or
// the requestor is lost. sending is the context of those on their way.
func (a *association) each(ctx, sending context.Context, retrieval *Retrieval, p *progress, send storeFunc, from scu.Originator, most int) error {
	var group errgroup.Group
	group.SetLimit(max(1, min(retrieval.Parallel, most, maxParallel)))
	enumerate := func() error {
		for in, err := range retrieval.Instances {
			if stop := a.stopped(ctx); stop != nil {
				return stop
			}
			if err != nil && in.UID == "" {
				return err
			}
			if err != nil {
				a.count(p, in, 0, err)
				continue
			}
			group.Go(func() error {
				if stop := a.stopped(ctx); stop != nil { // while it waited for its turn
					return stop
				}
				return a.guard(func() error {
					status, err := send(sending, in, from)
					a.count(p, in, status, err)
					return nil
				})
			})
		}
		return nil
	}
	err := a.guard(enumerate)
	// What is on its way is counted before the final response.
	if stopped := group.Wait(); stopped != nil {
		return stopped
	}
	return err
}

// stopped returns why no further sub-operation may start, or nil.
func (a *association) stopped(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a.Ended() { // nobody takes the rest
		return fault.New(fault.Canceled, "the requestor has gone")
	}
	return nil
}

// count notes the end of one sub-operation.
func (a *association) count(p *progress, in scu.Instance, status command.Status, err error) {
	if err != nil {
		a.log.Info("sub-operation failed", "instance", in.UID, "error", err)
	}
	p.done(in.UID, status, err)
}

// sendPending runs work and sends pending responses meanwhile: when
// sub-operations have ended, and every five seconds at least. When it returns,
// no pending response is on its way any more.
func (a *association) sendPending(ctx context.Context, r request, p *progress, work func() error) error {
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		ticker := time.NewTicker(pendingEvery)
		defer ticker.Stop()
		var last time.Time
		for {
			select {
			case <-stop:
				return
			case <-a.Done():
				return
			case <-ticker.C:
			case <-p.moved:
				if time.Since(last) < pendingGap {
					continue
				}
			}
			last = time.Now()
			ticker.Reset(pendingEvery)
			reply := r.set.Reply(command.Pending)
			p.fill(reply, true)
			if err := a.Send(context.WithoutCancel(ctx), r.pc.ID, reply.Encode(nil), nil); err != nil {
				a.fail(err)
				return
			}
		}
	})
	defer reporter.Wait()
	defer close(stop)
	return work()
}

// sendFinal sends the final response. Its identifier lists the instances that
// failed (PS3.4 C.4.2.1.4.2, C.4.3.1.3.2).
func (a *association) sendFinal(ctx context.Context, r request, p *progress, outcome Outcome, comment string) error {
	reply := r.set.Reply(outcome.Status)
	reply.ErrorComment = comment
	p.fill(reply, outcome.Status == command.Cancel)
	identifier := p.failedIdentifier()
	if identifier == nil || outcome.Status == command.Success {
		return a.Send(ctx, r.pc.ID, reply.Encode(nil), nil)
	}
	syntax, _ := dict.Syntax(r.pc.Syntax)
	body, err := identifier.Encode(nil, syntax)
	if err != nil {
		return err
	}
	reply.HasData = true
	return a.Send(ctx, r.pc.ID, reply.Encode(nil), bytes.NewReader(body))
}
