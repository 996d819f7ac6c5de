package patients

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// Catalog is what is read. *catalog.Catalog is one.
type Catalog interface {
	// Registry returns the records of a kind by name, all of them or an error.
	Registry(kind string) (map[string][]byte, error)
	RegistryRecord(kind, name string) ([]byte, error)
	// RegistryChanged changes with every change of a registry record.
	RegistryChanged() uint64
}

// Decider has the network decide.
type Decider interface {
	// Decide returns the results of the commands once they are decided and applied
	// here.
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Patients is what was decided. It may be used by many goroutines.
type Patients struct {
	catalog Catalog
	decider Decider

	// mu guards what is below. It is held while the records are read, so that of
	// many queries at once one reads.
	mu   sync.Mutex
	at   uint64 // the registry's state when they were read
	held *records
}

// records are as they were read; they are not changed.
type records struct {
	links      []Link
	neighbours map[catalog.PatientKey][]catalog.PatientKey
	aliases    map[string]Alias // by SITE/NAME
	broken     error            // of records that do not parse: the others count
}

// New returns what was decided, and decides more.
func New(c Catalog, d Decider) *Patients { return &Patients{catalog: c, decider: d} }

func (p *Patients) decide(ctx context.Context, conditions []catalog.Condition, command catalog.Command) error {
	results, err := p.decider.Decide(ctx, conditions, command)
	return errors.Join(append(results, err)...)
}

func (p *Patients) load() (*records, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.catalog.RegistryChanged() // before the records: what changes meanwhile is read next time
	if p.held != nil && p.at == at {
		return p.held, nil
	}
	links, err := p.catalog.Registry(kindLink)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the links of patients: %w", err)
	}
	aliases, err := p.catalog.Registry(kindAlias)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the aliases of issuers: %w", err)
	}
	r := &records{neighbours: map[catalog.PatientKey][]catalog.PatientKey{}, aliases: map[string]Alias{}}
	for name, value := range links {
		r.note(name, value)
	}
	slices.SortFunc(r.links, func(a, b Link) int { return cmp.Or(compareKeys(a.One, b.One), compareKeys(a.Other, b.Other)) })
	for _, l := range r.links { // in order: timelines that are cut are cut alike everywhere
		r.neighbours[l.One] = append(r.neighbours[l.One], l.Other)
		r.neighbours[l.Other] = append(r.neighbours[l.Other], l.One)
	}
	for name, value := range aliases {
		r.noteAlias(name, value)
	}
	p.at, p.held = at, r
	return r, nil
}

// note adds a link, unless its record is not one: its name must be that of its
// ids, so that a link is taken back under the name that it was made by.
func (r *records) note(name string, value []byte) {
	var l linkRecord
	err := parse(value, &l, &l.Version)
	if err == nil && (l.name() != name || l.One == l.Other) {
		err = fault.New(fault.Corrupt, "it is of other ids")
	}
	if err != nil {
		r.broken = errors.Join(r.broken, fault.New(fault.KindOf(err), "link %s: %w", name, err))
		return
	}
	r.links = append(r.links, l.ordered())
}

func (r *records) noteAlias(name string, value []byte) {
	var a aliasRecord
	err := parse(value, &a, &a.Version)
	site, local, ok := strings.Cut(name, "/")
	if err == nil && (!ok || a.Issuer == "") {
		err = fault.New(fault.Corrupt, "it names no issuer")
	}
	if err != nil {
		r.broken = errors.Join(r.broken, fault.New(fault.KindOf(err), "alias %s: %w", name, err))
		return
	}
	r.aliases[name] = Alias{Site: site, Local: local, Issuer: a.Issuer}
}

// parse reads a record; version is where it keeps its own.
func parse(value []byte, into any, version *int) error {
	if err := json.Unmarshal(value, into); err != nil {
		return fault.New(fault.Corrupt, "record: %w", err)
	}
	if *version > recordVersion {
		return fault.New(fault.Unsupported, "record of version %d, newer than %d", *version, recordVersion)
	}
	return nil
}

// At is what was decided, as seen from a site.
type At struct {
	*Patients
	site string
}

// At returns what was decided as a site sees it, which names issuers in its own
// way.
func (p *Patients) At(site string) At { return At{p, site} }

// Issuer is as [Patients.Issuer], at the site.
func (a At) Issuer(local string) (string, error) { return a.Patients.Issuer(a.site, local) }
