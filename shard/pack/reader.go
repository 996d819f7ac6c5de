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
	chunks := r.entry.Chunks
	i := sort.Search(len(chunks), func(i int) bool { return chunks[i].Offset+chunks[i].Length > off })
	done := 0
	for ; done < len(p); i++ {
		at := off + int64(done)
		if i == len(chunks) || at < chunks[i].Offset || at-chunks[i].Offset >= chunks[i].Length {
			return done, fault.New(fault.NotFound, "pack: byte %d of the instance is not in this pack", at)
		}
		n, err := r.read(p[done:], &chunks[i], int(at-chunks[i].Offset))
		if err != nil {
			return done, err
		}
		done += n
	}
	if short {
		return done, io.EOF
	}
	return done, nil
}

// read copies from a chunk, from its byte skip on.
func (r *instance) read(p []byte, c *Chunk, skip int) (n int, err error) {
	if err := c.check(); err != nil { // before memory is taken for it
		return 0, err
	}
	err = r.codec.cache.View(chunkKey{r.id, c.At, c.Length}, int(c.Length), func(data []byte) error {
		k, err := r.codec.coder()
		if err != nil {
			return err
		}
		defer r.codec.coders.Put(k)
		return k.read(data, r.from, c)
	}, func(data []byte) { n = copy(p, data[skip:]) })
	return n, err
}
