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

// Evict gives the bytes of a pack up: they are read from its shards from then on
// (Options.Evicted). Its instances and all their rows stay. That is durable before a
// byte goes. It returns how many bytes of bulk/ are dead by it; 0 for a pack that was
// evicted before. Whether the shards are really there is for the caller to know:
// nothing is looked at here. fault.NotFound if there is no such pack; fault.Corrupt if
// it is lost, for what its shards are worth is being found out; fault.Unsupported
// where nothing could read it then.
func (a *Archive) Evict(id pack.ID) (freed int64, err error) {
	if a.o.Evicted == nil {
		return 0, fault.New(fault.Unsupported, "nothing reads evicted packs here")
	}
	a.still.Lock() // no backup has the row before and the blob after
	defer a.still.Unlock()
	p, err := a.markEvicted(id)
	if err != nil || p == nil {
		return 0, err
	}
	a.packs.Forget(id, func(io.ReaderAt) bool { return true })
	return p.BlobBytes, a.dropEvicted(id, packRef(p))
}

// markEvicted makes it durable that a pack is evicted, and its blob to be deleted;
// nil if it was before.
func (a *Archive) markEvicted(id pack.ID) (*archivepb.Pack, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	p, err := a.pack(id)
	switch {
	case err != nil:
		return nil, err
	case p.Evicted:
		return nil, nil //nolint:nilnil // there is nothing to be done
	case p.Lost:
		return nil, fault.New(fault.Corrupt, "a pack that is lost is not evicted")
	}
	p.Evicted = true
	batch := a.store.NewBatch()
	defer batch.Close()
	err = errors.Join(batch.Set(keyPack(id), marshal(p), nil), batch.Set(keyGone(id), nil, nil))
	if err == nil {
		err = fmtStore(batch.Commit(pebble.Sync))
	}
	return p, err
}

// dropEvicted deletes the blob of a pack that a durable row says is evicted.
func (a *Archive) dropEvicted(id pack.ID, ref bulk.Ref) error {
	if err := a.bulk.Delete(ref); err != nil && !fault.Is(err, fault.NotFound) {
		return err // the row stays: the next start deletes it
	}
	return fmtStore(a.store.Delete(keyGone(id), pebble.NoSync))
}

// finishEvicting deletes the blobs that a crash kept from being deleted.
func (a *Archive) finishEvicting() error {
	left, err := a.packsUnder(rowGone)
	if err != nil {
		return err
	}
	for _, id := range left {
		p, err := a.pack(id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err != nil || !p.Evicted { // purged since, with its blob
			if err := a.store.Delete(keyGone(id), pebble.NoSync); err != nil {
				return fmtStore(err)
			}
			continue
		}
		if err := a.dropEvicted(id, packRef(p)); err != nil {
			return err
		}
	}
	return nil
}

// ciphertext reads a pack's bytes wherever they are at the time of each read: a pack
// may be evicted while somebody reads it.
func (a *Archive) ciphertext(id pack.ID, p *archivepb.Pack) (io.ReaderAt, error) {
	if p.Evicted {
		return a.fromShards(p)
	}
	return &hot{a: a, id: id, from: a.bulk.Reader(packRef(p))}, nil
}

// Recall returns a pack and its ciphertext: of one that was evicted as its shards tell
// it, which is as slow as they are far. fault.NotFound if there is no such pack,
// fault.Corrupt for one that is lost; reads of one that is evicted fail as
// Options.Evicted does.
func (a *Archive) Recall(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, nil, err
	}
	if p.Lost {
		return nil, nil, fault.New(fault.Corrupt, "the pack is lost to a rotten or missing table")
	}
	from, err := a.ciphertext(id, p)
	return p, from, err
}

// fromShards reads an evicted pack.
func (a *Archive) fromShards(p *archivepb.Pack) (io.ReaderAt, error) {
	if a.o.Evicted == nil {
		return nil, fault.New(fault.Unavailable, "the pack of this instance is evicted, and nothing reads its shards here")
	}
	return a.o.Evicted(p)
}

// hot reads a hot copy, and from its shards once it is evicted.
type hot struct {
	a    *Archive
	id   pack.ID
	from io.ReaderAt
}

func (h *hot) ReadAt(b []byte, off int64) (int, error) {
	n, err := h.from.ReadAt(b, off)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return n, err
	}
	p, lookErr := h.a.pack(h.id)
	if lookErr != nil || !p.Evicted {
		return n, err
	}
	from, shardsErr := h.a.fromShards(p)
	if shardsErr != nil {
		return 0, shardsErr
	}
	return from.ReadAt(b, off)
}

// evicted reports whether an instance rests in a pack that was evicted.
func (a *Archive) evicted(number uint64) (bool, error) {
	location, err := a.location(number)
	if err != nil || len(location.Pack) == 0 {
		return false, err
	}
	id, err := packID(location.Pack)
	if err != nil {
		return false, err
	}
	p, err := a.pack(id)
	return err == nil && p.Evicted, err
}
