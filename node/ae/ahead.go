package ae

import (
	"context"
	"iter"
	"sync"

	"pelago/dimse/scu"
	"pelago/node/archive"
)

// aheadBy is how many instances are decoded before their turn to be sent comes:
// while one travels, the processor has time for the next.
const aheadBy = 2

// ahead yields the references as instances to send, and decodes the next ones
// meanwhile. Its goroutine ends with the iteration.
func (f *Face) ahead(ctx context.Context, refs []archive.Ref, instance func(archive.Ref) scu.Instance) iter.Seq2[scu.Instance, error] {
	return func(yield func(scu.Instance, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var worker sync.WaitGroup
		defer worker.Wait()
		defer cancel()
		turns := make(chan archive.Ref, aheadBy)
		worker.Go(func() {
			for ref := range turns {
				f.o.Archive.Prefetch(ctx, ref)
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
			if !yield(instance(ref), nil) {
				return
			}
		}
	}
}
