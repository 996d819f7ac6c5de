package member

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
)

// Joining says how a node becomes a member of a network that is there.
type Joining struct {
	Address string // host:port of any of its nodes
	Token   string // as an operator carries it
	Network string // its name; empty: whichever the token is for
	Site    string
	Place   authority.Place
	// Dial opens a connection; nil is TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// learnTime bounds the question after the other members.
const learnTime = 20 * time.Second

// Join makes the node a member and returns when its papers are durable in the key
// folder dir. A refusal is an error that wraps its authority.Refusal. After any
// error the same call, with the same token or another, may be made again.
func Join(ctx context.Context, fs vfs.FS, dir string, self *identity.Node, j Joining) (*Membership, error) {
	token, err := authority.ParseToken(j.Token)
	if err != nil {
		return nil, err
	}
	if len(self.Epochs()) > 0 { // its network's first would be another one
		return nil, fault.New(fault.Conflict, "member: this data directory has keys of a network of its own, whose founding was cut short: a node joins with a fresh data directory")
	}
	conn, root, err := port.DialJoin(ctx, j.Dial, j.Address, token.Pin())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if j.Network != "" && j.Network != root.Network() {
		return nil, fault.New(fault.Denied, "member: the token is for network %s, not for %s", root.Network(), j.Network)
	}
	introducer, err := introducerOf(conn)
	if err != nil {
		return nil, err
	}
	e, err := authority.NewEnrollment(root, self, token, j.Site, j.Place)
	if err != nil {
		return nil, err
	}
	certificate, err := authority.Enroll(ctx, conn, root, e)
	if err != nil {
		return nil, err
	}
	known := Hint{Node: introducer.Node, Site: introducer.Site, Address: j.Address}
	hints, err := learn(ctx, root, self, certificate, known, j)
	if err != nil { // one is enough to begin with
		j.Log.Warn("the node that let us in did not tell of the others", "node", known.Node, "error", err)
		hints = []Hint{known}
	}
	// The papers come last: with them the node is a member, and asks nobody again.
	if err := saveHints(fs, dir, hints); err != nil {
		return nil, err
	}
	p := authority.Papers{Root: root.DER(), Certificate: certificate}
	if err := p.Save(fs, dir); err != nil {
		return nil, err
	}
	return Open(fs, dir, self)
}

func introducerOf(conn *tls.Conn) (authority.Name, error) {
	certificates := conn.ConnectionState().PeerCertificates // verified by DialJoin
	if len(certificates) == 0 {
		return authority.Name{}, fault.New(fault.Denied, "member: the other side has no certificate")
	}
	return authority.NameOf(certificates[0])
}

// learn asks the node that let this one in for the other members.
func learn(ctx context.Context, root *authority.Root, self *identity.Node, certificate []byte, known Hint, j Joining) ([]Hint, error) {
	ctx, cancel := context.WithTimeout(ctx, learnTime)
	defer cancel()
	credentials, err := authority.NewCredentials(root, self, certificate)
	if err != nil {
		return nil, err
	}
	p := port.New(port.Config{Credentials: credentials, Revoked: func(string) bool { return false }, Dial: j.Dial, Log: j.Log})
	transport := p.Transport(func(context.Context, string) (string, error) { return known.Address, nil })
	defer transport.CloseIdleConnections()
	answer, err := call.NewClient(transport).Do(ctx, known.Node, http.MethodGet, pathMembers, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := call.Read(answer.Body, maxMembersBody)
	if err != nil {
		return nil, err
	}
	var hints []Hint
	if err := json.Unmarshal(b, &hints); err != nil || len(hints) > maxHints {
		return nil, fault.New(fault.Invalid, "member: the list of members does not parse")
	}
	for i := range hints { // this one is reached where it was reached
		if hints[i].Node == known.Node {
			hints[i].Address = known.Address
			return hints, nil
		}
	}
	return append(hints, known), nil
}
