package scu

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// Limits of an invoker.
const (
	// maxOutstanding bounds the operations on their way when the peer sets no
	// limit itself (PS3.7 D.3.3.3: a window of 0).
	maxOutstanding = 64
	// queuedResponses is how many responses may wait for a slow caller before
	// reading from the association pauses.
	queuedResponses = 64
	// MaxIdentifier is the longest identifier or event information that is
	// read into memory. 100,000 UIDs take 6.5 MB.
	MaxIdentifier = 16 << 20
)

// Invoker sends requests over an association and gives each response to the
// caller that waits for it. It reads nothing: whoever receives from the
// association hands responses to [Invoker.Deliver].
type Invoker struct {
	association *assoc.Association
	requestor   bool
	timeout     time.Duration
	window      chan struct{} // a token is held per outstanding operation
	closed      chan struct{}

	mu    sync.Mutex // guards what is below
	last  uint16
	calls map[uint16]*call
	err   error // why it was closed
}

// call is an operation that waits for responses.
type call struct {
	messageID uint16
	answer    command.Field // of its responses
	contextID byte
	responses chan response
	left      chan struct{} // closed when nobody waits any more
	leave     sync.Once
}

// response is a response with its data set, if it has one.
type response struct {
	set  *command.Set
	data []byte
	err  error // the data set was too long
}

// NewInvoker returns an invoker over an established association. requestor
// says whether this end requested the association, which decides the window
// and the roles that count. timeout bounds the wait for a response; 0 means no
// bound.
func NewInvoker(a *assoc.Association, requestor bool, timeout time.Duration) *Invoker {
	invoked, performed := a.Window()
	size := int(performed)
	if requestor {
		size = int(invoked)
	}
	if size == 0 || size > maxOutstanding {
		size = maxOutstanding
	}
	return &Invoker{
		association: a,
		requestor:   requestor,
		timeout:     timeout,
		window:      make(chan struct{}, size),
		closed:      make(chan struct{}),
		calls:       map[uint16]*call{},
	}
}

// Window returns how many operations may be outstanding at once.
func (i *Invoker) Window() int { return cap(i.window) }

// Deliver hands a response to whoever waits for it and reads its data set. A
// response that nobody waits for is passed over: its operation was given up,
// never was, or was another. It may block while the caller is slow. The error is one of
// reading from the association.
func (i *Invoker) Deliver(ctx context.Context, set *command.Set, m *assoc.Message) error {
	i.mu.Lock()
	c := i.calls[set.RespondedTo]
	if c != nil && c.answer != set.Field {
		c = nil
	}
	if c != nil && !set.Status.IsPending() {
		delete(i.calls, set.RespondedTo)
	}
	i.mu.Unlock()

	r := response{set: set}
	if m.Data != nil {
		var err error
		if c == nil {
			err = m.Data.Discard()
		} else if r.data, err = ReadIdentifier(m.Data); fault.Is(err, fault.Full) {
			r.err, err = err, nil
		}
		if err != nil {
			return err
		}
	}
	if c == nil {
		return nil
	}
	if !set.Status.IsPending() {
		<-i.window
	}
	select {
	case c.responses <- r:
	case <-c.left:
	case <-i.closed:
	case <-ctx.Done():
	}
	return nil
}

// ReadIdentifier reads a data set that is worked on in memory. A longer one
// than [MaxIdentifier] is fault.Full, and the rest of it is dropped.
func ReadIdentifier(data *assoc.Data) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(data, MaxIdentifier+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxIdentifier {
		if err := data.Discard(); err != nil {
			return nil, err
		}
		return nil, fault.New(fault.Full, "data set is longer than %d bytes", MaxIdentifier)
	}
	return b, nil
}

// Close ends all waiting operations with err. The association stays as it is.
func (i *Invoker) Close(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil {
		i.err = fault.New(fault.Unavailable, "association has ended: %w", err)
		close(i.closed)
	}
}

