package authority

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	// Lifetime is how long a node's certificate lasts.
	Lifetime = 90 * 24 * time.Hour
	// Tolerance is how far a clock may be from the truth: certificates begin so
	// long before they are issued, and are taken so long before they begin and
	// after they end. Two clocks may therefore be twice as far from each other.
	Tolerance = 24 * time.Hour

	// maxCertificate bounds what is parsed of a certificate or a request: a site's
	// name of 64 characters takes 768 bytes of it, all else about 500.
	maxCertificate = 4 << 10
)

// Root is a network's certificate authority as everyone knows it.
type Root struct {
	cert    *x509.Certificate
	pool    *x509.CertPool
	network string
	hash    [sha256.Size]byte
}

// ParseRoot reads a root certificate (DER) that a network of ours has made;
// fault.Invalid if it is none. It is not trusted by being parsed: its [Root.Hash]
// is what tokens and files pin.
func ParseRoot(der []byte) (*Root, error) {
	cert, err := parseCertificate(der)
	if err != nil {
		return nil, err
	}
	network := cert.Subject.CommonName
	_, ed := cert.PublicKey.(ed25519.PublicKey)
	if !ed || !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage != x509.KeyUsageCertSign || !validNetwork(network) {
		return nil, fault.New(fault.Invalid, "authority: not the root certificate of a network")
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return nil, fault.New(fault.Invalid, "authority: root certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Root{cert: cert, pool: pool, network: network, hash: sha256.Sum256(der)}, nil
}

// Network is the network's name.
func (r *Root) Network() string { return r.network }

// Hash is SHA-256 of the certificate's DER, the network's one true name.
func (r *Root) Hash() [sha256.Size]byte { return r.hash }

// DER returns the certificate.
func (r *Root) DER() []byte { return bytes.Clone(r.cert.Raw) }

// Verify reads a node's certificate and checks that this network issued it, that
// it names the node whose key it holds, and that it is valid now, give or take
// [Tolerance]. fault.Invalid for what is no certificate of a node, fault.Denied
// for another network's, a forged or an expired one. Whether the node was revoked
// is for the caller to ask.
func (r *Root) Verify(der []byte, now time.Time) (Name, error) {
	cert, err := parseCertificate(der)
	if err != nil {
		return Name{}, err
	}
	switch {
	case now.Add(Tolerance).Before(cert.NotBefore):
		return Name{}, fault.New(fault.Denied, "authority: the certificate is not valid yet: is a clock wrong?")
	case now.Add(-Tolerance).After(cert.NotAfter):
		return Name{}, fault.New(fault.Denied, "authority: the certificate has expired")
	}
	return r.issued(cert)
}

// issued is [Root.Verify] without a look at the clock.
func (r *Root) issued(cert *x509.Certificate) (Name, error) {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: r.pool, Intermediates: x509.NewCertPool(), CurrentTime: cert.NotAfter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return Name{}, fault.New(fault.Denied, "authority: the certificate is not of this network: %w", err)
	}
	name, err := nameOf(cert)
	if err != nil {
		return Name{}, err
	}
	if name.Network != r.network {
		return Name{}, fault.New(fault.Denied, "authority: the certificate names another network")
	}
	return name, nil
}

// NameOf returns the name in a certificate that a [Root] has verified before, such
// as those of a connection of cluster/port; fault.Invalid if it names no node.
func NameOf(cert *x509.Certificate) (Name, error) { return nameOf(cert) }

// nameOf reads the name, and checks that the key has the id that it names.
func nameOf(cert *x509.Certificate) (Name, error) {
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || cert.IsCA || len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return Name{}, fault.New(fault.Invalid, "authority: not a node's certificate")
	}
	name, err := ParseName(cert.URIs[0])
	if err != nil {
		return Name{}, err
	}
	if name.Node != identity.IDOf(public) {
		return Name{}, fault.New(fault.Denied, "authority: the certificate names a node that has another key")
	}
	return name, nil
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fault.New(fault.Invalid, "authority: a certificate of %d bytes", len(der))
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "authority: certificate: %w", err)
	}
	return cert, nil
}
