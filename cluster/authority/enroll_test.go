package authority

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// exchange runs one request against an office over a connection in memory.
func exchange(t *testing.T, office Office, ask func(context.Context, net.Conn) ([]byte, error)) ([]byte, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	done := make(chan error, 1)
	go func() {
		done <- Serve(t.Context(), there, office)
		there.Close()
	}()
	certificate, err := ask(t.Context(), here)
	served := <-done
	if (served == nil) != (err == nil) {
		t.Errorf("the asker got %v, the office logs %v", err, served)
	}
	return certificate, err
}

func enroll(t *testing.T, office Office, root *Root, e Enrollment) ([]byte, error) {
	t.Helper()
	return exchange(t, office, func(ctx context.Context, c net.Conn) ([]byte, error) { return Enroll(ctx, c, root, e) })
}

func renew(t *testing.T, office Office, root *Root, n Renewal) ([]byte, error) {
	t.Helper()
	return exchange(t, office, func(ctx context.Context, c net.Conn) ([]byte, error) { return Renew(ctx, c, root, n) })
}

var somePlace = Place{Address: "10.0.0.7:7700"}

func openToken(t *testing.T, root *Root, l *Ledger, lifetime time.Duration) Token {
	t.Helper()
	token, ticket, err := NewToken(root, lifetime, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context(), ticket); err != nil {
		t.Fatal(err)
	}
	return token
}

func newEnrollment(t *testing.T, root *Root, self *identity.Node, token Token, site string) Enrollment {
	t.Helper()
	e, err := NewEnrollment(root, self, token, site, somePlace)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestATokenLetsOneNodeIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ledger, self := newNetwork(t, "north"), &Ledger{}, newNode(t)
		office, root := NewRegistrar(s, ledger), s.Root()
		token := openToken(t, root, ledger, 0)
		e := newEnrollment(t, root, self, token, "Mercy")
		for try := range 2 { // the second time as if the first answer had been lost
			der, err := enroll(t, office, root, e)
			if err != nil {
				t.Fatalf("try %d: %v", try, err)
			}
			if name, err := root.Verify(der, time.Now()); err != nil || name != (Name{"north", "Mercy", self.ID()}) {
				t.Errorf("try %d: %+v, %v", try, name, err)
			}
		}
		for name, c := range map[string]struct {
			e       Enrollment
			refusal Refusal
			kind    fault.Kind
		}{
			"another node":             {newEnrollment(t, root, newNode(t), token, "Mercy"), UsedToken, fault.Conflict},
			"the node at another site": {newEnrollment(t, root, self, token, "Grace"), OtherSite, fault.Conflict},
			"a token never opened":     {newEnrollment(t, root, newNode(t), Token{pin: root.hash}, "Mercy"), UnknownToken, fault.NotFound},
		} {
			if _, err := enroll(t, office, root, c.e); !errors.Is(err, c.refusal) || !fault.Is(err, c.kind) {
				t.Errorf("%s: %v", name, err)
			}
		}
		late := openToken(t, root, ledger, time.Minute)
		time.Sleep(time.Minute)
		if _, err := enroll(t, office, root, newEnrollment(t, root, newNode(t), late, "Mercy")); !errors.Is(err, ExpiredToken) || !fault.Is(err, fault.Denied) {
			t.Errorf("an expired token: %v", err)
		}
		ledger.Remove(self.ID())
		fresh := openToken(t, root, ledger, 0)
		if _, err := enroll(t, office, root, newEnrollment(t, root, self, fresh, "Mercy")); !errors.Is(err, Revoked) {
			t.Errorf("a removed node with a fresh token: %v", err)
		}
	})
}

