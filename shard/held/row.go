package held

import (
	"encoding/binary"
	"time"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/bulk"
)

// Rows of the store (docs/formats/held.md). Integers are big endian.
const (
	rowShard   = 's' // s spread name        → row, below
	rowBlob    = 'r' // r table blob         → name: whose bytes a blob is
	rowLost    = 'l' // l spread name        → nothing: the shard is lost
	rowGoing   = 'p' // p table blob bytes   → nothing: the blob is to be deleted from bulk/
	rowDropped = 'x' // x when name          → nothing: a shard's row says why it was dropped
	rowMark    = 'm' // m                    → table number: blobs of tables below have rows
	rowScrub   = 'c' // c                    → where scrub stands
)

const (
	rowVersion = 1
	rowHead    = 1 + 1 + 32 + 8 + 8 + 4 + 8
	maxDetail  = 1 << 10
)

// State is what became of a shard here.
type State uint8

// The states. Their numbers are durable.
const (
	Held    State = 1 + iota // its bytes are here
	Lost                     // its bytes were here, and are rotten or missing
	Dropped                  // it was given up, for a reason
)

func (s State) String() string {
	switch s {
	case Held:
		return "held"
	case Lost:
		return "lost"
	case Dropped:
		return "dropped"
	}
	return "unknown"
}

// row is what is known of a shard.
type row struct {
	state  State
	root   [32]byte // of its stripe
	ref    bulk.Ref // where it rests, or did
	when   int64    // it has been in this state, Unix seconds
	detail []byte   // of lost: why, a text; of dropped: a reason
}

func (r *row) append(b []byte) []byte {
	b = append(append(b, rowVersion, byte(r.state)), r.root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.ref.Bytes))
	b = binary.BigEndian.AppendUint64(b, r.ref.Table)
	b = binary.BigEndian.AppendUint32(b, r.ref.Blob)
	b = binary.BigEndian.AppendUint64(b, uint64(r.when))
	return append(b, r.detail...)
}

// parseRow reads a row: fault.Unsupported for one of a newer program,
// fault.Corrupt for what is none.
func parseRow(b []byte) (*row, error) {
	if len(b) > 0 && b[0] > rowVersion {
		return nil, fault.New(fault.Unsupported, "held: a row of version %d, newer than %d", b[0], rowVersion)
	}
	if len(b) < rowHead || b[0] != rowVersion || len(b) > rowHead+maxDetail {
		return nil, fault.New(fault.Corrupt, "held: a row of %d bytes", len(b))
	}
	r := &row{state: State(b[1]), root: [32]byte(b[2:34]), when: int64(binary.BigEndian.Uint64(b[54:62]))}
	r.ref = bulk.Ref{Space: bulk.Held, Bytes: int64(binary.BigEndian.Uint64(b[34:42])),
		Table: binary.BigEndian.Uint64(b[42:50]), Blob: binary.BigEndian.Uint32(b[50:54])}
	if r.state < Held || r.state > Dropped || r.ref.Bytes < 0 {
		return nil, fault.New(fault.Corrupt, "held: a row of state %d and %d bytes", r.state, r.ref.Bytes)
	}
	if len(b) > rowHead {
		r.detail = append([]byte(nil), b[rowHead:]...)
	}
	return r, nil
}

func keyShard(n Name) string { return keyOf(rowShard, n) }
func keyLost(n Name) string  { return keyOf(rowLost, n) }

// keyOf is ordered by the packs' spread, so that a placement group is a range.
func keyOf(kind byte, n Name) string {
	b := append(make([]byte, 0, 1+8+nameBytes), kind)
	return string(n.append(binary.BigEndian.AppendUint64(b, shard.Spread(n.Pack))))
}

// nameOf reads the name in a key of keyOf.
func nameOf(key string) (Name, error) {
	if len(key) != 1+8+nameBytes {
		return Name{}, fault.New(fault.Corrupt, "held: a row's key of %d bytes", len(key))
	}
	n, err := parseName([]byte(key[1+8:]))
	if err != nil {
		return n, fault.New(fault.Corrupt, "held: a row's key: %w", err)
	}
	return n, nil
}

func keyBlob(r bulk.Ref) string {
	b := binary.BigEndian.AppendUint64([]byte{rowBlob}, r.Table)
	return string(binary.BigEndian.AppendUint32(b, r.Blob))
}

func keyGoing(r bulk.Ref) string {
	b := binary.BigEndian.AppendUint64([]byte{rowGoing}, r.Table)
	b = binary.BigEndian.AppendUint32(b, r.Blob)
	return string(binary.BigEndian.AppendUint64(b, uint64(r.Bytes)))
}

func refOfGoing(key string) (r bulk.Ref, ok bool) {
	if len(key) != 1+8+4+8 {
		return r, false
	}
	b := []byte(key[1:])
	return bulk.Ref{Space: bulk.Held, Table: binary.BigEndian.Uint64(b), Blob: binary.BigEndian.Uint32(b[8:]),
		Bytes: int64(binary.BigEndian.Uint64(b[12:]))}, true
}

func keyDropped(when int64, n Name) string {
	return string(n.append(binary.BigEndian.AppendUint64([]byte{rowDropped}, uint64(when))))
}

// now is the time of rows.
func now() int64 { return time.Now().Unix() }
