package consensus

import (
	"context"
	"encoding/binary"

	"github.com/hashicorp/raft"

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

// StateMachine is what entries are applied to. Its calls come one at a time,
// but Sync, which may come beside Apply.
type StateMachine interface {
	// Apply applies entries in order and, atomically with them, makes at the
	// position: at is that of the last of them, or later. There may be none. It
	// must give the same result on every node, and need not be durable. An error
	// stops applying for good: a failed store, or an entry that is not understood.
	Apply(entries []Entry, at Position) error
	// Position returns where the state machine stands.
	Position() Position
	// Sync makes what was applied durable.
	Sync() error
}

// Peers is how a member gets from others what Raft does not send.
type Peers interface {
	// Bootstrap replaces the state machine by a copy of a peer's that stands at
	// least at want, and returns once that is durable. No Apply is under way or
	// begins before it returns. It is called again, after a pause, when it fails.
	Bootstrap(ctx context.Context, want Position) error
	// Fetch returns committed entries from a peer's [Node.Committed], from first
	// on: at least one, at most up to last.
	Fetch(ctx context.Context, first, last uint64) ([]*raft.Log, error)
}

const positionVersion = 1

const (
	maxMembers       = 4096
	maxMemberBytes   = 256 // of an id, and of an address
	maxPositionBytes = 1 << 21
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
		return Position{}, fault.New(fault.Unsupported, "consensus: a position of version %d", b[0])
	}
	bad := fault.New(fault.Corrupt, "consensus: a position of %d bytes", len(b))
	if len(b) == 0 || len(b) > maxPositionBytes {
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
		if n > maxMemberBytes || n > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	p := Position{Index: number(), Term: number(), MembersIndex: number()}
	for n := number(); n > 0 && ok; n-- {
		if len(b) == 0 || b[0] > byte(Nonvoter) || len(p.Members) == maxMembers {
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

func members(c raft.Configuration) []Member {
	var all []Member
	for _, s := range c.Servers {
		m := Member{ID: string(s.ID), Address: string(s.Address), Suffrage: Voter}
		if s.Suffrage != raft.Voter {
			m.Suffrage = Nonvoter
		}
		all = append(all, m)
	}
	return all
}

func configuration(all []Member) raft.Configuration {
	var c raft.Configuration
	for _, m := range all {
		s := raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address), Suffrage: raft.Voter}
		if m.Suffrage != Voter {
			s.Suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, s)
	}
	return c
}
