package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/archive"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/journal"
)

// network is what the nodes agree by.
type network interface {
	journal.Proposer
	archive.Decider
}

// openNetwork opens the network that a node is in, founding it if it is in none.
func openNetwork(c *catalog.Catalog, self *identity.Node, site string) (network, error) {
	n := &alone{catalog: c, self: self}
	member, err := c.RegistryRecord(catalog.KindMember, self.ID())
	if err != nil || member != nil {
		return n, err
	}
	sealing, proof := self.Sealing(), self.SealingProof()
	member, err = proto.Marshal(&catalogpb.Member{
		Site: site, PublicKey: self.Public(), SealingKey: sealing[:], SealingProof: proof[:], Founder: true,
	})
	if err != nil {
		return nil, fmt.Errorf("found the network: %w", err)
	}
	absent := []catalog.Condition{catalog.If(catalog.KindMember, self.ID(), nil)}
	results, err := n.Decide(context.Background(), absent, &catalog.RegistryFact{Kind: catalog.KindMember, Name: self.ID(), Value: member})
	if err := errors.Join(append(results, err)...); err != nil {
		return nil, fmt.Errorf("found the network: %w", err)
	}
	return n, nil
}

// alone is the network of one node: what it proposes is committed once it is
// applied, and decided once that is synced.
type alone struct {
	catalog *catalog.Catalog
	self    *identity.Node

	mu sync.Mutex // held over Apply: one order
}

// Propose implements [journal.Proposer]. The journal keeps what the catalogue has
// not synced.
func (a *alone) Propose(_ context.Context, entry []byte) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.catalog.Position()
	at.Index, at.Term = at.Index+1, max(at.Term, 1)
	err := a.catalog.Apply([]replication.Entry{{Index: at.Index, Term: at.Term, Data: entry}}, at)
	return at.Index, err
}

// Decide implements [archive.Decider] and [ae.Decider].
func (a *alone) Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	entry, err := catalog.EncodeDecision(a.self, a.self.ID(), conditions, commands)
	if err != nil {
		return nil, err
	}
	index, err := a.Propose(ctx, entry)
	if err != nil {
		return nil, err
	}
	results, ok := a.catalog.Results(index)
	if !ok {
		return nil, fault.New(fault.Unavailable, "the result of entry %d is not kept", index)
	}
	return results, a.catalog.Sync()
}
