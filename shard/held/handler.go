package held

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Lander takes shards in; *Store is one.
type Lander interface {
	Land(ctx context.Context, claims []Claim, from io.Reader) (*Landed, error)
	Ask(entries []Entry) (*Landed, error)
	List(lo, hi uint64, after *Name, visit func(Status) (bool, error)) error
}

// HandlerOptions are what a handler is made of.
type HandlerOptions struct {
	Held   Lander
	Source Source // of what is read: a store, or one and the shards that are cut from full copies
	Log    *slog.Logger
	// Peer names the caller of a request; nil: by its certificate (port.PeerOf).
	Peer func(*http.Request) (authority.Name, error)
	// Answers and AnswersPerPeer bound what is read at one time, in all and by one
	// node; 128 and 64. Uploads and UploadsPerPeer what is written; 32 and 8. Who
	// comes on top waits a little, and is then refused as fault.Unavailable.
	Answers, AnswersPerPeer, Uploads, UploadsPerPeer int
}

// Handler answers for "/held/" on the peer service. Any member may ask; nothing is
// deleted by a call.
type Handler struct {
	o              HandlerOptions
	mux            *http.ServeMux
	reads, uploads *call.Gate
}

// NewHandler returns a handler.
func NewHandler(o HandlerOptions) *Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Peer == nil {
		o.Peer = func(r *http.Request) (authority.Name, error) {
			if r.TLS == nil {
				return authority.Name{}, fault.New(fault.Denied, "held: not over the port")
			}
			return port.PeerOf(*r.TLS)
		}
	}
	setDefault(&o.Answers, 128)
	setDefault(&o.AnswersPerPeer, 64)
	setDefault(&o.Uploads, 32)
	setDefault(&o.UploadsPerPeer, 8)
	h := &Handler{o: o, mux: http.NewServeMux(),
		reads: call.NewGate(o.Answers, o.AnswersPerPeer), uploads: call.NewGate(o.Uploads, o.UploadsPerPeer)}
	h.mux.HandleFunc("POST "+pathUpload, h.answer(h.uploads, h.upload))
	h.mux.HandleFunc("POST "+pathReceipts, h.answer(h.reads, h.receipts))
	h.mux.HandleFunc("POST "+pathProofs, h.answer(h.reads, h.proofs))
	h.mux.HandleFunc("GET "+pathList, h.answer(h.reads, h.list))
	const shard = "GET " + pathShard + "{pack}/{generation}/{index}/"
	h.mux.HandleFunc(shard+"leaves", h.answer(h.reads, h.leaves))
	h.mux.HandleFunc(shard+"head", h.answer(h.reads, h.head))
	h.mux.HandleFunc(shard+"tail", h.answer(h.reads, h.tail))
	return h
}

func setDefault(n *int, to int) {
	if *n == 0 {
		*n = to
	}
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		call.Refuse(w, fault.New(fault.Unsupported, "held: no such call"))
		return
	}
	h.mux.ServeHTTP(w, r)
}

// answer finds out who calls and lets him in among others. What serve returns is
// the answer if nothing was written yet; else the answer breaks off.
func (h *Handler) answer(gate *call.Gate, serve func(*reply) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, err := h.o.Peer(r)
		if err != nil {
			call.Refuse(w, fault.New(fault.Denied, "held: %w", err))
			return
		}
		leave, err := gate.Enter(r.Context(), peer.Node)
		if err != nil {
			call.Refuse(w, err)
			return
		}
		defer leave()
		out := &reply{w: w, r: r, control: http.NewResponseController(w)}
		if err = serve(out); err == nil {
			return
		}
		if k := fault.KindOf(err); k != fault.NotFound && k != fault.Canceled {
			h.o.Log.Warn("a peer's call about shards failed", "node", peer.Node, "path", r.URL.Path, "error", err, "kind", k.String())
		}
		if out.began {
			panic(http.ErrAbortHandler) // the one way to end a stream as broken
		}
		call.Refuse(w, err)
	}
}

// reply is a request and what answers it. Each piece of either has a deadline of
// its own.
type reply struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	began   bool // something was written: there is no way back
}

// Read reads the request's body.
func (r *reply) Read(p []byte) (int, error) {
	if err := supported(r.control.SetReadDeadline(time.Now().Add(stallAfter))); err != nil {
		return 0, err
	}
	n, err := r.r.Body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.New(fault.Unavailable, "held: a request breaks off: %s", err.Error())
	}
	return n, err
}

// pieceBytes are written at a time: what has a deadline of its own moves even if many
// answers share a narrow link.
const pieceBytes = 64 << 10

