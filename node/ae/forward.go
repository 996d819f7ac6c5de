package ae

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
)

// A C-MOVE to an AE of another site is sent by a node of that site, which reaches
// it (DESIGN §9, AE registry). The node that was asked says what to send; that one
// says what became of each instance, as it comes. To the requestor it is a C-MOVE
// like any other.

// movePath is where the order goes, on the peer service.
const movePath = "/archive/move"

// Limits of an order.
const (
	maxOrder = 64 << 20 // bytes: of the most instances that a retrieve may name
	maxLine  = 1 << 10  // bytes of what became of one
)

// Peers is what a face needs of the network to have another site send.
type Peers interface {
	// Of returns the nodes of a site that can send, those that are believed to answer
	// in front.
	Of(site string) []string
	// Send sends a request to the node that its URL names; *call.Client does.
	Send(request *http.Request) (*http.Response, error)
}

// order is what a node of the destination's site is to send.
type order struct {
	Version     int     `json:"version"`
	Destination string  `json:"destination"` // its title at that site
	Originator  string  `json:"originator"`
	MessageID   uint16  `json:"message_id"`
	Batches     []batch `json:"batches"`
}

const orderVersion = 1

// batch is some instances of one series.
type batch struct {
	Study     string   `json:"study"`
	Series    string   `json:"series"`
	Node      string   `json:"node"` // that stores them
	Instances []string `json:"instances"`
}

// done is what became of one instance, or of all.
type done struct {
	Instance string     `json:"instance,omitempty"`
	Status   uint16     `json:"status"`
	Kind     fault.Kind `json:"kind"`
	Failed   bool       `json:"failed,omitempty"` // no status was had: see Kind
	End      bool       `json:"end,omitempty"`    // nothing follows
}

// newOrder makes the order of a retrieve, a batch for each series at a node: who
// carries it out looks a series up once a batch. self is this node's id.
func newOrder(destination string, r *scp.RetrieveRequest, refs []archive.Ref, self string) order {
	o := order{Version: orderVersion, Destination: destination, Originator: r.Calling, MessageID: r.MessageID}
	type name struct{ study, series, node string }
	at := map[name]int{}
	for _, ref := range refs {
		of := name{ref.Study, ref.Series, cmp.Or(ref.Origin, self)}
		i, ok := at[of]
		if !ok {
			i = len(o.Batches)
			at[of] = i
			o.Batches = append(o.Batches, batch{Study: of.study, Series: of.series, Node: of.node})
		}
		o.Batches[i].Instances = append(o.Batches[i].Instances, ref.SOP)
	}
	return o
}

// forward has a node of a site send instances. The error is
// [dimse.DestinationUnknown] if no node there knows the destination.
func (f *Face) forward(ctx context.Context, site string, o order) (scp.Destination, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fault.New(fault.Invalid, "order of a C-MOVE: %w", err)
	}
	failed := fault.New(fault.Unavailable, "no node of site %s can send", site)
	for _, node := range f.o.Peers.Of(site) {
		request, err := http.NewRequest(http.MethodPost, "https://"+node+movePath, bytes.NewReader(body))
		if err != nil {
			return nil, fault.New(fault.Invalid, "order of a C-MOVE: %w", err)
		}
		// What is on its way may end after a C-CANCEL: Close ends the request.
		sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, cancel) // until it has answered
		response, err := f.o.Peers.Send(request.WithContext(sending))
		if err == nil && stop() {
			return newForwarded(response.Body, cancel), nil
		}
		if err == nil {
			err = errors.Join(ctx.Err(), response.Body.Close())
		}
		cancel()
		switch {
		case fault.Is(err, fault.NotFound):
			return nil, dimse.DestinationUnknown()
		case ctx.Err() != nil:
			return nil, err
		}
		failed = fault.New(fault.KindOf(err), "site %s: node %s: %w", site, node, err)
	}
	return nil, failed
}

// forwarded is a Move Destination that another node sends to. Its one goroutine
// reads what became of the instances, and ends with the answer or with Close.
type forwarded struct {
	cancel context.CancelFunc
	over   chan struct{}

	mu     sync.Mutex // guards what follows
	became map[string]done
	more   chan struct{} // closed with each
	err    error         // why no more will come; set before over is closed
}

