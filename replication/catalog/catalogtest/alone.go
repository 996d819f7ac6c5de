package catalogtest

import (
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
)

// Alone returns the proposer and decider of a catalogue that nobody else applies
// to: an entry is committed and applied at once, under the next index. Nodes
// become members as they are first heard of.
func Alone(c *catalog.Catalog) *alone.Solo { return alone.New(c) }

// SignerOf returns the signing key of a node by its name, the same every time.
func SignerOf(node string) alone.Signer { return alone.SignerOf(node) }

// Member returns the command that makes a node a member, under [SignerOf] it.
func Member(node, site string) *catalog.RegistryFact { return alone.Member(node, site) }

// Open opens a catalogue that takes nodes by the names that [SignerOf] has keys of.
func Open(o catalog.Options) (*catalog.Catalog, error) {
	c, err := catalog.Open(o)
	if err == nil {
		c.Rename(alone.Named)
	}
	return c, err
}
