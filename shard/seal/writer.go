package seal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// Writer encrypts to an io.Writer segment by segment and hashes what it writes.
// It is for one goroutine, and for one ciphertext: its key must never be given
// to another.
type Writer struct {
	w       io.Writer
	aead    cipher.AEAD
	nonce   nonce
	tree    hashes
	held    []byte // plaintext that may turn out to be the last segment
	out     []byte // sealed segments not yet written
	segment int64
	size    int64
	err     error
}

var errClosed = errors.New("seal: the writer is closed")

// NewWriter begins a ciphertext.
func NewWriter(w io.Writer, key Key) *Writer {
	return &Writer{w: w, aead: newAEAD(key), tree: newHashes(),
		held: make([]byte, 0, SegmentBytes), out: make([]byte, 0, batch*sealedBytes)}
}

// Write takes plaintext. After an error the ciphertext is void.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	total := len(p)
	for len(p) > 0 {
		switch {
		case len(w.held) == SegmentBytes:
			// more plaintext follows, so what is held is not the last segment
			w.seal(w.held, false)
			w.held = w.held[:0]
		case len(w.held) == 0 && len(p) > SegmentBytes:
			w.seal(p[:SegmentBytes], false)
			p = p[SegmentBytes:]
		default:
			n := min(SegmentBytes-len(w.held), len(p))
			w.held = append(w.held, p[:n]...)
			p = p[n:]
		}
		if w.err != nil {
			return total - len(p), w.err
		}
	}
	return total, nil
}

// Close writes the last segment and returns the hash tree's root over the
// ciphertext and its length. It does not close the writer below.
func (w *Writer) Close() (root [32]byte, size int64, err error) {
	if w.err != nil {
		return root, 0, w.err
	}
	w.seal(w.held, true)
	w.flush()
	if w.err != nil {
		return root, 0, w.err
	}
	w.err = errClosed
	return w.tree.root(w.size), w.size, nil
}

func (w *Writer) seal(plain []byte, last bool) {
	w.nonce.set(w.segment, last)
	from := len(w.out)
	w.out = w.aead.Seal(w.out, w.nonce[:], plain, nil)
	w.tree.add(w.out[from:])
	w.size += int64(len(w.out) - from)
	w.segment++
	if len(w.out) == cap(w.out) {
		w.flush()
	}
}

func (w *Writer) flush() {
	n, err := w.w.Write(w.out)
	if err == nil && n != len(w.out) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("seal: write ciphertext: %w", err)
	}
	w.out = w.out[:0]
}
