package archive

import (
	"bytes"
	"context"
	"fmt"

	"pelago/node/archive/archivepb"
)

// Finding is one thing that verify found wrong. It names objects by UID or
// number, never a patient.
type Finding struct {
	Kind   string `json:"kind"` // hash, header, reference, table, staging, catalogue, shard
	Object string `json:"object"`
	Detail string `json:"detail"`
}

// Report is what verify did and found.
type Report struct {
	Instances uint64 `json:"instances"`
	Bytes     uint64 `json:"bytes"`
	Packs     uint64 `json:"packs"`
	// Copies of other nodes' packs that were read; of them those that were rotten and
	// dropped. These are no findings: nothing is lost with them.
	Copies        uint64 `json:"copies"`
	CopiesDropped uint64 `json:"copies_dropped"`
	// HeldBytes are the bytes of shards of other nodes' packs that were read.
	HeldBytes uint64 `json:"held_bytes"`
	// Evicted are packs that are read from their shards, which was not done.
	Evicted uint64 `json:"evicted_packs"`

	Findings []Finding `json:"findings"`
}

// maxFindings bounds a report; what is beyond is counted by the last finding.
const maxFindings = 10_000

// Verify re-reads everything, checks every hash and cross-reference, and
// reports; it never deletes and never repairs. progress is called now and then
// with the instances done and known.
func (a *Archive) Verify(ctx context.Context, progress func(done, total uint64)) (report *Report, err error) {
	err = a.observe("verify", func() error {
		report, err = a.verify(ctx, progress, known{settle: a.journal.Settle, has: func(seriesName) bool { return true }})
		return err
	})
	return report, err
}

func (a *Archive) verify(ctx context.Context, progress func(done, total uint64), catalogue known) (*Report, error) {
	report := &Report{Findings: []Finding{}} // none is an answer, too: not null
	for _, c := range a.staging.Corruptions() {
		report.add("staging", fmt.Sprintf("segment %d", c.Segment), fmt.Sprintf("offset %d: %s", c.Offset, c.Reason))
	}
	total := a.number.Load()
	err := a.pages([]byte{rowInstance}, func(key, value []byte) error {
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
		a.verifyInstance(ctx, report, &r)
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
	if err := a.verifyListings(ctx, report, catalogue); err != nil {
		return report, err
	}
	if err := a.catalog.Verify(ctx, func(err error) { report.add("catalogue", "record", err.Error()) }); err != nil {
		return report, err
	}
	if progress != nil {
		progress(report.Instances, report.Instances)
	}
	return report, nil
}

// Add adds what was found wrong.
func (r *Report) Add(f Finding) { r.add(f.Kind, f.Object, f.Detail) }

func (r *Report) add(kind, object, detail string) {
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{kind, object, detail})
		return
	}
	r.Findings[maxFindings-1] = Finding{Kind: "more", Detail: "further findings are not listed"}
}

// verifyInstance re-reads one instance's bytes and rows.
func (a *Archive) verifyInstance(ctx context.Context, report *Report, r *archivepb.Instance) {
	findings := len(report.Findings)
	object := "instance " + r.Sop
	if _, _, err := a.storedHeader(r.Number); err != nil {
		report.add("header", object, err.Error()) // the next that reads it makes it anew from the bytes
	}
	if err := a.verifyReference(r.Number); err != nil {
		report.add("reference", object, err.Error())
	}
	if value, ok, err := a.get(keyUID(r.Sop, r.Number)); err != nil || !ok || !bytes.Equal(value, uidValue(r)) {
		report.add("reference", object, "the UID row is missing or has another state")
	}
	if r.State == archivepb.State_CANONICAL {
		value, ok, err := a.get(keySeries(r.Study, r.Series, r.Sop))
		if l, fine := parseListing(value); err != nil || !ok || !fine || l.number != r.Number {
			report.add("reference", object, "the series row is missing or names another instance")
		}
	}
	if away, err := a.evicted(r.Number); err != nil || !away {
		if err := a.readBack(ctx, r); err != nil && ctx.Err() == nil {
			report.add("hash", object, err.Error())
		}
	}
	report.Bytes += uint64(r.Bytes)
	if len(report.Findings) == findings {
		return
	}
	// It may have changed under our eyes: deleted, decided upon, purged.
	if now, ok, err := a.instance(r.Number); err == nil && (!ok || now.State != r.State) {
		report.Findings = report.Findings[:findings]
	}
}

// VerifyAlone is Verify for an archive whose tasks do not run: one that was
// opened to be looked at, while no node runs on it. Series that the next start
// will announce are not held against the catalogue.
func (a *Archive) VerifyAlone(ctx context.Context, progress func(done, total uint64)) (*Report, error) {
	unsettled := map[seriesName]bool{}
	note := func(study, series string) error {
		unsettled[seriesName{study, series}] = true
		return nil
	}
	if err := a.journal.Behind(ctx, facts{Archive: a}, note); err != nil {
		return nil, err
	}
	if err := a.each([]byte{rowAgain}, func(key, _ []byte) error {
		uids, _, _ := splitUIDs(key[1:], 2)
		return note(uids[0], uids[1])
	}); err != nil {
		return nil, err
	}
	return a.verify(ctx, progress, known{
		settle: func(context.Context) error { return nil },
		has:    func(name seriesName) bool { return !unsettled[name] },
	})
}

// known is how verify finds the catalogue to be up to date.
type known struct {
	settle func(context.Context) error // returns once it is
	has    func(name seriesName) bool  // whether a series can be compared
}
