package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// KindAccepted is the registry kind of versions that an operator accepted over a
// tombstone: one record for each series, under [AcceptedName], with what
// [AppendAccepted] makes. A tombstone does not cover an accepted version. A later
// tombstone of the same object takes the acceptance back.
const KindAccepted = "accepted"

const acceptedVersion = 1

// maxAccepted bounds the versions of one record.
const maxAccepted = 4096

// Accepted is the versions of a series that count although they were deleted, by
// SOP Instance UID: BLAKE3 of the data set.
type Accepted struct {
	Study, Series string
	Versions      map[string][32]byte
}

// AcceptedName is the name of a series' record.
func AcceptedName(study, series string) string {
	sum := blake3.Sum256(binary.AppendUvarint([]byte(study+series), uint64(len(study))))
	return hex.EncodeToString(sum[:16])
}

// Encode returns the record; nil when nothing is accepted.
func (a Accepted) Encode() []byte {
	if len(a.Versions) == 0 {
		return nil
	}
	b := []byte{acceptedVersion}
	b = appendString(appendString(b, a.Study), a.Series)
	b = binary.AppendUvarint(b, uint64(len(a.Versions)))
	uids := make([]string, 0, len(a.Versions))
	for uid := range a.Versions {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	for _, uid := range uids {
		hash := a.Versions[uid]
		b = append(appendString(b, uid), hash[:]...)
	}
	return b
}

// DecodeAccepted reads what Encode wrote.
func DecodeAccepted(b []byte) (Accepted, error) {
	d := &decoder{b: b}
	if v := d.byte(); !d.bad && v != acceptedVersion {
		return Accepted{}, fault.New(fault.Unsupported, "catalog: accepted versions of version %d", v)
	}
	a := Accepted{Study: d.string(), Series: d.string(), Versions: map[string][32]byte{}}
	n := d.uvarint()
	if n > maxAccepted {
		return a, fault.New(fault.Invalid, "catalog: %d accepted versions", n)
	}
	for ; n > 0 && !d.bad; n-- {
		uid := d.string()
		var hash [32]byte
		copy(hash[:], d.take(uint64(len(hash))))
		a.Versions[uid] = hash
	}
	return a, d.done("accepted versions")
}

// accept checks a record of accepted versions before it is written: its name is
// that of its series, of which something is deleted.
func (t *txn) accept(f *RegistryFact) (result, err error) {
	a, bad := DecodeAccepted(f.Value)
	if bad != nil {
		return bad, nil
	}
	if f.Name != AcceptedName(a.Study, a.Series) || !isUID(a.Study) || !isUID(a.Series) || len(a.Versions) == 0 {
		return fault.New(fault.Invalid, "catalog: accepted versions of no series"), nil
	}
	for uid := range a.Versions {
		if !isUID(uid) {
			return fault.New(fault.Invalid, "catalog: an accepted version of no instance"), nil
		}
		deleted, err := t.anyTombstone(a.Study, a.Series, uid)
		if err != nil {
			return nil, err
		}
		if !deleted {
			return fault.New(fault.Conflict, "catalog: a version of what is not deleted needs no acceptance"), nil
		}
	}
	if known := t.accepted[a.Study]; t.accepted != nil && !slices.Contains(known, f.Name) {
		t.accepted[a.Study] = append(known, f.Name)
	}
	return nil, t.putAccepted(f, a)
}

// unaccept drops a record of accepted versions.
func (t *txn) unaccept(f *RegistryFact) error {
	row, err := t.read(registryKey(f.Kind, f.Name))
	if err != nil || row == nil {
		return err
	}
	a, err := DecodeAccepted(row)
	if err != nil {
		return err
	}
	return t.putAccepted(f, a)
}

// putAccepted writes a record, or drops it, and decides again what tombstones cover.
func (t *txn) putAccepted(f *RegistryFact, a Accepted) error {
	t.buried = true
	value := f.Value
	if len(value) == 0 {
		value = nil
	}
	if err := t.agree(registryKey(f.Kind, f.Name), value); err != nil {
		return err
	}
	return t.cover(a.Study, a.Series)
}

// anyTombstone reports whether a tombstone names an instance, its series or study.
func (t *txn) anyTombstone(study, series, instance string) (bool, error) {
	for _, key := range [...][]byte{tombstoneKey(study, "", ""), tombstoneKey(study, series, ""), tombstoneKey(study, series, instance)} {
		row, err := t.read(key)
		if err != nil || row != nil {
			return row != nil, err
		}
	}
	return false, nil
}

// acceptedOf reads what is accepted of a series.
func (t *txn) acceptedOf(study, series string) (Accepted, bool, error) {
	row, err := t.read(registryKey(KindAccepted, AcceptedName(study, series)))
	if err != nil || row == nil {
		return Accepted{}, false, err
	}
	a, err := DecodeAccepted(row)
	return a, err == nil, err
}

// refuse takes back what is accepted under an object, and reports whether that
// was anything. With only asking nothing is changed.
func (t *txn) refuse(study, series, instance string, only bool) (any bool, err error) {
	names := []string{AcceptedName(study, series)}
	if series == "" {
		if names, err = t.acceptedIn(study); err != nil {
			return false, err
		}
	}
	for _, name := range names {
		key := registryKey(KindAccepted, name)
		row, err := t.read(key)
		if err != nil {
			return any, err
		}
		if row == nil {
			continue
		}
		a, err := DecodeAccepted(row)
		if err != nil {
			return any, err
		}
		if instance != "" {
			if _, ok := a.Versions[instance]; !ok {
				continue
			}
			delete(a.Versions, instance)
		} else {
			clear(a.Versions)
		}
		any = true
		if only {
			continue
		}
		if err := t.agree(key, a.Encode()); err != nil {
			return any, err
		}
	}
	return any, nil
}

// acceptedIn lists the names of the records of a study's series. It asks the
// records, and not the study: a node may know series of it that no other does.
func (t *txn) acceptedIn(study string) ([]string, error) {
	if t.accepted == nil {
		if err := t.loadAccepted(); err != nil {
			return nil, err
		}
	}
	return t.accepted[study], nil
}

// loadAccepted reads which records of accepted versions there are. They are few,
// for each is an operator's decision.
func (t *txn) loadAccepted() error {
	t.accepted = map[string][]string{}
	note := func(key string, row []byte) error {
		a, err := DecodeAccepted(row)
		t.accepted[a.Study] = append(t.accepted[a.Study], key[len(registryKey(KindAccepted, "")):])
		return err
	}
	prefix := registryKey(KindAccepted, "")
	it, err := t.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: read registry: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if _, changed := t.small[string(it.Key())]; changed {
			continue
		}
		if err := note(string(it.Key()), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read registry: %w", err)
	}
	for key, row := range t.small {
		if row != nil && strings.HasPrefix(key, string(prefix)) {
			if err := note(key, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// Accepted returns what is accepted of a series although it was deleted; false
// when nothing is.
func (c *Catalog) Accepted(study, series string) (Accepted, bool) {
	if !c.stones.Load() {
		return Accepted{}, false
	}
	row, err := c.RegistryRecord(KindAccepted, AcceptedName(study, series))
	if err != nil || row == nil {
		return Accepted{}, false // hiding is the safe side
	}
	a, err := DecodeAccepted(row)
	return a, err == nil
}

// Hidden reports whether a version of an instance is deleted: a tombstone covers
// it, and it is not accepted.
func (c *Catalog) Hidden(study, series, instance string, hash []byte) bool {
	if _, deleted := c.Deleted(study, series, instance); !deleted {
		return false
	}
	a, ok := c.Accepted(study, series)
	if !ok {
		return true
	}
	accepted, ok := a.Versions[instance]
	return !ok || string(accepted[:]) != string(hash)
}
