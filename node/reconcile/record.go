package reconcile

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// Kind is the registry kind of conflicts between nodes.
const Kind = "conflict"

const recordVersion = 1

// maxInstances bounds the instances that a record names.
const maxInstances = 64

// Conflict is what two nodes hold of a series under equal UIDs with other content.
type Conflict struct {
	Study     string     `json:"study"`
	Series    string     `json:"series"`
	First     Holder     `json:"first"` // who announced the series first
	Second    Holder     `json:"second"`
	Total     int        `json:"total"` // instances that differ
	Instances []Instance `json:"instances"`
}

// Holder is one of the two.
type Holder struct {
	Node string `json:"node"`
	Site string `json:"site"`
}

// Instance differs, at most 64 of them being named.
type Instance struct {
	SOP    string `json:"instance"`
	Syntax bool   `json:"syntax"` // it is in another transfer syntax, and may be the same image
}

type record struct {
	Version int `json:"version"`
	Conflict
}

// name is a conflict's name in the registry.
func name(study, series, first, second string) string {
	h := blake3.New()
	for _, text := range [...]string{study, series, first, second} {
		h.Write([]byte{byte(len(text))}) //nolint:errcheck // a hash takes everything
		h.Write([]byte(text))            //nolint:errcheck // as above
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Registry is where conflicts are read. *catalog.Catalog is one.
type Registry interface {
	Registry(kind string) (map[string][]byte, error)
}

// Conflicts lists the conflicts between nodes, by study, series and node. Records
// that do not parse are an error beside the others.
func Conflicts(r Registry) ([]Conflict, error) {
	records, err := r.Registry(Kind)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the conflicts between nodes: %w", err)
	}
	all := make([]Conflict, 0, len(records))
	var broken error
	for _, name := range slices.Sorted(maps.Keys(records)) {
		var one record
		err := json.Unmarshal(records[name], &one)
		switch {
		case err != nil:
			broken = errors.Join(broken, fault.New(fault.Corrupt, "conflict %s: %w", name, err))
		case one.Version > recordVersion:
			broken = errors.Join(broken, fault.New(fault.Unsupported, "conflict %s: a record of version %d", name, one.Version))
		default:
			all = append(all, one.Conflict)
		}
	}
	slices.SortFunc(all, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Study, b.Study), cmp.Compare(a.Series, b.Series), cmp.Compare(a.Second.Node, b.Second.Node), cmp.Compare(a.First.Node, b.First.Node))
	})
	return all, broken
}
