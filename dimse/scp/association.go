package scp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

// association serves the requests of one association.
type association struct {
	*assoc.Association
	session *Session
	invoker *scu.Invoker // for the requests that this end makes
	window  int          // operations at once
	log     *slog.Logger
	work    sync.WaitGroup // running operations

	mu      sync.Mutex // guards what is below
	running map[uint16]context.CancelCauseFunc
	busy    int       // operations whose final response has not been sent
	since   time.Time // when busy last became 0
	failure error     // why this end aborted
}

// errCanceled is the cause of an operation's context after C-CANCEL.
var errCanceled = fault.New(fault.Canceled, "canceled by the peer")

func newAssociation(s *Server, a *assoc.Association, session *Session, log *slog.Logger) *association {
	response := s.Response
	if response == 0 {
		response = defaultResponse
	}
	window, _ := a.Window()
	if window == 0 {
		window = defaultWindow
	}
	return &association{
		Association: a,
		session:     session,
		invoker:     scu.NewInvoker(a, false, response),
		window:      int(window),
		log:         log.With("calling_ae", a.Request().Calling, "called_ae", a.Request().Called),
		running:     map[uint16]context.CancelCauseFunc{},
		since:       time.Now(),
	}
}

// serve receives messages until the association ends, and returns when all of
// its operations have.
func (a *association) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	a.log.Debug("association established")
	err := a.guard(func() error { return a.receiveAll(ctx) })
	cancel()
	released := errors.Is(err, io.EOF)
	if !released {
		_ = a.Abort()
	}
	a.invoker.Close(err)
	a.work.Wait()
	if released {
		err = nil
		a.log.Debug("association released")
	} else {
		if cause := a.cause(); cause != nil {
			err = cause
		}
		a.log.Info("association ended", "error", err)
	}
	if a.session.Closed != nil {
		a.session.Closed(err)
	}
}

// errPanic is the error of an association whose provider panicked.
var errPanic = errors.New("provider panicked")

// guard contains a panic: it is logged, and the association ends.
func (a *association) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("provider panicked", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return f()
}

// fail aborts the association because of err.
func (a *association) fail(err error) {
	a.mu.Lock()
	if a.failure == nil {
		a.failure = err
	}
	a.mu.Unlock()
	a.abort()
}

func (a *association) cause() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

// abort ends the association; an error means that it has ended already.
func (a *association) abort() { _ = a.Abort() }

// receiveAll handles message after message and returns why it stopped.
func (a *association) receiveAll(ctx context.Context) error {
	for {
		m, err := a.Receive(ctx)
		if err != nil {
			return err
		}
		set, err := command.Parse(m.Command)
		if err != nil {
			return err
		}
		switch {
		case set.Field.IsResponse():
			err = a.invoker.Deliver(ctx, set, m)
		case set.Field == command.CCancelRQ:
			a.cancelOperation(set.RespondedTo)
		default:
			err = a.request(ctx, set, m)
		}
		if err != nil {
			return err
		}
		if err := drop(m.Data); err != nil {
			return err
		}
	}
}

// request answers a request, or starts the operation that will.
func (a *association) request(ctx context.Context, set *command.Set, m *assoc.Message) error {
	pc, o, status := a.check(set, m)
	if status != command.Success {
		return a.refuse(ctx, set, m, status)
	}
	switch o {
	case dimse.Echo:
		a.begin()
		defer a.finish()
		return a.reply(ctx, set, m.ContextID, dimse.Echo, a.session.Echo.Echo(ctx))
	case dimse.Store:
		if a.full() {
			return a.refuse(ctx, set, m, command.ResourceLimitation)
		}
		a.begin()
		defer a.finish()
		return a.store(ctx, set, m, pc)
	case dimse.Report:
		a.begin()
		defer a.finish()
		answer := scu.ServeReport(ctx, a.Association, set, m, a.session.Committed)
		if err := drop(m.Data); err != nil {
			return err
		}
		return a.Send(ctx, m.ContextID, answer.Encode(nil), nil)
	}
	raw, err := scu.ReadIdentifier(m.Data)
	if err != nil && !fault.Is(err, fault.Full) {
		return err // the association is lost
	}
	var identifier *dicom.Dataset
	if err == nil {
		syntax, _ := dict.Syntax(pc.Syntax)
		identifier, err = dicom.ParseDataset(raw, syntax, dicom.DefaultLimits)
	}
	if err != nil {
		return a.reply(ctx, set, m.ContextID, o, err)
	}
	run := a.operation(o)
	return a.start(ctx, set, m.ContextID, func(ctx context.Context, end func()) error {
		return run(ctx, request{set: set, pc: pc, operation: o, identifier: identifier, end: end})
	})
}

