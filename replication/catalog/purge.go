package catalog

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// PurgeFact gives up a pack for good, because of the tombstones that it names: of the
// pack's study, of its series, of instances in it. The pack's origin says so, who
// knows what is in it; anybody may, once that is no member any more or away for too
// long, of a pack that a tombstone of its study or series covers.
//
// It is fault.Conflict unless each of them has stood for the network's grace, by its
// own clock, every member that counts has applied it, and no hold keeps the study or
// one of its patients; fault.NotFound for a pack that is not known, and no change for
// one that was purged.
type PurgeFact struct {
	Pack          [16]byte
	Study, Series bool
	Instances     []string // ascending
}

// ForgetFact gives up a study key. It is the last that is left of what was purged:
// fault.Conflict while a pack is under it, or a member that counts has not said that it
// dropped what was. Its origin says so, which has nothing left under it; anybody may,
// once that is gone as for [PurgeFact], of a study that a tombstone covers as a whole.
type ForgetFact struct{ Key [16]byte }

func (*PurgeFact) command()  {}
func (*ForgetFact) command() {}

// maxStones bounds the tombstones that a purge names.
const maxStones = 4096

func (f *PurgeFact) check() error {
	bad := f.Pack == [16]byte{} || !f.Study && !f.Series && len(f.Instances) == 0 || len(f.Instances) > maxStones
	for i, uid := range f.Instances {
		bad = bad || !isUID(uid) || i > 0 && uid <= f.Instances[i-1]
	}
	if bad {
		return fault.New(fault.Invalid, "catalog: a purge names what cannot be")
	}
	return nil
}

// stones are the objects whose tombstones the fact names, of a pack's study and series.
func (f *PurgeFact) stones(study, series string) [][]byte {
	var keys [][]byte
	if f.Study {
		keys = append(keys, tombstoneKey(study, "", ""))
	}
	if f.Series {
		keys = append(keys, tombstoneKey(study, series, ""))
	}
	for _, uid := range f.Instances {
		keys = append(keys, tombstoneKey(study, series, uid))
	}
	return keys
}

const purgedVersion = 1

// purged is what is left of a pack, or of a study key; of a key that stands, when the last
// of its packs was purged.
type purged struct {
	index uint64 // of the entry
	study string
}

func (p purged) encode() []byte {
	return appendString(binary.AppendUvarint([]byte{purgedVersion}, p.index), p.study)
}

func decodePurged(row []byte) (p purged, err error) {
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != purgedVersion {
		return p, fault.New(fault.Unsupported, "catalog: what was purged, of version %d", v)
	}
	p = purged{d.uvarint(), d.string()}
	return p, d.done("purged pack")
}

func (t *txn) purgeFact(f *PurgeFact, node string, index uint64) (result, err error) {
	if bad := f.check(); bad != nil {
		return bad, nil
	}
	p, result, err := t.purgeable(f)
	if p == nil {
		return result, err
	}
	if result, err := t.mayPurge(f, p, node); result != nil || err != nil {
		return result, err
	}
	latest := uint64(0)
	for _, key := range f.stones(p.study, p.series) {
		since, result, err := t.agedAt(key, p.study)
		if result != nil || err != nil {
			return result, err
		}
		latest = max(latest, since)
	}
	if result, err := t.past(latest, func(s Seen) uint64 { return s.Applied }); result != nil || err != nil {
		return result, err
	}
	if held, err := t.heldOf(p.study, p.series); held || err != nil {
		return fault.New(fault.Conflict, "catalog: a hold keeps what is to be purged"), err
	}
	return nil, t.purge(f, p, index)
}

// purgeable returns the pack of a fact; nil when it is not known (fault.NotFound), or
// was purged before, which is no refusal.
func (t *txn) purgeable(f *PurgeFact) (p *pack, result, err error) {
	row, err := t.read(purgedKey(f.Pack))
	if err != nil || row != nil {
		return nil, nil, err
	}
	where, err := t.read(spreadKey(f.Pack))
	if err != nil {
		return nil, nil, err
	}
	if where == nil {
		return nil, fault.New(fault.NotFound, "catalog: a pack that is to be purged is not known"), nil
	}
	key := append(append([]byte{rowPack}, where...), f.Pack[:]...)
	if row, err = t.read(key); err != nil {
		return nil, nil, err
	}
	p, err = decodePack(key, row)
	return p, nil, err
}

// mayPurge says whether a node may say that a pack goes.
func (t *txn) mayPurge(f *PurgeFact, p *pack, node string) (result, err error) {
	if uint64(len(f.Instances)) > p.instances {
		return fault.New(fault.Invalid, "catalog: a purge names more instances than are in its pack"), nil
	}
	if node == p.origin {
		return nil, nil
	}
	gone, err := t.gone(p.origin)
	if err != nil {
		return nil, err
	}
	if !gone || !f.Study && !f.Series {
		return fault.New(fault.Denied, "catalog: only its origin knows whether a pack may go"), nil
	}
	_, some, err := t.acceptedOf(p.study, p.series)
	if some {
		return fault.New(fault.Conflict, "catalog: something of the series was accepted, and nobody knows where it is"), err
	}
	return nil, err
}