// invoke sends a request and returns the call that receives its responses; the
// caller must end it.
func (i *Invoker) invoke(ctx context.Context, contextID byte, set *command.Set, data io.Reader) (*call, error) {
	select {
	case i.window <- struct{}{}:
	case <-i.closed:
		return nil, i.reason()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := i.register(contextID, set)
	if err != nil {
		<-i.window
		return nil, err
	}
	if err := i.association.Send(ctx, contextID, set.Encode(nil), data); err != nil {
		i.forget(c)
		return nil, sendError(err)
	}
	return c, nil
}

// sendError gives an error of [assoc.Association.Send] a kind: what is not told
// apart means that the association is lost.
func sendError(err error) error {
	if fault.KindOf(err) == fault.Other {
		return fault.New(fault.Unavailable, "send request: %w", err)
	}
	return err
}

// register gives the request a message id that no outstanding operation has.
func (i *Invoker) register(contextID byte, set *command.Set) (*call, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	// The window is far smaller than the number of ids, so that one is free.
	for {
		i.last++
		if i.last != 0 && i.calls[i.last] == nil {
			break
		}
	}
	c := &call{
		messageID: i.last,
		answer:    set.Reply(command.Success).Field,
		contextID: contextID,
		responses: make(chan response, queuedResponses),
		left:      make(chan struct{}),
	}
	set.MessageID = c.messageID
	i.calls[c.messageID] = c
	return c, nil
}

// forget takes back a call whose request was not sent.
func (i *Invoker) forget(c *call) {
	i.mu.Lock()
	_, waits := i.calls[c.messageID]
	delete(i.calls, c.messageID)
	i.mu.Unlock()
	if waits {
		<-i.window
	}
}

// end says that nobody waits for the call any more. Its window token returns
// with the final response.
func (c *call) end() { c.leave.Do(func() { close(c.left) }) }

func (i *Invoker) reason() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// errNoResponse is wrapped by the error of a wait that took too long.
var errNoResponse = errors.New("no response in time")

// next waits for the call's next response. A peer that stays silent for the
// invoker's time limit loses the association: nothing tells when its response
// would still come.
func (i *Invoker) next(ctx context.Context, c *call) (response, error) {
	var expired <-chan time.Time
	if i.timeout > 0 {
		timer := time.NewTimer(i.timeout)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case r := <-c.responses:
		return r, nil
	case <-i.closed:
		select {
		case r := <-c.responses: // it came before the end
			return r, nil
		default:
			return response{}, i.reason()
		}
	case <-ctx.Done():
		return response{}, ctx.Err()
	case <-expired:
		// The association is lost either way; its abort has nothing to add.
		_ = i.association.Abort()
		return response{}, fault.New(fault.Unavailable, "%w (%v)", errNoResponse, i.timeout)
	}
}

// once sends a request that has exactly one response and returns it.
func (i *Invoker) once(ctx context.Context, contextID byte, set *command.Set, data io.Reader) (*command.Set, error) {
	c, err := i.invoke(ctx, contextID, set, data)
	if err != nil {
		return nil, err
	}
	defer c.end()
	r, err := i.next(ctx, c)
	if err != nil {
		return nil, err
	}
	return r.set, nil
}

// cancel sends C-CANCEL for a call (PS3.7 §9.3.2.3).
func (i *Invoker) cancel(ctx context.Context, c *call) error {
	set := &command.Set{Field: command.CCancelRQ, RespondedTo: c.messageID}
	return i.association.Send(ctx, c.contextID, set.Encode(nil), nil)
}

// statusError returns nil for success and warnings, else the status with its kind.
func statusError(o dimse.Operation, set *command.Set) error {
	if !set.Status.IsFailure() && set.Status != command.Cancel {
		return nil
	}
	return fault.New(dimse.StatusKind(set.Status), "%v: %w", o, &dimse.StatusError{Status: set.Status, Comment: set.ErrorComment})
}
