package seal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync"

	"pelago/cluster/fault"
)

// Reader returns the plaintext of a ciphertext of size bytes; every segment is
// authenticated before a byte of it leaves (fault.Corrupt). Safe for
// concurrent use; range reads decrypt only the segments they touch. Keep one
// reader for many reads of a pack: it keeps its buffers.
func Reader(ciphertext io.ReaderAt, size int64, key Key) io.ReaderAt {
	r := &reader{from: ciphertext, size: size, aead: newAEAD(key)}
	r.plain, r.err = PlainSize(size)
	r.segments = (size + sealedBytes - 1) / sealedBytes
	return r
}

type reader struct {
	from     io.ReaderAt
	size     int64 // of the ciphertext
	plain    int64
	segments int64
	aead     cipher.AEAD
	err      error     // of the size
	buffers  sync.Pool // of *buffer
}

type buffer struct {
	b     []byte
	nonce nonce
}

// ReadAt implements io.ReaderAt over the plaintext.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if off < 0 {
		return 0, fault.New(fault.Invalid, "seal: read at %d", off)
	}
	if off >= r.plain {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > r.plain-off
	if short {
		p = p[:r.plain-off]
	}
	n, err := r.read(p, off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// read fills p, which lies within the plaintext, a batch of segments at a time.
func (r *reader) read(p []byte, off int64) (int, error) {
	buf := r.buffer(off, len(p))
	defer r.buffers.Put(buf)
	done := 0
	for done < len(p) {
		first := (off + int64(done)) / SegmentBytes
		end := (off + int64(len(p)) + SegmentBytes - 1) / SegmentBytes
		count := min(end-first, int64(len(buf.b)/sealedBytes))
		cipherText := buf.b[:min(count*sealedBytes, r.size-first*sealedBytes)]
		if err := readFull(r.from, cipherText, first*sealedBytes); err != nil {
			return done, err
		}
		for segment := first; segment < first+count; segment++ {
			sealed := cipherText[:min(sealedBytes, len(cipherText))]
			cipherText = cipherText[len(sealed):]
			skip := int(off + int64(done) - segment*SegmentBytes)
			n, err := r.open(p[done:], sealed, segment, skip, buf)
			if err != nil {
				return done, err
			}
			done += n
		}
	}
	return done, nil
}

// open decrypts a segment and puts its plaintext from skip on into p. A segment
// that is wanted whole goes straight to p: Open leaves nothing there on failure.
func (r *reader) open(p, sealed []byte, segment int64, skip int, buf *buffer) (int, error) {
	buf.nonce.set(segment, segment == r.segments-1)
	plain := len(sealed) - Overhead
	if skip == 0 && len(p) >= plain {
		if _, err := r.aead.Open(p[:0:plain], buf.nonce[:], sealed, nil); err != nil {
			return 0, fault.New(fault.Corrupt, "seal: segment %d: %w", segment, err)
		}
		return plain, nil
	}
	opened, err := r.aead.Open(sealed[:0], buf.nonce[:], sealed, nil)
	if err != nil {
		return 0, fault.New(fault.Corrupt, "seal: segment %d: %w", segment, err)
	}
	return copy(p, opened[skip:]), nil
}

// buffer returns one that holds a batch, or the few segments of a small read.
func (r *reader) buffer(off int64, length int) *buffer {
	need := (off+int64(length)+SegmentBytes-1)/SegmentBytes - off/SegmentBytes
	bytes := int(min(need, batch)) * sealedBytes
	if buf, _ := r.buffers.Get().(*buffer); buf != nil && len(buf.b) >= bytes {
		return buf
	}
	return &buffer{b: make([]byte, bytes)}
}

// readFull reads all of p; an end before it is a truncated ciphertext, unless the
// source gives it a kind of its own: an answer of another node that breaks off.
func readFull(from io.ReaderAt, p []byte, off int64) error {
	n, err := from.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil, fault.KindOf(err) == fault.Other && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return fault.New(fault.Corrupt, "seal: the ciphertext ends at %d: %w", off+int64(n), io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("seal: read ciphertext: %w", err)
}
