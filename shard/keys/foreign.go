package keys

import (
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

// same reports whether a record is of this key. One of this node's own does not
// say whose it is.
func (k *StudyKey) same(rec *record) bool {
	return string(rec.study) == k.Study && rec.epoch == k.Epoch && rec.wrapped == k.Wrapped &&
		(rec.own() || string(rec.origin) == k.Origin)
}

func (k *StudyKey) check() error {
	if len(k.Origin) == 0 || len(k.Origin) > maxOrigin {
		return fault.New(fault.Invalid, "keys: a node's id of %d bytes", len(k.Origin))
	}
	return checkStudies(k.Study)
}

// Keep keeps study keys of other nodes, all of them durably in both files, with one
// sync of each, when it returns. Those that are kept already are left, and a key
// whose id another one has, or that cannot be kept, is left out: refused says how
// many. Ids are random, so that comes of a fault, or of malice, of the key's origin,
// which harms nobody else's by it. Whether a key can be unwrapped is not looked at:
// its epoch may be still to come.
func (r *Ring) Keep(all ...StudyKey) (refused int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return 0, err
	}
	defer r.healLocked()
	var added []record
	batch := map[[16]byte]*StudyKey{}
	for i := range all {
		k := &all[i]
		if k.check() != nil {
			refused++
			continue
		}
		if first := batch[k.ID]; first != nil {
			if *first != *k {
				refused++
			}
			continue
		}
		rec, err := r.ofIDLocked(k.ID)
		switch {
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Corrupt): // one that has rotted in both files comes anew
			batch[k.ID] = k
			added = append(added, k.record())
		case err != nil:
			return refused, err
		case !k.same(&rec):
			refused++
		}
	}
	return refused, r.appendLocked(added)
}

// Wrapped returns a key by its id as it is wrapped, for the network to know; the
// origin of this node's own is empty. Errors as of [Ring.Key], but that the epoch
// is not looked at.
func (r *Ring) Wrapped(id [16]byte) (StudyKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return StudyKey{}, errClosed
	}
	defer r.healLocked()
	rec, err := r.ofIDLocked(id)
	if err != nil {
		return StudyKey{}, err
	}
	return StudyKey{ID: rec.id, Study: string(rec.study), Origin: string(rec.origin), Epoch: rec.epoch, Wrapped: rec.wrapped}, nil
}