// gone reports whether a node is no member, or does not count as one.
func (t *txn) gone(node string) (bool, error) {
	all, err := t.standings()
	return !slices.ContainsFunc(all, func(s Standing) bool { return s.Node == node && !s.Evicted }), err
}

// agedAt refuses a tombstone whose grace is not over, and returns the index of the entry
// that members must be past: its own, or that with which the clock began.
func (t *txn) agedAt(key []byte, study string) (index uint64, result, err error) {
	row, err := t.read(key)
	if err != nil {
		return 0, nil, err
	}
	if row == nil {
		return 0, fault.New(fault.Conflict, "catalog: there is no such tombstone"), nil
	}
	stone, err := decodeTombstone(key, row)
	if err != nil {
		return 0, nil, err
	}
	if stone.Study != study {
		return 0, fault.New(fault.Conflict, "catalog: a tombstone of another study"), nil
	}
	aged, first, err := t.aged(stone)
	if err != nil {
		return 0, nil, err
	}
	if !aged {
		return 0, fault.New(fault.Conflict, "catalog: a tombstone is within its grace"), nil
	}
	return max(stone.Index, first), nil, nil
}

// aged reports whether a tombstone has stood for the grace. One from before the clock
// began counts from then; first is the index of that.
func (t *txn) aged(stone *Tombstone) (aged bool, first uint64, err error) {
	c, err := records(t.read).clock()
	if err != nil || c.Seconds == 0 {
		return false, 0, err
	}
	terms, err := records(t.read).terms()
	return c.Seconds >= stone.At && c.Seconds-stone.At >= seconds(terms.Grace), c.First, err
}

// past refuses what a member that counts is not past.
func (t *txn) past(index uint64, of func(Seen) uint64) (result, err error) {
	all, err := t.standings()
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if !s.Evicted && of(s.Seen) < index {
			return fault.New(fault.Conflict, "catalog: node %s is not known to be past entry %d", s.Node, index), nil
		}
	}
	return nil, nil
}

// leastApplied is the index up to which every member that counts has applied everything.
func (t *txn) leastApplied() (uint64, error) {
	all, err := t.standings()
	least := ^uint64(0)
	for _, s := range all {
		if !s.Evicted {
			least = min(least, s.Applied)
		}
	}
	return least, err
}

// held reports whether a hold keeps a study, or one of the patients that its nodes have
// named.
func (t *txn) held(study string) (bool, error) {
	hold, err := t.read(registryKey(KindHold, StudyHold(study)))
	if err != nil || hold != nil {
		return hold != nil, err
	}
	st, err := t.study(study, false)
	if err != nil || st == nil {
		return false, err
	}
	if err := st.loadAll(); err != nil {
		return false, err
	}
	for _, x := range st.loaded {
		if x.cur == nil {
			continue
		}
		for i := range x.cur.origins {
			said := x.cur.origins[i].said // what is not committed, others do not know
			if said == nil {
				continue
			}
			id := said.attrs.text(codePatientID)
			if id == "" {
				continue
			}
			hold, err := t.read(registryKey(KindHold, PatientHold(PatientKey{said.issuer, id})))
			if err != nil || hold != nil {
				return hold != nil, err
			}
		}
	}
	return false, nil
}

// heldOf is held of a series, or with an empty one of a study. Of a series of which all
// instances were deleted one by one its nodes say that they have none, and no more.
// Nobody knows then whose it was, so that a hold of any patient keeps it.
func (t *txn) heldOf(study, series string) (bool, error) {
	held, err := t.held(study)
	if err != nil || held {
		return held, err
	}
	return t.heldUnnamed(study, series)
}

// heldUnnamed reports whether any patient is held, of a series of which nobody says whose
// it is.
func (t *txn) heldUnnamed(study, series string) (held bool, err error) {
	named, err := t.named(study, series)
	if err != nil || named {
		return false, err
	}
	err = t.each(registryKey(KindHold, patientHolds), func(string, []byte) error {
		held = true
		return nil
	})
	return held, err
}

// named reports whether any node says of a series, or of a study, whose it is.
func (t *txn) named(study, series string) (bool, error) {
	st, err := t.study(study, false)
	if err != nil || st == nil {
		return false, err
	}
	if err := st.loadAll(); err != nil {
		return false, err
	}
	for uid, x := range st.loaded {
		if x.cur != nil && (series == "" || series == uid) &&
			slices.ContainsFunc(x.cur.origins, func(o origin) bool { return o.said != nil && o.said.instances > 0 }) {
			return true, nil
		}
	}
	return false, nil
}

