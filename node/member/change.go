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
	return token, t.Expires, register{o.decisions}.Open(ctx, t)
}

// Drain makes a node take nothing new in, or again. fault.NotFound for a node
// that is no member.
func (o *Office) Drain(ctx context.Context, node string, drained bool) error {
	return o.decisions.Make(ctx, func(s *Step) error {
		return o.amend(s, node, func(m *Member) { m.Drained = drained })
	})
}

// amend changes a member's record.
func (o *Office) amend(s *Step, node string, change func(*Member)) error {
	m, err := o.decisions.Member(s, node)
	if err != nil {
		return err
	}
	next := m
	change(&next)
	if next.equal(m) {
		return nil
	}
	changed, err := next.Encode()
	if err != nil {
		return err
	}
	s.Put(kindMember, node, changed)
	return nil
}

// Remove revokes a node for good: from the commit on every node that has applied
// it refuses it. Again it does nothing. fault.NotFound for a node that never was a
// member; fault.Conflict for the node that is asked, which could not tell whether
// anybody is left to remember.
func (o *Office) Remove(ctx context.Context, node, by string) error {
	if node == o.o.Membership.Self.ID() {
		return fault.New(fault.Conflict, "a node is removed by another one: ask a node that stays")
	}
	return o.decisions.Make(ctx, func(s *Step) error {
		revoked, err := o.decisions.Record(kindRevoked, node)
		if err != nil || revoked != nil {
			return err
		}
		known, err := o.decisions.Record(kindMember, node)
		if err != nil {
			return err
		}
		if known == nil {
			return fault.New(fault.NotFound, "the network has no node %s", node)
		}
		signs, err := o.decisions.Record(kindSigner, node)
		if err != nil {
			return err
		}
		s.Given(kindMember, node, known)
		s.Given(kindRevoked, node, nil)
		s.Given(kindSigner, node, signs)
		s.Put(kindRevoked, node, encodeRecord(Revocation{Version: recordVersion, At: time.Now().UTC(), By: by}))
		if signs != nil {
			s.Put(kindSigner, node, nil)
		}
		return nil
	})
}
