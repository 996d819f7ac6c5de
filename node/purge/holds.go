package purge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// Hold keeps everything of a study, or of a patient, from being purged. What it keeps can
// still be deleted, and restored within the grace.
type Hold struct {
	Study   string              // one of the two
	Patient *catalog.PatientKey // with its studies that come later
	By      string
	Reason  string
	At      time.Time
}

// maxReason bounds what people write.
const maxReason = 1024

// record is the value of a hold's registry record, in JSON.
type record struct {
	Version int       `json:"version"` // 1
	Study   string    `json:"study,omitempty"`
	Issuer  string    `json:"issuer,omitempty"`
	ID      string    `json:"id,omitempty"`
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"`
}

const recordVersion = 1

// name is that of the hold's record: fault.Invalid for what is no study or patient.
func (h Hold) name() (string, error) {
	const maxName = 128 // the catalogue's, of a UID
	switch {
	case h.Study != "" && h.Patient == nil && len(h.Study) <= maxName:
		return catalog.StudyHold(h.Study), nil
	case h.Study == "" && h.Patient != nil && h.Patient.ID != "" && len(h.Patient.ID) <= maxReason && len(h.Patient.Issuer) <= maxReason:
		return catalog.PatientHold(*h.Patient), nil
	}
	return "", fault.New(fault.Invalid, "purge: a hold is of a study or of a patient")
}

// Holds are those that operators have set.
type Holds struct {
	Catalog *catalog.Catalog
	Decide  Decider
}

// Put sets a hold, or changes what is said of it. It is committed when it returns.
func (h Holds) Put(ctx context.Context, hold Hold) error {
	name, err := hold.name()
	if err != nil {
		return err
	}
	if len(hold.Reason) > maxReason {
		return fault.New(fault.Invalid, "purge: a reason of %d bytes", len(hold.Reason))
	}
	r := record{Version: recordVersion, Study: hold.Study, By: hold.By, Reason: hold.Reason, At: hold.At}
	if hold.Patient != nil {
		r.Issuer, r.ID = hold.Patient.Issuer, hold.Patient.ID
	}
	value, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Invalid, "purge: a hold: %w", err)
	}
	return h.decide(ctx, nil, &catalog.RegistryFact{Kind: catalog.KindHold, Name: name, Value: value})
}

// Drop lifts a hold; fault.NotFound when there is none.
func (h Holds) Drop(ctx context.Context, hold Hold) error {
	name, err := hold.name()
	if err != nil {
		return err
	}
	value, err := h.Catalog.RegistryRecord(catalog.KindHold, name)
	if err != nil {
		return err
	}
	if value == nil {
		return fault.New(fault.NotFound, "no such hold")
	}
	return h.decide(ctx, []catalog.Condition{catalog.If(catalog.KindHold, name, value)}, &catalog.RegistryFact{Kind: catalog.KindHold, Name: name})
}

func (h Holds) decide(ctx context.Context, conditions []catalog.Condition, command catalog.Command) error {
	results, err := h.Decide.Decide(ctx, conditions, command)
	return errors.Join(append(results, err)...)
}

// List returns all holds, oldest first. One that does not parse holds nevertheless, and is
// listed without what it says.
func (h Holds) List() ([]Hold, error) {
	records, err := h.Catalog.Registry(catalog.KindHold)
	if err != nil {
		return nil, err
	}
	all := make([]Hold, 0, len(records))
	for _, value := range records {
		all = append(all, parseHold(value))
	}
	slices.SortFunc(all, func(a, b Hold) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Study, b.Study)) })
	return all, nil
}

func parseHold(value []byte) Hold {
	var r record
	if json.Unmarshal(value, &r) != nil || r.Version != recordVersion {
		return Hold{Reason: "this record does not parse; it holds"}
	}
	h := Hold{Study: r.Study, By: r.By, Reason: r.Reason, At: r.At}
	if r.Study == "" {
		h.Patient = &catalog.PatientKey{Issuer: r.Issuer, ID: r.ID}
	}
	return h
}
