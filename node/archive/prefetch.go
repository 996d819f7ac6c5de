package archive

import (
	"cmp"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
)

// aheadBy is how many instances are decoded before their turn to be sent comes:
// while one travels, the processor has time for the next.
const aheadBy = 2

// Arrange puts references in the order in which all of them are best read: series
// after series, and in each as instances arrived at the node that stores it, which is
// how they lie in packs and staging. The order of UIDs is another, even of those that
// are counted: .1, .10, .2.
func Arrange(refs []Ref) {
	slices.SortStableFunc(refs, func(a, b Ref) int {
		return cmp.Or(
			strings.Compare(a.Study, b.Study), strings.Compare(a.Series, b.Series),
			strings.Compare(a.Origin, b.Origin), cmp.Compare(a.Number, b.Number),
		)
	})
}

// Ahead yields references, with their places, as instances are sent one after the
// other, and has the next ones readied meanwhile. Its goroutine ends with the
// iteration.
func Ahead(ctx context.Context, refs []Ref, reads Reads) iter.Seq2[int, Ref] {
	return func(yield func(int, Ref) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var worker sync.WaitGroup
		defer worker.Wait()
		defer cancel()
		turns := make(chan Ref, aheadBy)
		worker.Go(func() {
			for ref := range turns {
				reads.Prefetch(ctx, ref)
			}
		})
		defer close(turns)
		for i, ref := range refs {
			if next := i + aheadBy; next < len(refs) {
				select {
				case turns <- refs[next]:
				default: // the sending is faster than the decoding
				}
			}
			if !yield(i, ref) {
				return
			}
		}
	}
}

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
