package scu

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
)

// Time limits of a client unless its target says otherwise.
const (
	defaultConnect  = 15 * time.Second
	defaultResponse = 10 * time.Minute // a peer may be silent for a whole C-MOVE
	cancelGrace     = 10 * time.Second // for the final response after C-CANCEL
	releaseGrace    = 5 * time.Second
)

// Target is a DICOM application to ask, and how.
type Target struct {
	Addr            string // host:port
	Called, Calling string // AE titles
	TLS             *tls.Config

	Config   assoc.Config
	Connect  time.Duration // for TCP, TLS and the association's negotiation; 0: 15 s
	Response time.Duration // longest silence of a peer that owes a response; 0: 10 min

	// Dialer opens the connection; nil: TCP. TLS is put on top of it.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)

	// Committed receives the storage commitment results that the peer reports
	// on an association of this client (PS3.4 J.3.3). It is called from the
	// reading goroutine. nil: they are refused.
	Committed func(ctx context.Context, result *dimse.CommitmentResult) error
}

// Proposal is what a client proposes for an association.
type Proposal struct {
	Contexts []assoc.Context // without ids, they are numbered
	Roles    []assoc.Role
	Extended map[string][]byte
	Common   []assoc.CommonExtended
	Identity *assoc.Identity
	// Window asks for asynchronous operations: how many C-STOREs may be on
	// their way. 0 and 1: none.
	Window uint16
}

// uncompressed is proposed where identifiers or nothing but commands travel.
func uncompressed() []string { return []string{dict.ExplicitLittleEndian, dict.ImplicitLittleEndian} }

// ProposeEcho proposes verification.
func ProposeEcho() Proposal {
	return Proposal{Contexts: []assoc.Context{{Abstract: dimse.Verification, Syntaxes: uncompressed()}}}
}

// ProposeQuery proposes C-FIND of an information model with options.
func ProposeQuery(root dimse.Root, options dimse.QueryOptions) Proposal {
	class := root.Class(dimse.Find)
	p := Proposal{Contexts: []assoc.Context{{Abstract: class, Syntaxes: uncompressed()}}}
	if options != (dimse.QueryOptions{}) {
		p.Extended = map[string][]byte{class: options.Bytes(dimse.Find)}
	}
	return p
}

// ProposeMove proposes C-MOVE of an information model.
func ProposeMove(root dimse.Root) Proposal {
	return Proposal{Contexts: []assoc.Context{{Abstract: root.Class(dimse.Move), Syntaxes: uncompressed()}}}
}

// ProposeGet proposes C-GET of an information model, and to receive instances
// of the kinds: a context per kind, and the SCP role for their classes
// (PS3.4 C.5.3). More than 127 kinds are cut off.
func ProposeGet(root dimse.Root, kinds []Kind) Proposal {
	p := Proposal{Contexts: []assoc.Context{{Abstract: root.Class(dimse.Get), Syntaxes: uncompressed()}}}
	roles := map[string]bool{}
	for _, k := range kinds[:min(len(kinds), maxContexts-1)] {
		p.Contexts = append(p.Contexts, assoc.Context{Abstract: k.Class, Syntaxes: []string{k.Syntax}})
		if !roles[k.Class] {
			roles[k.Class] = true
			p.Roles = append(p.Roles, assoc.Role{Class: k.Class, SCP: true})
		}
	}
	return p
}

// ProposeCommitment proposes to ask for storage commitment.
func ProposeCommitment() Proposal {
	return Proposal{Contexts: []assoc.Context{{Abstract: dimse.StorageCommitment, Syntaxes: uncompressed()}}}
}

// ProposeCommitmentResult proposes to report a storage commitment result: SCP
// role 1, SCU role 0 (PS3.4 J.3.3).
func ProposeCommitmentResult() Proposal {
	p := ProposeCommitment()
	p.Roles = []assoc.Role{{Class: dimse.StorageCommitment, SCP: true}}
	return p
}

// request returns the A-ASSOCIATE-RQ of a proposal.
func (p Proposal) request(t Target) assoc.Request {
	contexts := append([]assoc.Context(nil), p.Contexts...)
	number(contexts)
	r := assoc.Request{
		Called: t.Called, Calling: t.Calling,
		Contexts: contexts, Roles: p.Roles, Extended: p.Extended, Common: p.Common, Identity: p.Identity,
		MaxInvoked: 1, MaxPerformed: 1,
		UserInfo: t.Config.UserInfo,
	}
	if p.Window > 1 {
		r.MaxInvoked = p.Window
	}
	return r
}

// connect opens the connection to the target. fault.Unavailable: it does not
// answer.
func (t Target) connect(ctx context.Context) (net.Conn, error) {
	dial := t.Dialer
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	conn, err := dial(ctx, t.Addr)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "connect to %s: %w", t.Addr, err)
	}
	if t.TLS == nil {
		return conn, nil
	}
	secured := tls.Client(conn, t.clientTLS())
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fault.New(fault.Unavailable, "TLS with %s: %w", t.Addr, err)
	}
	return secured, nil
}

// clientTLS returns the TLS settings with the server's name filled in.
func (t Target) clientTLS() *tls.Config {
	if t.TLS.ServerName != "" || t.TLS.InsecureSkipVerify {
		return t.TLS
	}
	host, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		host = t.Addr
	}
	config := t.TLS.Clone()
	config.ServerName = host
	return config
}
