package journal

import (
	"bytes"
	"encoding/binary"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
)

var (
	stateKey    = []byte("j/m")
	batchPrefix = []byte("j/b")
)

func batchKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), batchPrefix...), number)
}

const stateVersion = 1

// state is what the journal knows of itself.
type state struct {
	incarnation uint64 // of the journal's numbering
	oldest      uint64 // number of the oldest batch that is kept, or of the next
	next        uint64 // number of the next batch
	nextFact    uint64
	cursor      uint64 // every instance up to this local number is in a logged fact
	last        [32]byte
}

func (s state) encode() []byte {
	b := []byte{stateVersion}
	for _, v := range [...]uint64{s.incarnation, s.oldest, s.next, s.nextFact, s.cursor} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, s.last[:]...)
}

func decodeState(b []byte) (state, error) {
	if len(b) > 0 && b[0] != stateVersion {
		return state{}, fault.New(fault.Unsupported, "journal: state of version %d", b[0])
	}
	if len(b) != 1+5*8+32 {
		return state{}, fault.New(fault.Corrupt, "journal: state of %d bytes", len(b))
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	return state{incarnation: u(0), oldest: u(1), next: u(2), nextFact: u(3), cursor: u(4), last: [32]byte(b[41:])}, nil
}

// unsigned signs nothing: rows are for this node alone.
type unsigned struct{}

func (unsigned) Sign([]byte) []byte { return nil }

// encodeBatch returns a batch's row and its hash.
func encodeBatch(s state, facts []*catalog.SeriesFact, commands []catalog.Command) (row []byte, hash [32]byte, err error) {
	j := &catalogpb.Journaled{Incarnation: s.incarnation, Number: s.next, First: s.nextFact, Previous: s.last[:]}
	if len(commands) > 0 {
		entry, err := catalog.EncodeDecision(unsigned{}, "n", nil, commands)
		if err != nil {
			return nil, hash, err
		}
		j.Entries = append(j.Entries, entry)
	}
	if len(facts) > 0 {
		entry, _, err := catalog.EncodeBatch(unsigned{}, catalog.Batch{
			Node: facts[0].Origin, Site: facts[0].Site, Incarnation: 1, Number: 1, Facts: facts,
		}, [32]byte{})
		if err != nil {
			return nil, hash, err
		}
		j.Entries = append(j.Entries, entry)
	}
	row, err = proto.MarshalOptions{Deterministic: true}.Marshal(j)
	if err != nil {
		return nil, hash, fault.New(fault.Invalid, "journal: encode batch: %w", err)
	}
	hash = blake3.Sum256(row)
	return append(row, hash[:]...), hash, nil
}

// decodeBatch reads a batch's row and checks its hash.
func decodeBatch(row []byte) (*catalogpb.Journaled, []any, [32]byte, error) {
	var hash [32]byte
	if len(row) < len(hash) {
		return nil, nil, hash, fault.New(fault.Corrupt, "journal: a batch of %d bytes", len(row))
	}
	body := row[:len(row)-len(hash)]
	if hash = blake3.Sum256(body); !bytes.Equal(hash[:], row[len(body):]) {
		return nil, nil, hash, fault.New(fault.Corrupt, "journal: a batch fails its hash")
	}
	var b catalogpb.Journaled
	if err := proto.Unmarshal(body, &b); err != nil {
		return nil, nil, hash, fault.New(fault.Corrupt, "journal: a batch cannot be read: %w", err)
	}
	var changes []any
	for _, entry := range b.Entries {
		e, err := catalog.DecodeEntry(entry)
		if err != nil {
			return nil, nil, hash, err
		}
		if e.Batch != nil {
			for _, f := range e.Batch.Facts {
				changes = append(changes, f)
			}
			continue
		}
		for _, c := range e.Decision.Commands {
			changes = append(changes, c)
		}
	}
	return &b, changes, hash, nil
}
