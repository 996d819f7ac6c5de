package member

import (
	"context"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
)

// Token opens a join token that is good for a lifetime; 0 is
// authority.TokenLifetime. fault.Invalid for one that is too long, fault.Full when
// too many are open.
func (o *Office) Token(ctx context.Context, lifetime time.Duration) (token authority.Token, expires time.Time, err error) {
	token, t, err := authority.NewToken(o.o.Membership.Credentials.Root(), lifetime, time.Now())
	if err != nil {
		return token, expires, err
	}
	return token, t.Expires, register{o}.Open(ctx, t)
}

// Drain makes a node take nothing new in, or again. fault.NotFound for a node
// that is no member.
func (o *Office) Drain(ctx context.Context, node string, drained bool) error {
	return o.decide(ctx, func(s *step) error {
		return o.amend(s, node, func(m *Member) { m.Drained = drained })
	})
}

// amend changes a member's record.
func (o *Office) amend(s *step, node string, change func(*Member)) error {
	m, value, err := o.standing(node)
	if err != nil {
		return err
	}
	next := m
	change(&next)
	if next.equal(m) {
		return nil
	}
	changed, err := next.encode()
	if err != nil {
		return err
	}
	s.given(kindMember, node, value)
	s.given(kindRevoked, node, nil)
	s.put(kindMember, node, changed)
	return nil
}

// standing reads the record of a member in good standing.
func (o *Office) standing(node string) (Member, []byte, error) {
	value, err := o.record(kindMember, node)
	if err != nil {
		return Member{}, nil, err
	}
	if value == nil {
		return Member{}, nil, fault.New(fault.NotFound, "the network has no node %s", node)
	}
	revoked, err := o.record(kindRevoked, node)
	if err != nil {
		return Member{}, nil, err
	}
	if revoked != nil {
		return Member{}, nil, fault.New(fault.NotFound, "node %s was removed from the network", node)
	}
	m, err := parseMember(node, value)
	return m, value, err
}

// Remove revokes a node for good: from the commit on every node that has applied
// it refuses it. Again it does nothing. fault.NotFound for a node that never was a
// member; fault.Conflict for the node that is asked, which could not tell whether
// anybody is left to remember.
func (o *Office) Remove(ctx context.Context, node, by string) error {
	if node == o.o.Membership.Self.ID() {
		return fault.New(fault.Conflict, "a node is removed by another one: ask a node that stays")
	}
	return o.decide(ctx, func(s *step) error {
		revoked, err := o.record(kindRevoked, node)
		if err != nil || revoked != nil {
			return err
		}
		known, err := o.record(kindMember, node)
		if err != nil {
			return err
		}
		if known == nil {
			return fault.New(fault.NotFound, "the network has no node %s", node)
		}
		signs, err := o.record(kindSigner, node)
		if err != nil {
			return err
		}
		s.given(kindMember, node, known)
		s.given(kindRevoked, node, nil)
		s.given(kindSigner, node, signs)
		s.put(kindRevoked, node, encodeRecord(Revocation{Version: recordVersion, At: time.Now().UTC(), By: by}))
		if signs != nil {
			s.put(kindSigner, node, nil)
		}
		return nil
	})
}
