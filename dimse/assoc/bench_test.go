package assoc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"pelago/dimse/command"
)

// dialSink returns a requestor whose peer over TCP drops what it receives.
func dialSink(b *testing.B, config Config) *Association {
	b.Helper()
	addr, counted := sink(b, config)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		b.Fatal(err)
	}
	a, err := Dial(context.Background(), conn, Config{}, twoContexts())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := a.Release(context.Background()); err != nil {
			b.Error(err)
		}
		counted()
	})
	return a
}

// exchange sends a message and waits for its response.
func exchange(b *testing.B, a *Association, id byte, set []byte, data io.Reader) {
	b.Helper()
	if err := a.Send(b.Context(), id, set, data); err != nil {
		b.Fatal(err)
	}
	m, err := a.Receive(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if s, err := command.Parse(m.Command); err != nil || s.Status != command.Success {
		b.Fatal(s, err)
	}
}

// BenchmarkSend sends data sets of 526 KB and waits for each response.
func BenchmarkSend(b *testing.B) {
	data := make([]byte, 526_000)
	for _, maxPDU := range []uint32{16 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20} {
		b.Run(fmt.Sprint(maxPDU), func(b *testing.B) {
			a := dialSink(b, Config{MaxPDU: maxPDU})
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				exchange(b, a, 3, storeRQ, bytes.NewReader(data))
			}
		})
	}
}

// BenchmarkEcho is a request and a response without a data set.
func BenchmarkEcho(b *testing.B) {
	a := dialSink(b, Config{})
	b.ReportAllocs()
	for b.Loop() {
		exchange(b, a, 1, echoRQ, nil)
	}
}
