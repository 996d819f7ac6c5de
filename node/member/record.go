package member

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/replication/catalog"
)

// The kinds of records in the catalogue's registry.
const (
	kindMember  = catalog.KindMember  // by node id; stays when the node is removed, as what it signed stays
	kindRevoked = catalog.KindRevoked // by node id
	kindTicket  = "ticket"            // by the ticket's key, hexadecimal
	kindSigner  = "signer"            // by node id: the authority's key, sealed to it
)

// Member is a node of the network as the catalogue knows it.
type Member struct {
	Node    string
	Site    string
	Public  ed25519.PublicKey
	Sealing [identity.SealingBytes]byte
	Proof   [identity.ProofBytes]byte
	Address string // host:port of its port
	Witness bool   // votes, keeps no shards
	Barred  bool   // never votes
	Founder bool
	Drained bool // takes nothing new in
}

// ticket is what is kept of a join token.
type ticket struct {
	Version int       `json:"version"`
	Expires time.Time `json:"expires"`
	Node    string    `json:"node,omitempty"` // that joined by it
}

// Revocation says when a node was removed, and who did it.
type Revocation struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"` // by the clock of the node that was asked
	By      string    `json:"by,omitempty"`
}

const recordVersion = 1

func ticketName(key [ed25519.PublicKeySize]byte) string { return hex.EncodeToString(key[:]) }

func encodeRecord(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of ours
	}
	return b
}

func parseTicket(b []byte) (ticket, error) {
	var t ticket
	err := parseRecord(b, &t, &t.Version)
	return t, err
}

func parseRevocation(b []byte) (Revocation, error) {
	var r Revocation
	err := parseRecord(b, &r, &r.Version)
	return r, err
}

func parseRecord(b []byte, into any, version *int) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fault.New(fault.Corrupt, "member: a record: %w", err)
	}
	if *version > recordVersion {
		return fault.New(fault.Unsupported, "member: a record of version %d, newer than %d", *version, recordVersion)
	}
	return nil
}

// newMember is the record of a node that is let in.
func newMember(c authority.Candidate) Member {
	return Member{
		Node: c.Name.Node, Site: c.Name.Site, Public: c.Public, Sealing: c.Sealing, Proof: c.Proof,
		Address: c.Place.Address, Witness: c.Place.Witness,
	}
}
