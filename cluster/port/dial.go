package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
)

// Dial opens a connection to a service of a node at an address, and makes sure
// that it is that node. fault.Denied if it is another one, of another network, or
// revoked; fault.Unavailable if nobody answers within Limits.Handshake or the
// context.
func (p *Port) Dial(ctx context.Context, node, address string, s Service) (*tls.Conn, error) {
	if p.Revoked(node) {
		return nil, errRevoked()
	}
	ctx, cancel := context.WithTimeout(ctx, p.Limits.Handshake)
	defer cancel()
	raw, err := p.Config.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, dialError(s, err)
	}
	return p.over(ctx, raw, node, s)
}

// DialOver is [Port.Dial] over a connection that leads to the node, which another node
// passes on (cluster/relay). It is closed if the handshake fails, and with what is
// returned.
func (p *Port) DialOver(ctx context.Context, raw net.Conn, node string, s Service) (*tls.Conn, error) {
	if p.Revoked(node) {
		raw.Close()
		return nil, errRevoked()
	}
	ctx, cancel := context.WithTimeout(ctx, p.Limits.Handshake)
	defer cancel()
	return p.over(ctx, raw, node, s)
}

// Connect opens a connection to an address on which nobody is authenticated: what goes
// over it is for others to authenticate. The port closes it at its end.
// fault.Unavailable if nobody answers.
func (p *Port) Connect(ctx context.Context, address string) (net.Conn, error) {
	raw, err := p.Config.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, dialError(Relay, err)
	}
	k, err := p.attach(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return k, nil
}

// over authenticates a connection that was dialled, and who answers there.
func (p *Port) over(ctx context.Context, raw net.Conn, node string, s Service) (*tls.Conn, error) {
	k, err := p.attach(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	conn := tls.Client(k, p.clientConfig(node, s))
	if err := conn.HandshakeContext(ctx); err != nil {
		k.end()
		return nil, dialError(s, err)
	}
	if err := p.identify(k, node); err != nil {
		k.end()
		return nil, err
	}
	return conn, nil
}

// DialJoin opens a connection of the join protocol to any node of the network
// whose root certificate has the hash pin, and returns that root. dial is nil for
// TCP. fault.Denied if another network answers, fault.Unavailable if nobody does.
func DialJoin(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), address string, pin [32]byte) (*tls.Conn, *authority.Root, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultLimits().Handshake)
	defer cancel()
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, nil, dialError(Join, err)
	}
	tune(raw)
	var root *authority.Root
	conn := tls.Client(raw, joinConfig(pin, &root))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, dialError(Join, err)
	}
	return conn, root, nil
}

// dialError keeps the kind that the verification gave; all else is the network's.
func dialError(s Service, err error) error {
	if fault.KindOf(err) != fault.Other {
		return fmt.Errorf("port: dial %s: %w", s, err)
	}
	if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) {
		return fault.New(fault.Unavailable, "port: dial %s: what answers there is no port between nodes: %w", s, err)
	}
	return fault.New(fault.Unavailable, "port: dial %s: %w", s, err)
}
