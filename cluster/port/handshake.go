package port

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
)

// serverHandshake authenticates an accepted connection. It returns the service
// that was asked for as soon as that is known.
func (p *Port) serverHandshake(ctx context.Context, k *link) (*tls.Conn, Service, error) {
	if err := k.SetDeadline(time.Now().Add(p.Limits.Handshake)); err != nil {
		return nil, "", err
	}
	var service Service
	conn := tls.Server(k, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked, err := p.choose(hello.SupportedProtos)
			if err != nil {
				return nil, err
			}
			service = asked
			return p.serverConfig(asked), nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, service, err
	}
	if service == Join { // a stranger to the end, and counted as one
		return conn, service, k.SetDeadline(time.Now().Add(p.Limits.Joining))
	}
	name, err := PeerOf(conn.ConnectionState())
	if err != nil {
		return nil, service, err
	}
	if err := p.identify(k, name.Node); err != nil {
		return nil, service, err
	}
	return conn, service, k.SetDeadline(time.Time{})
}

// choose picks the one service that a client offers, if anybody listens for it.
func (p *Port) choose(offered []string) (Service, error) {
	if len(offered) != 1 {
		return "", fault.New(fault.Protocol, "port: %d protocols are offered, not one", len(offered))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.services[Service(offered[0])]; l != nil {
		return l.service, nil
	}
	return "", fault.New(fault.Unsupported, "port: an unknown protocol is offered")
}

func (p *Port) serverConfig(service Service) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{string(service)},
		// A resumed session would show a certificate that was verified once.
		SessionTicketsDisabled: true,
	}
	if service == Join {
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Credentials.Introduction(), nil }
		return c
	}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Credentials.Certificate(), nil }
	c.ClientAuth = tls.RequireAnyClientCert // and verified below, by rules of our own
	c.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := p.verify(s)
		return err
	}
	return c
}

// verify checks the certificate of the other side: this network's, its own, valid
// as far as clocks can tell, not revoked.
func (p *Port) verify(s tls.ConnectionState) (authority.Name, error) {
	if len(s.PeerCertificates) == 0 {
		return authority.Name{}, fault.New(fault.Denied, "port: no certificate")
	}
	name, err := p.Credentials.Root().Verify(s.PeerCertificates[0].Raw, time.Now())
	if err != nil {
		return name, err
	}
	if p.Revoked(name.Node) {
		return name, errRevoked()
	}
	return name, nil
}

// clientConfig is that of a connection to one node. Certificates name no hosts, so
// crypto/tls's own check is replaced by ours.
func (p *Port) clientConfig(node string, service Service) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{string(service)}, SessionTicketsDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.Credentials.Certificate(), nil },
		InsecureSkipVerify:   true, //nolint:gosec // verified in VerifyConnection
		VerifyConnection: func(s tls.ConnectionState) error {
			name, err := p.verify(s)
			switch {
			case err != nil:
				return err
			case name.Node != node:
				return fault.New(fault.Denied, "port: another node answers at this address")
			case s.NegotiatedProtocol != string(service):
				return fault.New(fault.Unsupported, "port: the node does not speak %s", service)
			}
			return nil
		},
	}
}

// joinConfig is that of a joining node, which knows the hash of the network's root
// and nothing else. The root is put into *root.
func joinConfig(pin [32]byte, root **authority.Root) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{string(Join)}, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, //nolint:gosec // verified in VerifyConnection
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != string(Join) || len(s.PeerCertificates) != 2 {
				return fault.New(fault.Denied, "port: this is not a node that lets others join")
			}
			r, err := authority.ParseRoot(slices.Clone(s.PeerCertificates[1].Raw))
			if err != nil {
				return err
			}
			if r.Hash() != pin {
				return fault.New(fault.Denied, "port: this is not the network that the join token is for")
			}
			if _, err := r.Verify(s.PeerCertificates[0].Raw, time.Now()); err != nil {
				return err
			}
			*root = r
			return nil
		},
	}
}

// PeerOf returns who the other side of an authenticated connection is, as of
// http.Request.TLS or tls.Conn; fault.Denied on one of the join protocol.
func PeerOf(s tls.ConnectionState) (authority.Name, error) {
	if len(s.PeerCertificates) == 0 || s.NegotiatedProtocol == string(Join) {
		return authority.Name{}, fault.New(fault.Denied, "port: the other side has no certificate")
	}
	return authority.NameOf(s.PeerCertificates[0])
}
