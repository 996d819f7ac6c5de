package authority

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	// renewAfter is when a certificate is renewed: a month before its end, in
	// which a site may be cut off.
	renewAfter = Lifetime * 2 / 3
	// renewRetry is the pause after a failed renewal, give or take a half.
	renewRetry = time.Hour
)

// Credentials are a node's certificate as it is now: connections that are made
// after a renewal use the new one. Safe for concurrent use.
type Credentials struct {
	root    *Root
	key     crypto.Signer
	name    Name
	current atomic.Pointer[tls.Certificate]
}

// NewCredentials returns the credentials of a node from its certificate (DER),
// which may have expired and then awaits its renewal. fault.Denied if it is not
// of this network or not this node's.
func NewCredentials(root *Root, self *identity.Node, certificate []byte) (*Credentials, error) {
	cert, err := parseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	name, err := root.issued(cert)
	if err != nil {
		return nil, err
	}
	if name.Node != self.ID() {
		return nil, fault.New(fault.Denied, "authority: the certificate is another node's")
	}
	c := &Credentials{root: root, key: self.Signer(), name: name}
	return c, c.Replace(certificate)
}

// Replace takes a renewed certificate into use; fault.Denied if it does not name
// the same network, site and node.
func (c *Credentials) Replace(certificate []byte) error {
	cert, err := parseCertificate(certificate)
	if err != nil {
		return err
	}
	name, err := c.root.issued(cert)
	if err != nil {
		return err
	}
	if name != c.name {
		return fault.New(fault.Denied, "authority: the renewed certificate is not of %s", c.name.Node)
	}
	c.current.Store(&tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: c.key, Leaf: cert})
	return nil
}

// Name is who the node is.
func (c *Credentials) Name() Name { return c.name }

// Root is the network's root.
func (c *Credentials) Root() *Root { return c.root }

// Certificate is the node's certificate and key for a handshake with a member.
func (c *Credentials) Certificate() *tls.Certificate { return c.current.Load() }

// Introduction is the same with the root behind it, for a stranger who knows the
// root by its hash only.
func (c *Credentials) Introduction() *tls.Certificate {
	leaf := c.current.Load()
	return &tls.Certificate{Certificate: [][]byte{leaf.Leaf.Raw, c.root.cert.Raw}, PrivateKey: c.key, Leaf: leaf.Leaf}
}

// Due is when the certificate is to be renewed.
func (c *Credentials) Due() time.Time {
	return c.current.Load().Leaf.NotBefore.Add(Tolerance + renewAfter)
}

// KeepValid renews the certificate whenever it is due, until the context ends or
// the network says that the node was revoked. renew returns a new certificate
// (DER) and has made it durable; its failures are told to failed and tried again
// in about an hour.
func (c *Credentials) KeepValid(ctx context.Context, renew func(context.Context) ([]byte, error), failed func(error)) error {
	wait := time.Until(c.Due())
	for {
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		certificate, err := renew(ctx)
		if err == nil {
			err = c.Replace(certificate)
		}
		if errors.Is(err, Revoked) {
			return err
		}
		wait = time.Until(c.Due())
		if err != nil || wait <= 0 { // a certificate that is due again at once would be asked for without end
			if err == nil {
				err = fault.New(fault.Other, "authority: the renewed certificate is due at once: is a clock wrong?")
			}
			if ctx.Err() == nil {
				failed(err)
			}
			wait = renewRetry/2 + rand.N(renewRetry)
		}
	}
}