func TestAnEnrollmentIsTakenAsTheTokenSignedItOnly(t *testing.T) {
	s, ledger, self, other := newNetwork(t, "north"), &Ledger{}, newNode(t), newNode(t)
	office, root := NewRegistrar(s, ledger), s.Root()
	token := openToken(t, root, ledger, 0)
	south := newNetwork(t, "south")
	if _, err := NewEnrollment(south.Root(), self, token, "Mercy", somePlace); !fault.Is(err, fault.Denied) {
		t.Errorf("a token shown to another network: %v", err)
	}
	stolen := newEnrollment(t, root, other, Token{pin: root.hash}, "Mercy")
	for name, c := range map[string]struct {
		change  func(*Enrollment)
		refusal Refusal
	}{
		"another node's request under its signature": {func(e *Enrollment) { e.Request = stolen.Request }, NotItself},
		"another sealing key":                        {func(e *Enrollment) { e.Sealing = stolen.Sealing }, NotItself},
		"another ticket":                             {func(e *Enrollment) { e.Ticket = stolen.Ticket }, NotItself},
		"another address":                            {func(e *Enrollment) { e.Place.Address = "10.0.0.9:7700" }, NotItself},
		"a witness that is none":                     {func(e *Enrollment) { e.Place.Witness = true }, NotItself},
		"no signature":                               {func(e *Enrollment) { e.Signature = [64]byte{} }, NotItself},
		"a sealing key that its node did not sign": {func(e *Enrollment) {
			e.Proof = stolen.Proof
			e.Signature = [64]byte(ed25519Sign(token, e.signed(root)))
		}, NotItself},
		"a request to another network": {func(e *Enrollment) {
			der, err := NewRequest(self, "south", "Mercy")
			if err != nil {
				t.Fatal(err)
			}
			e.Request = der
		}, OtherNetwork},
	} {
		e := newEnrollment(t, root, self, token, "Mercy")
		c.change(&e)
		if _, err := enroll(t, office, root, e); !errors.Is(err, c.refusal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := enroll(t, office, root, newEnrollment(t, root, self, token, "Mercy")); err != nil {
		t.Errorf("the token was harmed by what was refused: %v", err)
	}
}

func ed25519Sign(token Token, b []byte) []byte {
	s, err := token.key().Sign(nil, b, &ed25519Options)
	if err != nil {
		panic(err)
	}
	return s
}

func TestAnExpiredNodeRenewsARevokedOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ledger, self, other := newNetwork(t, "north"), &Ledger{}, newNode(t), newNode(t)
		office, root := NewRegistrar(s, ledger), s.Root()
		old := issue(t, s, self, "Mercy", time.Now())
		ledger.Add(Name{"north", "Mercy", self.ID()})
		ledger.Add(Name{"north", "Mercy", other.ID()})
		time.Sleep(3 * Lifetime)
		if _, err := root.Verify(old, time.Now()); !fault.Is(err, fault.Denied) {
			t.Fatalf("it has not expired: %v", err)
		}
		ask := func(self *identity.Node, old []byte) Renewal {
			n, err := NewRenewal(root, self, old)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		der, err := renew(t, office, root, ask(self, old))
		if err != nil {
			t.Fatal(err)
		}
		if name, err := root.Verify(der, time.Now()); err != nil || name.Node != self.ID() {
			t.Errorf("%+v, %v", name, err)
		}
		foreign := ask(self, old)
		foreign.Certificate = issue(t, newNetwork(t, "north"), self, "Mercy", time.Now())
		moved := ask(self, issue(t, s, self, "Grace", time.Now()))
		moved.Certificate = old
		for name, c := range map[string]struct {
			ask     Renewal
			refusal Refusal
		}{
			"another node's certificate":    {ask(other, old), NotItself},
			"another network's certificate": {foreign, NotItself},
			"to another site":               {moved, NotItself},
			"no certificate":                {Renewal{Request: ask(self, old).Request}, Malformed},
		} {
			if _, err := renew(t, office, root, c.ask); !errors.Is(err, c.refusal) {
				t.Errorf("%s: %v", name, err)
			}
		}
		ledger.Remove(self.ID())
		if _, err := renew(t, office, root, ask(self, der)); !errors.Is(err, Revoked) || !fault.Is(err, fault.Denied) {
			t.Errorf("after its removal: %v", err)
		}
	})
}

type brokenOffice struct{ err error }

func (o brokenOffice) Enroll(context.Context, Enrollment) ([]byte, error) { return nil, o.err }
func (o brokenOffice) Renew(context.Context, Renewal) ([]byte, error)     { return nil, o.err }

func TestAStrangerLearnsNothingOfAFailure(t *testing.T) {
	s, self := newNetwork(t, "north"), newNode(t)
	token, _, err := NewToken(s.Root(), 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e := newEnrollment(t, s.Root(), self, token, "Mercy")
	for _, c := range []struct {
		err  error
		want Refusal
	}{
		{errors.New("disk sda1 of 10.0.0.7 is broken"), Internal},
		{fault.New(fault.Unavailable, "no leader among 10.0.0.7"), NotNow},
		{fault.New(fault.Other, "admit: %w", UsedToken), UsedToken},
		{context.DeadlineExceeded, NotNow},
	} {
		_, err := enroll(t, brokenOffice{c.err}, s.Root(), e)
		if !errors.Is(err, c.want) || bytes.Contains([]byte(err.Error()), []byte("10.0.0.7")) {
			t.Errorf("%v: told %v", c.err, err)
		}
	}
	for r := range refusals + 1 {
		if err := r.Err(); err.Error() == "" || (r > 0 && r < refusals && fault.KindOf(err) != refusalTable[r].kind) {
			t.Errorf("refusal %d: %v", r, err)
		}
	}
}

func TestAnAnswerIsWaitedForHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, self := newNetwork(t, "north"), newNode(t)
		token, _, err := NewToken(s.Root(), 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		go io.Copy(io.Discard, there)
		start := time.Now()
		_, err = Enroll(t.Context(), here, s.Root(), newEnrollment(t, s.Root(), self, token, "Mercy"))
		if !fault.Is(err, fault.Unavailable) || time.Since(start) != maxAnswer {
			t.Errorf("a silent office: %v after %v", err, time.Since(start))
		}
		here, quiet := net.Pipe()
		start = time.Now()
		if err := Serve(t.Context(), quiet, brokenOffice{}); err == nil || time.Since(start) != maxAnswer {
			t.Errorf("a silent asker: %v after %v", err, time.Since(start))
		}
		for _, c := range []net.Conn{here, there, quiet} {
			c.Close()
		}
	})
}

