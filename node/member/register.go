package member

import (
	"context"
	"crypto/ed25519"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
)

const (
	// maxTickets bounds the open tickets of the network: more than any operator
	// opens in a week.
	maxTickets = 1024
	// maxCollected bounds the expired tickets that one decision drops.
	maxCollected = 256
)

// register is the network's memory of tokens and members: an authority.Register
// over the catalogue.
type register struct{ Decisions }

var _ authority.Register = register{}

// Open keeps a ticket, and drops those that have expired for a day.
func (r register) Open(ctx context.Context, t authority.Ticket) error {
	return r.Make(ctx, func(s *Step) error {
		all, err := r.Records.Registry(kindTicket)
		if err != nil {
			return fault.New(fault.KindOf(err), "member: read the registry: %w", err)
		}
		collected, now := 0, time.Now()
		for name, value := range all {
			kept, err := parseTicket(value)
			// Until then an answer says why a token is not good.
			if collected < maxCollected && (err != nil || now.After(kept.Expires.Add(authority.Tolerance))) {
				s.Put(kindTicket, name, nil)
				collected++
			}
		}
		if len(all)-collected >= maxTickets {
			return authority.TooMany.Err()
		}
		name := ticketName(t.Key)
		s.Given(kindTicket, name, nil)
		s.Put(kindTicket, name, encodeRecord(ticket{Version: recordVersion, Expires: t.Expires.UTC()}))
		return nil
	})
}

// Admit spends a ticket and makes the candidate a member in one decision.
func (r register) Admit(ctx context.Context, key [ed25519.PublicKeySize]byte, c authority.Candidate) error {
	return r.Make(ctx, func(s *Step) error { return r.admit(s, ticketName(key), c) })
}

func (r register) admit(s *Step, name string, c authority.Candidate) error {
	revoked, err := r.Record(kindRevoked, c.Name.Node)
	if err != nil {
		return err
	}
	if revoked != nil {
		return authority.Revoked.Err()
	}
	spent, err := r.Record(kindTicket, name)
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
	known, err := r.Record(kindMember, c.Name.Node)
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
	value, err := next.Encode()
	if err != nil {
		return err
	}
	if t.Node != "" && string(value) == string(known) {
		return nil // the answer was lost
	}
	t.Node = c.Name.Node
	s.Given(kindTicket, name, spent)
	s.Given(kindMember, c.Name.Node, known)
	s.Given(kindRevoked, c.Name.Node, nil)
	s.Put(kindTicket, name, encodeRecord(t))
	s.Put(kindMember, c.Name.Node, value)
	return nil
}

// Standing tells members from others, as of all that is committed.
func (r register) Standing(ctx context.Context, n authority.Name) error {
	if err := r.Current(ctx); err != nil {
		return err
	}
	revoked, err := r.Record(kindRevoked, n.Node)
	if err != nil {
		return err
	}
	known, err := r.Record(kindMember, n.Node)
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
