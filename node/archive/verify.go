package archive

import (
	"context"
	"fmt"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk"
)

// Finding is one thing that verify found wrong. It names objects by UID or
// number, never a patient.
type Finding struct {
	Kind   string `json:"kind"` // hash, header, reference, table, staging, catalogue
	Object string `json:"object"`
	Detail string `json:"detail"`
}

// Report is what verify did and found.
type Report struct {
	Instances uint64    `json:"instances"`
	Bytes     uint64    `json:"bytes"`
	Packs     uint64    `json:"packs"`
	Findings  []Finding `json:"findings"`
}

// maxFindings bounds a report; what is beyond is counted by the last finding.
const maxFindings = 10_000

// Verify re-reads everything, checks every hash and cross-reference, and
// reports; it never deletes and never repairs. progress is called now and then
// with the instances done and known.
func (a *Archive) Verify(ctx context.Context, progress func(done, total uint64)) (*Report, error) {
	report := &Report{}
	for _, c := range a.staging.Corruptions() {
		report.add("staging", fmt.Sprintf("segment %d", c.Segment), fmt.Sprintf("offset %d: %s", c.Offset, c.Reason))
	}
	total := a.number.Load()
	err := a.each([]byte{rowInstance}, func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var r archivepb.Instance
		if err := unmarshal(value, &r); err != nil {
			report.add("reference", fmt.Sprintf("instance %d", numberOf(key)), err.Error())
			return nil
		}
		if r.State == archivepb.State_DROPPED {
			return nil
		}
		a.verifyInstance(report, &r)
		report.Instances++
		if progress != nil && report.Instances%64 == 0 {
			progress(report.Instances, total)
		}
		return nil
	})
	if err != nil {
		return report, err
	}
	if err := a.verifyPacks(ctx, report); err != nil {
		return report, err
	}
	if err := a.verifyListings(ctx, report); err != nil {
		return report, err
	}
	if progress != nil {
		progress(report.Instances, report.Instances)
	}
	return report, nil
}

func (r *Report) add(kind, object, detail string) {
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{kind, object, detail})
		return
	}
	r.Findings[maxFindings-1] = Finding{Kind: "more", Detail: "further findings are not listed"}
}

// verifyInstance re-reads one instance's bytes and rows.
func (a *Archive) verifyInstance(report *Report, r *archivepb.Instance) {
	object := "instance " + r.Sop
	if _, err := a.header(r); err != nil {
		report.add("header", object, err.Error())
	}
	if value, ok, err := a.get(keyUID(r.Sop, r.Number)); err != nil || !ok || len(value) != 1 || value[0] != byte(r.State) {
		report.add("reference", object, "the UID row is missing or has another state")
	}
	if r.State == archivepb.State_CANONICAL {
		value, ok, err := a.get(keySeries(r.Study, r.Series, r.Sop))
		if l, fine := parseListing(value); err != nil || !ok || !fine || l.number != r.Number {
			report.add("reference", object, "the series row is missing or names another instance")
		}
	}
	if err := a.readBack(context.Background(), r); err != nil {
		report.add("hash", object, err.Error())
	}
	report.Bytes += uint64(r.Bytes)
}

// verifyPacks compares the packs that rows name with the blobs that bulk holds.
func (a *Archive) verifyPacks(ctx context.Context, report *Report) error {
	blobs := map[bulk.Ref]bool{}
	if err := a.bulk.Refs(bulk.Hot, func(r bulk.Ref) error { blobs[r] = true; return nil }); err != nil {
		return err
	}
	adopted, err := a.adopted()
	if err != nil {
		return err
	}
	err = a.each([]byte{rowPack}, func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		report.Packs++
		object := fmt.Sprintf("pack %x", key[1:])
		var p archivepb.Pack
		if err := unmarshal(value, &p); err != nil {
			report.add("reference", object, err.Error())
			return nil
		}
		ref := packRef(&p)
		switch {
		case p.Lost:
			report.add("table", object, "lost to a rotten or missing table")
		case !blobs[ref]:
			report.add("table", object, "bulk/ holds no such blob")
		default:
			id, err := packID(p.Id)
			if err == nil {
				_, err = a.Manifest(id)
			}
			if err != nil {
				report.add("hash", object, err.Error())
			}
		}
		delete(blobs, ref)
		return nil
	})
	for ref := range blobs {
		if ref.Table <= adopted {
			report.add("table", fmt.Sprintf("table %d blob %d", ref.Table, ref.Blob), "no row names this blob")
		}
	}
	return err
}

// verifyListings compares the catalogue's counts with the series rows.
func (a *Archive) verifyListings(ctx context.Context, report *Report) error {
	if err := a.journal.Settle(ctx); err != nil {
		return err
	}
	type seriesUID struct{ study, series string }
	var last seriesUID
	var count uint64
	check := func() {
		if count == 0 || last.study == ReservedStudy {
			return
		}
		if _, deleted := a.catalog.Deleted(last.study, last.series, ""); deleted {
			return
		}
		for s, err := range a.catalog.Series(ctx, last.study) {
			if err != nil {
				report.add("catalogue", "study "+last.study, err.Error())
				return
			}
			if s.UID == last.series {
				if s.Instances != count {
					report.add("catalogue", "series "+last.series, fmt.Sprintf("%d instances in the catalogue, %d here", s.Instances, count))
				}
				return
			}
		}
		report.add("catalogue", "series "+last.series, "not in the catalogue")
	}
	err := a.each([]byte{rowSeries}, func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		uids, _, ok := splitUIDs(key[1:], 3)
		l, fine := parseListing(value)
		if !ok || !fine {
			report.add("reference", "series row", "does not parse")
			return nil
		}
		if now := (seriesUID{uids[0], uids[1]}); now != last {
			check()
			last, count = now, 0
		}
		if _, deleted := a.catalog.Deleted(uids[0], uids[1], uids[2]); !deleted {
			count++
		}
		r, ok, err := a.instance(l.number)
		if err == nil && (!ok || r.Sop != uids[2] || r.State != archivepb.State_CANONICAL) {
			err = fault.New(fault.Corrupt, "names an instance that is not canonical")
		}
		if err != nil {
			report.add("reference", "series row of "+uids[2], err.Error())
		}
		return nil
	})
	check()
	return err
}
