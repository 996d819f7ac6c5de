package held

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"pelago/cluster/fault"
)

// Reason is why a shard is given up: one of [Superseded], [Moved] and [Purged], or of
// these [While] something stands.
// That it was not found, not referenced or not wanted is none.
type Reason interface {
	fmt.Stringer
	// check refuses the reason for a shard for which it does not hold.
	check(self string, e Entry) error
	// final reports whether the shard must not come back.
	final() bool
	append(b []byte) []byte
}

// Kinds of reasons, as rows have them.
const (
	reasonSuperseded = 1 + iota
	reasonMoved
	reasonPurged
)

// Superseded: a later generation of the pack is sealed, and its seal meets the
// commitment condition.
type Superseded struct {
	Generation uint32
	Root       [32]byte // the stripe root in its seal
}

func (s Superseded) String() string { return fmt.Sprintf("superseded by generation %d", s.Generation) }

func (s Superseded) check(_ string, e Entry) error {
	if s.Generation <= e.Generation || s.Root == ([32]byte{}) {
		return fault.New(fault.Invalid, "held: shard %v is not superseded by generation %d", e.Name, s.Generation)
	}
	return nil
}

func (Superseded) final() bool { return true }

func (s Superseded) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, reasonSuperseded), s.Generation)
	return append(b, s.Root[:]...)
}

// Moved: another node holds the shard, by its receipt, and every member knows.
type Moved struct {
	Receipt *Receipt
	Key     ed25519.PublicKey // of the other holder's member record
	to      string            // of one that was read back
}

func (m Moved) holder() string {
	if m.Receipt != nil {
		return m.Receipt.Holder
	}
	return m.to
}

func (m Moved) String() string { return "moved to node " + m.holder() }

func (m Moved) check(self string, e Entry) error {
	if m.Receipt == nil || m.Receipt.Holder == self {
		return fault.New(fault.Invalid, "held: shard %v has no receipt of another holder", e.Name)
	}
	if err := m.Receipt.Verify(m.Key); err != nil {
		return err
	}
	if !m.Receipt.Covers(e) {
		return fault.New(fault.Invalid, "held: node %s has given no receipt for shard %v", m.Receipt.Holder, e.Name)
	}
	return nil
}

func (Moved) final() bool { return false }

func (m Moved) append(b []byte) []byte { return append(append(b, reasonMoved), m.holder()...) }

// Purged: a committed purge covers the pack.
type Purged struct {
	Index uint64 // of the purge in the order of entries, from 1
}

func (p Purged) String() string { return fmt.Sprintf("purged by entry %d", p.Index) }

func (p Purged) check(_ string, e Entry) error {
	if p.Index == 0 {
		return fault.New(fault.Invalid, "held: shard %v is purged by no entry", e.Name)
	}
	return nil
}

func (Purged) final() bool { return true }

func (p Purged) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, reasonPurged), p.Index)
}

// While is a reason that holds for as long as Stands says so. It is asked once the
// store is about to give a shard up, which may have waited: a merge of tables takes
// long, and what was so before may not be so any more. fault.Unavailable if it is not.
// Stands must not block, nor call the store. Rows tell the reason itself.
type While struct {
	Reason
	Stands func() bool
}

func (w While) check(self string, e Entry) error {
	if !w.Stands() {
		return fault.New(fault.Unavailable, "held: the reason for which shard %v was to go does not stand any more", e.Name)
	}
	return w.Reason.check(self, e)
}

// parseReason reads what append wrote.
func parseReason(b []byte) (Reason, error) {
	switch {
	case len(b) == 1+4+32 && b[0] == reasonSuperseded:
		return Superseded{binary.BigEndian.Uint32(b[1:]), [32]byte(b[5:])}, nil
	case len(b) == 1+holderBytes && b[0] == reasonMoved:
		return Moved{to: string(b[1:])}, nil
	case len(b) == 1+8 && b[0] == reasonPurged:
		return Purged{binary.BigEndian.Uint64(b[1:])}, nil
	}
	return nil, fault.New(fault.Corrupt, "held: a row that was dropped for no reason")
}
