package keys

import (
	"slices"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// StudyKey is a study key as the network knows it: wrapped under an epoch, which
// every member that may read can unwrap.
type StudyKey struct {
	ID      [16]byte
	Study   string
	Origin  string // the node whose key it is
	Epoch   uint32
	Wrapped [seal.WrappedBytes]byte
}

func (k *StudyKey) record() record {
	return record{id: k.ID, epoch: k.Epoch, wrapped: k.Wrapped, study: []byte(k.Study), origin: []byte(k.Origin)}
}

// same reports whether a record is this wrapping of this key. One of this node's own
// does not say whose it is.
func (k *StudyKey) same(rec *record) bool {
	return string(rec.study) == k.Study && rec.epoch == k.Epoch && rec.wrapped == k.Wrapped &&
		(rec.own() || string(rec.origin) == k.Origin)
}

// anew reports whether this is the key of a record, wrapped under another epoch by its
// origin. Of this node's own keys nobody else has a say.
func (k *StudyKey) anew(rec *record) bool {
	return !rec.own() && string(rec.study) == k.Study && string(rec.origin) == k.Origin && k.Epoch != rec.epoch
}

func (k *StudyKey) check() error {
	if len(k.Origin) == 0 || len(k.Origin) > maxOrigin {
		return fault.New(fault.Invalid, "keys: a node's id of %d bytes", len(k.Origin))
	}
	return checkStudies(k.Study)
}

// Keep keeps study keys of other nodes, all of them durably in both files, with one
// sync of each, when it returns. Those that are kept already are left; one that its
// origin has wrapped anew, under another epoch, is kept beside the former. A key whose
// id another one has, or that cannot be kept, is left out: refused says how many. Ids
// are random, so that comes of a fault, or of malice, of the key's origin, which harms
// nobody else's by it. Whether a key can be unwrapped is not looked at: its epoch may
// be still to come.
func (r *Ring) Keep(all ...StudyKey) (refused int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return 0, err
	}
	defer r.healLocked()
	var added []record
	batch := map[[16]byte][]record{}
	for i := range all {
		k := &all[i]
		if k.check() != nil {
			refused++
			continue
		}
		known, err := r.ofIDLocked(k.ID)
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Corrupt) { // one that has rotted in both files comes anew
			return refused, err
		}
		known = append(known, batch[k.ID]...)
		switch {
		case slices.ContainsFunc(known, func(rec record) bool { return k.same(&rec) }):
		case slices.ContainsFunc(known, func(rec record) bool { return !k.anew(&rec) }):
			refused++
		default:
			added = append(added, k.record())
			batch[k.ID] = append(batch[k.ID], k.record())
		}
	}
	return refused, r.appendLocked(added)
}

// Wrapped returns a key by its id as it was wrapped last, for the network to know; the
// origin of this node's own is empty. Errors as of [Ring.Key], but that the epoch
// is not looked at.
func (r *Ring) Wrapped(id [16]byte) (StudyKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return StudyKey{}, errClosed
	}
	defer r.healLocked()
	wrappings, err := r.ofIDLocked(id)
	if err != nil {
		return StudyKey{}, err
	}
	rec := wrappings[0]
	return StudyKey{ID: rec.id, Study: string(rec.study), Origin: string(rec.origin), Epoch: rec.epoch, Wrapped: rec.wrapped}, nil
}
