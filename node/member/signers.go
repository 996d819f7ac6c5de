package member

import (
	"context"
	"slices"

	"pelago/cluster/identity"
)

// fewestSigners is how many sites may sign where there are so many, although they
// do not vote: of two sites one votes, and the loss of it must not be the end of
// the authority.
const fewestSigners = 3

// chooseSigners returns who is to be given the authority's key, beside those who
// have it: every node that votes, and one node of further sites until there are
// fewestSigners. Witnesses keep no keys; who may never vote or is drained gets
// none. members are in good standing, by site and id.
func chooseSigners(members []Member, voters []string, has func(node string) bool) []string {
	var chosen []string
	sites := map[string]bool{}
	may := func(m Member) bool { return !m.Witness && !m.Barred && !m.Drained }
	for _, m := range members {
		votes := slices.Contains(voters, m.Node)
		if has(m.Node) || votes && may(m) {
			sites[m.Site] = true
		}
		if votes && may(m) && !has(m.Node) {
			chosen = append(chosen, m.Node)
		}
	}
	for _, m := range members {
		if len(sites) >= fewestSigners {
			break
		}
		if may(m) && !sites[m.Site] {
			sites[m.Site] = true
			chosen = append(chosen, m.Node)
		}
	}
	return chosen
}

// seal gives the authority's key to those who are to have it and have it not.
func (o *Office) seal(ctx context.Context) error {
	signer, err := o.o.Membership.Signer()
	if err != nil || signer == nil {
		return err
	}
	v := o.o.Registry.now.Load()
	has := func(node string) bool { return v.signers[node] != nil }
	for _, node := range chooseSigners(o.o.Registry.Members(), o.o.Voters(), has) {
		err := o.decisions.Make(ctx, func(s *Step) error {
			m, err := o.decisions.Member(s, node)
			if err != nil {
				return err
			}
			there, err := o.decisions.Record(kindSigner, node)
			if err != nil || there != nil {
				return err
			}
			if err := identity.CheckSealing(m.Public, m.Sealing, m.Proof); err != nil {
				return err
			}
			sealed, err := signer.SealTo(node, m.Sealing)
			if err != nil {
				return err
			}
			s.Given(kindSigner, node, nil)
			s.Put(kindSigner, node, sealed)
			return nil
		})
		if err != nil {
			return err
		}
		o.o.Log.Info("node may sign for the network from now on", "node", node)
	}
	return nil
}

// take keeps the authority's key, if it was sealed to this node.
func (o *Office) take() error {
	m := o.o.Membership
	sealed := o.o.Registry.now.Load().signers[m.Self.ID()]
	if sealed == nil {
		return nil
	}
	signer, err := m.Signer()
	if err == nil && signer != nil {
		return nil
	}
	return m.MaySign(sealed)
}
