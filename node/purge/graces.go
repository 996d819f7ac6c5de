package purge

import (
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// Graces is what the catalogue says about deletions, for the archive of a node. It is an
// archive.Graces.
type Graces struct {
	Node    string
	Catalog *catalog.Catalog
}

// Over implements archive.Graces.
func (g Graces) Over(stone *catalog.Tombstone) (bool, error) {
	if _, aged, err := g.Catalog.Age(stone); err != nil || !aged {
		return false, err
	}
	return g.Catalog.Over(stone)
}

// Sealed implements archive.Graces.
func (g Graces) Sealed(id pack.ID) (sealed bool, err error) {
	v := g.Catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	seals, err := v.Pack(id)
	return len(seals) > 0, err
}

// Keeps implements archive.Graces.
func (g Graces) Keeps(study string) (keeps bool, err error) {
	v := g.Catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	seals, err := v.Packs(study, "")
	for _, seal := range seals {
		keeps = keeps || seal.Origin == g.Node
	}
	return keeps, err
}
