package purge

import "pelago/replication/catalog"

// Graces is what the catalogue says about deletions, for the archive of a node. It is an
// archive.Graces.
type Graces struct{ Catalog *catalog.Catalog }

// Over implements archive.Graces.
func (g Graces) Over(stone *catalog.Tombstone) (bool, error) {
	if _, aged, err := g.Catalog.Age(stone); err != nil || !aged {
		return false, err
	}
	return g.Catalog.Over(stone)
}
