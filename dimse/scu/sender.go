package scu

import (
	"context"
	"errors"
	"io"
	"sync"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// Instance is an instance that can be sent.
type Instance struct {
	Class, UID string
	Syntax     string // transfer syntax it is stored in
	// Open returns the data set without group 0002 in Syntax, or converted to
	// another uncompressed syntax when [Choose] says so. It is closed after use.
	Open func(ctx context.Context, syntax string) (io.ReadCloser, error)
}

// Send stores an instance over the association in the best transfer syntax
// that was negotiated: see [Choose] and [Invoker.Store]. fault.Unsupported:
// there is none.
func (i *Invoker) Send(ctx context.Context, in Instance, from Originator) (command.Status, error) {
	syntax, err := i.Choose(in.Class, in.Syntax)
	if err != nil {
		return 0, err
	}
	body, err := in.Open(ctx, syntax)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return i.Store(ctx, StoreRequest{Class: in.Class, Instance: in.UID, Syntax: syntax, Data: body, Originator: from})
}

// Sender stores into one target over the associations of a [StorePlan], each
// opened when its first instance comes. An association that breaks is opened
// again once for the instance that met it, since C-STORE may be repeated.
type Sender struct {
	target Target
	legs   []*leg
	byKind map[string]*leg // by class
}

// leg is one association of a sender.
type leg struct {
	proposal Proposal
	turn     chan struct{} // held while the association is being opened

	mu     sync.Mutex // guards what is below
	client *Client
	refuse error // the target cannot be had; further instances fail at once
}

// NewSender returns a sender for instances of the kinds. It opens nothing.
func NewSender(target Target, kinds []Kind, window uint16) *Sender {
	s := &Sender{target: target, byKind: map[string]*leg{}}
	for _, contexts := range StorePlan(kinds) {
		l := &leg{proposal: Proposal{Contexts: contexts, Window: window}, turn: make(chan struct{}, 1)}
		s.legs = append(s.legs, l)
		for _, c := range contexts {
			s.byKind[c.Abstract] = l
		}
	}
	return s
}

// Store sends one instance. It returns what the peer said: success, a warning,
// or a [dimse.StatusError]; or what was in the way: fault.Unsupported (not
// negotiated), fault.Unavailable (no association).
func (s *Sender) Store(ctx context.Context, in Instance, from Originator) (command.Status, error) {
	l := s.byKind[in.Class]
	if l == nil {
		return 0, fault.New(fault.Unsupported, "class %s is not in the plan of this sender", in.Class)
	}
	for attempt := 0; ; attempt++ {
		client, err := l.open(ctx, s.target)
		if err != nil {
			return 0, err
		}
		status, err := client.Send(ctx, in, from)
		if err == nil || attempt > 0 || ctx.Err() != nil || !client.ended() || errors.Is(err, errNoResponse) {
			return status, err
		}
	}
}

// ended reports whether the association is over.
func (i *Invoker) ended() bool {
	select {
	case <-i.association.Done():
		return true
	case <-i.closed:
		return true
	default:
		return false
	}
}

// open returns the leg's association, and opens it when there is none or it
// has ended.
func (l *leg) open(ctx context.Context, target Target) (*Client, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	old, err := l.current()
	if err != nil {
		return nil, err
	}
	if old != nil {
		if !old.ended() {
			return old, nil
		}
		_ = old.Abort() // waits for its goroutine
	}
	client, err := Dial(ctx, target, l.proposal)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = client
	if err != nil && ctx.Err() == nil {
		l.refuse = err
	}
	return client, err
}

func (l *leg) current() (*Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client, l.refuse
}

// Connect opens the first association, to learn early whether the target is
// there. A sender without kinds has nothing to connect.
func (s *Sender) Connect(ctx context.Context) error {
	if len(s.legs) == 0 {
		return nil
	}
	_, err := s.legs[0].open(ctx, s.target)
	return err
}

// Contexts returns the presentation contexts of the associations that are open.
func (s *Sender) Contexts() []assoc.Context {
	var all []assoc.Context
	for _, l := range s.legs {
		if c, _ := l.current(); c != nil {
			all = append(all, c.Contexts()...)
		}
	}
	return all
}

// Close releases the associations; those that do not answer before ctx ends
// are aborted. No Store may be running.
func (s *Sender) Close(ctx context.Context) error {
	var first error
	for _, l := range s.legs {
		c, _ := l.current()
		switch {
		case c == nil:
		case c.ended():
			_ = c.Abort()
		default:
			if err := c.Release(ctx); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}
