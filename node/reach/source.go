package reach

import (
	"io"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/shard/pack"
)

// Source is this node as others read it: what it stores, and the copies that it
// keeps of others' packs.
type Source struct {
	*archive.Archive
	Copies *cached.Store
}

var _ far.Source = Source{}

// Ciphertext implements [far.Source].
func (s Source) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	p, ciphertext, err := s.Archive.Ciphertext(id)
	if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Corrupt) {
		return p, ciphertext, err
	}
	if p, copied, failed := s.Copies.Ciphertext(id); failed == nil { // of one that was lost here, too
		return p, copied, nil
	}
	return nil, nil, err
}
