package authority

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"net/url"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// Request is a certificate request whose sender holds the key that it names.
type Request struct {
	Name   Name
	Public ed25519.PublicKey
}

// NewRequest makes a node's certificate request (PKCS #10, DER) to a network, for
// a site. fault.Invalid for names that cannot stand in a certificate.
func NewRequest(self *identity.Node, network, site string) ([]byte, error) {
	name := Name{Network: network, Site: site, Node: self.ID()}
	if err := name.Check(); err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{URIs: []*url.URL{name.URI()}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, self.Signer())
	if err != nil {
		return nil, fault.New(fault.Other, "authority: certificate request: %w", err)
	}
	return der, nil
}

// ParseRequest reads a certificate request from outside: at most 4 KiB, an Ed25519
// key, signed by it (proof of possession), and nothing named but one node, whose
// id is the key's hash. fault.Invalid for anything else.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > maxCertificate {
		return Request{}, fault.New(fault.Invalid, "authority: a certificate request of %d bytes", len(der))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fault.New(fault.Invalid, "authority: certificate request: %w", err)
	}
	public, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok || len(csr.URIs) != 1 || len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) != 0 || len(csr.Subject.Names) != 0 {
		return Request{}, fault.New(fault.Invalid, "authority: a certificate request names more than a node, or has a key of another kind")
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fault.New(fault.Invalid, "authority: certificate request: %w", err)
	}
	name, err := ParseName(csr.URIs[0])
	if err != nil {
		return Request{}, err
	}
	if name.Node != identity.IDOf(public) {
		return Request{}, fault.New(fault.Invalid, "authority: a certificate request for a node that has another key")
	}
	return Request{Name: name, Public: public}, nil
}
