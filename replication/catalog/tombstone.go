package catalog

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// Tombstone is one that is committed.
type Tombstone struct {
	TombstoneFact
	At     uint64 // seconds of the network's clock when it was committed; 0: before that began
	Index  uint64 // of the entry that it came in; 0: it was before the clock began
	Purged uint64 // index of the last entry that gave up a pack because of it; 0: none has
}

// tombstoneVersion is of those from before the clock began; a network whose clock has
// begun has only readers that know the next.
const (
	tombstoneVersion = 1
	timedVersion     = 2
)

func (f *Tombstone) encode() []byte {
	version := byte(tombstoneVersion)
	timed := f.At != 0 || f.Index != 0 || f.Purged != 0
	if timed {
		version = timedVersion
	}
	b := appendString(binary.AppendVarint([]byte{version}, f.Tick), f.By)
	if timed {
		for _, v := range [...]uint64{f.At, f.Index, f.Purged} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func decodeTombstone(key, row []byte) (*Tombstone, error) {
	d := &decoder{b: row}
	v := d.byte()
	if !d.bad && v != tombstoneVersion && v != timedVersion {
		return nil, fault.New(fault.Unsupported, "catalog: tombstone of version %d", v)
	}
	f := &Tombstone{}
	f.Tick, f.By = d.varint(), d.string()
	if v == timedVersion {
		f.At, f.Index, f.Purged = d.uvarint(), d.uvarint(), d.uvarint()
	}
	if err := d.done("tombstone"); err != nil {
		return nil, err
	}
	uids := strings.Split(string(key[1:]), "\x00")
	if len(uids) != 3 {
		return nil, fault.New(fault.Corrupt, "catalog: a tombstone names %d UIDs", len(uids))
	}
	f.Study, f.Series, f.Instance = uids[0], uids[1], uids[2]
	return f, nil
}

// isObject reports whether UIDs name a study, a series or an instance.
func isObject(study, series, instance string) bool {
	return isUID(study) && (series == "" || isUID(series)) && (instance == "" || series != "" && isUID(instance))
}

func (t *txn) tombstoneFact(f *TombstoneFact, index uint64) (result, err error) {
	if !isObject(f.Study, f.Series, f.Instance) || len(f.By) > maxName {
		return fault.New(fault.Invalid, "catalog: a tombstone names no object"), nil
	}
	key := tombstoneKey(f.Study, f.Series, f.Instance)
	row, err := t.read(key)
	if err != nil {
		return nil, err
	}
	accepted, err := t.refuse(f.Study, f.Series, f.Instance, false)
	if err != nil || row != nil && !accepted {
		return nil, err
	}
	t.stones, t.buried = true, true // the grace of what was accepted begins now
	stone := Tombstone{TombstoneFact: *f}
	if t.ticked {
		c, err := records(t.read).clock()
		if err != nil {
			return nil, err
		}
		stone.At, stone.Index = c.Seconds, index
	}
	if err := t.agree(key, stone.encode()); err != nil {
		return nil, err
	}
	if f.Instance != "" && !accepted {
		return nil, nil // no record: its origin announces the lower count
	}
	return nil, t.cover(f.Study, f.Series) // what was accepted of an instance may have shown its series
}

func (t *txn) restoreFact(f *RestoreFact) (result, err error) {
	if !isObject(f.Study, f.Series, f.Instance) {
		return fault.New(fault.Invalid, "catalog: a restore names no object"), nil
	}
	key := tombstoneKey(f.Study, f.Series, f.Instance)
	row, err := t.read(key)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return fault.New(fault.NotFound, "catalog: nothing to restore"), nil
	}
	stone, err := decodeTombstone(key, row)
	if err != nil {
		return nil, err
	}
	if late, err := t.late(f, stone); late || err != nil {
		return fault.New(fault.Conflict, "catalog: deleted too long ago to be restored"), err
	}
	accepted, err := t.refuse(f.Study, f.Series, f.Instance, true)
	if err != nil {
		return nil, err
	}
	if accepted {
		return fault.New(fault.Conflict, "catalog: another version was accepted in place of what was deleted"), nil
	}
	t.buried = true
	if err := t.agree(key, nil); err != nil {
		return nil, err
	}
	if f.Instance != "" {
		return nil, nil
	}
	return nil, t.cover(f.Study, f.Series)
}

// late reports whether a tombstone has stood for too long to be taken back: by the
// network's clock, once that has begun, and for ever when something was purged by it.
func (t *txn) late(f *RestoreFact, stone *Tombstone) (bool, error) {
	if !t.ticked {
		return f.Tick-stone.Tick > DeleteGraceSeconds, nil
	}
	aged, _, err := t.aged(stone)
	return aged || stone.Purged != 0, err
}

// cover decides again whether tombstones cover a series or, with an empty one, which
// series of a study they do.
func (t *txn) cover(study, series string) error {
	st, err := t.study(study, false)
	if err != nil || st == nil {
		return err
	}
	if series == "" {
		if err := st.loadAll(); err != nil {
			return err
		}
	} else if _, err := st.findSeries(series); err != nil {
		return err
	}
	for uid, x := range st.loaded {
		if series != "" && series != uid || x.cur == nil {
			continue
		}
		deleted, err := t.covered(study, uid)
		if err != nil {
			return err
		}
		if x.cur.deleted != deleted {
			x.cur.deleted, x.changed, st.refold = deleted, true, true
		}
	}
	return nil
}

// covered reports whether a tombstone covers all of a series.
func (t *txn) covered(study, series string) (bool, error) {
	if !t.stones {
		return false, nil
	}
	for _, uid := range [...]string{"", series} {
		row, err := t.read(tombstoneKey(study, uid, ""))
		if err != nil {
			return false, err
		}
		if row != nil {
			_, accepted, err := t.acceptedOf(study, series)
			return !accepted, err
		}
	}
	return false, nil
}

// coveredIn reports whether a tombstone covers all of a series, among rows as they
// are committed; without any stones none does.
func coveredIn(r pebble.Reader, study, series string, stones bool) (bool, error) {
	if !stones {
		return false, nil
	}
	for _, uid := range [...]string{"", series} {
		stone, err := get(r, tombstoneKey(study, uid, ""))
		if err != nil {
			return false, err
		}
		if stone != nil {
			accepted, err := get(r, registryKey(KindAccepted, AcceptedName(study, series)))
			return accepted == nil, err
		}
	}
	return false, nil
}

// Deleted returns the tombstone that covers an instance (or series, or study,
// with the lower UIDs empty), if any: the widest.
func (c *Catalog) Deleted(study, series, instance string) (*TombstoneFact, bool) {
	if !c.stones.Load() { // asked for every instance that is stored or selected
		return nil, false
	}
	keys := [][]byte{tombstoneKey(study, "", "")}
	if series != "" {
		keys = append(keys, tombstoneKey(study, series, ""))
	}
	if series != "" && instance != "" {
		keys = append(keys, tombstoneKey(study, series, instance))
	}
	for _, key := range keys {
		row, err := get(c.db, key)
		if row == nil && err == nil {
			continue
		}
		if err == nil {
			var f *Tombstone
			if f, err = decodeTombstone(key, row); err == nil {
				return &f.TombstoneFact, true
			}
		}
		// A tombstone that cannot be read still stands: hiding is the safe side.
		return &TombstoneFact{Study: study, Series: series, Instance: instance}, true
	}
	return nil, false
}

// TombstonesChanged is as [Catalog.RegistryChanged], of tombstones.
func (c *Catalog) TombstonesChanged() uint64 { return c.tombstoneChanges.Load() }

// Tombstones yields all tombstones in key order.
func (c *Catalog) Tombstones(ctx context.Context) iter.Seq2[*Tombstone, error] {
	return func(yield func(*Tombstone, error) bool) {
		it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowTombstone}, UpperBound: after([]byte{rowTombstone})})
		if err != nil {
			yield(nil, fmt.Errorf("catalog: read tombstones: %w", err))
			return
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			f, err := decodeTombstone(it.Key(), it.Value())
			if !yield(f, err) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(nil, fmt.Errorf("catalog: read tombstones: %w", err))
		}
	}
}
