package ae

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

// kind of the AE records in the catalogue's registry.
const registryKind = "ae"

// Catalog is what the registry reads. *catalog.Catalog is one.
type Catalog interface {
	// Registry returns the records of a kind by name, all of them or an error.
	Registry(kind string) (map[string][]byte, error)
	// Applied changes with every change of the catalogue.
	Applied() uint64
}

// Decider has the network decide what the registry says.
type Decider interface {
	// Decide returns the results of the commands once they are decided and applied
	// here.
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Registry is the list of AEs, kept as records of the catalogue under
// (site, title). Every association asks it, so it remembers what it has read
// for as long as the catalogue stays the same.
type Registry struct {
	site    string
	catalog Catalog
	decide  Decider

	// mu guards what is below. It is held while the records are read, so that
	// of many associations at once one reads.
	mu     sync.Mutex
	read   bool
	at     uint64 // the catalogue's index when they were read
	known  map[string]AE
	alias  map[string][]Placed // of all sites, by alias
	broken error               // of a record that does not parse
}

// NewRegistry returns the registry as seen from a site.
func NewRegistry(site string, c Catalog, d Decider) *Registry {
	return &Registry{site: site, catalog: c, decide: d}
}

// record is the durable form of an AE; readers refuse versions above their own.
type record struct {
	Version int `json:"version"`
	AE
}

const recordVersion = 1

// load returns the AEs of the site by title; the map is not to be changed.
// broken is the error of a record that does not parse, if there is one: the
// others serve nevertheless. When the records cannot be read there are none,
// and the next call reads again.
func (r *Registry) load() (known map[string]AE, broken error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.catalog.Applied() // before the records: what changes meanwhile is read next time
	if r.read && r.at == at {
		return r.known, r.broken
	}
	records, err := r.catalog.Registry(registryKind)
	if err != nil {
		r.read = false
		return nil, fault.New(fault.Unavailable, "the registry of AEs: %w", err)
	}
	r.known, r.alias, r.broken = map[string]AE{}, map[string][]Placed{}, nil
	for name, value := range records {
		site, title, _ := strings.Cut(name, "/") // a site's name has no slash
		ae, err := parseRecord(value)
		if err != nil {
			if site == r.site {
				r.broken = errors.Join(r.broken, fault.New(fault.KindOf(err), "AE %s: %w", title, err))
			}
			continue // of another site: it is not to be reached from here
		}
		if site == r.site {
			r.known[title] = ae
		}
		if ae.Alias != "" {
			r.alias[ae.Alias] = append(r.alias[ae.Alias], Placed{ae, site})
		}
	}
	r.read, r.at = true, at
	return r.known, r.broken
}

func parseRecord(value []byte) (AE, error) {
	var rec record
	if err := json.Unmarshal(value, &rec); err != nil {
		return AE{}, fault.New(fault.Corrupt, "record: %w", err)
	}
	if rec.Version > recordVersion {
		return AE{}, fault.New(fault.Unsupported, "record of version %d, newer than %d", rec.Version, recordVersion)
	}
	return rec.AE, nil
}

// List returns all AEs of the site by title.
func (r *Registry) List() ([]AE, error) {
	known, err := r.load()
	if err != nil {
		return nil, err
	}
	all := make([]AE, 0, len(known))
	for _, ae := range known {
		all = append(all, ae)
	}
	slices.SortFunc(all, func(a, b AE) int { return cmp.Compare(a.Title, b.Title) })
	return all, nil
}

// Get returns an AE by its title; fault.NotFound when it is not registered.
func (r *Registry) Get(title string) (AE, error) {
	known, broken := r.load()
	ae, ok := known[title]
	switch {
	case ok:
		return ae, nil
	case broken != nil: // it may be the one
		return AE{}, broken
	}
	return AE{}, fault.New(fault.NotFound, "no AE %q is registered at this site ('pelago ae add' registers one)", title)
}

// Placed is an AE and the site that it is registered at.
type Placed struct {
	AE
	Site string
}

// Resolve returns the AE that a Move Destination means: of this site by its title,
// else of any by its alias (DESIGN §9, AE registry). fault.NotFound when there is
// none, fault.Conflict when several sites have given the same alias.
func (r *Registry) Resolve(title string) (Placed, error) {
	ae, err := r.Get(title)
	if err == nil {
		return Placed{ae, r.site}, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return Placed{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch meant := r.alias[title]; len(meant) {
	case 0:
		return Placed{}, err
	case 1:
		return meant[0], nil
	default:
		return Placed{}, fault.New(fault.Conflict, "%d AEs have the alias %q", len(meant), title)
	}
}

// Put registers an AE or changes it. fault.Conflict when another has its alias.
func (r *Registry) Put(ctx context.Context, ae AE) error {
	if err := ae.check(); err != nil {
		return err
	}
	if err := r.checkAlias(ae); err != nil {
		return err
	}
	value, err := json.Marshal(record{Version: recordVersion, AE: ae})
	if err != nil {
		return err
	}
	return r.write(ctx, ae.Title, value)
}

// checkAlias refuses an alias that another AE has. Two sites that give the same at
// the same time are found out by [Registry.Resolve].
func (r *Registry) checkAlias(ae AE) error {
	if ae.Alias == "" {
		return nil
	}
	if _, err := r.load(); err != nil && fault.Is(err, fault.Unavailable) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.alias[ae.Alias] {
		if other.Site != r.site || other.Title != ae.Title {
			return fault.New(fault.Conflict, "AE %s of site %s has the alias %q", other.Title, other.Site, ae.Alias)
		}
	}
	return nil
}

// Delete takes an AE off the registry, one whose record does not parse too.
func (r *Registry) Delete(ctx context.Context, title string) error {
	if _, err := r.Get(title); fault.Is(err, fault.NotFound) {
		return err
	}
	return r.write(ctx, title, nil)
}

func (r *Registry) write(ctx context.Context, title string, value []byte) error {
	results, err := r.decide.Decide(ctx, nil, &catalog.RegistryFact{
		Kind: registryKind, Name: r.site + "/" + title, Value: value,
	})
	return errors.Join(append(results, err)...)
}
