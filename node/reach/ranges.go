package reach

import "io"

// ranger is a reader that writes its bytes from where they rest in memory, as
// those of packs do (shard/pack): without a copy for who only sends them on.
type ranger interface {
	WriteRange(w io.Writer, off, length int64) error
}

// ranging is a wrapper of readers that does so too where what it wraps does.
type ranging interface {
	io.ReaderAt
	writeRange(w io.Writer, off, length int64) error
}

// ranged is a wrapper that does.
type ranged struct{ ranging }

// WriteRange writes length bytes from off on. Errors of w are returned as they are.
func (r ranged) WriteRange(w io.Writer, off, length int64) error { return r.writeRange(w, off, length) }

// wrapped is a wrapper of a reader, with what the reader can.
func wrapped(by ranging, stored io.ReaderAt) io.ReaderAt {
	if _, ok := stored.(ranger); ok {
		return ranged{by}
	}
	return by
}

// rangeSize is the piece in which readers are read that write no ranges.
const rangeSize = 256 << 10

// writeRange writes length bytes of a reader from off on; io.ErrUnexpectedEOF for
// what is behind its end.
func writeRange(from io.ReaderAt, w io.Writer, off, length int64) error {
	if from, ok := from.(ranger); ok {
		return from.WriteRange(w, off, length)
	}
	b := make([]byte, min(rangeSize, length))
	for length > 0 {
		n, err := from.ReadAt(b[:min(int64(len(b)), length)], off)
		switch {
		case n == 0 && (err == nil || err == io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil && err != io.EOF:
			return err
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}

// taken is a writer that knows how much was taken, and why no more was.
type taken struct {
	w   io.Writer
	n   int64
	err error
}

func (t *taken) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	if err != nil {
		t.err = err
	}
	return n, err
}

// writeRange goes on with the next source where one has failed.
func (a *alternatives) writeRange(w io.Writer, off, length int64) error {
	a.mu.Lock()
	from := a.now
	a.mu.Unlock()
	out := &taken{w: w}
	for {
		err := writeRange(from, out, off+out.n, length-out.n)
		switch {
		case err == nil || out.err != nil || !elsewhere(err):
			return err
		case err == io.ErrUnexpectedEOF: //nolint:errorlint // alone it is the range's fault; what breaks off has it in its tree
			return err
		}
		if from, err = a.replace(from, err); err != nil {
			return err
		}
	}
}

// writeRange hashes each piece before it is written, so that the last one of what
// is not what was stored is not.
func (v *verified) writeRange(w io.Writer, off, length int64) error {
	return writeRange(v.ReaderAt, &hashing{v, w, off}, off, length)
}

// hashing is where the bytes of a verified reader are written to, from off on.
type hashing struct {
	v   *verified
	w   io.Writer
	off int64
}

func (h *hashing) Write(b []byte) (int, error) {
	if len(b) > 0 && !h.v.add(b, h.off) {
		return 0, errNotStored()
	}
	n, err := h.w.Write(b)
	h.off += int64(n)
	return n, err
}
