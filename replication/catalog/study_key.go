package catalog

import (
	"encoding/binary"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// KeyFact is a key for packs of a study, as its origin says it: wrapped by a key of
// the network, so that only members open it. The same key wrapped under a later epoch
// takes the place of the earlier wrapping.
type KeyFact struct {
	Origin  string // node id
	Study   string
	ID      [16]byte                // random, and names the key for ever
	Epoch   uint32                  // of the network's key that wraps it, from 1
	Wrapped [seal.WrappedBytes]byte // docs/formats/seal.md
}

// StudyKey is a key as the catalogue holds it.
type StudyKey struct {
	At      uint64 // place in the order of commit, dense from 1; anew with each wrapping
	ID      [16]byte
	Study   string
	Origin  string
	Epoch   uint32
	Wrapped [seal.WrappedBytes]byte
}

func (k *StudyKey) fact() KeyFact {
	return KeyFact{Origin: k.Origin, Study: k.Study, ID: k.ID, Epoch: k.Epoch, Wrapped: k.Wrapped}
}

const keyVersion = 1

func (k *StudyKey) encode() []byte {
	b := make([]byte, 0, 160)
	b = appendString(append(b, keyVersion), k.Study)
	b = appendString(b, k.Origin)
	b = binary.AppendUvarint(b, k.At)
	b = binary.AppendUvarint(b, uint64(k.Epoch))
	return append(b, k.Wrapped[:]...)
}

// decodeKey reads the row of a key, nil for none.
func decodeKey(id [16]byte, row []byte) (*StudyKey, error) {
	if row == nil {
		return nil, nil
	}
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != keyVersion {
		return nil, fault.New(fault.Unsupported, "catalog: study key of version %d", v)
	}
	k := &StudyKey{ID: id, Study: d.string(), Origin: d.string(), At: d.uvarint(), Epoch: d.uint32()}
	copy(k.Wrapped[:], d.take(seal.WrappedBytes))
	return k, d.done("study key")
}

func (f *KeyFact) check() error {
	if !isUID(f.Study) || !isName(f.Origin) || f.ID == [16]byte{} || f.Epoch == 0 {
		return fault.New(fault.Invalid, "catalog: a key names what cannot be")
	}
	return nil
}

// keyFact changes the transaction by a key. The first error is the fact's result,
// the second ends the transaction.
func (t *txn) keyFact(f *KeyFact) (result, err error) {
	if bad := f.check(); bad != nil {
		return bad, nil
	}
	known, err := t.key(f.ID)
	if err != nil {
		return nil, err
	}
	if known != nil {
		switch {
		case known.Study != f.Study || known.Origin != f.Origin:
			return fault.New(fault.Conflict, "catalog: the key with this id is another's"), nil
		case f.Epoch < known.Epoch || known.fact() == *f:
			return nil, nil
		case f.Epoch == known.Epoch:
			return fault.New(fault.Conflict, "catalog: the key with this id is wrapped otherwise in epoch %d", f.Epoch), nil
		}
		t.rows.drop(keyOrderKey(known.At))
	} else {
		if refusal, err := t.wasForgotten(f.ID); refusal != nil || err != nil {
			return refusal, err
		}
		t.sealed.Keys++
		t.rows.set(keyStudyKey(f.Study, f.ID), nil)
	}
	t.sealed.lastKey++
	next := StudyKey{At: t.sealed.lastKey, ID: f.ID, Study: f.Study, Origin: f.Origin, Epoch: f.Epoch, Wrapped: f.Wrapped}
	t.rows.set(keyOrderKey(next.At), f.ID[:])
	return nil, t.agree(keyKey(f.ID), next.encode())
}

// key returns a key as the transaction has it, nil for none.
func (t *txn) key(id [16]byte) (*StudyKey, error) {
	row, err := t.read(keyKey(id))
	if err != nil {
		return nil, err
	}
	return decodeKey(id, row)
}
