package pack

import (
	"io"
	"sync"

	"pelago/shard/cache"
)

// Codec is what many packs share: compressors, which are costly to make, and a
// cache of decompressed chunks. Safe for concurrent use.
type Codec struct {
	coders sync.Pool // of *coder
	cache  *cache.Cache[chunkKey]
}

// chunkKey names a chunk among all packs.
type chunkKey struct {
	pack       ID
	at, length int64 // in the pack's plaintext, in the instance
}

// NewCodec returns a codec whose readers keep at most cacheBytes of decompressed
// chunks between them: outside the Go heap, unless they are few.
func NewCodec(cacheBytes int64) *Codec { return &Codec{cache: cache.New[chunkKey](cacheBytes)} }

// Close gives the cache's memory back. Readers still work, but keep nothing.
func (c *Codec) Close() { c.cache.Close() }

// NewWriter begins a pack on w. Its memory returns to the codec with Close.
func (c *Codec) NewWriter(w io.Writer, id ID) *Writer { return &Writer{w: w, id: id, codec: c} }

// Instance is a reader over one entry of the pack id; pack yields its plaintext.
// Safe for concurrent use; readers of one chunk share its decompression.
func (c *Codec) Instance(id ID, plaintext io.ReaderAt, e *Entry) io.ReaderAt {
	return &instance{codec: c, id: id, from: plaintext, entry: e}
}

// NewWriter begins a pack on w with a codec of its own.
func NewWriter(w io.Writer, id ID) *Writer { return NewCodec(0).NewWriter(w, id) }

// Instance is a reader over one entry; pack yields plaintext. It keeps the
// last few chunks decompressed. Safe for concurrent use.
func Instance(plaintext io.ReaderAt, e *Entry) io.ReaderAt {
	return NewCodec(4*ChunkBytes).Instance(ID{}, plaintext, e)
}

func (c *Codec) coder() (*coder, error) {
	if k, _ := c.coders.Get().(*coder); k != nil {
		return k, nil
	}
	return newCoder()
}
