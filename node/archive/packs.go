package archive

import (
	"context"
	"encoding/hex"

	"pelago/node/archive/archivepb"
)

// PackInfo is a pack as an operator sees it.
type PackInfo struct {
	ID        string // hexadecimal; "staging" for what is not packed yet
	Series    string
	Instances int
	Bytes     int64 // at rest
	Lost      bool
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
	info.Bytes, info.Lost = p.BlobBytes, p.Lost
	return info, nil
}
