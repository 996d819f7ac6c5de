package member

import (
	"crypto/ed25519"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/replication/catalog/catalogpb"
)

// Encode returns the member's record, without its id, which is the record's name.
func (m Member) Encode() ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&catalogpb.Member{
		Site: m.Site, PublicKey: m.Public, SealingKey: m.Sealing[:], SealingProof: m.Proof[:], Address: m.Address,
		Witness: m.Witness, Barred: m.Barred, Founder: m.Founder, Drained: m.Drained,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "member: a record: %w", err)
	}
	return b, nil
}

// parseMember reads the record of a node and checks that its keys are the node's.
func parseMember(node string, b []byte) (Member, error) {
	var pb catalogpb.Member
	if err := proto.Unmarshal(b, &pb); err != nil {
		return Member{}, fault.New(fault.Corrupt, "member: a record: %w", err)
	}
	if len(pb.PublicKey) != ed25519.PublicKeySize || identity.IDOf(pb.PublicKey) != node ||
		len(pb.SealingKey) != identity.SealingBytes || len(pb.SealingProof) != identity.ProofBytes {
		return Member{}, fault.New(fault.Corrupt, "member: the keys in a record are not its node's")
	}
	return Member{
		Node: node, Site: pb.Site, Public: pb.PublicKey,
		Sealing: [identity.SealingBytes]byte(pb.SealingKey), Proof: [identity.ProofBytes]byte(pb.SealingProof),
		Address: pb.Address, Witness: pb.Witness, Barred: pb.Barred, Founder: pb.Founder, Drained: pb.Drained,
	}, nil
}

func (m Member) equal(other Member) bool {
	return m.Public.Equal(other.Public) && m.Node == other.Node && m.Site == other.Site &&
		m.Sealing == other.Sealing && m.Proof == other.Proof && m.Address == other.Address &&
		m.Witness == other.Witness && m.Barred == other.Barred && m.Founder == other.Founder && m.Drained == other.Drained
}
