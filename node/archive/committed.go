package archive

import (
	"context"
	"io"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
)

// Committed tells whether an instance is committed for the one who sent it
// (DESIGN §2). In a network of one that is: fsynced, and read back now with the
// hash of its arrival. fault.NotFound: unknown, or deleted ([ErrDeleted]);
// Mismatch: stored under another class; Conflict: the sender's last version is
// quarantined, so that it must keep its copy; Corrupt.
func (a *Archive) Committed(ctx context.Context, class, sop, sender string) error {
	var canonical, last *archivepb.Instance
	deleted := false
	err := a.eachVersion(sop, func(number uint64, _ archivepb.State, _ []byte) error {
		v, err := a.record(number)
		if err != nil {
			return err
		}
		if v.State == archivepb.State_CANONICAL {
			if a.covered(v.Instance) {
				deleted = true
			} else {
				canonical = v.Instance
			}
		}
		if v.CallingAe == sender {
			last = v.Instance
		}
		return context.Cause(ctx)
	})
	switch {
	case err != nil:
		return err
	case last != nil && (last.State == archivepb.State_QUARANTINED || last.State == archivepb.State_DISCARDED):
		return fault.New(fault.Conflict, "the sender's last version is quarantined")
	case canonical == nil && deleted:
		return fault.New(fault.NotFound, "the instance was %w", ErrDeleted)
	case canonical == nil:
		return fault.New(fault.NotFound, "no such instance")
	case canonical.Class != class:
		return fault.New(fault.Mismatch, "the instance is of another SOP class")
	}
	return a.readBack(ctx, canonical)
}

// readPiece is how much is read back between looks at the context.
const readPiece = 16 << 20

// readBack re-reads an instance from where it rests and checks its hash.
func (a *Archive) readBack(ctx context.Context, r *archivepb.Instance) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stored, done, err := a.bytesOf(r)
	if err != nil {
		return err
	}
	defer done() //nolint:errcheck // a reader that was read to its end
	h := blake3.New()
	for at := int64(0); at < r.Bytes; at += readPiece {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if _, err := io.Copy(h, io.NewSectionReader(stored, at, min(readPiece, r.Bytes-at))); err != nil {
			return err
		}
	}
	if string(h.Sum(nil)) != string(r.Hash) {
		return fault.New(fault.Corrupt, "the bytes are not those that were received")
	}
	return nil
}
