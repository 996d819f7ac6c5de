package member

import (
	"context"
	"errors"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// maxTries bounds how often a decision is made again because another one came
// between.
const maxTries = 5

// Decider has the network decide: all commands if every condition holds, else
// none, which is fault.Conflict. The decision is applied at this node when it
// returns.
type Decider interface {
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Records are the network's memory, record by record. *catalog.Catalog has them.
type Records interface {
	// Registry returns the records of a kind by name, all of them or an error.
	Registry(kind string) (map[string][]byte, error)
	// RegistryRecord returns one record, nil when there is none.
	RegistryRecord(kind, name string) ([]byte, error)
}

// Decisions makes decisions of the network from what is committed.
type Decisions struct {
	Records Records
	Decider Decider
	// Current returns once everything that was committed anywhere when it was
	// called is applied here; fault.Unavailable without a majority.
	Current func(ctx context.Context) error
}

// Step is a decision in the making, with the records that it is made from.
type Step struct {
	conditions []catalog.Condition
	commands   []catalog.Command
}

// Given notes what a record is, or that there is none: the decision is taken only
// if that holds then.
func (s *Step) Given(kind, name string, value []byte) {
	s.conditions = append(s.conditions, catalog.If(kind, name, value))
}

// Put writes a record; without a value it drops one.
func (s *Step) Put(kind, name string, value []byte) {
	s.commands = append(s.commands, &catalog.RegistryFact{Kind: kind, Name: name, Value: value})
}

// Make makes a decision from what is committed, and again if what it was made
// from has changed meanwhile. make says nothing to be put if nothing is to be done.
// fault.Unavailable if others come between each time, or there is no majority.
func (d Decisions) Make(ctx context.Context, make func(s *Step) error) error {
	var err error
	for range maxTries {
		if err := d.Current(ctx); err != nil {
			return err
		}
		var s Step
		if err := make(&s); err != nil || len(s.commands) == 0 {
			return err
		}
		var results []error
		results, err = d.Decider.Decide(ctx, s.conditions, s.commands...)
		if err = errors.Join(append(results, err)...); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return fault.New(fault.Unavailable, "member: others change the same records: %w", err)
}

// Record reads a record as it is committed here.
func (d Decisions) Record(kind, name string) ([]byte, error) {
	b, err := d.Records.RegistryRecord(kind, name)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "member: read the registry: %w", err)
	}
	return b, nil
}

// Member reads the record of a member in good standing, and has the decision taken
// only if it is that then: fault.NotFound for who is none.
func (d Decisions) Member(s *Step, node string) (Member, error) {
	value, err := d.Record(kindMember, node)
	if err != nil {
		return Member{}, err
	}
	if value == nil {
		return Member{}, fault.New(fault.NotFound, "the network has no node %s", node)
	}
	revoked, err := d.Record(kindRevoked, node)
	if err != nil {
		return Member{}, err
	}
	if revoked != nil {
		return Member{}, fault.New(fault.NotFound, "node %s was removed from the network", node)
	}
	s.Given(kindMember, node, value)
	s.Given(kindRevoked, node, nil)
	return parseMember(node, value)
}
