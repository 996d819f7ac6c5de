package catalog

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Registry returns the values of all records of a kind by name. Records are few
// and written by operators. A read error returns none of them: who is not in
// half a registry would pass for a stranger.
func (c *Catalog) Registry(kind string) (map[string][]byte, error) {
	prefix := registryKey(kind, "")
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("catalog: read registry: %w", err)
	}
	defer it.Close()
	all := map[string][]byte{}
	for it.First(); it.Valid(); it.Next() {
		all[string(it.Key()[len(prefix):])] = append([]byte(nil), it.Value()...)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: read registry: %w", err)
	}
	return all, nil
}

// RegistryRecord returns the value of one record, nil when there is none.
func (c *Catalog) RegistryRecord(kind, name string) ([]byte, error) {
	return get(c.db, registryKey(kind, name))
}

// RegistryChanged returns a number that changes with every change of a registry
// record, for those who remember what they have read: they ask it before they
// read.
func (c *Catalog) RegistryChanged() uint64 { return c.registryChanges.Load() }
