package authority

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const signerContext = "pelago authority key v1\x00"

// noEnd is RFC 5280's "no well-defined expiration date" (4.1.2.5): the root ends
// with its network. The year is all that matters to a clock.
var noEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Signer is the authority of a network at a node that may sign.
type Signer struct {
	root *Root
	key  ed25519.PrivateKey
}

// Found makes a new network: its name, a key, and the root certificate that the
// key signs. Nothing is kept: see [Signer.SealTo]. fault.Invalid for a name that
// is no DNS label in lower case.
func Found(network string, now time.Time) (*Signer, error) {
	if !validNetwork(network) {
		return nil, Name{Network: network}.Check()
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fault.New(fault.Other, "authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: network},
		NotBefore: now.Add(-Tolerance).UTC(), NotAfter: noEnd,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, fault.New(fault.Other, "authority: make the root certificate: %w", err)
	}
	root, err := ParseRoot(der)
	if err != nil {
		return nil, err
	}
	return &Signer{root: root, key: key}, nil
}

// Root is the authority's certificate.
func (s *Signer) Root() *Root { return s.root }

// SealTo seals the authority's key to a node that shall sign too, by its sealing
// key (of which identity.CheckSealing was satisfied): 80 bytes that only
// [OpenSigner] at that node reads, and may lie in the catalogue.
func (s *Signer) SealTo(node string, sealing [identity.SealingBytes]byte) ([]byte, error) {
	return identity.SealTo(sealing, signerInfo(s.root, node), s.key.Seed())
}

// OpenSigner opens the authority's key, sealed to self. fault.Corrupt if it is
// sealed to another node, is another network's, or was changed.
func OpenSigner(root *Root, self *identity.Node, sealed []byte) (*Signer, error) {
	seed, err := self.Unseal(signerInfo(root, self.ID()), sealed)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fault.New(fault.Corrupt, "authority: a signing key of %d bytes", len(seed))
	}
	key := ed25519.NewKeyFromSeed(seed)
	if !key.Public().(ed25519.PublicKey).Equal(root.cert.PublicKey) {
		return nil, fault.New(fault.Corrupt, "authority: the signing key is not that of the root certificate")
	}
	return &Signer{root: root, key: key}, nil
}

func signerInfo(root *Root, node string) []byte {
	return slices.Concat([]byte(signerContext), root.hash[:], []byte(node))
}

// Issue signs the certificate of a node that has asked for it and been admitted:
// DER, valid from [Tolerance] before now for [Lifetime] after it. fault.Denied for
// another network's request.
func (s *Signer) Issue(r Request, now time.Time) ([]byte, error) {
	if r.Name.Network != s.root.network {
		return nil, OtherNetwork.Err()
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: r.Name.Node},
		NotBefore: now.Add(-Tolerance).UTC(), NotAfter: now.Add(Lifetime).UTC(),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{r.Name.URI()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.root.cert, r.Public, s.key)
	if err != nil {
		return nil, fault.New(fault.Other, "authority: issue: %w", err)
	}
	if _, err := s.root.Verify(der, now); err != nil {
		return nil, fault.New(fault.Other, "authority: what was issued does not verify: %w", err)
	}
	return der, nil
}

// newSerial returns 126 random bits and one that makes it positive and of full
// length (RFC 5280, 4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}
