package archive

import (
	"context"
	"io"
)

// maxPrefetch is the largest instance that is read ahead: what is larger is
// streamed, and would push everything else out of the cache.
const maxPrefetch = 16 << 20

// Prefetch reads an instance of a pack into the cache of decoded chunks, for a
// reader that will come for it next. What rests in staging needs no decoding.
// It is a hint: what goes wrong shows when the instance is opened.
func (a *Archive) Prefetch(ctx context.Context, ref Ref) {
	if ref.Bytes > maxPrefetch || ctx.Err() != nil {
		return
	}
	location, err := a.location(ref.Number)
	if err != nil || len(location.Pack) == 0 {
		return
	}
	instance, err := a.Open(ctx, ref)
	if err != nil {
		return
	}
	defer instance.Close()
	// One byte of a chunk decodes it whole.
	var one [1]byte
	for _, chunk := range location.Chunks {
		if ctx.Err() != nil {
			return
		}
		if _, err := instance.Stored().ReadAt(one[:], chunk.Offset); err != nil && err != io.EOF { //nolint:errorlint // ReadAt's own
			return
		}
	}
}
