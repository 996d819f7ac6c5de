package ae

import (
	"context"
	"iter"

	"pelago/dimse/scu"
	"pelago/node/archive"
)

// ahead yields the references as instances to send, and decodes the next ones
// meanwhile.
func (f *Face) ahead(ctx context.Context, refs []archive.Ref, instance func(archive.Ref) scu.Instance) iter.Seq2[scu.Instance, error] {
	return func(yield func(scu.Instance, error) bool) {
		for _, ref := range archive.Ahead(ctx, refs, f.o.Archive) {
			if !yield(instance(ref), nil) {
				return
			}
		}
	}
}
