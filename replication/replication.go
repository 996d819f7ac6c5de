// Package replication is the vocabulary of what all nodes agree on: the order
// of entries, and where a state machine stands in it (DESIGN §6). Its
// sub-packages are the catalogue, the journal, the log and Raft itself.
package replication

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// Entry is a committed entry.
type Entry struct {
	Index, Term uint64
	Data        []byte // may be kept
}

// Suffrage says whether a member votes.
type Suffrage uint8

// The suffrages; the numbers are part of the format of a Position.
const (
	Voter    Suffrage = 0
	Nonvoter Suffrage = 1
)

// Member is a node in the membership.
type Member struct {
	ID       string // node id
	Address  string // where its transport answers
	Suffrage Suffrage
}

// Position is where a state machine stands: everything up to Index is applied.
type Position struct {
	Index, Term uint64
	// Members is the membership as of Index, and MembersIndex the entry that set it.
	MembersIndex uint64
	Members      []Member
}

const positionVersion = 1

// Limits of a membership.
const (
	MaxMembers       = 4096
	MaxMemberBytes   = 256 // of an id, and of an address
	MaxPositionBytes = 1 << 21
)

// Encode returns the position as state machines keep it and snapshots carry it
// (docs/formats/raft.md).
func (p Position) Encode() []byte {
	b := []byte{positionVersion}
	for _, v := range [...]uint64{p.Index, p.Term, p.MembersIndex, uint64(len(p.Members))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, m := range p.Members {
		b = append(b, byte(m.Suffrage))
		for _, s := range [...]string{m.ID, m.Address} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	return b
}

// DecodePosition reads what Encode wrote: fault.Corrupt, or fault.Unsupported
// for a later version.
func DecodePosition(b []byte) (Position, error) {
	if len(b) > 0 && b[0] != positionVersion {
		return Position{}, fault.New(fault.Unsupported, "replication: a position of version %d", b[0])
	}
	bad := fault.New(fault.Corrupt, "replication: a position of %d bytes", len(b))
	if len(b) == 0 || len(b) > MaxPositionBytes {
		return Position{}, bad
	}
	b = b[1:]
	ok := true
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > MaxMemberBytes || n > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	p := Position{Index: number(), Term: number(), MembersIndex: number()}
	for n := number(); n > 0 && ok; n-- {
		if len(b) == 0 || b[0] > byte(Nonvoter) || len(p.Members) == MaxMembers {
			return Position{}, bad
		}
		m := Member{Suffrage: Suffrage(b[0])}
		b = b[1:]
		m.ID, m.Address = text(), text()
		p.Members = append(p.Members, m)
	}
	if !ok || len(b) > 0 {
		return Position{}, bad
	}
	return p, nil
}
