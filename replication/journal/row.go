package journal

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

var (
	stateKey    = []byte("j/m")
	batchPrefix = []byte("j/b")
	batchEnd    = []byte("j/c")
)

// batchNumber returns the number in a batch's key.
func batchNumber(key []byte) (uint64, bool) {
	if len(key) != len(batchPrefix)+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[len(batchPrefix):]), true
}

func batchKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), batchPrefix...), number)
}

const (
	stateVersion = 3
	rowVersion   = 2
	hashBytes    = 32
)

// state is what the journal knows of itself.
type state struct {
	incarnation uint64 // of the numbering, from 1
	oldest      uint64 // number of the oldest batch that is kept; next when none is, before the first
	next        uint64 // number of the next batch, from 1
	cursor      uint64 // every instance up to this local number is in a logged fact
	packs       uint64 // every row of Packs up to this number is in a logged batch, or known
	last        [hashBytes]byte
}

func newState() state { return state{incarnation: 1, oldest: 1, next: 1} }

func (s state) encode() []byte {
	b := []byte{stateVersion}
	for _, v := range [...]uint64{s.incarnation, s.oldest, s.next, s.cursor, s.packs} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, s.last[:]...)
}

func decodeState(b []byte) (state, error) {
	if len(b) > 0 && b[0] != stateVersion {
		return state{}, fault.New(fault.Unsupported, "journal: state of version %d", b[0])
	}
	if len(b) != 1+5*8+hashBytes {
		return state{}, fault.New(fault.Corrupt, "journal: state of %d bytes", len(b))
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	s := state{incarnation: u(0), oldest: u(1), next: u(2), cursor: u(3), packs: u(4), last: [hashBytes]byte(b[1+5*8:])}
	if s.incarnation == 0 || s.incarnation > maxIncarnation || s.oldest == 0 || s.next < s.oldest {
		return state{}, fault.New(fault.Corrupt, "journal: a state of incarnation %d with batches %d to %d", s.incarnation, s.oldest, s.next)
	}
	return s, nil
}

// row is a batch as it is kept: the entry that is proposed, with its hash and
// that of the batch before it, which the entry only alludes to.
type row struct {
	previous, hash [hashBytes]byte
	entry          []byte
}

// encode returns the row with a BLAKE3 over all of it at its end.
func (r row) encode() []byte {
	b := make([]byte, 0, 1+3*hashBytes+len(r.entry))
	b = append(b, rowVersion)
	b = append(b, r.previous[:]...)
	b = append(b, r.hash[:]...)
	b = append(b, r.entry...)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// decodeRow reads what encode wrote and checks its hash: fault.Corrupt. The row
// keeps b.
func decodeRow(b []byte) (row, error) {
	const head = 1 + 2*hashBytes
	if len(b) > 0 && b[0] != rowVersion {
		return row{}, fault.New(fault.Unsupported, "journal: a batch of version %d", b[0])
	}
	if len(b) <= head+hashBytes {
		return row{}, fault.New(fault.Corrupt, "journal: a batch of %d bytes", len(b))
	}
	body := b[:len(b)-hashBytes]
	if blake3.Sum256(body) != [hashBytes]byte(b[len(body):]) {
		return row{}, fault.New(fault.Corrupt, "journal: a batch fails its hash")
	}
	return row{[hashBytes]byte(b[1:]), [hashBytes]byte(b[1+hashBytes:]), body[head:]}, nil
}

// decodeBatch reads a row and the batch in it, which must be the signer's own:
// fault.Corrupt.
func decodeBatch(b []byte, s catalog.Signer) (row, *catalog.Batch, error) {
	r, err := decodeRow(b)
	if err != nil {
		return row{}, nil, err
	}
	e, err := catalog.DecodeEntry(r.entry)
	if fault.Is(err, fault.Unsupported) {
		return row{}, nil, err
	}
	if err != nil {
		return row{}, nil, fault.New(fault.Corrupt, "journal: %w", err)
	}
	if hash, ok := e.SignedBy(s, r.previous); !ok || hash != r.hash {
		return row{}, nil, fault.New(fault.Corrupt, "journal: a batch that this node has not signed")
	}
	return r, e.Batch, nil
}
