package ae

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// Rights are what an AE may ask for.
type Rights struct {
	Echo     bool `json:"echo"`
	Store    bool `json:"store"` // storage commitment included
	Find     bool `json:"find"`
	Retrieve bool `json:"retrieve"`
}

// AllRights are the rights of an AE that is registered without restrictions.
var AllRights = Rights{Echo: true, Store: true, Find: true, Retrieve: true}

// AE is a registered application entity.
type AE struct {
	Title string `json:"title"`
	// Hosts are addresses, networks (10.1.0.0/16) or names that the AE calls
	// from. The first that is no network is where we call it.
	Hosts []string `json:"hosts"`
	Port  uint16   `json:"port"` // where it listens; 0: it does not
	TLS   bool     `json:"tls"`  // it is called, and must call, over DICOM TLS
	// Certificate, when set, is the common name that its client certificate must
	// carry.
	Certificate string `json:"certificate,omitempty"`
	Rights      Rights `json:"rights"`
	// Issuer qualifies the Patient IDs that it sends and asks for without an
	// issuer; Charset decodes its data sets that name none.
	Issuer  string        `json:"issuer,omitempty"`
	Charset string        `json:"charset,omitempty"`
	Idle    time.Duration `json:"idle,omitempty"`
}

// kind of the AE records in the catalogue's registry.
const registryKind = "ae"

// Catalog is what the registry reads.
type Catalog interface {
	Registry(kind string) iter.Seq2[string, []byte]
}

// Journal is where it writes.
type Journal interface {
	Append(ctx context.Context, commands ...catalog.Command) ([]error, error)
}

// Registry is the list of AEs, kept as records of the catalogue under
// (site, title).
type Registry struct {
	site    string
	catalog Catalog
	journal Journal
}

// NewRegistry returns the registry as seen from a site.
func NewRegistry(site string, c Catalog, j Journal) *Registry {
	return &Registry{site: site, catalog: c, journal: j}
}

// record is the durable form of an AE; readers refuse versions above their own.
type record struct {
	Version int `json:"version"`
	AE
}

const recordVersion = 1

// List returns all AEs of the site by title.
func (r *Registry) List() ([]AE, error) {
	var all []AE
	for name, value := range r.catalog.Registry(registryKind) {
		site, _, ok := strings.Cut(name, "/")
		if !ok || site != r.site {
			continue
		}
		var rec record
		if err := json.Unmarshal(value, &rec); err != nil {
			return nil, fault.New(fault.Corrupt, "AE record: %w", err)
		}
		if rec.Version > recordVersion {
			return nil, fault.New(fault.Unsupported, "AE record of version %d, newer than %d", rec.Version, recordVersion)
		}
		all = append(all, rec.AE)
	}
	slices.SortFunc(all, func(a, b AE) int { return cmp.Compare(a.Title, b.Title) })
	return all, nil
}

// Get returns an AE by its title; fault.NotFound when it is not registered.
func (r *Registry) Get(title string) (AE, error) {
	all, err := r.List()
	if err != nil {
		return AE{}, err
	}
	for _, ae := range all {
		if ae.Title == title {
			return ae, nil
		}
	}
	return AE{}, fault.New(fault.NotFound, "no AE %q is registered", title)
}

// Put registers an AE or changes it.
func (r *Registry) Put(ctx context.Context, ae AE) error {
	if err := ae.check(); err != nil {
		return err
	}
	value, err := json.Marshal(record{Version: recordVersion, AE: ae})
	if err != nil {
		return err
	}
	return r.write(ctx, ae.Title, value)
}

// Delete takes an AE off the registry.
func (r *Registry) Delete(ctx context.Context, title string) error {
	if _, err := r.Get(title); err != nil {
		return err
	}
	return r.write(ctx, title, nil)
}

func (r *Registry) write(ctx context.Context, title string, value []byte) error {
	results, err := r.journal.Append(ctx, &catalog.RegistryFact{
		Kind: registryKind, Name: r.site + "/" + title, Value: value,
	})
	return errors.Join(append(results, err)...)
}

// check reports what is wrong with a record.
func (ae AE) check() error {
	if !plainTitle(ae.Title) {
		return fault.New(fault.Invalid, "%q is no application entity title: 1 to 16 printable characters", ae.Title)
	}
	if len(ae.Hosts) == 0 {
		return fault.New(fault.Invalid, "AE %s: at least one host or network is needed", ae.Title)
	}
	for _, host := range ae.Hosts {
		if host == "" || strings.ContainsAny(host, " \t\n") {
			return fault.New(fault.Invalid, "AE %s: %q is no host", ae.Title, host)
		}
		if strings.Contains(host, "/") {
			if _, err := netip.ParsePrefix(host); err != nil {
				return fault.New(fault.Invalid, "AE %s: %w", ae.Title, err)
			}
		}
	}
	if ae.Idle < 0 {
		return fault.New(fault.Invalid, "AE %s: a negative idle time", ae.Title)
	}
	return nil
}

func plainTitle(title string) bool {
	if title == "" || len(title) > 16 || strings.TrimSpace(title) != title {
		return false
	}
	for i := range len(title) {
		if title[i] < ' ' || title[i] > '~' || title[i] == '\\' {
			return false
		}
	}
	return true
}

// address is where the AE is called; "" when it does not listen.
func (ae AE) address() string {
	if ae.Port == 0 {
		return ""
	}
	for _, host := range ae.Hosts {
		if !strings.Contains(host, "/") {
			return net.JoinHostPort(host, itoa(ae.Port))
		}
	}
	return ""
}

// callsFrom reports whether an address belongs to the AE's hosts. Names are
// looked up.
func (ae AE) callsFrom(ctx context.Context, ip netip.Addr, lookup func(context.Context, string) ([]netip.Addr, error)) bool {
	ip = ip.Unmap()
	for _, host := range ae.Hosts {
		if prefix, err := netip.ParsePrefix(host); err == nil {
			if prefix.Contains(ip) {
				return true
			}
			continue
		}
		if one, err := netip.ParseAddr(host); err == nil {
			if one.Unmap() == ip {
				return true
			}
			continue
		}
		addresses, err := lookup(ctx, host)
		if err != nil {
			continue // an unknown name matches nobody
		}
		for _, a := range addresses {
			if a.Unmap() == ip {
				return true
			}
		}
	}
	return false
}
