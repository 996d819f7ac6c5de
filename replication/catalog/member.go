package catalog

import (
	"crypto/ed25519"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
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

// isIDOf reports whether a node's id is that of a key.
func isIDOf(node string, key ed25519.PublicKey) bool { return identity.IDOf(key) == node }

// Rename has a catalogue take nodes by other names than the ids of their keys: by
// those that named reports. It is for nodes that are made up (package alone), whose
// catalogues no network takes for its own, and is called before the first Apply.
func (c *Catalog) Rename(named func(node string, key ed25519.PublicKey) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named = named
}

// memberRecord reads the record of a node that is about to be written. It is
// fault.Invalid under an id that is not of its key: who may decide would else sign
// in another's name.
func (c *Catalog) memberRecord(node string, value []byte) (*catalogpb.Member, error) {
	m, err := DecodeMember(value)
	if err == nil && !c.named(node, m.PublicKey) {
		return nil, fault.New(fault.Invalid, "catalog: a member record of node %s with another node's key", node)
	}
	return m, err
}

// member returns the record of a node: the result is fault.Denied for who is no
// member, or none any more.
func (read records) member(node string) (m *catalogpb.Member, result, err error) {
	revoked, err := read(registryKey(KindRevoked, node))
	if err != nil {
		return nil, nil, err
	}
	if revoked != nil {
		return nil, fault.New(fault.Denied, "catalog: node %s is revoked", node), nil
	}
	row, err := read(registryKey(KindMember, node))
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
func (c *Catalog) founder(d *Decision) *catalogpb.Member {
	for _, command := range d.Commands {
		f, ok := command.(*RegistryFact)
		if !ok || f.Kind != KindMember || f.Name != d.Node {
			continue
		}
		if m, err := c.memberRecord(f.Name, f.Value); err == nil {
			return m
		}
	}
	return nil
}
