package port_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
)

// echo serves a service by sending back what comes, and tells who came.
func echo(t *testing.T, m *porttest.Member, s port.Service) <-chan authority.Name {
	t.Helper()
	l, err := m.Listen(s)
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan authority.Name, 1000)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			name, err := port.PeerOf(c.(*tls.Conn).ConnectionState())
			if err != nil && s != port.Join {
				t.Errorf("an unknown peer: %v", err)
			}
			came <- name
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return came
}

func dial(t *testing.T, from, to *porttest.Member, s port.Service) *tls.Conn {
	t.Helper()
	c, err := from.Dial(t.Context(), to.ID(), to.Address, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func works(c net.Conn) error {
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	var b [4]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

func TestALPNDecidesWhoGetsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "St. Mary's", nil)
		raft, gossip := echo(t, b, port.Raft), echo(t, b, port.Gossip)
		for s, came := range map[port.Service]<-chan authority.Name{port.Raft: raft, port.Gossip: gossip} {
			conn := dial(t, a, b, s)
			if err := works(conn); err != nil {
				t.Fatal(err)
			}
			if got := <-came; got != (authority.Name{Network: "north", Site: "Mercy", Node: a.ID()}) {
				t.Errorf("%s was reached by %v", s, got)
			}
			if to, err := port.PeerOf(conn.ConnectionState()); err != nil || to.Site != "St. Mary's" || conn.ConnectionState().Version != tls.VersionTLS13 {
				t.Errorf("reached %v, %v", to, err)
			}
		}
		if got := a.Peers(); len(got) != 1 || got[0] != b.ID() {
			t.Errorf("peers: %v", got)
		}
		if _, err := a.Dial(t.Context(), b.ID(), b.Address, port.Peer); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a service that nobody offers: %v", err)
		}
		if _, err := b.Listen(port.Raft); !fault.Is(err, fault.Conflict) {
			t.Errorf("a service offered twice: %v", err)
		}
		if len(raft)+len(gossip) != 0 {
			t.Error("a service got another one's connection")
		}
	})
}

// stranger dials with a configuration of its own.
func stranger(t *testing.T, c *porttest.Cluster, to *porttest.Member, config *tls.Config) error {
	t.Helper()
	raw, err := c.Host("10.9.9.9").Dial(t.Context(), "tcp", to.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the refusal shows here
	return err
}

func TestWhoDoesNotBelongIsRefusedAndToldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, south := porttest.NewCluster(t, "north"), porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		came := echo(t, b, port.Raft)
		settled := dial(t, a, b, port.Raft)
		if err := works(settled); err != nil {
			t.Fatal(err)
		}
		<-came

		self, member := c.Node(t, "Hope")
		_, foreign := south.Node(t, "Hope")
		_, revoked := c.Node(t, "Hope")
		c.Ledger.Remove(revoked.Name().Node)
		expired, err := authority.NewCredentials(c.Signer.Root(), self, c.Issue(t, self, "Hope", time.Now().Add(-authority.Lifetime-authority.Tolerance-time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		with := func(creds *authority.Credentials, protocols ...string) *tls.Config {
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
			if creds != nil {
				config.Certificates = []tls.Certificate{*creds.Certificate()}
			}
			return config
		}
		old := with(member, string(port.Raft))
		old.MaxVersion = tls.VersionTLS12
		for name, config := range map[string]*tls.Config{
			"no certificate":         with(nil, string(port.Raft)),
			"another network":        with(foreign, string(port.Raft)),
			"revoked":                with(revoked, string(port.Raft)),
			"expired":                with(expired, string(port.Raft)),
			"no protocol":            with(member),
			"two protocols":          with(member, string(port.Raft), string(port.Gossip)),
			"an unknown protocol":    with(member, "http/1.1"),
			"join is not offered":    with(member, string(port.Join)),
			"an old version of TLS":  old,
			"the root's certificate": {InsecureSkipVerify: true, NextProtos: []string{string(port.Raft)}, Certificates: []tls.Certificate{{Certificate: [][]byte{c.Signer.Root().DER()}, PrivateKey: self.Signer()}}},
		} {
			err := stranger(t, c, b, config)
			var alert *net.OpError
			if !errors.As(err, &alert) || alert.Op != "remote error" {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
			if lines := b.Log.Take(); len(lines) != 1 || !strings.Contains(lines[0], "remote=10.9.9.9:") || strings.Contains(lines[0], "Hope") {
				t.Errorf("%s: logged %q", name, lines)
			}
			if err != nil && (strings.Contains(err.Error(), "revoked") || strings.Contains(err.Error(), "expired") || strings.Contains(err.Error(), "removed")) {
				t.Errorf("%s: the stranger was told %v", name, err)
			}
			time.Sleep(time.Minute)
		}
		if err := stranger(t, c, b, with(member, string(port.Raft))); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the member that the others differ from: %v", err)
		}
		if len(came) != 1 {
			t.Errorf("%d connections were let in", len(came))
		}
		if err := works(settled); err != nil {
			t.Errorf("a settled connection was disturbed: %v", err)
		}
	})
}

func TestGarbageIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		b := c.Start(t, "10.0.0.2", "Grace", nil)
		echo(t, b, port.Raft)
		for _, text := range []string{"GET / HTTP/1.1\r\nHost: pelago\r\n\r\n", "\x16\x03\x01\xff\xff", "\x00\x01\x00\x00\x00\x50DICOM", strings.Repeat("\x16\x03\x01\x40\x00", 9000), "\x15\x03\x03\x00\x02\x02\x28"} {
			raw, err := c.Host("10.9.9.9").Dial(t.Context(), "tcp", b.Address)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			raw.Write([]byte(text))
			if answer, err := io.ReadAll(raw); len(answer) > 7 && err == nil { // an alert record at most
				t.Errorf("%.20q was answered %q", text, answer)
			}
			if time.Since(start) > port.DefaultLimits().Handshake {
				t.Errorf("%.20q stayed for %v", text, time.Since(start))
			}
			raw.Close()
		}
		synctest.Wait()
		if lines := b.Log.Take(); len(lines) != 5 || b.Refused() != 5 {
			t.Errorf("%d refused, logged %q", b.Refused(), lines)
		}
	})
}

func TestASlowHandshakeEndsAndDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		echo(t, b, port.Raft)
		limits := port.DefaultLimits()
		var ended []time.Duration
		done := make(chan struct{})
		start := time.Now()
		for range limits.StrangersPerSource {
			raw, err := c.Host("10.9.9.9").Dial(t.Context(), "tcp", b.Address)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for i := 0; ; i++ { // a byte a second of a record that never ends
					if _, err := raw.Write([]byte{22, 3, 1, 64, 0, 0}[min(i, 5):][:1]); err != nil {
						done <- struct{}{}
						raw.Close()
						return
					}
					time.Sleep(time.Second)
				}
			}()
		}
		synctest.Wait()
		extra, err := c.Host("10.9.9.9").Dial(t.Context(), "tcp", b.Address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := extra.Read(make([]byte, 1)); err == nil || time.Since(start) != 0 {
			t.Errorf("one more from there: %v after %v", err, time.Since(start))
		}
		extra.Close()
		if err := works(dial(t, a, b, port.Raft)); err != nil || time.Since(start) != 0 {
			t.Errorf("another host meanwhile: %v after %v", err, time.Since(start))
		}
		for range limits.StrangersPerSource {
			<-done
			ended = append(ended, time.Since(start))
		}
		if last := ended[len(ended)-1]; last < limits.Handshake || last > limits.Handshake+2*time.Second {
			t.Errorf("the last slow one ended after %v", last)
		}
		if lines := b.Log.Take(); len(lines) > 21 || b.Refused() != uint64(limits.StrangersPerSource)+1 {
			t.Errorf("%d lines about %d refusals", len(lines), b.Refused())
		}
	})
}

func TestAFloodMeetsLimitsAndLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		b := c.Start(t, "10.0.0.2", "Grace", func(p *port.Config) {
			p.Limits = port.Limits{Strangers: 3, StrangersPerSource: 2, Conns: 6, ConnsPerSource: 4, Waiting: 10}
		})
		echo(t, b, port.Raft)
		a := c.Start(t, "10.0.0.1", "Mercy", nil)
		open := func(ip string) net.Conn {
			raw, err := c.Host(ip).Dial(t.Context(), "tcp", b.Address)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return raw
		}
		refused := func(conn net.Conn) bool {
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		for round := range 3 { // places are given back, so every round is as the first
			var conns []net.Conn
			for i, step := range []struct {
				ip   string
				want bool
			}{{"10.9.9.1", false}, {"10.9.9.1", false}, {"10.9.9.1", true}, {"10.9.9.2", false}, {"10.9.9.3", true}} {
				conn := open(step.ip)
				conns = append(conns, conn)
				if refused(conn) != step.want {
					t.Errorf("round %d, step %d: from %s refused: %v", round, i, step.ip, !step.want)
				}
			}
			for _, conn := range conns {
				conn.Close()
			}
			synctest.Wait()
		}
		var members []*tls.Conn
		for i := range 5 { // the fifth exceeds what one source may have
			conn, err := a.Dial(t.Context(), b.ID(), b.Address, port.Raft)
			if (err == nil) != (i < 4) {
				t.Fatalf("connection %d: %v", i, err)
			}
			if err == nil {
				if err := works(conn); err != nil {
					t.Fatal(err)
				}
				members = append(members, conn)
			}
		}
		for i, ip := range []string{"10.9.9.4", "10.9.9.5", "10.9.9.6"} {
			conn := open(ip)
			if refused(conn) != (i == 2) {
				t.Errorf("from %s, when %d are open", ip, 4+i)
			}
			defer conn.Close()
		}
		members[0].Close()
	})
}

func TestARevokedNodeIsDroppedEverywhereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b, d := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil), c.Start(t, "10.0.0.3", "Hope", nil)
		for _, m := range []*porttest.Member{a, b, d} {
			echo(t, m, port.Raft)
		}
		in, out, other := dial(t, b, a, port.Raft), dial(t, a, b, port.Raft), dial(t, a, d, port.Raft)
		for _, conn := range []net.Conn{in, out, other} {
			if err := works(conn); err != nil {
				t.Fatal(err)
			}
		}
		c.Ledger.Remove(b.ID())
		a.Drop(b.ID())
		for name, conn := range map[string]net.Conn{"the one it dialled": in, "the one it accepted": out} {
			if err := works(conn); err == nil {
				t.Errorf("%s still works", name)
			}
		}
		if err := works(other); err != nil {
			t.Errorf("another node's: %v", err)
		}
		if conn, err := b.Dial(t.Context(), a.ID(), a.Address, port.Raft); err == nil && works(conn) == nil {
			t.Error("it came back")
		}
		if _, err := a.Dial(t.Context(), b.ID(), b.Address, port.Raft); !fault.Is(err, fault.Denied) {
			t.Errorf("dialled after its removal: %v", err)
		}
		if got := a.Peers(); len(got) != 1 || got[0] != d.ID() {
			t.Errorf("peers: %v", got)
		}
	})
}

func TestADialReachesItsNodeOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b, d := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil), c.Start(t, "10.0.0.3", "Hope", nil)
		came := echo(t, b, port.Raft)
		if _, err := a.Dial(t.Context(), d.ID(), b.Address, port.Raft); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "another node") {
			t.Errorf("another node at the address: %v", err)
		}
		if len(came) != 0 {
			t.Error("the other node was given a connection")
		}
		if _, err := a.Dial(t.Context(), b.ID(), "10.0.0.2:9", port.Raft); !fault.Is(err, fault.Unavailable) {
			t.Errorf("where nobody listens: %v", err)
		}
		c.Cut("10.0.0.2", "10.0.0.1")
		start := time.Now()
		if _, err := a.Dial(t.Context(), b.ID(), b.Address, port.Raft); !fault.Is(err, fault.Unavailable) || time.Since(start) != port.DefaultLimits().Handshake {
			t.Errorf("cut off: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, b.ID(), b.Address, port.Raft); !fault.Is(err, fault.Unavailable) || time.Since(start) != port.DefaultLimits().Handshake+time.Second {
			t.Errorf("with a deadline: %v after %v", err, time.Since(start))
		}
	})
}

func TestARenewedCertificateIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		echo(t, b, port.Raft)
		settled := dial(t, a, b, port.Raft)
		time.Sleep(authority.Lifetime + 2*authority.Tolerance)
		if _, err := a.Dial(t.Context(), b.ID(), b.Address, port.Raft); !fault.Is(err, fault.Denied) {
			t.Fatalf("they have not expired: %v", err)
		}
		for _, m := range []*porttest.Member{a, b} {
			site := m.Credentials.Name().Site
			if err := m.Credentials.Replace(c.Issue(t, m.Self, site, time.Now())); err != nil {
				t.Fatal(err)
			}
		}
		if err := works(dial(t, a, b, port.Raft)); err != nil {
			t.Error(err)
		}
		if err := works(settled); err != nil {
			t.Errorf("a settled connection ended: %v", err)
		}
	})
}

func TestAnExpiredNodeRenewsOverThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		self, creds := c.Node(t, "Hope")
		old := creds.Certificate().Leaf.Raw
		time.Sleep(2 * authority.Lifetime)
		a := c.Start(t, "10.0.0.1", "Mercy", nil)
		echo(t, a, port.Raft)
		door, err := a.Listen(port.Join)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() {
			conn, err := door.Accept()
			if err == nil {
				err = authority.Serve(t.Context(), conn, authority.NewRegistrar(c.Signer, c.Ledger))
				conn.Close()
			}
			served <- err
		}()
		host := c.Host("10.0.0.9")
		back := port.New(port.Config{Credentials: creds, Revoked: c.Ledger.Revoked, Dial: host.Dial, Log: a.Config.Log})
		if conn, err := back.Dial(t.Context(), a.ID(), a.Address, port.Raft); err == nil && works(conn) == nil {
			t.Fatal("it is let in before its renewal")
		}
		conn, root, err := port.DialJoin(t.Context(), host.Dial, a.Address, creds.Root().Hash())
		if err != nil {
			t.Fatal(err)
		}
		n, err := authority.NewRenewal(root, self, old)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := authority.Renew(t.Context(), conn, root, n)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := creds.Replace(certificate); err != nil {
			t.Fatal(err)
		}
		member, err := back.Dial(t.Context(), a.ID(), a.Address, port.Raft)
		if err != nil || works(member) != nil {
			t.Errorf("after its renewal: %v", err)
		}
		member.Close()
	})
}

// A node that is revoked after its certificate was looked at, and before its
// connection is booked, would escape a Drop at that moment.
func TestARevocationInTheMiddleOfAHandshakeIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		asked := 0
		a := c.Start(t, "10.0.0.1", "Mercy", func(p *port.Config) {
			p.Revoked = func(string) bool { asked++; return asked > 1 }
		})
		came := echo(t, a, port.Raft)
		b := c.Start(t, "10.0.0.2", "Grace", nil)
		if err := works(dial(t, b, a, port.Raft)); err == nil || len(came) != 0 {
			t.Errorf("it was let in: %v", err)
		}
		if asked != 2 || len(a.Peers()) != 0 {
			t.Errorf("asked %d times, peers %v", asked, a.Peers())
		}
	})
}

func TestConnectionsThatNobodyAcceptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a := c.Start(t, "10.0.0.1", "Mercy", nil)
		b := c.Start(t, "10.0.0.2", "Grace", func(p *port.Config) { p.Limits.Waiting = 2 })
		l, err := b.Listen(port.Raft)
		if err != nil {
			t.Fatal(err)
		}
		var conns []*tls.Conn
		for range 3 {
			conns = append(conns, dial(t, a, b, port.Raft))
			synctest.Wait()
		}
		if _, err := conns[2].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the third waits too: %v", err)
		}
		l.Close()
		for _, conn := range conns[:2] {
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("left open by a service that has ended: %v", err)
			}
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if _, err := b.Listen(port.Raft); err != nil {
			t.Errorf("offered again: %v", err)
		}
	})
}

func TestANodeJoinsByItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, south := porttest.NewCluster(t, "north"), porttest.NewCluster(t, "north")
		a := c.Start(t, "10.0.0.1", "Mercy", nil)
		echo(t, a, port.Raft)
		door, err := a.Listen(port.Join)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 2)
		go func() {
			for {
				conn, err := door.Accept()
				if err != nil {
					return
				}
				served <- authority.Serve(t.Context(), conn, authority.NewRegistrar(c.Signer, c.Ledger))
				conn.Close()
			}
		}()
		token, ticket, err := authority.NewToken(c.Signer.Root(), 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ledger.Open(t.Context(), ticket); err != nil {
			t.Fatal(err)
		}
		host := c.Host("10.0.0.9")
		if _, _, err := port.DialJoin(t.Context(), host.Dial, a.Address, south.Signer.Root().Hash()); !fault.Is(err, fault.Denied) {
			t.Errorf("another network's token: %v", err)
		}
		conn, root, err := port.DialJoin(t.Context(), host.Dial, a.Address, token.Pin())
		if err != nil {
			t.Fatal(err)
		}
		self, _ := south.Node(t, "Hope") // any new key will do
		e, err := authority.NewEnrollment(root, self, token, "Hope", authority.Place{Address: "10.0.0.7:7700"})
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := authority.Enroll(t.Context(), conn, root, e)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := authority.NewCredentials(root, self, certificate)
		if err != nil {
			t.Fatal(err)
		}
		joined := port.New(port.Config{Credentials: creds, Revoked: c.Ledger.Revoked, Dial: host.Dial, Log: a.Config.Log})
		member, err := joined.Dial(t.Context(), a.ID(), a.Address, port.Raft)
		if err != nil || works(member) != nil {
			t.Errorf("the new member: %v", err)
		}
		start := time.Now()
		lurker, _, err := port.DialJoin(t.Context(), host.Dial, a.Address, token.Pin())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if _, err := lurker.Read(make([]byte, 1)); err == nil || time.Since(start) > port.DefaultLimits().Joining {
			t.Errorf("a silent stranger stayed for %v: %v", time.Since(start), err)
		}
		if first, second := <-served, <-served; first != nil || second == nil {
			t.Errorf("served: %v, then %v", first, second)
		}
	})
}
