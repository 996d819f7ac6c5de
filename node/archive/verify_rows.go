package archive

import (
	"context"
	"fmt"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk"
	"pelago/shard/pack"
)

// verifyPacks compares the packs that rows name with the blobs that bulk holds,
// and reads every pack's manifest.
func (a *Archive) verifyPacks(ctx context.Context, report *Report) error {
	found, err := a.comparePacks(ctx, report)
	if err != nil {
		return err
	}
	for _, id := range found {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, err := a.Manifest(id)
		if err == nil {
			continue
		}
		if _, gone := a.pack(id); !fault.Is(gone, fault.NotFound) { // emptied since
			report.add("hash", fmt.Sprintf("pack %x", id[:]), err.Error())
		}
	}
	return nil
}

// comparePacks holds rows and blobs against each other while neither changes,
// and returns the packs that have both.
func (a *Archive) comparePacks(ctx context.Context, report *Report) (found []pack.ID, err error) {
	a.still.Lock()
	defer a.still.Unlock()
	blobs := map[bulk.Ref]bool{}
	if err := a.bulk.Refs(bulk.Hot, func(r bulk.Ref) error { blobs[r] = true; return nil }); err != nil {
		return nil, err
	}
	err = a.each([]byte{rowPack}, func(key, value []byte) error {
		report.Packs++
		object := fmt.Sprintf("pack %x", key[1:])
		var p archivepb.Pack
		err := unmarshal(value, &p)
		var id pack.ID
		if err == nil {
			id, err = packID(p.Id)
		}
		if err != nil {
			report.add("reference", object, err.Error())
			return context.Cause(ctx)
		}
		ref := packRef(&p)
		switch {
		case p.Evicted:
			report.Evicted++
		case p.Lost:
			report.add("table", object, "lost to a rotten or missing table")
			if _, ok, err := a.get(keyLost(&p)); err != nil || !ok {
				report.add("reference", object, "no row says to queries that it is lost")
			}
		case !blobs[ref]:
			report.add("table", object, "bulk/ holds no such blob")
		default:
			found = append(found, id)
		}
		delete(blobs, ref)
		return context.Cause(ctx)
	})
	if err != nil {
		return nil, err
	}
	for ref := range blobs {
		if _, begun, err := a.get(keyNumber(rowTable, ref.Table)); err != nil || !begun {
			report.add("table", fmt.Sprintf("table %d blob %d", ref.Table, ref.Blob), "no row names this blob")
		}
	}
	return found, nil
}

// verifyListings checks every series row, and compares the catalogue's counts
// with them.
func (a *Archive) verifyListings(ctx context.Context, report *Report, catalogue known) error {
	if err := catalogue.settle(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		report.add("catalogue", "journal", err.Error())
	}
	var last seriesName
	err := a.pages([]byte{rowSeries}, func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		uids, _, ok := splitUIDs(key[1:], 3)
		l, fine := parseListing(value)
		if !ok || !fine {
			report.add("reference", "series row", "does not parse")
			return nil
		}
		if name := (seriesName{uids[0], uids[1]}); name != last {
			last = name
			if err := a.verifySeries(ctx, report, name, catalogue); err != nil {
				return err
			}
		}
		r, ok, err := a.instance(l.number)
		if err == nil && (!ok || r.Sop != uids[2] || r.State != archivepb.State_CANONICAL) {
			if now, still, _ := a.get(key); !still || string(now) != string(value) { // changed since
				return nil
			}
			err = fault.New(fault.Corrupt, "names an instance that is not canonical")
		}
		if err != nil {
			report.add("reference", "series row of "+uids[2], err.Error())
		}
		return nil
	})
	return err
}

// recounts is how often a series is counted again that seems wrong: it may be
// growing.
const recounts = 3

// verifySeries compares the catalogue's count of a series with what is here.
func (a *Archive) verifySeries(ctx context.Context, report *Report, name seriesName, catalogue known) error {
	if name.study == ReservedStudy || !catalogue.has(name) {
		return nil
	}
	wrong := ""
	for try := 0; try == 0 || wrong != "" && try < recounts; try++ {
		if try > 0 {
			if err := catalogue.settle(ctx); err != nil && ctx.Err() != nil {
				return err
			}
		}
		if _, deleted := a.catalog.Deleted(name.study, name.series, ""); deleted {
			if _, some := a.catalog.Accepted(name.study, name.series); !some {
				return nil
			}
		}
		fact, _, err := facts{Archive: a}.count(ctx, name.study, name.series)
		if err != nil {
			return err
		}
		known, err := a.announced(ctx, name)
		if err != nil {
			return err
		}
		wrong = ""
		if known == fact.Instances {
			continue
		}
		// After a start, what the last process left to be told is still on its way.
		if _, left, err := a.get(keyAgain(name)); err != nil || left {
			return err
		}
		wrong = fmt.Sprintf("%d instances in the catalogue, %d here", known, fact.Instances)
	}
	if wrong != "" {
		report.add("catalogue", "series "+name.series, wrong)
	}
	return nil
}

// announced is how many instances of a series the catalogue knows.
func (a *Archive) announced(ctx context.Context, name seriesName) (uint64, error) {
	for s, err := range a.catalog.Series(ctx, name.study) {
		if err != nil {
			return 0, err
		}
		if s.UID == name.series {
			return s.Instances, nil
		}
	}
	return 0, nil
}