// request is an operation that runs beside the reading.
type request struct {
	set        *command.Set
	pc         assoc.Context
	operation  dimse.Operation
	identifier *dicom.Dataset
	// end takes the operation off the list of those running. It is called
	// before the final response is sent: the next request may come at once.
	end func()
}

// operation returns what runs an operation beside the reading.
func (a *association) operation(o dimse.Operation) func(context.Context, request) error {
	switch o {
	case dimse.Find:
		return a.find
	case dimse.Commit:
		return a.commit
	}
	return a.retrieve
}

// start runs an operation in its own goroutine, until it ends or is canceled.
func (a *association) start(ctx context.Context, set *command.Set, contextID byte, run func(context.Context, func()) error) error {
	operation, cancel := context.WithCancelCause(ctx)
	a.mu.Lock()
	full := len(a.running) >= a.window
	if !full {
		a.running[set.MessageID] = cancel
		a.busy++
	}
	a.mu.Unlock()
	if full {
		cancel(nil)
		reply := set.Reply(command.ResourceLimitation)
		reply.ErrorComment = "more operations than were negotiated"
		return a.Send(ctx, contextID, reply.Encode(nil), nil)
	}
	var once sync.Once
	end := func() {
		once.Do(func() {
			a.mu.Lock()
			delete(a.running, set.MessageID)
			a.mu.Unlock()
		})
	}
	a.work.Go(func() {
		defer a.finish()
		defer cancel(nil)
		defer end()
		if err := a.guard(func() error { return run(operation, end) }); err != nil {
			a.fail(err)
		}
	})
	return nil
}

// cancelOperation cancels a running operation; one that has ended, or never
// was, is passed over (PS3.7 §9.3.2.3).
func (a *association) cancelOperation(id uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cancel := a.running[id]; cancel != nil {
		cancel(errCanceled)
	}
}

// full reports whether as many operations run as were negotiated.
func (a *association) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.running) >= a.window
}

// begin and finish count operations, for Shutdown.
func (a *association) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy++
}

func (a *association) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy--
	if a.busy == 0 {
		a.since = time.Now()
	}
}

// idle reports whether no operation has run for some time.
func (a *association) idle(d time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy == 0 && time.Since(a.since) >= d
}

// reply sends a final response with the status of err.
func (a *association) reply(ctx context.Context, set *command.Set, contextID byte, o dimse.Operation, err error) error {
	status, comment := dimse.StatusOf(o, err)
	answer := set.Reply(status)
	answer.ErrorComment = comment
	return a.Send(ctx, contextID, answer.Encode(nil), nil)
}

// refuse answers a request that is out of place, after its data set has passed.
func (a *association) refuse(ctx context.Context, set *command.Set, m *assoc.Message, status command.Status) error {
	a.log.Info("request refused", "command", set.Field.String(), "status", status.String(), "error", reasons[status])
	if err := drop(m.Data); err != nil {
		return err
	}
	answer := set.Reply(status)
	answer.ErrorComment = reasons[status]
	return a.Send(ctx, m.ContextID, answer.Encode(nil), nil)
}
