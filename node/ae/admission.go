package ae

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
	"pelago/dimse/scp"
)

// Rejections that this face makes (PS3.8 table 9-21).
var (
	rejectCalled = assoc.Reject{Result: assoc.RejectPermanent, Source: assoc.RejectByUser, Reason: assoc.ReasonCalledTitle}
	rejectShare  = assoc.Reject{Result: assoc.RejectTransient, Source: assoc.RejectByPresentation, Reason: assoc.ReasonLocalLimit}
)

var _ scp.Admitter = (*Face)(nil)

// Admit implements [scp.Admitter] (DESIGN §9, Acceptor): beyond loopback only
// registered AEs, by title and source network, each with its own rights.
func (f *Face) Admit(ctx context.Context, request *assoc.Request) (*scp.Session, error) {
	caller, release, err := f.admit(ctx, request)
	f.auditAssociation(request, err)
	if err != nil {
		return nil, err
	}
	s := &session{face: f, caller: caller, remote: host(request.Remote), release: release}
	session := &scp.Session{
		Options: dimse.QueryOptions{Relational: true, CombinedDateTime: true, Fuzzy: true, Timezone: true},
		Idle:    caller.Idle,
		Closed:  s.closed,
	}
	if caller.Rights.Echo {
		session.Echo = s
	}
	takes, sends := f.o.Takes(), f.o.Sends()
	f.unserved(request, caller.Rights.Store, takes)
	if caller.Rights.Store && takes == nil {
		session.Store = s
	}
	if caller.Rights.Store && sends == nil { // what was stored before is answered for
		session.Commit = s
	}
	if caller.Rights.Find {
		session.Find = s
	}
	if caller.Rights.Retrieve && sends == nil {
		session.Move, session.Get = s, s
	}
	return session, nil
}

// unserved writes down that an AE which may store is about to find no storage
// context accepted, and why: of a refused context the standard tells it a number
// only (PS3.8 table 9-18).
func (f *Face) unserved(request *assoc.Request, may bool, why error) {
	if why == nil || !may {
		return
	}
	gets := func(class string) bool { // it is where C-GET sends to
		return slices.ContainsFunc(request.Roles, func(r assoc.Role) bool { return r.Class == class && !r.SCU })
	}
	stores := func(c assoc.Context) bool { return dict.IsStorageClass(c.Abstract) && !gets(c.Abstract) }
	if slices.ContainsFunc(request.Contexts, stores) {
		f.o.Log.Warn("storage is not accepted", "calling_ae", request.Calling, "remote", host(request.Remote), "error", why)
	}
}

// Refused takes down an association that the server refused without asking
// this face: it was full, or about to end.
func (f *Face) Refused(request *assoc.Request, reject *assoc.Reject) {
	f.auditAssociation(request, reject)
}

func (f *Face) auditAssociation(request *assoc.Request, err error) {
	e := Event{Action: Associate, AE: request.Calling, Remote: host(request.Remote)}
	if err != nil {
		e.Failed, e.Why = true, err.Error()
	}
	f.o.Audit(e)
}

// admit finds out who calls and takes a place for the host.
func (f *Face) admit(ctx context.Context, request *assoc.Request) (caller AE, release func(), err error) {
	if caller, err = f.recognise(ctx, request); err != nil {
		return caller, nil, err
	}
	release, ok := f.hosts.enter(address(request.Remote))
	if !ok {
		reject := rejectShare
		return caller, nil, errors.Join(fault.New(fault.Full, "the host holds its share of all associations"), &reject)
	}
	return caller, release, nil
}

// recognise finds out who calls.
func (f *Face) recognise(ctx context.Context, request *assoc.Request) (AE, error) {
	if f.o.CheckCalled && request.Called != f.o.Title {
		reject := rejectCalled
		return AE{}, errors.Join(fault.New(fault.Denied, "another AE title is called than this node's"), &reject)
	}
	ip := address(request.Remote)
	caller, err := f.o.Registry.Get(request.Calling)
	registered := err == nil
	switch {
	case registered:
		if !caller.callsFrom(ctx, ip, f.o.Lookup) {
			err = fault.New(fault.Denied, "AE %q calls from an address that is not registered for it ('pelago ae add' changes its hosts)", request.Calling)
		} else {
			err = caller.secured(request.TLS)
		}
		if err == nil {
			return caller, nil
		}
	case !fault.Is(err, fault.NotFound):
		return AE{}, err
	}
	switch {
	case ip.IsLoopback():
		// Whoever is on this machine may do everything; what is known of the AE
		// (its issuer, its character set) holds nevertheless.
		caller.Title, caller.Rights = request.Calling, AllRights
		return caller, nil
	case registered:
		return AE{}, err
	case f.o.OpenStore:
		return AE{Title: request.Calling, Rights: Rights{Echo: true, Store: true}}, nil
	}
	return AE{}, fault.New(fault.Denied, "AE %q is not registered ('pelago ae add' registers it)", request.Calling)
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

// hosts counts the associations of every host, so that none can take all of
// them, nor all that are kept for storing. Loopback is not counted: programs on
// this machine and proxies in front of it stand for many.
type hosts struct {
	share int // of one host; 0: no limit

	mu   sync.Mutex
	open map[netip.Addr]int
}

func newHosts(limit int) *hosts { return &hosts{share: (limit + 1) / 2, open: map[netip.Addr]int{}} }

// enter counts an association in; false when the host has its share. release
// counts it out.
func (h *hosts) enter(ip netip.Addr) (release func(), ok bool) {
	if h.share == 0 || ip.IsLoopback() {
		return func() {}, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[ip] >= h.share {
		return nil, false
	}
	h.open[ip]++
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open[ip]--; h.open[ip] == 0 {
			delete(h.open, ip)
		}
	}), true
}

// session is one association's providers.
type session struct {
	face    *Face
	caller  AE
	remote  string
	release func() // of the host's share
	stored  tally
}

// Echo implements [scp.Echoer].
func (s *session) Echo(context.Context) error {
	s.face.o.Observe("C-ECHO", 0, 0, 0)
	return nil
}

// closed ends the association's accounts.
func (s *session) closed(error) {
	s.release()
	s.account(s.stored.take(time.Time{}))
	if len(s.stored.all) > 0 {
		s.face.o.Arrivals.Ended(slices.Collect(maps.Keys(s.stored.all))...)
	}
}

// account writes down what was stored.
func (s *session) account(events []Event) {
	for _, e := range events {
		e.AE, e.Remote = s.caller.Title, s.remote
		s.face.o.Audit(e)
	}
}
