package ae

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/scp"
	"pelago/node/archive"
	"pelago/query"
)

// Archive is what the face asks of the archive. *archive.Archive is one.
type Archive interface {
	archive.Reads
	archive.Writes
	// Prefetch readies an instance that is to be sent soon. It is a hint.
	Prefetch(ctx context.Context, ref archive.Ref)
}

// Arrivals is told that an association that stored has ended.
type Arrivals interface{ Flush() }

// Options are what the face is made of.
type Options struct {
	Title       string // our AE title
	CheckCalled bool
	OpenStore   bool // unknown AEs beyond loopback may echo and store
	Idle        time.Duration
	Registry    *Registry
	Archive     Archive
	Engine      query.Engine
	Arrivals    Arrivals
	Status      Status      // of instances, for storage commitment
	Rows        Rows        // of commitment requests under way
	ClientTLS   *tls.Config // for AEs that are called over TLS
	Config      assoc.Config
	Log         *slog.Logger
	Audit       func(Event)
	Observe     func(operation string, status uint16, took time.Duration, bytes int64)
	// Lookup resolves host names of registered AEs; nil: the system's resolver.
	Lookup func(context.Context, string) ([]netip.Addr, error)
}

// Face is the DIMSE face.
type Face struct {
	o       Options
	commits *commitments
}

// New returns the face; nothing runs yet.
func New(o Options) *Face {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = func(Event) {}
	}
	if o.Observe == nil {
		o.Observe = func(string, uint16, time.Duration, int64) {}
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	f := &Face{o: o}
	f.commits = newCommitments(f)
	return f
}

var _ scp.Admitter = (*Face)(nil)

// Admit implements [scp.Admitter] (DESIGN §9, Acceptor): beyond loopback only
// registered AEs, by title and source network, each with its own rights.
func (f *Face) Admit(ctx context.Context, request *assoc.Request) (*scp.Session, error) {
	caller, err := f.recognise(ctx, request)
	f.o.Audit(Event{
		Action: Associate, AE: request.Calling, Remote: host(request.Remote), Failed: err != nil,
	})
	if err != nil {
		return nil, err
	}
	s := &session{face: f, caller: caller, remote: host(request.Remote), began: time.Now()}
	session := &scp.Session{
		Options: dimse.QueryOptions{Relational: true, CombinedDateTime: true, Fuzzy: true, Timezone: true},
		Idle:    caller.Idle,
		Closed:  s.closed,
	}
	if caller.Rights.Echo {
		session.Echo = s
	}
	if caller.Rights.Store {
		session.Store, session.Commit = s, s
	}
	if caller.Rights.Find {
		session.Find = s
	}
	if caller.Rights.Retrieve {
		session.Move, session.Get = s, s
	}
	return session, nil
}

// recognise finds out who calls.
func (f *Face) recognise(ctx context.Context, request *assoc.Request) (AE, error) {
	if f.o.CheckCalled && request.Called != f.o.Title {
		return AE{}, &assoc.Reject{Result: 1, Source: 1, Reason: 7} // called AE title not recognized
	}
	ip := address(request.Remote)
	caller, err := f.o.Registry.Get(request.Calling)
	switch {
	case err == nil:
		if !caller.callsFrom(ctx, ip, f.o.Lookup) {
			err = fault.New(fault.Denied, "AE %q calls from an address that is not registered", request.Calling)
		} else {
			err = caller.secured(request.TLS)
		}
		if err == nil {
			return caller, nil
		}
		if !ip.IsLoopback() {
			return AE{}, err
		}
	case !fault.Is(err, fault.NotFound):
		return AE{}, err
	}
	switch {
	case ip.IsLoopback():
		return AE{Title: request.Calling, Rights: AllRights}, nil
	case f.o.OpenStore:
		return AE{Title: request.Calling, Rights: Rights{Echo: true, Store: true}}, nil
	}
	return AE{}, fault.New(fault.Denied, "AE %q is not registered", request.Calling)
}

// secured checks what the registry demands of the connection.
func (ae AE) secured(state *tls.ConnectionState) error {
	if !ae.TLS {
		return nil
	}
	if state == nil {
		return fault.New(fault.Denied, "AE %s must use DICOM TLS", ae.Title)
	}
	if ae.Certificate == "" {
		return nil
	}
	if len(state.PeerCertificates) == 0 || state.PeerCertificates[0].Subject.CommonName != ae.Certificate {
		return fault.New(fault.Denied, "AE %s has another client certificate than the registered one", ae.Title)
	}
	return nil
}

// address returns the IP address of a connection's end; one that has none, such
// as a pipe in a test, counts as loopback only if it says so.
func address(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	if port, err := netip.ParseAddrPort(a.String()); err == nil {
		return port.Addr().Unmap()
	}
	return netip.Addr{}
}

func host(a net.Addr) string { return address(a).String() }

func itoa(port uint16) string { return strconv.Itoa(int(port)) }

// session is one association's providers.
type session struct {
	face   *Face
	caller AE
	remote string
	began  time.Time
	stored tally
}

// Echo implements [scp.Echoer].
func (s *session) Echo(context.Context) error { return nil }

// closed ends the association's accounts.
func (s *session) closed(error) {
	for _, e := range s.stored.events() {
		e.AE, e.Remote = s.caller.Title, s.remote
		s.face.o.Audit(e)
	}
	if !s.stored.empty() {
		s.face.o.Arrivals.Flush()
	}
}
