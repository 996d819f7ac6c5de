package archive

import (
	"context"
	"io"
	"slices"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
)

// Committed tells whether an instance is committed for the one who sent it in a
// network of one (DESIGN §2): fsynced, and read back now with the hash of its
// arrival. fault.NotFound: unknown, or deleted ([ErrDeleted]); Mismatch: stored under
// another class; Conflict: the sender's last version is quarantined, so that it must
// keep its copy; Corrupt.
func (a *Archive) Committed(ctx context.Context, class, sop, sender string) error {
	versions, err := a.versionsFor(ctx, class, sop, sender)
	if err != nil {
		return err
	}
	return a.readBack(ctx, versions[0])
}

// Resting is where the bytes of an instance rest, so that others can be asked
// whether they survive.
type Resting struct {
	Packs  []pack.ID    // that hold any part of it, each once
	Staged []SeriesName // of which a part is not packed yet, each once
	Lost   bool         // bytes of it that are packed were rotten or missing here when last read
}

// Resting tells where an instance rests that somebody sent, and the version that he
// sent last if that is kept beside it (a rendition). Errors are those of
// [Archive.Committed], but that nothing is read back.
func (a *Archive) Resting(ctx context.Context, class, sop, sender string) (Resting, error) {
	versions, err := a.versionsFor(ctx, class, sop, sender)
	if err != nil {
		return Resting{}, err
	}
	var at Resting
	for _, v := range versions {
		l, err := a.location(v.Number)
		if err != nil {
			return Resting{}, err
		}
		if len(l.Pack) == 0 {
			if name := (SeriesName{v.Study, v.Series}); !slices.Contains(at.Staged, name) {
				at.Staged = append(at.Staged, name)
			}
			continue
		}
		id, err := packID(l.Pack)
		if err != nil {
			return Resting{}, err
		}
		if slices.Contains(at.Packs, id) {
			continue
		}
		p, err := a.pack(id)
		if err != nil {
			return Resting{}, err
		}
		at.Packs, at.Lost = append(at.Packs, id), at.Lost || p.Lost
	}
	return at, nil
}

// versionsFor returns the canonical version of an instance, and behind it the last
// one of a sender if that is a rendition of it.
func (a *Archive) versionsFor(ctx context.Context, class, sop, sender string) ([]*archivepb.Instance, error) {
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
		return nil, err
	case last != nil && (last.State == archivepb.State_QUARANTINED || last.State == archivepb.State_DISCARDED):
		return nil, fault.New(fault.Conflict, "the sender's last version is quarantined")
	case canonical == nil && deleted:
		return nil, fault.New(fault.NotFound, "the instance was %w", ErrDeleted)
	case canonical == nil:
		return nil, fault.New(fault.NotFound, "no such instance")
	case canonical.Class != class:
		return nil, fault.New(fault.Mismatch, "the instance is of another SOP class")
	case last != nil && last.State == archivepb.State_RENDITION:
		return []*archivepb.Instance{canonical, last}, nil
	}
	return []*archivepb.Instance{canonical}, nil
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
