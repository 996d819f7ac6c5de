package far

import (
	"context"
	"io"
	"iter"

	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Holding is an instance as this node holds it.
type Holding struct {
	Record   *archivepb.Instance
	Header   []byte // header record (pelago/dimse/dicom); nil if it has to be read from the bytes
	Location *archivepb.Location
}

// Source is this node's archive as others read it; *archive.Archive is one.
type Source interface {
	// Holdings yields the instances of this node in a study and series, or of a SOP
	// Instance UID with both empty, in ascending order of their SOP Instance UIDs:
	// canonical ones that no tombstone covers. fault.NotFound is the first yield
	// when there are none.
	Holdings(ctx context.Context, study, series, sop string) iter.Seq2[Holding, error]
	// Ciphertext returns the record and the bytes of a pack, a hot or a cached copy;
	// fault.NotFound if it is not here, fault.Corrupt if it was lost.
	Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error)
	// StudyKey returns a study key by its id.
	StudyKey(id [16]byte) (seal.Key, error)
	// Stored opens the bytes of an instance by its local number, wherever they rest.
	// fault.NotFound if it is not the canonical instance of that UID, or deleted.
	Stored(ctx context.Context, number uint64, sop string) (*archivepb.Instance, io.ReaderAt, func() error, error)
}

// Members knows the keys of the network's nodes; the catalogue does.
type Members interface {
	// SealingKey returns the public sealing key of a member's record, whose proof
	// was checked. fault.Denied for a node that is no member, or may hold no keys.
	SealingKey(node string) ([32]byte, error)
}
