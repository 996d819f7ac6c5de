package ae

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/scp"
	"pelago/node/archive"
)

// secure is a connection's TLS state with a client certificate of a name, or
// with none.
func secure(name string) *tls.ConnectionState {
	if name == "" {
		return &tls.ConnectionState{}
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: name}}}}
}

// allowed are the rights that a session offers.
func allowed(s *scp.Session) Rights {
	return Rights{
		Echo: s.Echo != nil, Store: s.Store != nil && s.Commit != nil,
		Find: s.Find != nil, Retrieve: s.Move != nil && s.Get != nil,
	}
}

func TestWhoIsAdmittedToWhat(t *testing.T) {
	known := []AE{
		{Title: "CT1", Hosts: []string{"10.1.0.0/16"}, Rights: Rights{Echo: true, Store: true}},
		{Title: "WORKSTATION", Hosts: []string{"10.2.0.7", "2001:db8::7"}, Port: 104, Rights: Rights{Echo: true, Find: true, Retrieve: true}},
		{Title: "NAMED", Hosts: []string{"pacs.example"}, Rights: AllRights, Issuer: "OTHER", Idle: time.Hour},
		{Title: "SECURE", Hosts: []string{"10.3.0.1"}, TLS: true, Certificate: "ct.example", Rights: AllRights},
		{Title: "ANYTLS", Hosts: []string{"10.3.0.2"}, TLS: true, Rights: AllRights},
		{Title: "NOTHING", Hosts: []string{"10.4.0.1"}},
	}
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "pacs.example" {
			return []netip.Addr{netip.MustParseAddr("10.9.0.9")}, nil
		}
		return nil, errors.New("no such host")
	}
	denied, called := assoc.ReasonCallingTitle, assoc.ReasonCalledTitle
	storeOnly := Rights{Echo: true, Store: true}
	for _, test := range []struct {
		name            string
		calling, called string
		from            string
		tls             *tls.ConnectionState
		openStore       bool
		checkCalled     bool
		want            Rights
		reason          byte // 0: admitted
	}{
		{name: "registered, from its network", calling: "CT1", from: "10.1.200.3", want: storeOnly},
		{name: "registered, from elsewhere", calling: "CT1", from: "10.2.0.3", reason: denied},
		{name: "registered, from elsewhere, open for storing", calling: "CT1", from: "10.2.0.3", openStore: true, reason: denied},
		{name: "its own rights", calling: "WORKSTATION", from: "10.2.0.7", want: Rights{Echo: true, Find: true, Retrieve: true}},
		{name: "IPv6", calling: "WORKSTATION", from: "2001:db8::7", want: Rights{Echo: true, Find: true, Retrieve: true}},
		{name: "IPv4 in IPv6", calling: "WORKSTATION", from: "::ffff:10.2.0.7", want: Rights{Echo: true, Find: true, Retrieve: true}},
		{name: "by host name", calling: "NAMED", from: "10.9.0.9", want: AllRights},
		{name: "titles are exact", calling: "ct1", from: "10.1.0.3", reason: denied},
		{name: "no rights at all", calling: "NOTHING", from: "10.4.0.1"},
		{name: "unknown", calling: "STRANGER", from: "10.1.0.3", reason: denied},
		{name: "unknown, open for storing", calling: "STRANGER", from: "10.1.0.3", openStore: true, want: storeOnly},
		{name: "unknown address family", calling: "CT1", from: "", reason: denied},

		{name: "TLS with its certificate", calling: "SECURE", from: "10.3.0.1", tls: secure("ct.example"), want: AllRights},
		{name: "TLS with another's certificate", calling: "SECURE", from: "10.3.0.1", tls: secure("mr.example"), reason: denied},
		{name: "TLS without a certificate", calling: "SECURE", from: "10.3.0.1", tls: secure(""), reason: denied},
		{name: "no TLS where it must be", calling: "ANYTLS", from: "10.3.0.2", reason: denied},
		{name: "TLS and any certificate", calling: "ANYTLS", from: "10.3.0.2", tls: secure(""), want: AllRights},
		{name: "TLS where none is needed", calling: "CT1", from: "10.1.0.3", tls: secure("x"), want: storeOnly},

		{name: "loopback needs no registration", calling: "STRANGER", from: "127.0.0.1", want: AllRights},
		{name: "IPv6 loopback", calling: "STRANGER", from: "::1", want: AllRights},
		{name: "registered for elsewhere, from loopback", calling: "CT1", from: "127.0.0.1", want: AllRights},
		{name: "TLS AE through a local proxy", calling: "SECURE", from: "127.0.0.1", want: AllRights},

		{name: "called title unchecked", calling: "CT1", called: "SOMEBODY", from: "10.1.0.3", want: storeOnly},
		{name: "called title checked", calling: "CT1", called: "SOMEBODY", from: "10.1.0.3", checkCalled: true, reason: called},
		{name: "called title ours", calling: "CT1", called: "PELAGO", from: "10.1.0.3", checkCalled: true, want: storeOnly},
		{name: "called title checked on loopback too", calling: "X", called: "SOMEBODY", from: "127.0.0.1", checkCalled: true, reason: called},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l ledger
			f := New(Options{
				Title: "PELAGO", CheckCalled: test.checkCalled, OpenStore: test.openStore, Limit: 10,
				Registry: registry(t, known...), Audit: l.add, Lookup: lookup, Arrivals: &endings{},
			})
			request := &assoc.Request{Calling: test.calling, Called: test.called, TLS: test.tls, Remote: from(test.from)}
			s, err := f.Admit(context.Background(), request)
			events := l.of(Associate)
			if len(events) != 1 || events[0].AE != test.calling || events[0].Failed != (test.reason != 0) || events[0].Failed != (events[0].Why != "") {
				t.Errorf("audited as %+v", events)
			}
			if test.reason == 0 {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if got := allowed(s); got != test.want {
					t.Errorf("may %+v, want %+v", got, test.want)
				}
				s.Closed(nil)
				return
			}
			var reject *assoc.Reject
			switch {
			case err == nil:
				t.Fatal("admitted")
			case errors.As(err, &reject):
				if reject.Reason != test.reason || reject.Result != assoc.RejectPermanent {
					t.Errorf("rejected %v", reject)
				}
			case test.reason != denied || !fault.Is(err, fault.Denied): // which the server rejects so
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestWhatIsKnownOfAnAEHoldsOnLoopbackToo(t *testing.T) {
	f := New(Options{Registry: registry(t, AE{
		Title: "CT1", Hosts: []string{"10.1.0.0/16"}, Issuer: "NORTH", Charset: "ISO_IR 100", Idle: time.Hour,
	})})
	s, err := f.Admit(context.Background(), &assoc.Request{Calling: "CT1", Remote: from("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	caller := s.Find.(*session).caller
	if caller.Issuer != "NORTH" || caller.Charset != "ISO_IR 100" || s.Idle != time.Hour || caller.Rights != AllRights {
		t.Errorf("caller %+v, idle %s", caller, s.Idle)
	}
}

func TestNoHostTakesAllAssociations(t *testing.T) {
	var l ledger
	f := New(Options{Limit: 10, OpenStore: true, Registry: registry(t), Audit: l.add, Arrivals: &endings{}})
	admit := func(ip string) (*scp.Session, error) {
		return f.Admit(context.Background(), &assoc.Request{Calling: "X", Remote: from(ip)})
	}
	var held []*scp.Session
	for range 5 {
		s, err := admit("10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	_, err := admit("10.0.0.1")
	var reject *assoc.Reject
	if !errors.As(err, &reject) || reject.Result != assoc.RejectTransient || reject.Reason != assoc.ReasonLocalLimit {
		t.Errorf("beyond its share: %v", err)
	}
	if _, err := admit("10.0.0.2"); err != nil {
		t.Errorf("another host: %v", err)
	}
	for range 20 {
		if _, err := admit("127.0.0.1"); err != nil {
			t.Errorf("loopback: %v", err)
		}
	}
	held[0].Closed(nil)
	if _, err := admit("10.0.0.1"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	f.Refused(&assoc.Request{Calling: "LATE", Remote: from("10.0.0.3")}, &assoc.Reject{Result: 2, Source: 3, Reason: 2})
	events := l.of(Associate)
	if last := events[len(events)-1]; last.AE != "LATE" || !last.Failed {
		t.Errorf("a refusal by the server is audited as %+v", last)
	}
}

func TestASlowNameServerDoesNotHoldAnAssociationUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := New(Options{
			Registry: registry(t, AE{Title: "NAMED", Hosts: []string{"a.example", "10.0.0.1"}, Rights: AllRights}),
			Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		// Addresses come first: they need no look-up.
		if _, err := f.Admit(t.Context(), &assoc.Request{Calling: "NAMED", Remote: from("10.0.0.1")}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		// Who can be known by a name only is turned away once the look-up has had its time.
		if _, err := f.Admit(t.Context(), &assoc.Request{Calling: "NAMED", Remote: from("10.0.0.2")}); err == nil {
			t.Error("admitted without an answer of the name server")
		}
		if took := time.Since(began); took != lookupTime {
			t.Errorf("took %s, want %s", took, lookupTime)
		}
	})
}

// A witness and a drained node serve everybody by so much less, whoever asks.
func TestWhatANodeDoesNotServeNobodyIsOffered(t *testing.T) {
	closed := func() error { return fault.New(fault.Unavailable, "%w", &archive.Closed{Why: "for a reason"}) }
	const ct = "1.2.840.10008.5.1.4.1.1.2"
	stores := []assoc.Context{{ID: 1, Abstract: ct}}
	for _, test := range []struct {
		name         string
		takes, sends func() error
		contexts     []assoc.Context
		roles        []assoc.Role
		want         scp.Session // what is nil
		logged       bool
	}{
		{"a witness", closed, closed, stores, nil, scp.Session{Echo: &session{}, Find: &session{}}, true},
		{"a drained node", closed, nil, stores, nil, scp.Session{Echo: &session{}, Find: &session{}, Commit: &session{}, Move: &session{}, Get: &session{}}, true},
		{"a drained node, asked for C-GET", closed, nil, stores, []assoc.Role{{Class: ct, SCP: true}}, scp.Session{Echo: &session{}, Find: &session{}, Commit: &session{}, Move: &session{}, Get: &session{}}, false},
		{"any other", nil, nil, stores, nil, scp.Session{Echo: &session{}, Find: &session{}, Commit: &session{}, Move: &session{}, Get: &session{}, Store: &session{}}, false},
	} {
		var lines bytes.Buffer
		f := New(Options{Title: "PELAGO", Registry: registry(t), Takes: test.takes, Sends: test.sends, Log: slog.New(slog.NewTextHandler(&lines, nil))})
		got, err := f.Admit(t.Context(), &assoc.Request{Calling: "CT1", Remote: from("127.0.0.1"), Contexts: test.contexts, Roles: test.roles})
		if err != nil {
			t.Fatal(err)
		}
		offered := func(s *scp.Session) [6]bool {
			return [6]bool{s.Echo != nil, s.Store != nil, s.Commit != nil, s.Find != nil, s.Move != nil, s.Get != nil}
		}
		if offered(got) != offered(&test.want) {
			t.Errorf("%s: echo, store, commit, find, move, get: %v", test.name, offered(got))
		}
		if told := strings.Contains(lines.String(), "for a reason") && strings.Contains(lines.String(), "CT1"); told != test.logged {
			t.Errorf("%s: %s", test.name, &lines)
		}
		got.Closed(nil)
	}
}
