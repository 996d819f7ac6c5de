package archive

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
)

// A SOP Instance UID may have several versions: instances that were received
// under it, of which at most one that no tombstone covers is canonical.

// version is a stored instance under a SOP Instance UID.
type version struct{ *archivepb.Instance }

func (v version) ref() Ref {
	return Ref{
		Study: v.Study, Series: v.Series, SOP: v.Sop, Class: v.Class, Syntax: v.Syntax,
		Number: v.Number, Bytes: v.Bytes,
	}
}

// instance reads an instance record.
func (a *Archive) instance(number uint64) (*archivepb.Instance, bool, error) {
	value, ok, err := a.get(keyNumber(rowInstance, number))
	if err != nil || !ok {
		return nil, false, err
	}
	var r archivepb.Instance
	return &r, true, unmarshal(value, &r)
}

// hashPrefix is how much of an instance's hash its UID row repeats, so that an
// equal version among many is found without reading the others' records.
const hashPrefix = 16

// uidValue is the value of a UID row.
func uidValue(r *archivepb.Instance) []byte {
	return append([]byte{byte(r.State)}, r.Hash[:min(hashPrefix, len(r.Hash))]...)
}

// eachVersion visits what was received under a UID and is still held, oldest
// first. A sender that uses one UID for everything makes thousands of them:
// visit looks at the rows alone where that is enough.
func (a *Archive) eachVersion(sop string, visit func(number uint64, state archivepb.State, hash []byte) error) error {
	return a.each(prefixUID(sop), func(key, value []byte) error {
		if len(value) == 0 {
			return fault.New(fault.Corrupt, "store: an empty UID row")
		}
		return visit(numberOf(key), archivepb.State(value[0]), value[1:])
	})
}

// record reads an instance that a row refers to.
func (a *Archive) record(number uint64) (version, error) {
	r, ok, err := a.instance(number)
	if err == nil && !ok {
		err = fault.New(fault.Corrupt, "store: a row without its instance")
	}
	return version{r}, err
}

// canonical returns the canonical versions of a UID: more than one only if all
// but one are deleted.
func (a *Archive) canonical(sop string) ([]version, error) {
	var all []version
	err := a.eachVersion(sop, func(number uint64, state archivepb.State, _ []byte) error {
		if state != archivepb.State_CANONICAL {
			return nil
		}
		v, err := a.record(number)
		all = append(all, v)
		return err
	})
	return all, err
}

// judge compares an arrival with what is stored under its UID: it returns the
// stored instance if they are the same bytes, and otherwise sets the state
// under which the arrival is to be committed. Versions that are deleted do not
// count: what was deleted in one study may come again in another. A version
// whose bytes are lost is no reason to send the same ones away: the arrival takes
// its place (a canonical one with Against set).
func (a *Archive) judge(ctx context.Context, r *archivepb.Instance) (same *version, err error) {
	covered := a.covered(r)
	prefix := r.Hash[:hashPrefix]
	var against, replaces uint64
	err = a.eachVersion(r.Sop, func(number uint64, state archivepb.State, hash []byte) error {
		equal := bytes.Equal(hash, prefix) && state != archivepb.State_DISCARDED
		if state != archivepb.State_CANONICAL && !equal {
			return nil
		}
		v, err := a.record(number)
		if err != nil {
			return err
		}
		deleted := a.covered(v.Instance)
		if equal && bytes.Equal(v.Hash, r.Hash) && v.Syntax == r.Syntax && (!deleted || state == archivepb.State_QUARANTINED) {
			gone, err := a.gone(ctx, v.Instance)
			if err != nil {
				return err
			}
			if !gone {
				same = &v
				return errStop
			}
			if state == archivepb.State_CANONICAL {
				replaces = number
			}
			return nil
		}
		if state == archivepb.State_CANONICAL && !deleted {
			against = number
		}
		return nil
	})
	switch {
	case errors.Is(err, errStop):
		return same, nil
	case err != nil:
		return nil, err
	case covered:
		r.State = archivepb.State_QUARANTINED
	case against != 0:
		r.State, r.Against = archivepb.State_QUARANTINED, against
	case replaces != 0:
		r.Against = replaces
	}
	return nil, nil
}

