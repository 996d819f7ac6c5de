package pack

import (
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"pelago/cluster/fault"
)

// Writer writes one pack's plaintext. For one goroutine.
type Writer struct {
	w       io.Writer
	id      ID
	codec   *Codec
	coder   *coder
	entries []Entry
	bytes   int64
	body    int64 // about what the manifest takes
	err     error
}

var errClosed = errors.New("pack: the writer is closed")

// Add compresses one instance of the given size. hash is its BLAKE3; Add
// verifies while it reads and, for every chunk, that decompression restores the
// bytes; a difference is fault.Corrupt and the pack is void, as it is after any
// other error. record is the caller's, kept in the manifest as it is.
func (w *Writer) Add(r io.ReaderAt, size int64, hash [32]byte, samples Samples, effort Effort, record []byte) error {
	if w.err == nil {
		w.err = w.add(r, size, hash, samples, effort, record)
	}
	return w.err
}

func (w *Writer) add(r io.ReaderAt, size int64, hash [32]byte, samples Samples, effort Effort, record []byte) error {
	w.body += int64(len(record)) + entryOverhead + size/ChunkBytes*chunkOverhead
	if size < 0 || len(record) > maxRecord || len(w.entries) == maxEntries || w.body > maxBody {
		return fault.New(fault.Invalid, "pack: %d bytes with a record of %d do not fit as entry %d",
			size, len(record), len(w.entries))
	}
	if w.coder == nil {
		var err error
		if w.coder, err = w.codec.coder(); err != nil {
			return fmt.Errorf("pack: %w", err)
		}
	}
	e := Entry{Record: append([]byte(nil), record...), Bytes: size, Hash: hash}
	hasher := blake3.New()
	err := plan(size, samples, effort, func(run run) error {
		w.coder.in = grow(w.coder.in, int(run.length))
		if err := readFull(r, w.coder.in, run.offset); err != nil {
			return fmt.Errorf("pack: read instance: %w", err)
		}
		hasher.Write(w.coder.in)
		c := Chunk{Offset: run.offset, Length: run.length, At: w.bytes}
		if err := w.chunk(&c, samples, run.sampled, effort); err != nil {
			return err
		}
		e.Chunks = append(e.Chunks, c)
		return nil
	})
	if err != nil {
		return err
	}
	if [32]byte(hasher.Sum(nil)) != hash {
		return fault.New(fault.Corrupt, "pack: an instance of %d bytes does not match its hash", size)
	}
	w.entries = append(w.entries, e)
	return nil
}

// chunk compresses, verifies and writes the bytes in the coder.
func (w *Writer) chunk(c *Chunk, samples Samples, rows bool, effort Effort) error {
	var s *Samples
	if rows {
		s = &samples
	}
	data := w.coder.in
	out, filter := w.coder.compress(data, s, effort)
	if err := w.coder.verify(data, out, filter, s); err != nil {
		return err
	}
	c.Compressed, c.Filter = int64(len(out)), filter
	if sampled(filter) {
		c.Samples = samples
	}
	n, err := w.w.Write(out)
	if err == nil && n != len(out) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("pack: write: %w", err)
	}
	w.bytes += c.Compressed
	return nil
}

// Bytes is the plaintext written so far.
func (w *Writer) Bytes() int64 { return w.bytes }

// Close ends the pack and returns its manifest.
func (w *Writer) Close() (*Manifest, error) {
	if w.coder != nil {
		w.codec.coders.Put(w.coder)
		w.coder = nil
	}
	if w.err != nil {
		return nil, w.err
	}
	w.err = errClosed
	return &Manifest{ID: w.id, Bytes: w.bytes, Entries: w.entries}, nil
}
