package main

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/node/config"
	"pelago/node/keyring"
	"pelago/replication/catalog"
	"pelago/replication/consensus"
	"pelago/shard/keys"
)

// agreed is the catalogue as it tells of study keys, and of which network's.
type agreed struct{ *catalog.Catalog }

// Generation implements [keyring.Agreed].
func (a agreed) Generation() uint64 { return consensus.GenerationOf(a.Position().Term) }

// openStudies opens what keeps other nodes' study keys beside this node's own: nothing
// at a witness.
func (w *network) openStudies(c config.Config, ring *keys.Ring) (err error) {
	if w.own().Witness {
		return nil
	}
	w.studies, err = keyring.OpenStudies(keyring.StudiesOptions{
		FS: vfs.Default, Dir: vfs.Default.PathJoin(c.Data, "keys"), Ring: ring, From: agreed{w.catalog}, Log: w.log,
	})
	return err
}

// keptStudyKeys is how far they are kept; 0: not at all.
func (w *network) keptStudyKeys() uint64 {
	if w.studies == nil {
		return 0
	}
	return w.studies.At()
}
