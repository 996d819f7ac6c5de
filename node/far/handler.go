package far

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"github.com/klauspost/compress/zstd"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
)

// Access is what another node did here, for the audit trail.
type Access struct {
	Peer          authority.Name
	Study, Series string // empty if they are not known
	SOP           string // of the one that was asked for
	Instances     int    // told of; 1 for one that was read from staging
	Err           error  // why it was refused, or broke off
}

// HandlerOptions are what a handler is made of.
type HandlerOptions struct {
	Source  Source
	Members Members
	// Told returns what another node told this one of a series that it holds, without
	// what a tombstone covers by now; fault.NotFound if nothing is kept of that. nil:
	// nothing ever is.
	Told func(ctx context.Context, origin, study, series string) (*Manifest, error)
	// Audit is told of every opening, with which keys go out, and of every range of
	// an instance that is not packed. It must not block for long. nil: nobody.
	Audit func(context.Context, Access)
	Log   *slog.Logger
	// Peer names the caller of a request; nil: by its certificate (port.PeerOf).
	Peer func(*http.Request) (authority.Name, error)
	// Streams and StreamsPerPeer bound the answers under way at one time, in all
	// and to one node; 128 and 64. Who comes on top waits a little, and is then
	// refused as fault.Unavailable.
	Streams, StreamsPerPeer int
}

// Handler answers for "/archive/" on the peer service.
type Handler struct {
	o        HandlerOptions
	mux      *http.ServeMux
	slots    *slots
	spread   *spread
	encoders sync.Pool // of *zstd.Encoder
	buffers  sync.Pool // of *[]byte, a message's worth
}

// NewHandler returns a handler.
func NewHandler(o HandlerOptions) *Handler {
	if o.Audit == nil {
		o.Audit = func(context.Context, Access) {}
	}
	if o.Told == nil {
		o.Told = func(context.Context, string, string, string) (*Manifest, error) {
			return nil, fault.New(fault.NotFound, "far: nothing is kept of what other nodes told")
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Peer == nil {
		o.Peer = func(r *http.Request) (authority.Name, error) {
			if r.TLS == nil {
				return authority.Name{}, fault.New(fault.Denied, "far: not over the port")
			}
			return port.PeerOf(*r.TLS)
		}
	}
	if o.Streams == 0 {
		o.Streams = 128
	}
	if o.StreamsPerPeer == 0 {
		o.StreamsPerPeer = 64
	}
	h := &Handler{o: o, mux: http.NewServeMux(), slots: newSlots(o.Streams, o.StreamsPerPeer), spread: newSpread()}
	h.encoders.New = func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic("far: zstd: " + err.Error()) // only for wrong options
		}
		return e
	}
	h.buffers.New = func() any {
		b := make([]byte, unitsAtOnce*segmentBytes)
		return &b
	}
	h.mux.HandleFunc("POST "+pathOpen, h.answer(h.open))
	h.mux.HandleFunc("GET "+pathPack+"{id}", h.answer(h.pack))
	h.mux.HandleFunc("GET "+pathStaged+"{number}", h.answer(h.staged))
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		call.Refuse(w, fault.New(fault.Unsupported, "far: no such call"))
		return
	}
	h.mux.ServeHTTP(w, r)
}

// answer finds out who calls and lets him in among others. What serve returns is
// the answer if nothing was written yet; else the answer breaks off.
func (h *Handler) answer(serve func(*reply) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, err := h.o.Peer(r)
		if err != nil {
			call.Refuse(w, fault.New(fault.Denied, "far: %w", err))
			return
		}
		leave, err := h.slots.enter(r.Context(), peer.Node)
		if err != nil {
			call.Refuse(w, err)
			return
		}
		defer leave()
		out := &reply{ResponseWriter: w, r: r, ctx: r.Context(), peer: peer}
		if err := serve(out); err != nil {
			if fault.KindOf(err) == fault.Corrupt {
				h.o.Log.Error("a peer asked for what cannot be read", "node", peer.Node, "path", r.URL.Path, "error", err)
			}
			switch {
			case out.told:
				return
			case !out.began:
				call.Refuse(w, err)
				return
			}
			panic(http.ErrAbortHandler) // the one way to end a stream as broken
		}
	}
}

// reply is a request and what answers it.
type reply struct {
	http.ResponseWriter
	r     *http.Request
	ctx   context.Context
	peer  authority.Name
	began bool // something was written
	told  bool // the failure too
}

// Write notes that there is no way back.
func (r *reply) Write(b []byte) (int, error) {
	r.began = true
	return r.ResponseWriter.Write(b)
}

// flush sends what was written.
func (r *reply) flush() error { return http.NewResponseController(r.ResponseWriter).Flush() }
