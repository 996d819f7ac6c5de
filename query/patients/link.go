package patients

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// The kinds of records in the catalogue's registry.
const (
	kindLink  = "link"  // by the hash of both ids
	kindAlias = "alias" // by SITE/NAME
)

// Limits of what is decided.
const (
	maxText = 64  // characters of an id or an issuer (LO)
	maxSaid = 256 // bytes of a reason, and of who says so
	// maxTimeline bounds the ids of one timeline: more are a mistake that would make
	// every query of them slow.
	maxTimeline = 64
)

// Link says that two ids are of one person.
type Link struct {
	One    catalog.PatientKey `json:"one"`
	Other  catalog.PatientKey `json:"other"`
	By     string             `json:"by"`
	Reason string             `json:"reason,omitempty"`
	At     time.Time          `json:"at"` // for people only
}

// linkRecord is the durable form; readers refuse versions above their own.
type linkRecord struct {
	Version int `json:"version"`
	Link
}

const recordVersion = 1

// ParseID reads ID^^^ISSUER, as HL7 writes an id (CX). An issuer of several
// components (NAMESPACE&UNIVERSAL&TYPE) counts by its universal id if it has one.
func ParseID(s string) (catalog.PatientKey, error) {
	id, issuer, _ := strings.Cut(s, "^^^")
	if parts := strings.Split(issuer, "&"); len(parts) > 1 {
		issuer = cmp.Or(parts[1], parts[0])
	}
	key := catalog.PatientKey{Issuer: strings.Trim(issuer, " "), ID: strings.Trim(id, " ")}
	return key, checkID(key)
}

// FormatID is the other way.
func FormatID(k catalog.PatientKey) string { return k.ID + "^^^" + k.Issuer }

func checkID(k catalog.PatientKey) error {
	for _, text := range [...]string{k.ID, k.Issuer} {
		if text == "" || len([]rune(text)) > maxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == '\\' || r == '^' || r == 0x7f }) {
			return fault.New(fault.Invalid, "a patient is named as ID^^^ISSUER, both of 1 to %d printable characters", maxText)
		}
	}
	return nil
}

// ordered returns a link with its ids ascending: it has no direction.
func (l Link) ordered() Link {
	if compareKeys(l.One, l.Other) > 0 {
		l.One, l.Other = l.Other, l.One
	}
	return l
}

func compareKeys(a, b catalog.PatientKey) int {
	return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.ID, b.ID))
}

// name is a link's name in the registry, where no patient's id is to be read.
func (l Link) name() string {
	l = l.ordered()
	h := sha256.New()
	for _, text := range [...]string{l.One.Issuer, l.One.ID, l.Other.Issuer, l.Other.ID} {
		h.Write([]byte{byte(len(text) >> 8), byte(len(text))})
		h.Write([]byte(text))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Link decides that two ids are of one person.
func (p *Patients) Link(ctx context.Context, l Link) error {
	l = l.ordered()
	if err := errors.Join(checkID(l.One), checkID(l.Other)); err != nil {
		return err
	}
	if l.One == l.Other {
		return fault.New(fault.Invalid, "both ids are the same")
	}
	if len(l.By) > maxSaid || len(l.Reason) > maxSaid {
		return fault.New(fault.Invalid, "a reason of over %d bytes", maxSaid)
	}
	// The timeline as it would be must not be too long; two links made at the same
	// moment may join longer ones, which Timeline then cuts.
	one, err := p.Timeline(l.One)
	if err != nil {
		return err
	}
	other, err := p.Timeline(l.Other)
	if err != nil {
		return err
	}
	if !slices.Contains(one, l.Other) && max(1, len(one))+max(1, len(other)) > maxTimeline {
		return fault.New(fault.Invalid, "a timeline of over %d ids", maxTimeline)
	}
	value, err := json.Marshal(linkRecord{Version: recordVersion, Link: l})
	if err != nil {
		return err
	}
	return p.decide(ctx, nil, &catalog.RegistryFact{Kind: kindLink, Name: l.name(), Value: value})
}

// Unlink takes a link back; fault.NotFound when the two are not linked
// themselves, though perhaps through others.
func (p *Patients) Unlink(ctx context.Context, one, other catalog.PatientKey) error {
	l := Link{One: one, Other: other}
	value, err := p.catalog.RegistryRecord(kindLink, l.name())
	if err != nil {
		return fault.New(fault.Unavailable, "the links of patients: %w", err)
	}
	if value == nil {
		return fault.New(fault.NotFound, "no link between just these ids ('pelago links' lists all)")
	}
	return p.decide(ctx, []catalog.Condition{catalog.If(kindLink, l.name(), value)}, &catalog.RegistryFact{Kind: kindLink, Name: l.name()})
}

// Links returns all links in order of their ids.
func (p *Patients) Links() ([]Link, error) {
	known, err := p.load()
	if err != nil {
		return nil, err
	}
	return slices.Clone(known.links), known.broken
}

// Timeline returns the ids that are linked with one, itself included, ascending;
// nil for an id that no link names.
func (p *Patients) Timeline(key catalog.PatientKey) ([]catalog.PatientKey, error) {
	if key.ID == "" {
		return nil, nil
	}
	known, err := p.load()
	if err != nil {
		return nil, err
	}
	if len(known.neighbours[key]) == 0 {
		return nil, nil
	}
	seen := map[catalog.PatientKey]bool{key: true}
	line := []catalog.PatientKey{key}
	for i := 0; i < len(line); i++ {
		for _, next := range known.neighbours[line[i]] {
			if !seen[next] && len(line) < maxTimeline {
				seen[next] = true
				line = append(line, next)
			}
		}
	}
	slices.SortFunc(line, compareKeys)
	return line, nil
}
