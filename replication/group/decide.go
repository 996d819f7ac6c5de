package group

import (
	"context"
	"errors"
	"fmt"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/consensus"
)

// Decide has the network take a decision of this node: its commands, if all
// conditions hold where it stands in the order. It is applied here when Decide
// returns, and results are the commands': nil, or an error that every node
// computes alike. fault.Unavailable when there is no majority; with
// consensus.ErrUnknownOutcome when it may yet be taken.
func (g *Group) Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	entry, err := catalog.EncodeDecision(g.o.Signer, g.o.ID, conditions, commands)
	if err != nil {
		return nil, err
	}
	index, err := g.Propose(ctx, entry)
	if errors.Is(err, consensus.ErrUnknownOutcome) && ctx.Err() == nil {
		// A decision that was taken already changes nothing and has its results again.
		if index, err = g.Propose(ctx, entry); err != nil {
			err = fmt.Errorf("%w: %w", consensus.ErrUnknownOutcome, err) // of the first attempt
		}
	}
	if err != nil {
		return nil, err
	}
	results, ok := g.o.Catalogue.Results(index)
	if !ok {
		// It came with a copy of the catalogue, or thousands of entries ago.
		return nil, fault.New(fault.Unavailable, "group: decision %d is taken, its results are gone: %w", index, consensus.ErrUnknownOutcome)
	}
	// Who is told of a decision finds it here after a crash too: Raft applies what
	// was not synced again only once it knows that it is committed, and that takes
	// a majority.
	if err := g.o.Catalogue.Sync(); err != nil {
		return nil, err
	}
	return results, nil
}

// records reads what the catalogue says of members.
func records(c Catalogue) ([]Record, error) {
	members, err := c.Registry(catalog.KindMember)
	if err != nil {
		return nil, err
	}
	revoked, err := c.Registry(catalog.KindRevoked)
	if err != nil {
		return nil, err
	}
	var all []Record
	for id, value := range members {
		m, err := catalog.DecodeMember(value)
		if err != nil {
			return nil, err // half a directory would make strangers of members
		}
		_, gone := revoked[id]
		all = append(all, Record{
			ID: id, Site: m.Site, Address: m.Address, Witness: m.Witness, Barred: m.Barred, Founder: m.Founder, Drained: m.Drained, Revoked: gone,
		})
		delete(revoked, id)
	}
	for id := range revoked { // of who never was, or is no member any more
		all = append(all, Record{ID: id, Revoked: true})
	}
	return all, nil
}
