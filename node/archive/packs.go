package archive

import (
	"context"
	"encoding/hex"
	"errors"

	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
)

// EachPack visits this node's packs behind an id, ascending, until visit returns
// false; zeros begin. Those that come meanwhile are among them or not. It holds no
// lock and no iterator while visit runs, which may take its time.
func (a *Archive) EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error {
	from := keyPack(after)
	if after != (pack.ID{}) {
		from = append(from, 0)
	}
	err := a.pagesFrom(from, []byte{rowPack + 1}, func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var p archivepb.Pack
		if err := unmarshal(value, &p); err != nil {
			a.log.Error("a pack's record does not parse", "pack", hex.EncodeToString(key[1:]), "error", err)
			return nil // verify names it; the others are to be visited
		}
		more, err := visit(&p)
		if err == nil && !more {
			return errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// PackInfo is a pack as an operator sees it.
type PackInfo struct {
	ID        string // hexadecimal; "staging" for what is not packed yet
	Series    string
	Instances int
	Bytes     int64 // at rest
	Lost      bool
	Evicted   bool // it is read from its shards; Bytes are what it had here
}

// Packs lists where a study rests: its packs, and staging if anything of it is
// still there.
func (a *Archive) Packs(ctx context.Context, study string) ([]PackInfo, error) {
	var all []PackInfo
	at := map[string]int{}
	for ref, err := range a.list(ctx, keySeries(study, "", "")) {
		if err != nil {
			return nil, err
		}
		location, err := a.location(ref.Number)
		if err != nil {
			return nil, err
		}
		id := "staging"
		if len(location.Pack) > 0 {
			id = hex.EncodeToString(location.Pack)
		}
		i, ok := at[id]
		if !ok {
			i = len(all)
			at[id] = i
			info, err := a.packInfo(id, location)
			if err != nil {
				return nil, err
			}
			info.Series = ref.Series
			all = append(all, info)
		}
		all[i].Instances++
		if id == "staging" {
			all[i].Bytes += ref.Bytes
		}
	}
	return all, nil
}

func (a *Archive) packInfo(id string, location *archivepb.Location) (PackInfo, error) {
	info := PackInfo{ID: id}
	if len(location.Pack) == 0 {
		return info, nil
	}
	pack, err := packID(location.Pack)
	if err != nil {
		return info, err
	}
	p, err := a.pack(pack)
	if err != nil {
		return info, err
	}
	info.Bytes, info.Lost, info.Evicted = p.BlobBytes, p.Lost, p.Evicted
	return info, nil
}
