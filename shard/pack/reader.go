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
		data, err := r.chunk(&chunks[i])
		if err != nil {
			return done, err
		}
		done += copy(p[done:], data[at-chunks[i].Offset:])
	}
	if short {
		return done, io.EOF
	}
	return done, nil
}

func (r *instance) chunk(c *Chunk) ([]byte, error) {
	return r.codec.cache.get(cacheKey{r.id, c.At}, func() ([]byte, error) {
		k, err := r.codec.coder()
		if err != nil {
			return nil, err
		}
		defer r.codec.coders.Put(k)
		return k.read(r.from, c)
	})
}
