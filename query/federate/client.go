package federate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/query"
	"pelago/query/federate/federatepb"
)

// Caller sends a request to a node. *call.Client is one.
type Caller interface {
	Do(ctx context.Context, node, method, path string, body io.Reader) (*http.Response, error)
}

// Options are what a client asks with.
type Options struct {
	Call Caller
	// Nodes returns the other nodes that may hold instances.
	Nodes func() []query.Node
	// Reach tells how a node can be reached, as far as is known without asking it;
	// nil: all at once.
	Reach func(node string) query.Availability
	// Patience is how long a node may say nothing, Doubt how long one that is
	// thought to be away; 5 s and 1 s.
	Patience, Doubt time.Duration
}

// Client asks other nodes. It may be used by many goroutines.
type Client struct{ o Options }

var _ query.Peers = (*Client)(nil)

// NewClient returns a client.
func NewClient(o Options) *Client {
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	if o.Doubt == 0 {
		o.Doubt = time.Second
	}
	if o.Reach == nil {
		o.Reach = func(string) query.Availability { return query.Online }
	}
	return &Client{o}
}

// Nodes implements [query.Peers].
func (c *Client) Nodes() []query.Node { return c.o.Nodes() }

// Availability implements [query.Peers].
func (c *Client) Availability(node string) query.Availability { return c.o.Reach(node) }

// Probe implements [query.Peers].
func (c *Client) Probe(ctx context.Context, node string, p query.Probe, candidates []query.Candidate) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		s := &stream{client: c, node: node, probe: p, candidates: candidates}
		for {
			before := *s
			err := s.read(ctx, func(f query.Found) bool { return yield(f, nil) })
			if err == nil || errors.Is(err, errEnough) {
				return
			}
			further := s.candidate > before.candidate || s.after > before.after
			if !further || !fault.Is(err, fault.Unavailable) {
				yield(query.Found{}, err)
				return
			}
		}
	}
}

// errEnough says that the asker wants no more.
var errEnough = errors.New("federate: enough")

// stream is a node's answer, and how far it was read.
type stream struct {
	client     *Client
	node       string
	probe      query.Probe
	candidates []query.Candidate
	candidate  int    // the first that is not known to be read whole
	after      string // the last instance of it that was read
}

// read asks about the rest and passes on what is found, until the end.
func (s *stream) read(ctx context.Context, yield func(query.Found) bool) error {
	first := s.candidate
	if first == len(s.candidates) {
		return nil
	}
	rest := slices.Clone(s.candidates[first:])
	rest[0].After = max(rest[0].After, s.after)
	question, err := encodeQuestion(s.probe, rest)
	if err != nil {
		return err
	}
	w := s.client.watch(ctx, s.node)
	defer w.end()
	response, err := s.client.o.Call.Do(w.ctx, s.node, http.MethodPost, findPath, bytes.NewReader(question))
	if err != nil {
		return w.why(err)
	}
	defer response.Body.Close()
	body := bufio.NewReaderSize(response.Body, frameBytes)
	for {
		w.wait()
		frame, err := readFrame(body)
		w.rest()
		if err != nil {
			return w.why(err)
		}
		if err := s.take(frame, first, yield); err != nil || frame.End {
			return err
		}
	}
}

// take passes on a frame, and then why the answer ends with it, if it does.
func (s *stream) take(frame *federatepb.Frame, first int, yield func(query.Found) bool) error {
	for _, pb := range frame.Found {
		f, err := decodeFound(pb)
		if err != nil {
			return err
		}
		f.Candidate += first
		if f.Candidate < s.candidate || f.Candidate >= len(s.candidates) || f.Candidate == s.candidate && f.Instance.SOP <= s.after {
			return fault.New(fault.Protocol, "query: a peer's answer is not in order")
		}
		s.candidate, s.after = f.Candidate, f.Instance.SOP
		f.Instance.Study, f.Instance.Series, f.Instance.Origin = s.candidates[f.Candidate].Study, s.candidates[f.Candidate].Series, s.node
		if s.candidates[f.Candidate].First {
			s.candidate, s.after = f.Candidate+1, ""
		}
		if !yield(f) {
			return errEnough
		}
	}
	if frame.Fault != 0 || frame.Text != "" {
		kind := fault.Kind(frame.Fault)
		if int(kind) >= len(fault.Kinds()) || frame.Fault > 255 {
			kind = fault.Other
		}
		return fault.New(kind, "peer: %.512s", frame.Text)
	}
	return nil
}

// Locate implements [query.Peers].
func (c *Client) Locate(ctx context.Context, node string, sops []string) ([]query.Instance, error) {
	var all []query.Instance
	for len(sops) > 0 {
		n := min(len(sops), query.MaxCandidates)
		found, err := c.locate(ctx, node, sops[:n])
		if err != nil {
			return nil, err
		}
		all, sops = append(all, found...), sops[n:]
	}
	return all, nil
}

func (c *Client) locate(ctx context.Context, node string, sops []string) ([]query.Instance, error) {
	question, err := proto.Marshal(&federatepb.Whereabouts{Version: wireVersion, Instances: sops})
	if err != nil {
		return nil, fault.New(fault.Mismatch, "query: UIDs that do not encode: %w", err)
	}
	w := c.watch(ctx, node)
	defer w.end()
	response, err := c.o.Call.Do(w.ctx, node, http.MethodPost, locatePath, bytes.NewReader(question))
	if err != nil {
		return nil, w.why(err)
	}
	defer response.Body.Close()
	body, err := call.Read(response.Body, maxQuestion)
	if err != nil {
		return nil, w.why(err)
	}
	return decodeLocated(body, node)
}

func decodeLocated(body []byte, node string) ([]query.Instance, error) {
	var l federatepb.Located
	if err := proto.Unmarshal(body, &l); err != nil || len(l.Instances) > maxLocated {
		return nil, fault.New(fault.Protocol, "query: a peer's answer where instances are: %d, %w", len(l.Instances), err)
	}
	all := make([]query.Instance, 0, len(l.Instances))
	for _, i := range l.Instances {
		for _, uid := range [...]string{i.Study, i.Series, i.Sop} {
			if uid == "" || len(uid) > maxUID {
				return nil, fault.New(fault.Protocol, "query: a peer located what is no instance")
			}
		}
		all = append(all, query.Instance{
			Study: i.Study, Series: i.Series, SOP: i.Sop, Class: i.Class, Syntax: i.Syntax, Number: i.Number, Bytes: i.Bytes, Origin: node,
		})
	}
	return all, nil
}

// watch ends a call to a node that says nothing for too long.
type watch struct {
	ctx      context.Context //nolint:containedctx // of one call
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience time.Duration
	node     string
}

func (c *Client) watch(ctx context.Context, node string) *watch {
	w := &watch{patience: c.o.Patience, node: node}
	if c.o.Reach(node) == query.Unavailable {
		w.patience = c.o.Doubt
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.patience, func() { w.cancel(errSilent) })
	return w
}

var errSilent = errors.New("nothing was heard")

// wait and rest stand around waiting for the node: the asker may take its time.
func (w *watch) wait() { w.timer.Reset(w.patience) }
func (w *watch) rest() { w.timer.Stop() }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// why returns the error of a call, which may be that of the watch.
func (w *watch) why(err error) error {
	if errors.Is(context.Cause(w.ctx), errSilent) {
		return fault.New(fault.Unavailable, "query: node %s does not answer within %s", w.node, w.patience)
	}
	return err
}
