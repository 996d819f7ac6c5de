package scu

import (
	"context"
	"iter"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// Progress is a response to C-MOVE or C-GET (PS3.7 §9.1.3, §9.1.4): counts of
// sub-operations as the peer states them. The last one is final.
type Progress struct {
	Status                                command.Status
	Remaining, Completed, Failed, Warning int
	FailedUIDs                            []string // (0008,0058); final responses only
	Final                                 bool
}

// Move asks for C-MOVE to another AE and yields the responses. The final one
// comes with an error when its status is a failure or cancel; B000 (some
// sub-operations failed) is none. Leaving the loop early or the end of ctx
// cancels as in [Client.Find].
func (c *Client) Move(ctx context.Context, destination string, q Query) iter.Seq2[Progress, error] {
	return c.retrieve(ctx, dimse.Move, q, &command.Set{Field: command.CMoveRQ, MoveDestination: destination})
}

// Incoming is an instance that a peer sends in a C-GET.
type Incoming struct {
	Class, Instance string
	Syntax          string
	Data            *assoc.Data // need not be read to its end
}

// StoreHandler takes an instance in. nil answers success; an error answers the
// status of its kind, or exactly that of a [dimse.StatusError].
type StoreHandler func(ctx context.Context, in *Incoming) error

// Get asks for C-GET and yields the responses, while handle takes the instances
// in from the reading goroutine. One C-GET at a time runs on a client. Errors
// and cancelling as [Client.Move].
func (c *Client) Get(ctx context.Context, q Query, handle StoreHandler) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		if !c.setStores(nil, handle) {
			yield(Progress{}, fault.New(fault.Conflict, "a C-GET already runs on this association"))
			return
		}
		defer c.setStores(handle, nil)
		c.retrieve(ctx, dimse.Get, q, &command.Set{Field: command.CGetRQ})(yield)
	}
}

// setStores sets or takes away the handler of C-STORE requests.
func (c *Client) setStores(old, handle StoreHandler) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old == nil && c.stores != nil {
		return false
	}
	c.stores = handle
	return true
}

func (c *Client) retrieve(ctx context.Context, o dimse.Operation, q Query, set *command.Set) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		call, pc, err := c.ask(ctx, o, q, set)
		if err != nil {
			yield(Progress{}, err)
			return
		}
		defer call.end()
		for {
			r, err := c.next(ctx, call)
			if err != nil {
				c.giveUp(ctx, call)
				yield(Progress{}, err)
				return
			}
			p := progressOf(r, pc.Syntax)
			if p.Final {
				yield(p, statusError(o, r.set))
				return
			}
			if !yield(p, nil) {
				c.giveUp(ctx, call)
				return
			}
		}
	}
}

// progressOf reads a response. An identifier that cannot be read costs only
// the list of failed UIDs: the counts stand in the command.
func progressOf(r response, syntax string) Progress {
	p := Progress{
		Status:    r.set.Status,
		Remaining: count(r.set.Remaining),
		Completed: count(r.set.Completed),
		Failed:    count(r.set.Failed),
		Warning:   count(r.set.Warning),
		Final:     !r.set.Status.IsPending(),
	}
	if p.Final && len(r.data) > 0 {
		if d, err := parseIdentifier(r, syntax); err == nil {
			p.FailedUIDs = d.Strings(tagFailedUIDs)
		}
	}
	return p
}

func count(n *uint16) int {
	if n == nil {
		return 0
	}
	return int(*n)
}

// serveStore answers a C-STORE sub-operation of a C-GET.
func (c *Client) serveStore(ctx context.Context, set *command.Set, m *assoc.Message) *command.Set {
	c.mu.Lock()
	handle := c.stores
	c.mu.Unlock()
	pc, accepted := c.association.Context(m.ContextID)
	switch {
	case handle == nil:
		return set.Reply(command.UnrecognizedOperation)
	case m.Data == nil:
		return set.Reply(command.MistypedArgument)
	case !accepted || pc.Abstract != set.Class || !pc.SCP:
		return set.Reply(command.ClassNotSupported)
	}
	err := handle(ctx, &Incoming{Class: set.Class, Instance: set.Instance, Syntax: pc.Syntax, Data: m.Data})
	status, comment := dimse.StatusOf(dimse.Store, err)
	reply := set.Reply(status)
	reply.ErrorComment = comment
	return reply
}
