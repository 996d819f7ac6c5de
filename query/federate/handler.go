package federate

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/query"
	"pelago/query/federate/federatepb"
)

// HandlerOptions are what questions of other nodes are answered from.
type HandlerOptions struct {
	Local query.Prober
	// AtOnce is how many questions are answered at once; others wait a moment and
	// are then told fault.Unavailable. 32.
	AtOnce int64
	// Peer tells who asks; nil: by its certificate.
	Peer func(*http.Request) (authority.Name, error)
	// Asked is told of every question, with its keys in explicit little endian,
	// when it has been answered; nil: nobody is.
	Asked func(Asked)
	Log   *slog.Logger // nil: none
}

// Asked is a question that was answered, or was not.
type Asked struct {
	By        authority.Name
	Keys      []byte
	Series    int // that it was about
	Instances int // that were found
	Err       error
}

// Times of the handler.
const (
	turnWait  = 2 * time.Second  // for a turn
	bodyTime  = 30 * time.Second // for the question to come
	stallTime = 30 * time.Second // for a frame to be taken
	signTime  = time.Second      // a search says that it goes on
)

// Handler answers the questions of other nodes.
type Handler struct {
	o    HandlerOptions
	gate *semaphore.Weighted
	mux  *http.ServeMux
}

// NewHandler returns the handler of "/query/" on the peer service.
func NewHandler(o HandlerOptions) *Handler {
	if o.AtOnce == 0 {
		o.AtOnce = 32
	}
	if o.Peer == nil {
		o.Peer = func(r *http.Request) (authority.Name, error) {
			if r.TLS == nil {
				return authority.Name{}, fault.New(fault.Denied, "query: the asker has no certificate")
			}
			return port.PeerOf(*r.TLS)
		}
	}
	if o.Asked == nil {
		o.Asked = func(Asked) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{o: o, gate: semaphore.NewWeighted(o.AtOnce), mux: http.NewServeMux()}
	h.mux.HandleFunc("POST "+findPath, h.served(h.find))
	h.mux.HandleFunc("POST "+locatePath, h.served(h.locate))
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// errAnswered is in the tree of an error that the asker has been told.
var errAnswered = errors.New("told")

// served wraps what is answered: for members, in its turn.
func (h *Handler) served(serve func(w http.ResponseWriter, r *http.Request, body []byte, a *Asked) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := Asked{}
		a.By, a.Err = h.o.Peer(r)
		if a.Err == nil {
			a.Err = h.turn(w, r, func(body []byte) error { return serve(w, r, body, &a) })
		}
		h.o.Asked(a)
		if a.Err == nil {
			return
		}
		if !errors.Is(a.Err, errAnswered) {
			call.Refuse(w, a.Err)
		}
		if kind := fault.KindOf(a.Err); kind != fault.Canceled {
			h.o.Log.Warn("a question of another node failed", "asker", a.By.Node, "asker_site", a.By.Site, "error", a.Err)
		}
	}
}

// turn reads a question and has it served in its turn.
func (h *Handler) turn(w http.ResponseWriter, r *http.Request, serve func(body []byte) error) error {
	waiting, cancel := context.WithTimeout(r.Context(), turnWait)
	err := h.gate.Acquire(waiting, 1)
	cancel()
	if err != nil {
		return fault.New(fault.Unavailable, "query: too many questions of other nodes at once")
	}
	defer h.gate.Release(1)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // a writer of tests has none
	body, err := call.Read(r.Body, maxQuestion)
	if err != nil {
		return err
	}
	_ = control.SetReadDeadline(time.Time{})
	return serve(body)
}

// find answers which instances match.
func (h *Handler) find(w http.ResponseWriter, r *http.Request, body []byte, a *Asked) error {
	p, candidates, err := decodeQuestion(body)
	if err != nil {
		return err
	}
	a.Series = len(candidates)
	if a.Keys, err = p.Keys.Encode(nil, explicit); err != nil {
		return fault.New(fault.Invalid, "query: keys: %w", err)
	}
	out := newFrames(w)
	defer out.stop()
	for f, err := range h.o.Local.Probe(r.Context(), p, candidates) {
		if err != nil {
			return out.fail(err)
		}
		a.Instances++
		if err := out.add(f); err != nil {
			return out.fail(err)
		}
	}
	return out.end()
}

// locate answers where instances are.
func (h *Handler) locate(w http.ResponseWriter, r *http.Request, body []byte, a *Asked) error {
	var q federatepb.Whereabouts
	if err := proto.Unmarshal(body, &q); err != nil {
		return fault.New(fault.Invalid, "query: a question: %w", err)
	}
	if q.Version != wireVersion || len(q.Instances) > query.MaxCandidates {
		return fault.New(fault.Unsupported, "query: a question of version %d about %d instances", q.Version, len(q.Instances))
	}
	found, err := h.o.Local.Locate(r.Context(), q.Instances)
	if err != nil {
		return err
	}
	a.Instances = len(found)
	var l federatepb.Located
	for _, i := range found[:min(len(found), maxLocated)] {
		l.Instances = append(l.Instances, &federatepb.Instance{
			Study: i.Study, Series: i.Series, Sop: i.SOP, Class: i.Class, Syntax: i.Syntax, Number: i.Number, Bytes: i.Bytes,
		})
	}
	b, err := proto.Marshal(&l)
	if err != nil {
		return fault.New(fault.Corrupt, "query: where instances are: %w", err)
	}
	_, err = w.Write(b)
	if err != nil {
		return fault.New(fault.Canceled, "query: the asker is gone: %w: %w", errAnswered, err)
	}
	return nil
}

// frames writes an answer. While nothing is found it says every second that the
// search goes on.
type frames struct {
	w       http.ResponseWriter
	control *http.ResponseController
	done    chan struct{}
	signs   sync.WaitGroup

	mu      sync.Mutex // held over a write, which has stallTime
	pending federatepb.Frame
	size    int
	buffer  []byte
	wrote   time.Time
	err     error // of the first write that failed
	ended   bool
}

func newFrames(w http.ResponseWriter) *frames {
	f := &frames{w: w, control: http.NewResponseController(w), done: make(chan struct{})}
	w.Header().Set("Content-Type", "application/octet-stream")
	f.mu.Lock()
	f.err = f.write() // so that the asker knows that it was heard
	f.mu.Unlock()
	f.signs.Go(f.sign)
	return f
}

// sign writes what waits, or nothing, once a second.
func (f *frames) sign() {
	ticker := time.NewTicker(signTime)
	defer ticker.Stop()
	for {
		select {
		case <-f.done:
			return
		case <-ticker.C:
			f.mu.Lock()
			if f.err == nil && !f.ended && time.Since(f.wrote) >= signTime {
				f.err = f.write()
			}
			f.mu.Unlock()
		}
	}
}

// stop ends the goroutine: nothing is written once the handler has returned.
func (f *frames) stop() {
	close(f.done)
	f.signs.Wait()
}

// add puts an instance into the answer.
func (f *frames) add(found query.Found) error {
	pb, err := encodeFound(found)
	if err != nil {
		return err
	}
	size := proto.Size(pb)
	if size > maxFrame-2*frameBytes {
		return fault.New(fault.Full, "query: attributes of %d bytes", size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.pending.Found = append(f.pending.Found, pb)
	if f.size += size; f.size >= frameBytes {
		f.err = f.write()
	}
	return f.err
}

// end writes the last frame.
func (f *frames) end() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending.End, f.ended = true, true
	if f.err == nil {
		f.err = f.write()
	}
	return f.err
}

// fail tells the asker why the answer breaks off.
func (f *frames) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.err == nil {
		text := err.Error()
		f.pending.Fault, f.pending.Text = uint32(fault.KindOf(err)), text[:min(len(text), 512)]
		f.err = f.write()
	}
	return fault.New(fault.KindOf(err), "%w: %w", errAnswered, err)
}

// write sends what waits as a frame; the caller holds mu.
func (f *frames) write() error {
	b, err := appendFrame(f.buffer[:0], &f.pending)
	f.pending, f.size, f.wrote = federatepb.Frame{}, 0, time.Now()
	if err != nil {
		return err
	}
	if cap(b) <= 4*frameBytes {
		f.buffer = b
	}
	_ = f.control.SetWriteDeadline(time.Now().Add(stallTime)) // a writer of tests has none
	_, err = f.w.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	if err != nil {
		return fault.New(fault.Canceled, "query: the asker takes no more: %w: %w", errAnswered, err)
	}
	return nil
}
