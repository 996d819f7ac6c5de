package port

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/authority"
	"pelago/cluster/identity"
)

// FuzzPreface sends whatever a stranger may send instead of a handshake.
func FuzzPreface(f *testing.F) {
	s, err := authority.Found("north", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	self, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		f.Fatal(err)
	}
	der, err := authority.NewRequest(self, "north", "Mercy")
	if err != nil {
		f.Fatal(err)
	}
	request, err := authority.ParseRequest(der)
	if err != nil {
		f.Fatal(err)
	}
	certificate, err := s.Issue(request, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	creds, err := authority.NewCredentials(s.Root(), self, certificate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Add(clientHello(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := New(Config{Credentials: creds, Revoked: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler)})
		for _, s := range []Service{Raft, Join} {
			if _, err := p.Listen(s); err != nil {
				t.Fatal(err)
			}
		}
		here, there := net.Pipe()
		k, err := p.admit(there)
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, here)
		go func() {
			here.Write(b)
			here.Close()
		}()
		p.receive(t.Context(), k)
		if len(p.links) != 0 || p.census.all != 0 || p.census.allNew != 0 || len(p.census.conns)+len(p.census.strangers) != 0 {
			t.Fatalf("something is left behind: %+v", p.census)
		}
	})
}

// clientHello records what a member sends first.
func clientHello(f *testing.F) []byte {
	here, there := net.Pipe()
	go DialJoin(f.Context(), func(context.Context, string, string) (net.Conn, error) { return here, nil }, "", [32]byte{})
	b := make([]byte, 4096)
	n, err := there.Read(b)
	if err != nil {
		f.Fatal(err)
	}
	there.Close()
	return b[:n]
}
