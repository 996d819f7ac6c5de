package scu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// Client is one association to a target.
type Client struct {
	*Invoker
	target Target
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{} // closed when the reading goroutine has ended
	turn   chan struct{} // capacity 1: held while a request of the peer is answered, and from Release on

	mu     sync.Mutex // guards what is below
	stores StoreHandler
}

// Dial opens an association. Errors: fault.Unavailable when the peer cannot be
// reached, a *[assoc.Reject] or *[assoc.Aborted] in the tree when it refuses,
// fault.Unsupported when it accepts none of the contexts. The client must be
// ended by [Client.Release] or [Client.Abort].
func Dial(ctx context.Context, target Target, proposal Proposal) (*Client, error) {
	if n := len(proposal.Contexts); n == 0 || n > maxContexts {
		return nil, fault.New(fault.Unsupported, "%d presentation contexts proposed: an association has 1 to %d", n, maxContexts)
	}
	limit := target.Connect
	if limit == 0 {
		limit = defaultConnect
	}
	setup, cancelSetup := context.WithTimeout(ctx, limit)
	defer cancelSetup()
	conn, err := target.connect(setup)
	if err != nil {
		return nil, err
	}
	a, err := assoc.Dial(setup, conn, target.Config, proposal.request(target))
	if err != nil {
		conn.Close()
		return nil, associationError(err)
	}
	return newClient(ctx, a, target)
}

// newClient starts reading from an established association.
func newClient(ctx context.Context, a *assoc.Association, target Target) (*Client, error) {
	accepted := false
	for _, c := range a.Contexts() {
		accepted = accepted || c.Result == 0
	}
	if !accepted {
		release, cancel := context.WithTimeout(ctx, releaseGrace)
		defer cancel()
		// There is nothing to lose: the peer wants none of it.
		_ = a.Release(release)
		return nil, fault.New(fault.Unsupported, "%s accepted no presentation context", target.Addr)
	}
	timeout := target.Response
	if timeout == 0 {
		timeout = defaultResponse
	}
	log := target.Config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// The association outlives the context of its set-up.
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		Invoker: NewInvoker(a, true, timeout),
		target:  target,
		log:     log,
		cancel:  cancel,
		done:    make(chan struct{}),
		turn:    make(chan struct{}, 1),
	}
	go c.read(reading)
	return c, nil
}

// associationError gives a failed set-up or release a kind: what is not told
// apart means that the peer cannot be had.
func associationError(err error) error {
	if fault.KindOf(err) == fault.Other {
		return fault.New(fault.Unavailable, "association: %w", err)
	}
	return fmt.Errorf("association: %w", err)
}

// Contexts returns the presentation contexts as negotiated.
func (c *Client) Contexts() []assoc.Context { return c.association.Contexts() }

// Extended returns the peer's answers to extended negotiation.
func (c *Client) Extended() map[string][]byte { return c.association.Extended() }

// Done is closed when the association has ended and no handler runs any more.
func (c *Client) Done() <-chan struct{} { return c.done }

// Release ends the association in order and waits for the reading goroutine.
// A request of the peer that is being handled is answered before; nothing may be
// sent after (PS3.8 §9.2.3, AR-1). When the peer does not answer before ctx ends,
// the association is aborted. No operation may be outstanding.
func (c *Client) Release(ctx context.Context) error {
	defer c.stop()
	select {
	case c.turn <- struct{}{}:
	case <-c.done:
	case <-ctx.Done():
	}
	if err := c.association.Release(ctx); err != nil {
		_ = c.association.Abort()
		return associationError(err)
	}
	return nil
}

// Abort ends the association at once and waits for the reading goroutine.
func (c *Client) Abort() error {
	defer c.stop()
	return c.association.Abort()
}

func (c *Client) stop() {
	c.cancel()
	<-c.done
}

// read receives messages until the association ends.
func (c *Client) read(ctx context.Context) {
	defer close(c.done)
	defer c.cancel()
	err := c.guarded(ctx)
	if !errors.Is(err, io.EOF) {
		_ = c.association.Abort()
	}
	c.Close(err)
}

// errPanic is why an association ended whose handler panicked.
var errPanic = errors.New("handler panicked")

// guarded is receiveAll, with a panic of a handler turned into an error: what a
// peer sent ends its own association and nothing else.
func (c *Client) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return c.receiveAll(ctx)
}

// receiveAll handles message after message and returns why it stopped.
func (c *Client) receiveAll(ctx context.Context) error {
	for {
		m, err := c.association.Receive(ctx)
		if err != nil {
			return err
		}
		set, err := command.Parse(m.Command)
		if err != nil {
			return err
		}
		if set.Field.IsResponse() {
			err = c.Deliver(ctx, set, m)
		} else {
			err = c.serve(ctx, set, m)
		}
		if err != nil {
			return err
		}
		if m.Data != nil {
			if err := m.Data.Discard(); err != nil {
				return err
			}
		}
	}
}

// serve answers a request of the peer: C-STORE while a C-GET runs, and
// N-EVENT-REPORT of storage commitment. C-CANCEL has nothing to cancel here. What
// comes once the association is being released is passed over.
func (c *Client) serve(ctx context.Context, set *command.Set, m *assoc.Message) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	default:
		return nil
	}
	var reply *command.Set
	switch set.Field {
	case command.CCancelRQ:
		return nil
	case command.CStoreRQ:
		reply = c.serveStore(ctx, set, m)
	case command.NEventReportRQ:
		reply = ServeReport(ctx, c.association, set, m, c.target.Committed)
	case command.CEchoRQ:
		reply = set.Reply(command.Success)
	default:
		reply = set.Reply(command.UnrecognizedOperation)
	}
	if m.Data != nil {
		if err := m.Data.Discard(); err != nil {
			return err
		}
	}
	return c.association.Send(ctx, m.ContextID, reply.Encode(nil), nil)
}

// Echo asks for C-ECHO (PS3.4 Annex A).
func (c *Client) Echo(ctx context.Context) error {
	pc, err := c.contextOf(dimse.Verification)
	if err != nil {
		return err
	}
	answer, err := c.once(ctx, pc.ID, &command.Set{Field: command.CEchoRQ, Class: dimse.Verification}, nil)
	if err != nil {
		return err
	}
	return statusError(dimse.Echo, answer)
}

// Echo opens an association to the target, asks for C-ECHO and releases it: the
// way to see whether the target is there and takes our AE title.
func Echo(ctx context.Context, target Target) error {
	c, err := Dial(ctx, target, ProposeEcho())
	if err != nil {
		return err
	}
	if err := c.Echo(ctx); err != nil {
		_ = c.Abort()
		return err
	}
	return c.Release(ctx)
}

// contextOf returns an accepted context of a class that is no storage class.
func (i *Invoker) contextOf(class string) (assoc.Context, error) {
	for _, c := range i.association.Contexts() {
		if c.Abstract == class && usable(c, i.requestor) {
			return c, nil
		}
	}
	return assoc.Context{}, fault.New(fault.Unsupported, "class %s was not negotiated", class)
}

// pause returns a context that ends some time after now, whether or not ctx
// has ended: for the last words of an operation that was given up.
func pause(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