func newForwarded(answer io.ReadCloser, cancel context.CancelFunc) *forwarded {
	f := &forwarded{cancel: cancel, over: make(chan struct{}), became: map[string]done{}, more: make(chan struct{})}
	go f.read(answer)
	return f
}

// read takes the answer in.
func (f *forwarded) read(answer io.ReadCloser) {
	defer close(f.over)
	defer answer.Close() //nolint:errcheck // nothing more is wanted of it
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, maxLine)
	for {
		var d done
		err := io.ErrUnexpectedEOF
		if lines.Scan() {
			err = json.Unmarshal(lines.Bytes(), &d)
		} else if lines.Err() != nil {
			err = lines.Err()
		}
		f.mu.Lock()
		switch {
		case err != nil:
			f.err = fault.New(fault.Unavailable, "the node that sends broke off: %w", err)
		case d.End:
			f.err = fault.New(fault.Unavailable, "the node that sends did not tell of the instance")
		case len(f.became) < maxRetrieve:
			f.became[d.Instance] = d
			close(f.more)
			f.more = make(chan struct{})
		}
		ended := f.err != nil
		f.mu.Unlock()
		if ended {
			return
		}
	}
}

// Store implements [scp.Destination]: it waits for what becomes of an instance.
func (f *forwarded) Store(ctx context.Context, in scu.Instance, _ scu.Originator) (command.Status, error) {
	for {
		f.mu.Lock()
		d, ok := f.became[in.UID]
		delete(f.became, in.UID)
		more, err := f.more, f.err
		f.mu.Unlock()
		switch {
		case ok && d.Failed:
			return 0, fault.New(d.Kind, "the node that sends could not")
		case ok:
			return command.Status(d.Status), nil
		case err != nil:
			return 0, err
		}
		select {
		case <-more:
		case <-f.over:
		case <-ctx.Done():
			return 0, fault.New(fault.KindOf(ctx.Err()), "waiting for the node that sends: %w", ctx.Err())
		}
	}
}