// Write writes the answer's body.
func (r *reply) Write(p []byte) (written int, err error) {
	for {
		n, err := r.piece(p[:min(len(p), pieceBytes)])
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

func (r *reply) piece(p []byte) (int, error) {
	if err := supported(r.control.SetWriteDeadline(time.Now().Add(stallAfter))); err != nil {
		return 0, err
	}
	if !r.began {
		r.began = true
		r.w.Header().Set("Content-Type", "application/octet-stream")
	}
	n, err := r.w.Write(p)
	if err != nil {
		err = fault.New(fault.Canceled, "held: the asker is gone: %w", err)
	}
	return n, err
}

// supported passes over that a writer of tests has no deadlines.
func supported(err error) error {
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// upload answers POST /held/shards.
func (h *Handler) upload(w *reply) error {
	from := bufio.NewReaderSize(w, 64<<10)
	claims, err := readClaims(from)
	if err != nil {
		return err
	}
	landed, err := h.o.Held.Land(w.r.Context(), claims, from)
	if err != nil {
		return err
	}
	return w.landed(landed)
}

// receipts answers POST /held/receipts.
func (h *Handler) receipts(w *reply) error {
	entries, err := readEntries(w)
	if err == nil {
		err = atEnd(w)
	}
	if err != nil {
		return err
	}
	landed, err := h.o.Held.Ask(entries)
	if err != nil {
		return err
	}
	return w.landed(landed)
}

func (r *reply) landed(l *Landed) error {
	b, err := appendLanded(nil, l)
	if err != nil {
		return err
	}
	_, err = r.Write(b)
	return err
}

// shard opens what a path names.
func (h *Handler) shard(w *reply) (Shard, error) {
	n, err := nameIn(w.r.PathValue("pack"), w.r.PathValue("generation"), w.r.PathValue("index"))
	if err != nil {
		return nil, err
	}
	return h.o.Source.Shard(n)
}

// leaves answers GET …/leaves: runs of leaves, each behind its proof. The first is
// read before the answer begins, so that what cannot be read has its kind.
func (h *Handler) leaves(w *reply) error {
	sh, err := h.shard(w)
	if err != nil {
		return err
	}
	body, err := bodyOf(sh.Head(), sh.Index())
	if err != nil {
		return err
	}
	first, count, err := leavesIn(w.r.URL.Query(), body)
	if err != nil {
		return err
	}
	for count > 0 {
		run := min(count, runLeaves)
		data, proof, err := sh.Range(first, run)
		if err != nil {
			return err
		}
		if _, err := w.Write(appendProof(nil, proof)); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		first, count = first+run, count-run
	}
	return nil
}

// head answers GET …/head.
func (h *Handler) head(w *reply) error {
	sh, err := h.shard(w)
	if err != nil {
		return err
	}
	b, err := sh.Head().AppendBinary(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// tail answers GET …/tail: the head, and the tail behind it.
func (h *Handler) tail(w *reply) error {
	sh, err := h.shard(w)
	if err != nil {
		return err
	}
	tail := sh.Tail()
	if tail == nil {
		return fault.New(fault.NotFound, "held: shard %d does not carry the tail", sh.Index())
	}
	head, err := sh.Head().AppendBinary(nil)
	if err != nil {
		return err
	}
	buf := make([]byte, min(tail.Size(), runLeaves*seal.LeafBytes))
	for at := int64(0); at < tail.Size(); {
		n := min(int64(len(buf)), tail.Size()-at)
		if _, err := tail.ReadAt(buf[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if at == 0 {
			lead := append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)
			if _, err := w.Write(lead); err != nil {
				return err
			}
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// proofs answers POST /held/proofs: of each leaf that is asked for, its bytes behind
// their proof, or the kind of failure.
func (h *Handler) proofs(w *reply) error {
	all, err := readChallenges(w)
	if err == nil {
		err = atEnd(w)
	}
	if err != nil {
		return err
	}
	for _, c := range all {
		b, err := h.prove(c)
		if err != nil {
			b = []byte{1, byte(fault.KindOf(err))}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// prove answers one challenge: 0, the bytes' length, the proof, the bytes.
func (h *Handler) prove(c Challenge) ([]byte, error) {
	sh, err := h.o.Source.Shard(c.Name)
	if err != nil {
		return nil, err
	}
	data, proof, err := sh.Range(c.Leaf, 1)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint16([]byte{0}, uint16(len(data)))
	return append(appendProof(b, proof), data...), nil
}

// list answers GET /held/list?from=…&to=…&after=…: a page.
func (h *Handler) list(w *reply) error {
	query := w.r.URL.Query()
	lo, err1 := strconv.ParseUint(query.Get("from"), 16, 64)
	hi, err2 := strconv.ParseUint(query.Get("to"), 16, 64)
	if err1 != nil || err2 != nil || lo > hi {
		return fault.New(fault.Invalid, "held: not a range of packs")
	}
	var after *Name
	if query.Has("after") {
		b, err := hex.DecodeString(query.Get("after"))
		if err != nil || len(b) != nameBytes {
			return fault.New(fault.Invalid, "held: not a shard's name")
		}
		n, err := parseName(b)
		if err != nil {
			return err
		}
		after = &n
	}
	var page []Status
	more := false
	err := h.o.Held.List(lo, hi, after, func(st Status) (bool, error) {
		if more = len(page) == listPage; !more {
			page = append(page, st)
		}
		return !more, w.r.Context().Err()
	})
	if err != nil {
		return err
	}
	_, err = w.Write(appendListed(nil, page, more))
	return err
}

var _ Lander = (*Store)(nil)
var _ Source = (*Store)(nil)
var _ Shard = (*stripe.Shard)(nil)