// purge takes a pack out, and leaves the mark that it is gone for good.
func (t *txn) purge(f *PurgeFact, p *pack, index uint64) error {
	for _, key := range f.stones(p.study, p.series) {
		row, err := t.read(key)
		if err != nil {
			return err
		}
		stone, err := decodeTombstone(key, row)
		if err != nil {
			return err
		}
		stone.Purged = index
		if err := t.agree(key, stone.encode()); err != nil {
			return err
		}
	}
	if err := t.agree(emptiedKey(p.key), purged{index, p.study}.encode()); err != nil {
		return err
	}
	t.small[string(spreadKey(p.id))] = nil
	t.sealed.count(p.size, p.spare(), -1)
	t.slot(p, packKey(p.study, p.series, p.id), -1)
	t.rows.set(goneKey(index, gonePack, p.id), nil)
	if err := t.agree(packKey(p.study, p.series, p.id), nil); err != nil {
		return err
	}
	return t.agree(purgedKey(p.id), purged{index, p.study}.encode())
}

func (t *txn) forgetFact(f *ForgetFact, node string, index uint64) (result, err error) {
	if f.Key == [16]byte{} {
		return fault.New(fault.Invalid, "catalog: no key is to be forgotten"), nil
	}
	k, err := t.key(f.Key)
	if err != nil {
		return nil, err
	}
	if k == nil {
		row, err := t.read(forgottenKey(f.Key))
		if err == nil && row == nil {
			result = fault.New(fault.NotFound, "catalog: a key that is to be forgotten is not known")
		}
		return result, err
	}
	for _, refused := range []func(*StudyKey, string) (error, error){t.mayForget, t.used} {
		if result, err := refused(k, node); result != nil || err != nil {
			return result, err
		}
	}
	row, err := t.read(emptiedKey(k.ID))
	if err != nil {
		return nil, err
	}
	if row != nil {
		last, err := decodePurged(row)
		if err != nil {
			return nil, err
		}
		if result, err := t.past(last.index, func(s Seen) uint64 { return s.Dropped }); result != nil || err != nil {
			return result, err
		}
	}
	t.rows.drop(keyOrderKey(k.At))
	t.rows.drop(keyStudyKey(k.Study, k.ID))
	t.rows.set(goneKey(index, goneStudyKey, k.ID), nil)
	t.sealed.Keys--
	for _, key := range [...][]byte{keyKey(k.ID), emptiedKey(k.ID)} {
		if err := t.agree(key, nil); err != nil {
			return nil, err
		}
	}
	return nil, t.agree(forgottenKey(k.ID), purged{index, k.Study}.encode())
}

// mayForget says whether a node may say that a key goes: its origin, if anything of the
// study was deleted and is past its grace; others, if the study was as a whole.
func (t *txn) mayForget(k *StudyKey, node string) (result, err error) {
	own := node == k.Origin
	if !own {
		gone, err := t.gone(k.Origin)
		if err != nil {
			return nil, err
		}
		accepted, err := t.acceptedIn(k.Study)
		if err != nil {
			return nil, err
		}
		if !gone || len(accepted) > 0 {
			return fault.New(fault.Denied, "catalog: only its origin knows whether a key may go"), nil
		}
	}
	any := false
	prefix := append(append([]byte{rowTombstone}, k.Study...), 0)
	whole := string(tombstoneKey(k.Study, "", ""))
	err = t.each(prefix, func(key string, row []byte) error {
		if any || !own && key != whole {
			return nil
		}
		stone, err := decodeTombstone([]byte(key), row)
		if err == nil {
			any, _, err = t.aged(stone)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if !any {
		return fault.New(fault.Conflict, "catalog: nothing of the study of a key is deleted and past its grace"), nil
	}
	if held, err := t.held(k.Study); held || err != nil {
		return fault.New(fault.Conflict, "catalog: a hold keeps a key"), err
	}
	return nil, nil
}

// used refuses a key that a pack is under.
func (t *txn) used(k *StudyKey, _ string) (result, err error) {
	err = t.each(packPrefix(k.Study, ""), func(key string, row []byte) error {
		p, err := decodePack([]byte(key), row)
		if err == nil && p.key == k.ID {
			result = fault.New(fault.Conflict, "catalog: a pack is under a key that is to be forgotten")
		}
		return err
	})
	return result, err
}

// wasPurged refuses a pack that was purged.
func (t *txn) wasPurged(id [16]byte) (refusal, err error) {
	if !t.ticked {
		return nil, nil
	}
	row, err := t.read(purgedKey(id))
	if err == nil && row != nil {
		refusal = fault.New(fault.Conflict, "catalog: the pack was purged")
	}
	return refusal, err
}

// wasForgotten refuses a key that was forgotten.
func (t *txn) wasForgotten(id [16]byte) (refusal, err error) {
	if !t.ticked {
		return nil, nil
	}
	row, err := t.read(forgottenKey(id))
	if err == nil && row != nil {
		refusal = fault.New(fault.Conflict, "catalog: the key was forgotten")
	}
	return refusal, err
}

// What is gone, as the rows in its order tell.
const (
	gonePack     = 0
	goneStudyKey = 1
)

func longHash(parts ...string) [32]byte { return blake3.Sum256([]byte(strings.Join(parts, "\x00"))) }
