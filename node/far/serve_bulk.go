package far

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/shard/pack"
)

// pack answers GET /archive/pack/{id}: a range of ciphertext.
func (h *Handler) pack(w *reply) error {
	id, err := parsePackID(w.r.PathValue("id"))
	if err != nil {
		return err
	}
	p, bytes, err := h.o.Source.Ciphertext(id)
	if err != nil {
		return err
	}
	from, to, err := parseRange(w.r.Header.Get("Range"), p.BlobBytes, segmentBytes)
	if err != nil {
		return err
	}
	if !w.r.URL.Query().Has(insistQuery) {
		if nodes := h.spread.holders(id, p.BlobBytes, w.peer, h.slots.busy()); len(nodes) > 0 {
			w.Header().Set(holderHeader, strings.Join(nodes, ","))
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
	ahead, err := aheadOf(w.r.URL.Query())
	if err != nil {
		return err
	}
	n, err := h.send(w, bytes, from, to, p.BlobBytes, ahead)
	h.spread.sent(id, w.peer, n)
	return err
}

// staged answers GET /archive/staged/{number}?sop=…: a range of an instance's
// bytes. They come from its pack if it was packed meanwhile.
func (h *Handler) staged(w *reply) (err error) {
	access := Access{Peer: w.peer, SOP: w.r.URL.Query().Get("sop")}
	defer func() {
		access.Err = err
		h.o.Audit(w.ctx, access)
	}()
	number, err := strconv.ParseUint(w.r.PathValue("number"), 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "far: not a local number")
	}
	in, bytes, done, err := h.o.Source.Stored(w.ctx, number, access.SOP)
	if err != nil {
		return err
	}
	defer done() //nolint:errcheck // only read
	access.Study, access.Series, access.Instances = in.Study, in.Series, 1
	from, to, err := parseRange(w.r.Header.Get("Range"), in.Bytes, stagedBytes)
	if err != nil {
		return err
	}
	_, err = h.send(w, bytes, from, to, in.Bytes, 0)
	return err
}

func parsePackID(text string) (id pack.ID, err error) {
	if n, err := hex.Decode(id[:], []byte(text[:min(len(text), 2*len(id))])); err != nil || n != len(id) || len(text) != 2*len(id) {
		return id, fault.New(fault.Invalid, "far: not a pack's id")
	}
	return id, nil
}

// parseRange reads a range (RFC 9110, 14.1.2) of whole units: "bytes=FROM-TO",
// TO included. The last unit may be short. fault.Invalid for any other.
func parseRange(text string, size int64, unit int64) (from, to int64, err error) {
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	to++
	if !ok || !strings.HasPrefix(text, "bytes=") || err1 != nil || err2 != nil ||
		from < 0 || from >= to || to > size || to-from > maxRange || from%unit != 0 || to%unit != 0 && to != size {
		return 0, 0, fault.New(fault.Invalid, "far: a range that is not whole units of %d in %d bytes", unit, size)
	}
	return from, to, nil
}

// aheadOf reads in which order a range is wanted that nobody waits for; 0 if somebody
// does.
func aheadOf(query url.Values) (uint64, error) {
	if !query.Has(aheadQuery) {
		return 0, nil
	}
	order, err := strconv.ParseUint(query.Get(aheadQuery), 10, 63)
	if err != nil || order == 0 {
		return 0, fault.New(fault.Invalid, "far: not a place in an order")
	}
	return order, nil
}

// send writes a range and returns how much of it. The first piece is read before
// the answer begins, so that what cannot be read has its kind. What is sent ahead
// then waits for its turn; ahead is its order, 0 what somebody waits for.
func (h *Handler) send(w *reply, bytes io.ReaderAt, from, to, size int64, ahead uint64) (sent int64, err error) {
	buffer := h.buffers.Get().(*[]byte)
	defer h.buffers.Put(buffer)
	for at := from; at < to; {
		b := (*buffer)[:min(int64(len(*buffer)), to-at)]
		if n, err := bytes.ReadAt(b, at); n < len(b) {
			return sent, readError(err)
		}
		if at == from {
			header := w.Header()
			header.Set("Content-Type", "application/octet-stream")
			header.Set("Content-Length", strconv.FormatInt(to-from, 10))
			header.Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(to-1, 10)+"/"+strconv.FormatInt(size, 10))
			w.began = true
			w.WriteHeader(http.StatusPartialContent)
			if ahead > 0 {
				leave, err := h.turn(w, ahead)
				if err != nil {
					return 0, err
				}
				defer leave()
			}
		}
		n, err := w.Write(b)
		sent += int64(n)
		if err != nil {
			return sent, errGone(err)
		}
		at += int64(n)
	}
	return sent, nil
}

// turn shows that an answer has begun and waits for its turn among those that are
// sent ahead to the same node.
func (h *Handler) turn(w *reply, order uint64) (leave func(), err error) {
	if err := w.flush(); err != nil {
		return nil, errGone(err)
	}
	return h.slots.turn(w.ctx, w.peer.Node, order)
}

// readError is why bytes that are here could not be read.
func readError(err error) error {
	if err == nil || fault.KindOf(err) == fault.Other {
		return fault.New(fault.Corrupt, "far: stored bytes end early: %w", io.ErrUnexpectedEOF)
	}
	return err
}
