package pack

import (
	"io"
	"sort"

	"pelago/cluster/fault"
)

// instance reads one entry.
type instance struct {
	codec *Codec
	id    ID
	from  io.ReaderAt
	entry *Entry
}

// ReadAt implements io.ReaderAt over the instance's bytes; fault.NotFound for
// bytes that this pack does not hold, fault.Corrupt for chunks that do not
// restore.
func (r *instance) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "pack: read at %d", off)
	}
	if off >= r.entry.Bytes {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > r.entry.Bytes-off
	if short {
		p = p[:r.entry.Bytes-off]
	}
	done := 0
	err := r.each(off, int64(len(p)), func(b []byte) error {
		done += copy(p[done:], b)
		return nil
	})
	if err == nil && short {
		err = io.EOF
	}
	return done, err
}

// WriteRange writes length bytes from off on, straight from the cache, where they
// stay while w takes them. Errors of w are returned as they are, those of reading
// as ReadAt returns them; io.ErrUnexpectedEOF for what is behind the end.
func (r *instance) WriteRange(w io.Writer, off, length int64) error {
	switch {
	case off < 0 || length < 0:
		return fault.New(fault.Invalid, "pack: %d bytes at %d", length, off)
	case length > r.entry.Bytes-off:
		return io.ErrUnexpectedEOF
	}
	return r.each(off, length, func(b []byte) error {
		n, err := w.Write(b)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		return err
	})
}

// each yields the bytes of a range that lies within the instance, chunk by chunk.
func (r *instance) each(off, length int64, use func(b []byte) error) error {
	chunks := r.entry.Chunks
	i := sort.Search(len(chunks), func(i int) bool { return chunks[i].Offset+chunks[i].Length > off })
	for ; length > 0; i++ {
		if i == len(chunks) || off < chunks[i].Offset || off-chunks[i].Offset >= chunks[i].Length {
			return fault.New(fault.NotFound, "pack: byte %d of the instance is not in this pack", off)
		}
		skip := off - chunks[i].Offset
		n := min(length, chunks[i].Length-skip)
		if err := r.view(&chunks[i], func(data []byte) error { return use(data[skip : skip+n]) }); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// view shows a chunk.
func (r *instance) view(c *Chunk, use func(data []byte) error) error {
	if err := c.check(); err != nil { // before memory is taken for it
		return err
	}
	return r.codec.cache.View(chunkKey{r.id, c.At, c.Length}, int(c.Length), func(data []byte) error {
		k, err := r.codec.coder()
		if err != nil {
			return err
		}
		defer r.codec.coders.Put(k)
		return k.read(data, r.from, c)
	}, use)
}
