package archive

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk"
	"pelago/shard/pack"
)

// adopt points the instances at their packs with one synced batch, and only
// then lets staging and the packs that they came from go.
func (a *Archive) adopt(built []*building, refs []bulk.Ref) error {
	moved, err := a.adoptRows(built, refs)
	if err != nil {
		return err
	}
	var errs []error
	for _, old := range moved {
		if len(old.Pack) == 0 {
			errs = append(errs, a.release(old))
		}
	}
	return errors.Join(errors.Join(errs...), a.dropEmpty())
}

// announce makes it durable that a table is about to be ingested: if a crash
// keeps its packs from being named, the next start drops them.
func (a *Archive) announce(table uint64) error {
	return fmtStore(a.store.Set(keyNumber(rowTable, table), nil, pebble.Sync))
}

// adoptRows commits the rows of a table's packs and returns where the instances
// rested before. Since the packs were written, some may have been dropped.
func (a *Archive) adoptRows(built []*building, refs []bulk.Ref) (moved []*archivepb.Location, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	var raw int64
	for i, one := range built {
		ref := refs[i]
		one.record.Space, one.record.Table = uint32(ref.Space), ref.Table
		one.record.Blob, one.record.BlobBytes = ref.Blob, ref.Bytes
		live := 0
		for j, number := range one.numbers {
			r, old, err := a.held(number)
			if err != nil {
				return nil, err
			}
			if r == nil {
				continue
			}
			live++
			raw += r.Bytes
			moved = append(moved, old)
			location := packedLocation(one.id, &one.entries[j])
			if err := errors.Join(
				leavePack(batch, old, number),
				batch.Set(keyNumber(rowLocation, number), marshal(location), nil),
				batch.Set(keyMember(one.id, number), nil, nil),
				batch.Delete(keyQueue(r.Study, r.Series, number), nil),
			); err != nil {
				return nil, err
			}
		}
		if err := batch.Set(keyPack(one.id), marshal(one.record), nil); err != nil {
			return nil, err
		}
		if live == 0 {
			if err := batch.Set(keyEmpty(one.id), nil, nil); err != nil {
				return nil, err
			}
		}
	}
	if err := batch.Delete(keyNumber(rowTable, refs[0].Table), nil); err != nil {
		return nil, err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return nil, fmtStore(err)
	}
	a.stats.PackedInstances.Add(uint64(len(moved)))
	a.stats.PackedRaw.Add(uint64(raw))
	for _, ref := range refs {
		a.stats.PackedBytes.Add(uint64(ref.Bytes))
	}
	return moved, nil
}

// held returns an instance's record and where it rests; nil if it was dropped.
func (a *Archive) held(number uint64) (*archivepb.Instance, *archivepb.Location, error) {
	r, ok, err := a.instance(number)
	if err != nil || !ok || r.State == archivepb.State_DROPPED {
		return nil, nil, err
	}
	location, err := a.location(number)
	if err != nil {
		return nil, nil, err
	}
	return r, location, nil
}

// release lets go of staged bytes that a synced batch has made superfluous. An
// arrival that was released before is no error: a start releases what a crash
// kept from it.
func (a *Archive) release(l *archivepb.Location) error {
	if err := a.staging.Release(placed(l)); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// leavePack notes in a batch that an instance no longer rests in its pack, if
// it did.
func leavePack(b *pebble.Batch, old *archivepb.Location, number uint64) error {
	if len(old.Pack) == 0 {
		return nil
	}
	id, err := packID(old.Pack)
	if err != nil {
		return err
	}
	return errors.Join(b.Delete(keyMember(id, number), nil), b.Set(keyEmpty(id), nil, nil))
}

// packsUnder are the packs that have a row of a kind whose key is their id.
func (a *Archive) packsUnder(kind byte) (ids []pack.ID, err error) {
	err = a.each([]byte{kind}, func(key, _ []byte) error {
		id, err := packID(key[1:])
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// dropEmpty deletes the packs that the last instance has left by a synced
// batch. It runs at every start too, so that a crash in the middle is finished.
func (a *Archive) dropEmpty() error {
	left, err := a.packsUnder(rowEmpty)
	if err != nil {
		return err
	}
	for _, id := range left {
		if err := a.dropPack(id); err != nil {
			return err
		}
	}
	return nil
}

// dropPack deletes a pack without members: first its bytes, then the rows that
// say it must be deleted.
func (a *Archive) dropPack(id pack.ID) error {
	empty, err := a.none(prefixMember(id))
	if err != nil {
		return err
	}
	if !empty {
		return fmtStore(a.store.Delete(keyEmpty(id), pebble.Sync))
	}
	if sealed, err := a.sealed(id); sealed || err != nil {
		return err // other nodes have shards of it: it goes with those
	}
	p, err := a.pack(id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil {
		if err := a.bulk.Delete(packRef(p)); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	lost, err := a.dropPackRows(id)
	if err != nil || !lost {
		return err
	}
	return a.lookForDamage()
}

// dropPackRows deletes the rows of a pack, and reports whether it was lost.
func (a *Archive) dropPackRows(id pack.ID) (lost bool, err error) {
	a.changing.Lock() // nobody writes the pack's row behind us
	defer a.changing.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	p, err := a.pack(id)
	switch {
	case err == nil:
		lost, err = p.Lost, batch.Delete(keyLost(p), nil)
	case fault.Is(err, fault.NotFound):
		err = nil
	}
	if err = errors.Join(err, batch.Delete(keyEmpty(id), nil), batch.Delete(keyPack(id), nil)); err != nil {
		return false, err
	}
	return lost, fmtStore(batch.Commit(pebble.Sync))
}

// Manifest reads a pack's manifest back from bulk/.
func (a *Archive) Manifest(id pack.ID) (*pack.Manifest, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, err
	}
	plaintext, err := a.openPack(id)
	if err != nil {
		return nil, err
	}
	size := p.Plaintext - p.Manifest
	if size < 0 || size > maxManifest {
		return nil, fault.New(fault.Corrupt, "store: a pack with a manifest of %d bytes", size)
	}
	b := make([]byte, size)
	if err := readFull(io.NewSectionReader(plaintext, p.Manifest, size), b, 0); err != nil {
		return nil, err
	}
	return pack.ParseManifest(b)
}

// maxManifest bounds a manifest: the headers of a pack's instances, compressed.
const maxManifest = 1 << 30
