package catalog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// Cursor is how far the catalogue knows a node's journal.
type Cursor struct {
	Incarnation uint64
	Number      uint64   // of the last batch
	Hash        [32]byte // of the last batch, which the next one is bound to
	Index       uint64   // of the entry that it came in
}

const (
	cursorVersion = 1
	// recentBatches is how many batches of a journal are told from others of the
	// same number: a sender tries again what it has no answer to, and sends few at
	// a time.
	recentBatches = 16
	digestBytes   = 8
)

// cursor is a cursor record.
type cursor struct {
	Cursor
	recent [][digestBytes]byte // of the last batches' bytes, the last one first
}

func (k cursor) encode() []byte {
	b := []byte{cursorVersion}
	b = binary.AppendUvarint(b, k.Incarnation)
	b = binary.AppendUvarint(b, k.Number)
	b = binary.AppendUvarint(b, k.Index)
	b = append(b, k.Hash[:]...)
	b = binary.AppendUvarint(b, uint64(len(k.recent)))
	for _, digest := range k.recent {
		b = append(b, digest[:]...)
	}
	return b
}

func decodeCursor(row []byte) (cursor, error) {
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != cursorVersion {
		return cursor{}, fault.New(fault.Unsupported, "catalog: cursor of version %d", v)
	}
	var k cursor
	k.Incarnation, k.Number, k.Index = d.uvarint(), d.uvarint(), d.uvarint()
	copy(k.Hash[:], d.take(32))
	for n := d.count(); n > 0 && !d.bad; n-- {
		var digest [digestBytes]byte
		copy(digest[:], d.take(digestBytes))
		k.recent = append(k.recent, digest)
	}
	return k, d.done("cursor")
}

// Cursor returns how far a node's journal is known; false when nothing of it is.
func (c *Catalog) Cursor(node string) (Cursor, bool, error) {
	row, err := get(c.db, cursorKey(node))
	if err != nil || row == nil {
		return Cursor{}, false, err
	}
	k, err := decodeCursor(row)
	return k.Cursor, err == nil, err
}

// follows decides whether a batch is the next one of its node's journal, and
// returns the cursor after it. A batch that is known is neither: nil and false.
//
// Its result is fault.Denied when no member of that site signed it, fault.Mismatch when one
// before it is missing, and fault.Conflict when another batch has its number, or
// precedes it.
func (read records) follows(e *Entry, index uint64) (next cursor, isNew bool, result, err error) {
	b := e.Batch
	member, result, err := read.member(b.Node)
	if result != nil || err != nil {
		return next, false, result, err
	}
	if b.Site != member.Site {
		return next, false, fault.New(fault.Denied, "catalog: a batch of site %q, its node is of %q", b.Site, member.Site), nil
	}
	row, err := read(cursorKey(b.Node))
	if err != nil {
		return next, false, nil, err
	}
	var at cursor
	if row != nil {
		if at, err = decodeCursor(row); err != nil {
			return next, false, nil, err
		}
	}
	sum := blake3.Sum256(e.body)
	digest := [digestBytes]byte(sum[:digestBytes])
	switch {
	case b.Incarnation < at.Incarnation:
		return next, false, fault.New(fault.Conflict, "catalog: batch %d of incarnation %d, %d has begun", b.Number, b.Incarnation, at.Incarnation), nil
	case b.Incarnation > at.Incarnation:
		at = cursor{} // begins anew
	}
	switch {
	case b.Number > at.Number+1:
		return next, false, fault.New(fault.Mismatch, "catalog: batch %d after batch %d", b.Number, at.Number), nil
	case b.Number <= at.Number:
		if back := at.Number - b.Number; back < uint64(len(at.recent)) && at.recent[back] == digest {
			return next, false, nil, nil
		}
		return next, false, fault.New(fault.Conflict, "catalog: another batch %d is known", b.Number), nil
	case b.Number > 1 && !bytes.Equal(e.after, at.Hash[:hashPrefixBytes]):
		return next, false, fault.New(fault.Conflict, "catalog: batch %d does not follow the one that is known", b.Number), nil
	}
	message := batchMessage(at.Hash, e.body)
	if !ed25519.Verify(member.PublicKey, message, e.signature) {
		return next, false, fault.New(fault.Denied, "catalog: the signature of batch %d is not good", b.Number), nil
	}
	next.Cursor = Cursor{Incarnation: b.Incarnation, Number: b.Number, Hash: blake3.Sum256(message), Index: index}
	next.recent = append([][digestBytes]byte{digest}, at.recent[:min(len(at.recent), recentBatches-1)]...)
	return next, true, nil, nil
}