// gone reports whether the bytes of an instance are known to be lost: its pack
// was in a rotten or missing table, or a start found rot in staging and it does
// not read back from there.
func (a *Archive) gone(ctx context.Context, r *archivepb.Instance) (bool, error) {
	location, err := a.location(r.Number)
	if err != nil {
		return false, err
	}
	if len(location.Pack) == 0 {
		if len(a.staging.Corruptions()) == 0 {
			return false, nil
		}
		err := a.readBack(ctx, r)
		if fault.Is(err, fault.Corrupt) {
			return true, nil
		}
		return false, err
	}
	id, err := packID(location.Pack)
	if err != nil {
		return false, err
	}
	p, err := a.pack(id)
	return err == nil && p.Lost, err
}

// replaceLost puts into the batch of an arrival that the version it replaces is
// dropped. It comes before the arrival's own rows, some of which have the same
// keys.
func (a *Archive) replaceLost(batch *pebble.Batch, r *archivepb.Instance) error {
	if r.State != archivepb.State_CANONICAL || r.Against == 0 {
		return nil
	}
	old, location, err := a.held(r.Against)
	if err != nil || old == nil {
		return err
	}
	return a.dropInstance(batch, old, location)
}

// covered reports whether a tombstone names the instance, its series or study, and
// nobody accepted this version over it.
func (a *Archive) covered(r *archivepb.Instance) bool {
	return a.catalog.Hidden(r.Study, r.Series, r.Sop, r.Hash)
}

// settleVersion finds out, once an arrival is durable, whether other bytes
// under a known UID are after all the same instance (DESIGN §2, Duplicates): in
// canonical form, or as a lossless rendition. It may be done again at any time.
func (a *Archive) settleVersion(ctx context.Context, r *archivepb.Instance) (Stored, error) {
	stored := Stored{Ref: version{r}.ref(), Outcome: Quarantined}
	if r.Against == 0 {
		stored.Deleted = true
		return stored, nil
	}
	against, ok, err := a.instance(r.Against)
	if err != nil || !ok {
		return stored, err
	}
	relation, err := a.compare(ctx, r, against)
	if err != nil {
		// The instance is durable and quarantined: that is a success. It is
		// compared again when it is sent again, or by an operator.
		a.log.Warn("comparing versions of an instance failed", "number", r.Number, "error", err)
		return stored, nil
	}
	switch relation {
	case sameForm:
		if err := a.setState(r.Number, archivepb.State_DROPPED); err != nil {
			return stored, err
		}
		return Stored{Ref: version{against}.ref(), Outcome: Same}, nil
	case rendition:
		if err := a.setState(r.Number, archivepb.State_RENDITION); err != nil {
			return stored, err
		}
		stored.Outcome = Rendition
	}
	return stored, nil
}

// setState changes what an instance is to readers, durably.
func (a *Archive) setState(number uint64, state archivepb.State) error {
	staged, err := a.setStateRows(number, state)
	if err != nil || staged == nil {
		return err
	}
	return a.release(staged)
}

