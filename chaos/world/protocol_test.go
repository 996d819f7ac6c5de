package world

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPSCostsTheRoundTripsItShould holds the model against what everybody
// knows of TCP and TLS 1.3, with the standard library at both ends.
func TestHTTPSCostsTheRoundTripsItShould(t *testing.T) {
	const roundTrip, rate, body = 50 * ms, 100 * Mbps, 2 * mb
	virtual(t, Both(roundTrip, rate), func(p *place) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, body))
		}))
		server.Listener.Close()
		server.Listener = p.node
		server.EnableHTTP2 = true
		server.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		client := &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return p.m.Dial(ctx, "a", p.gate.Addr())
			},
		}
		get := func() time.Duration {
			from := time.Now()
			r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "https://example.com/", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := client.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if n, err := io.Copy(io.Discard, answer.Body); n != body || err != nil || answer.ProtoMajor != 2 {
				t.Fatal(n, err, answer.Proto)
			}
			return time.Since(from)
		}
		// TLS records and frames are a few in a thousand, certificates and settings a
		// few kilobytes.
		within(t, "new: TCP, TLS, request", get(), 3*roundTrip+rate.Time(body), 0.03)
		time.Sleep(time.Second)
		within(t, "warm: request", get(), roundTrip+rate.Time(body), 0.03)
		client.CloseIdleConnections()
		server.Close()
	})
}

// TestFiftySitesInOneProcess has every site talk with every other on virtual
// time.
func TestFiftySitesInOneProcess(t *testing.T) {
	const sites = 50
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		w, err := New(Options{Network: m, Link: Both(80*ms, 10*Mbps)})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		name := func(i int) Site { return Site(fmt.Sprintf("site%d", i)) }
		gates := make([]*Gate, sites)
		for i := range sites {
			node, err := m.Listen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer node.Close()
			go echo(node)
			if gates[i], err = w.Gate(t.Context(), name(i), node.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		from := time.Now()
		heard := make(chan error)
		for i := range sites {
			for j := range sites {
				go func() {
					c, err := m.Dial(t.Context(), name(i), gates[j].Addr())
					if err == nil {
						_, err = c.Write([]byte("are you there"))
					}
					if err == nil {
						_, err = io.ReadFull(c, make([]byte, 13))
						c.Close()
					}
					heard <- err
				}()
			}
		}
		for range sites * sites {
			if err := <-heard; err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(from); d < 160*ms || d > 161*ms {
			t.Errorf("%v, want two round trips", d)
		}
		for i := range sites {
			for j := range sites {
				if got := w.Traffic(name(i), name(j)); got.Sent != 26 {
					t.Fatalf("%d to %d: %+v, want what it said and what it answered", i, j, got)
				}
			}
		}
	})
}

// echo says back what it hears.
func echo(node net.Listener) {
	for {
		c, err := node.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}
