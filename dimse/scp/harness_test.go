package scp

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// admitAll gives every association the same session.
type admitAll struct{ session *Session }

func (a admitAll) Admit(context.Context, *assoc.Request) (*Session, error) {
	s := *a.session
	return &s, nil
}

// serve runs a server with one session for all until the test ends.
func serve(t *testing.T, server *Server) *dimsetest.Listener {
	t.Helper()
	listener := dimsetest.Listen()
	serveOn(t, server, listener)
	return listener
}

// serveOn runs a server on a listener until the test ends.
func serveOn(t *testing.T, server *Server, listener net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// session is a session of one provider for everything.
func sessionOf(p *provider) *Session {
	return &Session{Echo: p, Store: p, Find: p, Move: p, Get: p, Commit: p}
}

// dialer makes connections to a listener for a target.
func dialer(l *dimsetest.Listener) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) { return l.Dial(ctx) }
}

func target(l *dimsetest.Listener) scu.Target {
	return scu.Target{Addr: "pipe", Called: "PELAGO", Calling: "TESTER", Dialer: dialer(l)}
}

// dial opens a client; it is aborted at the end unless released.
func dial(t *testing.T, l *dimsetest.Listener, p scu.Proposal) *scu.Client {
	t.Helper()
	c, err := scu.Dial(t.Context(), target(l), p)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { c.Abort() })
	return c
}

// release ends a client in order.
func release(t *testing.T, c *scu.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := c.Release(ctx); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// proposeStore proposes CT storage in explicit little endian.
func proposeStore() scu.Proposal {
	return scu.Proposal{Contexts: []assoc.Context{{Abstract: ctClass, Syntaxes: []string{dict.ExplicitLittleEndian}}}}
}

// raw is a scripted requestor: it sends command sets and data as told.
type raw struct {
	t *testing.T
	*assoc.Association
}

func dialRaw(t *testing.T, l *dimsetest.Listener, request assoc.Request) raw {
	t.Helper()
	conn, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request.Called, request.Calling = "PELAGO", "RAW"
	a, err := assoc.Dial(t.Context(), conn, assoc.Config{}, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Abort() })
	return raw{t, a}
}

// response receives the next message as a command set; its data is dropped.
func (r raw) response() *command.Set {
	r.t.Helper()
	m, err := r.Receive(r.t.Context())
	if err != nil {
		r.t.Fatalf("Receive: %v", err)
	}
	set, err := command.Parse(m.Command)
	if err != nil {
		r.t.Fatal(err)
	}
	if m.Data != nil {
		if err := m.Data.Discard(); err != nil {
			r.t.Fatal(err)
		}
	}
	return set
}

// contexts proposes classes in implicit little endian with ids 1, 3, 5…
func contexts(classes ...string) []assoc.Context {
	var all []assoc.Context
	for i, class := range classes {
		all = append(all, assoc.Context{ID: byte(2*i + 1), Abstract: class, Syntaxes: []string{dict.ImplicitLittleEndian}, SCU: true})
	}
	return all
}

var studyFind = dimse.StudyRoot.Class(dimse.Find)

// storeRequest stores text as a CT instance in explicit little endian.
func storeRequest(uid, text string) scu.StoreRequest {
	return scu.StoreRequest{Class: ctClass, Instance: uid, Syntax: dict.ExplicitLittleEndian, Data: strings.NewReader(text)}
}