// setStateRows commits the change; it returns the staged bytes that the
// instance has left by it, if any.
func (a *Archive) setStateRows(number uint64, state archivepb.State) (staged *archivepb.Location, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	r, location, err := a.held(number)
	if err != nil || r == nil || r.State == state {
		return nil, err
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	if state == archivepb.State_DROPPED {
		err = a.dropInstance(batch, r, location)
		if len(location.Pack) == 0 {
			staged = location
		}
	} else {
		err = changeState(batch, r, state)
	}
	if err == nil {
		err = fmtStore(batch.Commit(pebble.Sync))
	}
	return staged, err
}

// changeState puts the rows of a state change into a batch and sets r.State.
func changeState(b *pebble.Batch, r *archivepb.Instance, state archivepb.State) error {
	if err := leaveState(b, r); err != nil {
		return err
	}
	r.State = state
	if err := b.Set(keyNumber(rowInstance, r.Number), marshal(r), nil); err != nil {
		return err
	}
	return putState(b, r)
}

// leaveState deletes the rows by which an instance is found in its state.
func leaveState(b *pebble.Batch, r *archivepb.Instance) error {
	switch r.State {
	case archivepb.State_CANONICAL:
		return b.Delete(keySeries(r.Study, r.Series, r.Sop), nil)
	case archivepb.State_QUARANTINED:
		return b.Delete(keyNumber(rowReview, r.Number), nil)
	case archivepb.State_DISCARDED:
		return b.Delete(keyNumber(rowDiscard, r.Number), nil)
	}
	return nil
}

// putState writes the rows by which an instance is found in its state.
func putState(b *pebble.Batch, r *archivepb.Instance) error {
	if err := b.Set(keyUID(r.Sop, r.Number), uidValue(r), nil); err != nil {
		return err
	}
	switch r.State {
	case archivepb.State_CANONICAL:
		l := listing{number: r.Number, bytes: r.Bytes, class: r.Class, syntax: r.Syntax}
		if err := b.Set(keySeries(r.Study, r.Series, r.Sop), l.append(nil), nil); err != nil {
			return err
		}
		return b.Set(keyParent(r.Series, r.Study), nil, nil)
	case archivepb.State_QUARANTINED:
		return b.Set(keyNumber(rowReview, r.Number), nil, nil)
	case archivepb.State_DISCARDED:
		return b.Set(keyNumber(rowDiscard, r.Number), nil, nil)
	}
	return nil
}

// dropInstance takes an instance's rows: its bytes go once the batch is synced.
// What stays is its record, for staging may replay the arrival for as long as
// its segment is there (see replayer).
func (a *Archive) dropInstance(b *pebble.Batch, r *archivepb.Instance, at *archivepb.Location) error {
	if err := leaveState(b, r); err != nil {
		return err
	}
	r.State = archivepb.State_DROPPED
	return errors.Join(
		b.Set(keyNumber(rowInstance, r.Number), marshal(r), nil),
		b.Set(keyNumber(rowDropped, r.Number), nil, nil),
		leavePack(b, at, r.Number),
		b.Delete(keyUID(r.Sop, r.Number), nil),
		a.dropHeader(b, r),
		b.Delete(keyNumber(rowLocation, r.Number), nil),
		b.Delete(keyQueue(r.Study, r.Series, r.Number), nil),
	)
}

// Decision is what an operator does with a quarantined instance.
type Decision uint8

const (
	Accept  Decision = iota // it becomes canonical; the former canonical one is quarantined in its place
	Discard                 // it goes once the delete grace has passed
)

// Decide carries out an operator's decision. fault.NotFound when the instance
// is not quarantined. One that a tombstone covers is accepted over it: it counts at
// every site, and what was deleted stays so.
func (a *Archive) Decide(ctx context.Context, number uint64, decision Decision) error {
	r, ok, err := a.instance(number)
	if err != nil {
		return err
	}
	if !ok {
		return errNoReview(number)
	}
	release, err := a.arrival.enter(ctx, r.Sop)
	if err != nil {
		return err
	}
	defer release()
	if decision == Accept && r.State == archivepb.State_QUARANTINED {
		if err := a.acceptOver(ctx, r); err != nil {
			return err
		}
	}
	changed, err := a.decideRows(number, decision)
	if err != nil {
		return err
	}
	return a.again(ctx, changed)
}

func errNoReview(number uint64) error {
	return fault.New(fault.NotFound, "no quarantined instance numbered %d", number)
}

// decideRows commits a decision and returns the series whose facts it changes.
func (a *Archive) decideRows(number uint64, decision Decision) (changed []seriesName, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	r, _, err := a.held(number)
	if err != nil {
		return nil, err
	}
	if r == nil || r.State != archivepb.State_QUARANTINED {
		return nil, errNoReview(number)
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	r.Decided = time.Now().UnixMicro()
	switch {
	case decision == Discard:
		err = changeState(batch, r, archivepb.State_DISCARDED)
	case a.covered(r):
		err = fault.New(fault.Conflict, "instance %d has just been deleted", number)
	default:
		changed, err = a.accept(batch, r)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range changed {
		if err := batch.Set(keyAgain(name), nil, nil); err != nil {
			return nil, err
		}
	}
	return changed, fmtStore(batch.Commit(pebble.Sync))
}

// acceptOver has the network accept a version that a tombstone covers. Doing it
// again changes nothing.
func (a *Archive) acceptOver(ctx context.Context, r *archivepb.Instance) error {
	if !a.covered(r) {
		return nil
	}
	name := catalog.AcceptedName(r.Study, r.Series)
	before, err := a.catalog.RegistryRecord(catalog.KindAccepted, name)
	if err != nil {
		return err
	}
	accepted := catalog.Accepted{Study: r.Study, Series: r.Series, Versions: map[string][32]byte{}}
	if before != nil {
		if accepted, err = catalog.DecodeAccepted(before); err != nil {
			return err
		}
	}
	accepted.Versions[r.Sop] = [32]byte(r.Hash)
	results, err := a.o.Decide.Decide(ctx, []catalog.Condition{catalog.If(catalog.KindAccepted, name, before)},
		&catalog.RegistryFact{Kind: catalog.KindAccepted, Name: name, Value: accepted.Encode()})
	return errors.Join(append(results, err)...)
}

// accept makes a quarantined instance canonical in a batch.
func (a *Archive) accept(batch *pebble.Batch, r *archivepb.Instance) (changed []seriesName, err error) {
	former, err := a.canonical(r.Sop)
	if err != nil {
		return nil, err
	}
	for _, v := range former {
		if a.covered(v.Instance) {
			// What was deleted gives its place in the series up: it goes after the grace.
			if v.Study == r.Study && v.Series == r.Series {
				v.Decided = r.Decided
				if err := changeState(batch, v.Instance, archivepb.State_DISCARDED); err != nil {
					return nil, err
				}
			}
			continue
		}
		v.Against = r.Number
		if err := changeState(batch, v.Instance, archivepb.State_QUARANTINED); err != nil {
			return nil, err
		}
		changed = append(changed, seriesName{v.Study, v.Series})
	}
	r.Against = 0
	return append(changed, seriesName{r.Study, r.Series}), changeState(batch, r, archivepb.State_CANONICAL)
}

// relation is how two versions relate.
type relation uint8

const (
	differ relation = iota
	sameForm
	rendition
)

// compare relates two stored versions by content.
func (a *Archive) compare(ctx context.Context, r, against *archivepb.Instance) (relation, error) {
	if bytes.Equal(r.Hash, against.Hash) && r.Syntax == against.Syntax {
		return sameForm, nil
	}
	one, err := a.Open(ctx, version{r}.ref())
	if err != nil {
		return differ, err
	}
	defer one.Close()
	other, err := a.Open(ctx, version{against}.ref())
	if err != nil {
		return differ, err
	}
	defer other.Close()
	if !one.Header().Syntax.Uncompressed() || !other.Header().Syntax.Uncompressed() {
		same, err := sameImage(one, other)
		if err != nil || !same {
			return differ, err
		}
		return rendition, nil
	}
	first, err := canonicalHash(one)
	if err != nil {
		return differ, err
	}
	second, err := canonicalHash(other)
	if err != nil || first != second {
		return differ, err
	}
	return sameForm, nil
}
