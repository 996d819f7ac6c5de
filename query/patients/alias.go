package patients

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// Alias says which issuer stands behind a name that a site uses for it.
type Alias struct {
	Site   string `json:"site"`
	Local  string `json:"local"`  // as (0010,0021) has it
	Issuer string `json:"issuer"` // as everybody has it, such as an OID
}

type aliasRecord struct {
	Version int    `json:"version"`
	Issuer  string `json:"issuer"`
}

// PutAlias decides an alias, or changes it.
func (p *Patients) PutAlias(ctx context.Context, a Alias) error {
	for _, text := range [...]string{a.Local, a.Issuer} {
		if checkID(catalog.PatientKey{ID: text, Issuer: text}) != nil {
			return fault.New(fault.Invalid, "an issuer is named by 1 to %d printable characters", maxText)
		}
	}
	if a.Site == "" || strings.Contains(a.Site, "/") {
		return fault.New(fault.Invalid, "an alias is of one site")
	}
	value, err := json.Marshal(aliasRecord{Version: recordVersion, Issuer: a.Issuer})
	if err != nil {
		return err
	}
	return p.decide(ctx, nil, &catalog.RegistryFact{Kind: kindAlias, Name: a.Site + "/" + a.Local, Value: value})
}

// DropAlias takes an alias back.
func (p *Patients) DropAlias(ctx context.Context, site, local string) error {
	name := site + "/" + local
	value, err := p.catalog.RegistryRecord(kindAlias, name)
	if err != nil {
		return fault.New(fault.Unavailable, "the aliases of issuers: %w", err)
	}
	if value == nil {
		return fault.New(fault.NotFound, "no such alias")
	}
	return p.decide(ctx, nil, &catalog.RegistryFact{Kind: kindAlias, Name: name})
}

// Aliases returns the aliases of all sites, in order.
func (p *Patients) Aliases() ([]Alias, error) {
	known, err := p.load()
	if err != nil {
		return nil, err
	}
	all := make([]Alias, 0, len(known.aliases))
	for _, a := range known.aliases {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Alias) int { return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Local, b.Local)) })
	return all, known.broken
}

// Issuer returns the issuer behind a name at a site: the name itself where no
// alias says otherwise. Records that cannot be read are an error, for an id under a
// wrong issuer would be another patient's.
func (p *Patients) Issuer(site, local string) (string, error) {
	if local == "" {
		return "", nil
	}
	known, err := p.load()
	if err != nil {
		return "", err
	}
	if a, ok := known.aliases[site+"/"+local]; ok {
		return a.Issuer, nil
	}
	return local, nil
}
