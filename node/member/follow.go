package member

import (
	"context"

	"pelago/cluster/pause"
)

// Changing tells when the registry has changed. *catalog.Catalog does.
type Changing interface {
	// RegistryChanged changes with every change of a registry record.
	RegistryChanged() uint64
	// Changed is closed after the next change of the catalogue.
	Changed() <-chan struct{}
}

// Moving tells when the members in good standing have changed. *[Registry] does.
type Moving interface {
	// Changed is closed when they are others than now.
	Changed() <-chan struct{}
}

// Follow calls read, and again whenever the registry or the members have changed,
// until ctx ends or read fails, whose error it returns. Changes gather for a moment
// first: a decision changes many records.
func Follow(ctx context.Context, records Changing, members Moving, read func() error) error {
	for {
		// Before it is read: what comes meanwhile is read next time.
		changed, moved, mark := records.Changed(), members.Changed(), records.RegistryChanged()
		if err := read(); err != nil {
			return err
		}
		if !await(ctx, records, mark, changed, moved) {
			return nil
		}
	}
}

// await returns once the records may say something else: false at the context's end.
func await(ctx context.Context, records Changing, mark uint64, changed, moved <-chan struct{}) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-moved:
			return pause.For(ctx, settle)
		case <-changed:
		}
		if !pause.For(ctx, settle) {
			return false
		}
		changed = records.Changed() // before the mark: what comes meanwhile is seen next time
		if records.RegistryChanged() != mark {
			return true
		}
	}
}
