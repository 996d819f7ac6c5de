package port_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
)

// serve serves peer calls until the test ends.
func serve(t *testing.T, p *port.Port, h http.HandlerFunc) {
	t.Helper()
	l, err := p.Listen(port.Peer)
	if err != nil {
		t.Fatal(err)
	}
	s := port.NewServer(h, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}

func call(t *testing.T, rt http.RoundTripper, node, path string, body io.Reader) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+node+path, body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := rt.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if answer.ProtoMajor != 2 {
		t.Errorf("over %s", answer.Proto)
	}
	return string(b), err
}

func whoAndSum(w http.ResponseWriter, r *http.Request) {
	name, err := port.PeerOf(*r.TLS)
	if err != nil {
		http.Error(w, "who are you?", http.StatusForbidden)
		return
	}
	h := sha256.New()
	if _, err := io.Copy(h, r.Body); err != nil {
		http.Error(w, "torn", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %x", name, h.Sum(nil))
}

func TestPeerCallsKnowTheirCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		serve(t, b.Port, whoAndSum)
		rt := a.Transport(func(_ context.Context, node string) (string, error) {
			if node != b.ID() {
				return "", fault.New(fault.NotFound, "no such node")
			}
			return b.Address, nil
		})
		defer rt.CloseIdleConnections()
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		want := fmt.Sprintf("%s %x", a.Credentials.Name(), sha256.Sum256(data))
		for range 3 {
			if got, err := call(t, rt, b.ID(), "/", bytes.NewReader(data)); err != nil || got != want {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if _, err := call(t, rt, a.ID(), "/", nil); !fault.Is(err, fault.NotFound) {
			t.Errorf("a node without an address: %v", err)
		}
		c.Ledger.Remove(a.ID())
		b.Drop(a.ID())
		if got, err := call(t, rt, b.ID(), "/", bytes.NewReader(data)); err == nil {
			t.Errorf("a revoked caller got %q", got)
		}
	})
}

// A peer that is cut off is found out by pings, and the call after the healing
// takes a new connection.
func TestACallOverACutLinkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		serve(t, b.Port, whoAndSum)
		rt := a.Transport(func(context.Context, string) (string, error) { return b.Address, nil })
		defer rt.CloseIdleConnections()
		if _, err := call(t, rt, b.ID(), "/", nil); err != nil {
			t.Fatal(err)
		}
		c.Part([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		start := time.Now()
		if got, err := call(t, rt, b.ID(), "/", nil); err == nil || time.Since(start) > 40*time.Second {
			t.Errorf("%q, %v after %v", got, err, time.Since(start))
		}
		c.Join([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		if _, err := call(t, rt, b.ID(), "/", nil); err != nil {
			t.Errorf("after the healing: %v", err)
		}
	})
}

// windows reads HTTP/2 frames up to the first that is neither SETTINGS nor
// WINDOW_UPDATE (RFC 9113, 6.5 and 6.9), and returns the stream's and the
// connection's receive window.
func windows(t *testing.T, r io.Reader, frames int) (stream, conn uint32) {
	t.Helper()
	conn = 65535
	for range frames {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		switch {
		case head[3] == 4 && head[4] == 0:
			for ; len(body) >= 6; body = body[6:] {
				if binary.BigEndian.Uint16(body) == 4 { // SETTINGS_INITIAL_WINDOW_SIZE
					stream = binary.BigEndian.Uint32(body[2:])
				}
			}
		case head[3] == 8:
			conn += binary.BigEndian.Uint32(body)
		}
	}
	return stream, conn
}

// The library documents less than it takes: what counts is what it says on the
// wire, in both directions.
func TestWindowsAreWideOnTheWire(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		a, b := c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
		serve(t, b.Port, whoAndSum)
		conn := dial(t, a, b, port.Peer)
		conn.Write([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		if stream, all := windows(t, conn, 3); stream != 32<<20 || all != 64<<20 {
			t.Errorf("the server's windows are %d and %d", stream, all)
		}
		conn.Close()

		l, err := a.Listen(port.Peer)
		if err != nil {
			t.Fatal(err)
		}
		rt := b.Transport(func(context.Context, string) (string, error) { return a.Address, nil })
		defer rt.CloseIdleConnections()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			call(t, rt, a.ID(), "/", nil)
		}()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, in, int64(len(preface))); err != nil {
			t.Fatal(err)
		}
		if stream, all := windows(t, in, 2); stream != 32<<20 || all < 64<<20 || all > 64<<20+65535 {
			t.Errorf("the client's windows are %d and %d", stream, all)
		}
		in.Close()
		<-ended
	})
}

// The whole of it over real sockets.
func TestThePortOverTCP(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := porttest.NewCluster(t, "north")
	ctx, cancel := context.WithCancel(t.Context())
	var ports [2]*port.Port
	var addresses [2]string
	ended := make(chan error, 2)
	for i, site := range []string{"Mercy", "Grace"} {
		_, creds := c.Node(t, site)
		ports[i] = port.New(port.Config{Credentials: creds, Revoked: c.Ledger.Revoked, Log: slog.New(slog.DiscardHandler)})
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[i] = l.Addr().String()
		go func() { ended <- ports[i].Run(ctx, l) }()
	}
	l, err := ports[1].Listen(port.Peer)
	if err != nil {
		t.Fatal(err)
	}
	s := port.NewServer(http.HandlerFunc(whoAndSum), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	node := ports[1].Credentials.Name().Node
	rt := ports[0].Transport(func(context.Context, string) (string, error) { return addresses[1], nil })
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	want := fmt.Sprintf("%s %x", ports[0].Credentials.Name(), sha256.Sum256(data))
	if got, err := call(t, rt, node, "/", bytes.NewReader(data)); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	raw, err := tls.Dial("tcp", addresses[1], &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil {
		if _, err = raw.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger was served")
		}
		raw.Close()
	}
	rt.CloseIdleConnections()
	cancel()
	for range ports {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	s.Close()
}
