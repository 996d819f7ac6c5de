package authority

import (
	"context"
	"crypto/ed25519"
	"net"
	"slices"
	"strconv"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	enrollContext = "pelago enrollment v1\x00"
	flagWitness   = 1 // of a Place
)

// MaxAddress is the length in bytes of the longest address that a node may have,
// as far as one byte of length goes.
const MaxAddress = 255

// Place is where a joining node is reached and what it is to be.
type Place struct {
	Address string // host:port of its port; at most MaxAddress bytes
	Witness bool   // it votes and keeps no shards
}

// Check wants an address that somebody can dial: fault.Invalid otherwise.
func (p Place) Check() error {
	host, number, err := net.SplitHostPort(p.Address)
	if err == nil && host != "" && len(p.Address) <= MaxAddress {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 {
			return nil
		}
	}
	return fault.New(fault.Invalid, "authority: not an address that others can dial")
}

// Enrollment asks to join: a certificate request, the node's sealing key with its
// proof, where it is reached, and a signature over all of it by the token's key.
type Enrollment struct {
	Ticket    [ed25519.PublicKeySize]byte
	Signature [ed25519.SignatureSize]byte
	Sealing   [identity.SealingBytes]byte
	Proof     [identity.ProofBytes]byte
	Place     Place
	Request   []byte // PKCS #10, DER
}

// NewEnrollment makes the request of a node that holds a token. The root is that
// which the token pins; fault.Denied for another one, fault.Invalid for a place
// that nobody can dial.
func NewEnrollment(root *Root, self *identity.Node, t Token, site string, at Place) (Enrollment, error) {
	if root.hash != t.pin {
		return Enrollment{}, fault.New(fault.Denied, "authority: the join token is of another network")
	}
	if err := at.Check(); err != nil {
		return Enrollment{}, err
	}
	request, err := NewRequest(self, root.network, site)
	if err != nil {
		return Enrollment{}, err
	}
	e := Enrollment{Ticket: t.ticket(), Sealing: self.Sealing(), Proof: self.SealingProof(), Place: at, Request: request}
	e.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(t.key(), e.signed(root)))
	return e, nil
}

// signed is what the token's key signs. All parts but the last have a fixed length
// or say how long they are.
func (e Enrollment) signed(root *Root) []byte {
	return slices.Concat([]byte(enrollContext), root.hash[:], e.Sealing[:], e.Proof[:], e.Place.append(nil), e.Request)
}

func (p Place) append(b []byte) []byte {
	var flags byte
	if p.Witness {
		flags = flagWitness
	}
	return append(append(b, flags, byte(len(p.Address))), p.Address...)
}

// Renewal asks for a new certificate in place of an old one, which may have
// expired. The request proves the key.
type Renewal struct {
	Certificate []byte // the old one, DER
	Request     []byte // PKCS #10, DER
}

// NewRenewal makes the request of a node that renews its certificate.
func NewRenewal(root *Root, self *identity.Node, certificate []byte) (Renewal, error) {
	cert, err := parseCertificate(certificate)
	if err != nil {
		return Renewal{}, err
	}
	name, err := root.issued(cert)
	if err != nil {
		return Renewal{}, err
	}
	request, err := NewRequest(self, name.Network, name.Site)
	return Renewal{Certificate: certificate, Request: request}, err
}

// Registrar lets nodes in at a node that may sign.
type Registrar struct {
	signer   *Signer
	register Register
}

// NewRegistrar returns the registrar of a network whose memory is the register.
func NewRegistrar(s *Signer, r Register) *Registrar { return &Registrar{signer: s, register: r} }

// Enroll checks a request to join, has the register decide, and returns the
// certificate. Errors are a [Refusal]'s, or the register's.
func (r *Registrar) Enroll(ctx context.Context, e Enrollment) ([]byte, error) {
	request, err := r.request(e.Request)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(e.Ticket[:], e.signed(r.signer.root), e.Signature[:]) {
		return nil, NotItself.Err()
	}
	if err := identity.CheckSealing(request.Public, e.Sealing, e.Proof); err != nil {
		return nil, NotItself.Err()
	}
	if err := e.Place.Check(); err != nil {
		return nil, Malformed.Err()
	}
	c := Candidate{Name: request.Name, Public: request.Public, Sealing: e.Sealing, Proof: e.Proof, Place: e.Place}
	if err := r.register.Admit(ctx, e.Ticket, c); err != nil {
		return nil, err
	}
	return r.signer.Issue(request, time.Now())
}

// Renew checks a request for a new certificate and returns it: the old one must
// be of this network, of the same node, site and key, and the node a member.
func (r *Registrar) Renew(ctx context.Context, n Renewal) ([]byte, error) {
	request, err := r.request(n.Request)
	if err != nil {
		return nil, err
	}
	old, err := parseCertificate(n.Certificate)
	if err != nil {
		return nil, Malformed.Err()
	}
	// The id is the hash of the key: the same name is the same key.
	if name, err := r.signer.root.issued(old); err != nil || name != request.Name {
		return nil, NotItself.Err()
	}
	if err := r.register.Standing(ctx, request.Name); err != nil {
		return nil, err
	}
	return r.signer.Issue(request, time.Now())
}

func (r *Registrar) request(der []byte) (Request, error) {
	request, err := ParseRequest(der)
	if err != nil {
		return Request{}, Malformed.Err()
	}
	if request.Name.Network != r.signer.root.network {
		return Request{}, OtherNetwork.Err()
	}
	return request, nil
}
