package member

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/gossip"
)

// OfficeOptions are what an office is made of.
type OfficeOptions struct {
	Membership *Membership
	Registry   *Registry
	Catalog    Catalog
	Decider    Decider
	// Current is that of [Decisions].
	Current func(ctx context.Context) error
	// First adds to the founder's first decision what a network has from its
	// beginning on; nil: nothing. It is not called for a witness.
	First func(s *Step) error
	// Voters are the nodes that vote now.
	Voters func() []string
	// Alive are the other nodes that are believed to be alive. Must not block.
	Alive func() []gossip.Member
	Peers *call.Client
	// Dial opens a connection; nil is TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Place is where this node is reached.
	Place authority.Place
	Log   *slog.Logger
}

// Office is where nodes are let in, renewed, drained and removed. It is an
// authority.Office.
type Office struct {
	o         OfficeOptions
	decisions Decisions
	removed   atomic.Bool // the network says that this node was removed
}

// NewOffice returns the office of a node.
func NewOffice(o OfficeOptions) *Office {
	return &Office{o: o, decisions: Decisions{Records: o.Catalog, Decider: o.Decider, Current: o.Current}}
}

// Decisions are how this node has the network decide about its members.
func (o *Office) Decisions() Decisions { return o.decisions }

// errNoSigner says that this node may not sign and reaches none that may.
var errNoSigner = fault.New(fault.Unavailable, "member: no node that may sign can be reached")

// Enroll lets a node in, here or at a node that may sign.
func (o *Office) Enroll(ctx context.Context, e authority.Enrollment) ([]byte, error) {
	return o.ask(ctx, func(office authority.Office) ([]byte, error) { return office.Enroll(ctx, e) })
}

// Renew renews a node's certificate, here or at a node that may sign.
func (o *Office) Renew(ctx context.Context, n authority.Renewal) ([]byte, error) {
	return o.ask(ctx, func(office authority.Office) ([]byte, error) { return office.Renew(ctx, n) })
}

func (o *Office) ask(ctx context.Context, f func(authority.Office) ([]byte, error)) ([]byte, error) {
	registrar, err := o.registrar()
	if err != nil {
		return nil, err
	}
	if registrar != nil {
		return f(registrar)
	}
	err = errNoSigner
	for _, node := range o.signers() {
		var certificate []byte
		certificate, err = f(authority.Remote{Root: o.o.Membership.Credentials.Root(), Carry: o.carry(node)})
		if !fault.Is(err, fault.Unavailable) {
			return certificate, err
		}
	}
	return nil, err
}

// registrar is nil if this node may not sign.
func (o *Office) registrar() (*authority.Registrar, error) {
	signer, err := o.o.Membership.Signer()
	if err != nil || signer == nil {
		return nil, err
	}
	return authority.NewRegistrar(signer, register{o.decisions}), nil
}

// signers are the other nodes that may sign, those that are alive first.
func (o *Office) signers() []string {
	v := o.o.Registry.now.Load()
	var alive, others []string
	live := map[string]bool{}
	for _, m := range o.o.Alive() {
		live[m.Node] = true
	}
	for node := range v.signers { // in no order: nobody gets all the work
		switch {
		case node == o.o.Membership.Self.ID() || !o.o.Registry.Belongs(node):
		case live[node]:
			alive = append(alive, node)
		default:
			others = append(others, node)
		}
	}
	return append(alive, others...)
}

// carry brings requests to another node's office.
func (o *Office) carry(node string) func(context.Context, []byte) (io.ReadCloser, error) {
	return func(ctx context.Context, request []byte) (io.ReadCloser, error) {
		answer, err := o.o.Peers.Do(ctx, node, http.MethodPost, pathOffice, bytes.NewReader(request))
		if err != nil {
			return nil, err
		}
		return answer.Body, nil
	}
}

// renewSelf gets a new certificate for this node and makes it durable.
func (o *Office) renewSelf(ctx context.Context) ([]byte, error) {
	m := o.o.Membership
	request, err := authority.NewRenewal(m.Credentials.Root(), m.Self, m.Credentials.Certificate().Leaf.Raw)
	if err != nil {
		return nil, err
	}
	registrar, err := o.registrar()
	if err != nil {
		return nil, err
	}
	var certificate []byte
	if registrar != nil {
		certificate, err = registrar.Renew(ctx, request)
	} else {
		certificate, err = o.renewElsewhere(ctx, request)
	}
	if errors.Is(err, authority.Revoked) {
		o.wasRemoved()
	}
	if err != nil {
		return nil, err
	}
	return certificate, m.Renewed(certificate)
}

// renewElsewhere asks members in any order until one answers: by the join
// protocol, which takes an expired certificate too.
func (o *Office) renewElsewhere(ctx context.Context, request authority.Renewal) ([]byte, error) {
	err := errNoSigner
	members := o.others()
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, member := range members {
		var certificate []byte
		certificate, err = o.renewAt(ctx, member.Node, request)
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return certificate, err
		}
	}
	return nil, err
}

// others are the members in good standing but this one.
func (o *Office) others() []Member {
	var others []Member
	for _, m := range o.o.Registry.Members() {
		if m.Node != o.o.Membership.Self.ID() {
			others = append(others, m)
		}
	}
	return others
}