// Close implements [scp.Destination]: what is still to come is not wanted.
func (f *forwarded) Close(ctx context.Context) error {
	f.cancel()
	select {
	case <-f.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Forwarded answers orders of other nodes at movePath on the peer service: it sends
// to an AE of this site. caller names the node that asks.
func (f *Face) Forwarded(caller func(*http.Request) (string, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+movePath, func(w http.ResponseWriter, r *http.Request) {
		node, err := caller(r)
		if err != nil {
			call.Refuse(w, fault.New(fault.Denied, "order of a C-MOVE: %w", err))
			return
		}
		select {
		case f.orders <- struct{}{}:
			defer func() { <-f.orders }()
		default:
			call.Refuse(w, fault.New(fault.Unavailable, "too many orders at once"))
			return
		}
		if err := f.carryOut(w, r, node); err != nil {
			call.Refuse(w, err)
		}
	})
	return mux
}

// maxOrders bounds the orders that are carried out at once.
const maxOrders = 64

// carryOut sends what another node wants sent. An error is an answer: nothing was
// written yet.
func (f *Face) carryOut(w http.ResponseWriter, r *http.Request, node string) error {
	var o order
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder))
	if err := decoder.Decode(&o); err != nil {
		return fault.New(fault.Invalid, "order of a C-MOVE: %w", err)
	}
	if o.Version != orderVersion {
		return fault.New(fault.Unsupported, "order of a C-MOVE of version %d", o.Version)
	}
	ae, err := f.o.Registry.Get(o.Destination)
	if err != nil {
		return err
	}
	target, err := f.Target(ae)
	if err != nil {
		return fault.New(fault.NotFound, "%w", err) // it cannot be called: as good as unknown
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &results{encoder: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	refs, total := f.ordered(r.Context(), o, out)
	f.deliver(r.Context(), target, o, refs, out)
	f.auditOrder(node, o.Destination, refs, total, out)
	out.tell(done{End: true})
	return nil
}

// results tells the asker what became of instances.
type results struct {
	encoder *json.Encoder
	flush   func() error
	sent    int
	err     error // the asker is gone
}

func (r *results) tell(d done) {
	if r.err == nil {
		r.err = r.encoder.Encode(d)
	}
	if r.err == nil {
		r.err = r.flush()
	}
}

func (r *results) failed(sop string, err error) {
	r.tell(done{Instance: sop, Failed: true, Kind: fault.KindOf(err)})
}

// ordered finds the instances of an order: in the network as this node knows it,
// else at the node that the asker knows to store them. It tells of those that
// cannot be had. total is how many there are.
func (f *Face) ordered(ctx context.Context, o order, out *results) (refs []archive.Ref, total int) {
	ctx = archive.WithHint(ctx, archive.Hint{Whole: true})
	for _, b := range o.Batches {
		total += len(b.Instances)
		if total > maxRetrieve {
			out.err = fault.New(fault.Full, "more than %d instances in one order", maxRetrieve)
			return nil, total
		}
		known, err := bySOP(f.o.Archive.Select(ctx, b.Study, b.Series, ""))
		if f.o.At != nil && !holdsAll(known, b.Instances) {
			// Stored a moment ago: the catalogue here is behind.
			var more map[string]archive.Ref
			more, err = bySOP(f.o.At(ctx, b.Node, b.Study, b.Series))
			for sop, ref := range more {
				if _, ok := known[sop]; !ok {
					known[sop] = ref
				}
			}
		}
		for _, sop := range b.Instances {
			if ref, ok := known[sop]; ok {
				refs = append(refs, ref)
				continue
			}
			if err == nil {
				err = fault.New(fault.NotFound, "no such instance")
			}
			out.failed(sop, err)
		}
	}
	return refs, total
}

// bySOP collects instances by their UID; the error is why some may be missing.
func bySOP(refs iter.Seq2[archive.Ref, error]) (map[string]archive.Ref, error) {
	known := map[string]archive.Ref{}
	var failed error
	for ref, err := range refs {
		if err != nil {
			failed = err
			continue
		}
		known[ref.SOP] = ref
	}
	return known, failed
}

func holdsAll(known map[string]archive.Ref, sops []string) bool {
	for _, sop := range sops {
		if _, ok := known[sop]; !ok {
			return false
		}
	}
	return true
}

// deliver stores instances at an AE and tells of each.
func (f *Face) deliver(ctx context.Context, target scu.Target, o order, refs []archive.Ref, out *results) {
	if len(refs) == 0 {
		return
	}
	sender := scu.NewSender(target, kinds(refs), 1)
	defer func() {
		if err := sender.Close(context.WithoutCancel(ctx)); err != nil {
			f.o.Log.Info("move destination not released", "destination_ae", o.Destination, "error", err)
		}
	}()
	unreachable := sender.Connect(ctx)
	from := scu.Originator{AE: o.Originator, MessageID: o.MessageID}
	for in, err := range f.ahead(ctx, refs, func(ref archive.Ref) scu.Instance { return f.outgoing(ref, &f.forwardedBytes) }) {
		if ctx.Err() != nil || out.err != nil {
			return // nobody waits for the rest
		}
		var status command.Status
		err = errors.Join(err, unreachable)
		if err == nil {
			status, err = sender.Store(ctx, in, from)
		}
		var refused *dimse.StatusError
		switch {
		case errors.As(err, &refused):
			out.tell(done{Instance: in.UID, Status: uint16(refused.Status)})
		case err != nil:
			f.o.Log.Info("sub-operation failed", "instance", in.UID, "error", err)
			out.failed(in.UID, err)
		default:
			out.sent++
			out.tell(done{Instance: in.UID, Status: uint16(status)})
		}
	}
}

// auditOrder records what was sent on another node's order.
func (f *Face) auditOrder(node, destination string, refs []archive.Ref, total int, out *results) {
	for _, study := range studies(refs) {
		f.o.Audit(Event{
			Action: Sent, Remote: node, Destination: destination,
			Study: study.uid, Patient: f.patient(study.first), Instances: study.instances, Classes: study.classes,
			Failed: out.err != nil || out.sent < total,
		})
	}
}