func TestAnAnswerMustBeTheAskersCertificate(t *testing.T) {
	s, self := newNetwork(t, "north"), newNode(t)
	token, _, err := NewToken(s.Root(), 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e := newEnrollment(t, s.Root(), self, token, "Mercy")
	for name, answer := range map[string]func(io.Writer) error{
		"another node's": func(w io.Writer) error {
			return writeMessage(w, opGranted, issue(t, s, newNode(t), "Mercy", time.Now()))
		},
		"another site's": func(w io.Writer) error { return writeMessage(w, opGranted, issue(t, s, self, "Grace", time.Now())) },
		"another network's": func(w io.Writer) error {
			return writeMessage(w, opGranted, issue(t, newNetwork(t, "north"), self, "Mercy", time.Now()))
		},
		"another kind":        func(w io.Writer) error { return writeMessage(w, opEnroll, nil) },
		"an empty refusal":    func(w io.Writer) error { return writeMessage(w, opRefused, nil) },
		"garbage":             func(w io.Writer) error { _, err := w.Write([]byte("HTTP/1.1 400 Bad Request\r\n")); return err },
		"a length over limit": func(w io.Writer) error { _, err := w.Write([]byte(magic + "\x03\xff\xff")); return err },
	} {
		here, there := net.Pipe()
		go func() {
			readMessage(there)
			answer(there)
			there.Close()
		}()
		if der, err := Enroll(t.Context(), here, s.Root(), e); err == nil {
			t.Errorf("%s: taken: %x", name, der)
		}
		here.Close()
	}
}

func TestTicketsMakeRoomOnceTheyAreLongExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Ledger
		open := func(i int) error {
			return l.Open(t.Context(), Ticket{Key: [32]byte{byte(i), byte(i >> 8)}, Expires: time.Now().Add(time.Hour)})
		}
		for i := range maxTickets {
			if err := open(i); err != nil {
				t.Fatal(i, err)
			}
		}
		if err := open(maxTickets); !errors.Is(err, TooMany) || !fault.Is(err, fault.Full) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(time.Hour + Tolerance + 1)
		if err := open(maxTickets); err != nil {
			t.Errorf("a day later: %v", err)
		}
	})
}

func TestANodeSaysWhereItIsReached(t *testing.T) {
	s, ledger := newNetwork(t, "north"), &Ledger{}
	root := s.Root()
	for name, c := range map[string]struct {
		at Place
		ok bool
	}{
		"an address":           {Place{Address: "10.0.0.7:7700"}, true},
		"a name, of a witness": {Place{Address: "pacs.mercy.example:7700", Witness: true}, true},
		"IPv6":                 {Place{Address: "[fd00::7]:7700"}, true},
		"nothing":              {Place{}, false},
		"no port":              {Place{Address: "10.0.0.7"}, false},
		"no host":              {Place{Address: ":7700"}, false},
		"port 0":               {Place{Address: "10.0.0.7:0"}, false},
		"a service's name":     {Place{Address: "10.0.0.7:http"}, false},
		"too long":             {Place{Address: strings.Repeat("a", MaxAddress) + ":7700"}, false},
	} {
		token := openToken(t, root, ledger, 0)
		e, err := NewEnrollment(root, newNode(t), token, "Mercy", c.at)
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		got, err := parseEnrollment(e.append(nil))
		if err != nil || got.Place != c.at || !bytes.Equal(got.Request, e.Request) {
			t.Errorf("%s: read again as %+v, %v", name, got.Place, err)
		}
	}
}

func TestAnotherNodesOfficeAnswersAsOnesOwn(t *testing.T) {
	s, ledger, self := newNetwork(t, "north"), &Ledger{}, newNode(t)
	root, there := s.Root(), NewRegistrar(s, ledger)
	office := Remote{Root: root, Carry: func(ctx context.Context, request []byte) (io.ReadCloser, error) {
		var answer bytes.Buffer
		Answer(ctx, bytes.NewReader(request), &answer, there) //nolint:errcheck // told in the answer
		return io.NopCloser(&answer), nil
	}}
	token := openToken(t, root, ledger, 0)
	der, err := enroll(t, office, root, newEnrollment(t, root, self, token, "Mercy"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewRenewal(root, self, der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := renew(t, office, root, n); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if _, err := enroll(t, office, root, newEnrollment(t, root, newNode(t), token, "Mercy")); !errors.Is(err, UsedToken) {
		t.Errorf("a used token: %v", err)
	}
	ledger.Remove(self.ID())
	if _, err := renew(t, office, root, n); !errors.Is(err, Revoked) {
		t.Errorf("a removed node: %v", err)
	}
	office.Carry = func(context.Context, []byte) (io.ReadCloser, error) {
		return nil, fault.New(fault.Unavailable, "nobody")
	}
	if _, err := renew(t, office, root, n); !errors.Is(err, NotNow) {
		t.Errorf("nobody there: %v", err)
	}
}
