package ae

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/scu"
	"pelago/node/archive"
	"pelago/query"
)

// Archive is what the face asks of the archive. *archive.Archive is one.
type Archive interface {
	archive.Reads
	archive.Writes
}

// Arrivals is told of which studies an association has stored that has ended.
// *journal.Journal is one.
type Arrivals interface{ Ended(studies ...string) }

// Options are what the face is made of.
type Options struct {
	Title       string // our AE title
	CheckCalled bool
	OpenStore   bool // unknown AEs beyond loopback may echo and store
	// Limit is how many associations there may be at once; a host beyond
	// loopback gets half of them. 0: no share is kept.
	Limit    int
	Registry *Registry
	Archive  Archive
	Engine   query.Engine
	Arrivals Arrivals
	// Takes and Sends say why this node takes no instances in, or sends none, with an
	// [archive.Closed]; nil, or an error of nil: it does. Asked for each association.
	Takes, Sends func() error
	Status       Status // of instances, for storage commitment
	// Changed returns a channel that closes when Status may say of more instances that
	// they are committed; nil: they are asked about again by time alone.
	Changed   func() <-chan struct{}
	Rows      Rows        // of commitment requests under way
	ClientTLS *tls.Config // for AEs that are called over TLS
	Config    assoc.Config
	// Deadline is when a storage commitment fails for want of safety; 0: 24 h.
	Deadline time.Duration
	Log      *slog.Logger
	Audit    func(Event)
	Observe  func(operation string, status uint16, took time.Duration, bytes int64)
	// Node is this node's id, Peers the others, which send to AEs of their sites; nil:
	// there are none. At lists what another node stores of a series now; nil: only
	// what the catalogue knows can be sent on another's order.
	Node  string
	Peers Peers
	At    func(ctx context.Context, node, study, series string) iter.Seq2[archive.Ref, error]
	// Lookup resolves host names of registered AEs; nil: the system's resolver.
	Lookup func(context.Context, string) ([]netip.Addr, error)
	// Dialer opens connections to AEs that are called; nil: TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
}

// Face is the DIMSE face.
type Face struct {
	o       Options
	hosts   *hosts
	commits *commitments
	orders  chan struct{} // holds a token for each order that is being carried out

	forwardedBytes atomic.Int64 // sent on other nodes' orders
}

// New returns the face; nothing runs yet.
func New(o Options) *Face {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = func(Event) {}
	}
	open := func() error { return nil }
	if o.Takes == nil {
		o.Takes = open
	}
	if o.Sends == nil {
		o.Sends = open
	}
	if o.Observe == nil {
		o.Observe = func(string, uint16, time.Duration, int64) {}
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Deadline == 0 {
		o.Deadline = commitDeadline
	}
	f := &Face{o: o, hosts: newHosts(o.Limit), orders: make(chan struct{}, maxOrders)}
	f.commits = newCommitments(f)
	return f
}

// Target is how a registered AE is called. fault.NotFound: it does not listen.
// fault.Unsupported: it wants TLS, for which there is no certificate.
func (f *Face) Target(ae AE) (scu.Target, error) {
	addr := ae.address()
	if addr == "" {
		return scu.Target{}, fault.New(fault.NotFound, "AE %s has no address to be called at", ae.Title)
	}
	target := scu.Target{Addr: addr, Called: ae.Title, Calling: f.o.Title, Config: f.o.Config, Dialer: f.o.Dialer}
	if ae.TLS {
		if f.o.ClientTLS == nil {
			return target, fault.New(fault.Unsupported, "AE %s wants TLS, for which this node has no certificate", ae.Title)
		}
		target.TLS = f.o.ClientTLS
	}
	return target, nil
}

// Echo asks a registered AE for C-ECHO and returns how long it took.
func (f *Face) Echo(ctx context.Context, title string) (time.Duration, error) {
	ae, err := f.o.Registry.Get(title)
	if err != nil {
		return 0, err
	}
	target, err := f.Target(ae)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	client, err := scu.Dial(ctx, target, scu.ProposeEcho())
	if err != nil {
		return 0, err
	}
	if err := client.Echo(ctx); err != nil {
		return 0, errors.Join(err, client.Abort())
	}
	took := time.Since(began)
	return took, client.Release(ctx)
}
