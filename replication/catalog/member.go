package catalog

import (
	"crypto/ed25519"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
)

// The registry kinds that the catalogue itself reads, both by node id. The value
// of a member is a catalogpb.Member; that of a revocation is opaque.
const (
	KindMember  = "member"
	KindRevoked = "revoked"
)

// DecodeMember reads a member record: fault.Invalid unless it has a public key.
func DecodeMember(value []byte) (*catalogpb.Member, error) {
	var m catalogpb.Member
	if err := proto.Unmarshal(value, &m); err != nil {
		return nil, fault.New(fault.Invalid, "catalog: a member record cannot be read: %w", err)
	}
	if len(m.PublicKey) != ed25519.PublicKeySize {
		return nil, fault.New(fault.Invalid, "catalog: a member record with a key of %d bytes", len(m.PublicKey))
	}
	return &m, nil
}

// member returns the record of a node: the result is fault.Denied for who is no
// member, or none any more.
func (t *txn) member(node string) (m *catalogpb.Member, result, err error) {
	revoked, err := t.read(registryKey(KindRevoked, node))
	if err != nil {
		return nil, nil, err
	}
	if revoked != nil {
		return nil, fault.New(fault.Denied, "catalog: node %s is revoked", node), nil
	}
	row, err := t.read(registryKey(KindMember, node))
	if err != nil {
		return nil, nil, err
	}
	if row == nil {
		return nil, fault.New(fault.Denied, "catalog: node %s is no member", node), nil
	}
	m, err = DecodeMember(row)
	return m, nil, err
}

// moves reports whether a decision changes nothing but the address in the record
// of its own node. A witness may decide that alone: it may stand where nobody is
// trusted with patients' data, and who writes members' records can make itself one
// that others give their keys to.
func (d *Decision) moves(self *catalogpb.Member) bool {
	if len(d.Commands) != 1 {
		return false
	}
	f, ok := d.Commands[0].(*RegistryFact)
	if !ok || f.Kind != KindMember || f.Name != d.Node {
		return false
	}
	next, err := DecodeMember(f.Value)
	if err != nil {
		return false
	}
	next.Address = self.Address
	return proto.Equal(next, self)
}

// founder returns the member record that a decision makes for its own node, nil
// for none: the first decision of all is signed by its key.
func founder(d *Decision) *catalogpb.Member {
	for _, c := range d.Commands {
		f, ok := c.(*RegistryFact)
		if !ok || f.Kind != KindMember || f.Name != d.Node {
			continue
		}
		if m, err := DecodeMember(f.Value); err == nil {
			return m
		}
	}
	return nil
}
