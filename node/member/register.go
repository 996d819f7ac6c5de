package member

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

const (
	// maxTickets bounds the open tickets of the network: more than any operator
	// opens in a week.
	maxTickets = 1024
	// maxCollected bounds the expired tickets that one decision drops.
	maxCollected = 256
	// maxTries bounds how often a decision is made again because another one came
	// between.
	maxTries = 5
)

// register is the network's memory of tokens and members: an authority.Register
// over the catalogue.
type register struct{ *Office }

var _ authority.Register = register{}

// step is a decision with the records that it was made from.
type step struct {
	conditions []catalog.Condition
	commands   []catalog.Command
}

// given notes what a record is, or that there is none.
func (s *step) given(kind, name string, value []byte) {
	s.conditions = append(s.conditions, catalog.If(kind, name, value))
}

// put writes a record; without a value it drops one.
func (s *step) put(kind, name string, value []byte) {
	s.commands = append(s.commands, &catalog.RegistryFact{Kind: kind, Name: name, Value: value})
}

// decide makes a decision from what is committed, and again if what it was made
// from has changed meanwhile. make returns no commands if nothing is to be done.
func (o *Office) decide(ctx context.Context, make func(s *step) error) error {
	var err error
	for range maxTries {
		if err := o.o.Current(ctx); err != nil {
			return err
		}
		var s step
		if err := make(&s); err != nil || len(s.commands) == 0 {
			return err
		}
		var results []error
		results, err = o.o.Decider.Decide(ctx, s.conditions, s.commands...)
		if err = errors.Join(append(results, err)...); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return fault.New(fault.Unavailable, "member: others change the same records: %w", err)
}

// record reads a record as it is committed here.
func (o *Office) record(kind, name string) ([]byte, error) {
	b, err := o.o.Catalog.RegistryRecord(kind, name)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "member: read the registry: %w", err)
	}
	return b, nil
}

// Open keeps a ticket, and drops those that have expired for a day.
func (r register) Open(ctx context.Context, t authority.Ticket) error {
	return r.decide(ctx, func(s *step) error {
		all, err := r.o.Catalog.Registry(kindTicket)
		if err != nil {
			return fault.New(fault.KindOf(err), "member: read the registry: %w", err)
		}
		collected, now := 0, time.Now()
		for name, value := range all {
			kept, err := parseTicket(value)
			// Until then an answer says why a token is not good.
			if collected < maxCollected && (err != nil || now.After(kept.Expires.Add(authority.Tolerance))) {
				s.put(kindTicket, name, nil)
				collected++
			}
		}
		if len(all)-collected >= maxTickets {
			return authority.TooMany.Err()
		}
		name := ticketName(t.Key)
		s.given(kindTicket, name, nil)
		s.put(kindTicket, name, encodeRecord(ticket{Version: recordVersion, Expires: t.Expires.UTC()}))
		return nil
	})
}

// Admit spends a ticket and makes the candidate a member in one decision.
func (r register) Admit(ctx context.Context, key [ed25519.PublicKeySize]byte, c authority.Candidate) error {
	return r.decide(ctx, func(s *step) error { return r.admit(s, ticketName(key), c) })
}

func (r register) admit(s *step, name string, c authority.Candidate) error {
	revoked, err := r.record(kindRevoked, c.Name.Node)
	if err != nil {
		return err
	}
	if revoked != nil {
		return authority.Revoked.Err()
	}
	spent, err := r.record(kindTicket, name)
	if err != nil {
		return err
	}
	if spent == nil {
		return authority.UnknownToken.Err()
	}
	t, err := parseTicket(spent)
	if err != nil {
		return err
	}
	known, err := r.record(kindMember, c.Name.Node)
	if err != nil {
		return err
	}
	next := newMember(c)
	if known != nil {
		was, err := parseMember(c.Name.Node, known)
		if err != nil {
			return err
		}
		if t.Node == "" || t.Node == c.Name.Node { // else the token is not its own
			if was.Site != c.Name.Site {
				return authority.OtherSite.Err()
			}
			was.Address = c.Place.Address
			next = was // what was decided about it stays
		}
	}
	switch {
	case t.Node != "" && t.Node != c.Name.Node:
		return authority.UsedToken.Err()
	case t.Node == "" && !time.Now().Before(t.Expires):
		return authority.ExpiredToken.Err()
	}
	value, err := next.encode()
	if err != nil {
		return err
	}
	if t.Node != "" && string(value) == string(known) {
		return nil // the answer was lost
	}
	t.Node = c.Name.Node
	s.given(kindTicket, name, spent)
	s.given(kindMember, c.Name.Node, known)
	s.given(kindRevoked, c.Name.Node, nil)
	s.put(kindTicket, name, encodeRecord(t))
	s.put(kindMember, c.Name.Node, value)
	return nil
}

// Standing tells members from others, as of all that is committed.
func (r register) Standing(ctx context.Context, n authority.Name) error {
	if err := r.o.Current(ctx); err != nil {
		return err
	}
	revoked, err := r.record(kindRevoked, n.Node)
	if err != nil {
		return err
	}
	known, err := r.record(kindMember, n.Node)
	if err != nil {
		return err
	}
	if revoked != nil || known == nil {
		return authority.Revoked.Err()
	}
	m, err := parseMember(n.Node, known)
	if err == nil && m.Site != n.Site {
		err = authority.Revoked.Err()
	}
	return err
}
