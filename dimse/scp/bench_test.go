package scp

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

// bucket drops what it receives.
type bucket struct{ provider }

func (*bucket) Store(_ context.Context, r *StoreRequest) error { return r.Data.Discard() }

// benchServer serves on loopback and returns a target.
func benchServer(b *testing.B, session *Session) scu.Target {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &Server{Admit: admitAll{session}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ctx, listener)
	}()
	b.Cleanup(func() { cancel(); <-done })
	return scu.Target{Addr: listener.Addr().String(), Called: "PELAGO", Calling: "BENCH"}
}

// BenchmarkStore stores into a bit bucket over one association.
func BenchmarkStore(b *testing.B) {
	for name, size := range map[string]int{"CT": 526 << 10, "tiny": 1 << 10} {
		b.Run(name, func(b *testing.B) {
			p := &bucket{}
			c, err := scu.Dial(b.Context(), benchServer(b, &Session{Store: p}), proposeStore())
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.Store(b.Context(), scu.StoreRequest{
					Class: ctClass, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, Data: bytes.NewReader(data),
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			if err := c.Release(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkGet retrieves series of 100 images of 526 KB from memory.
func BenchmarkGet(b *testing.B) {
	data := make([]byte, 526<<10)
	get := func(context.Context, *RetrieveRequest) (*Retrieval, error) {
		return &Retrieval{Total: 100, Instances: func(yield func(scu.Instance, error) bool) {
			for range 100 {
				in := instance(1)
				in.Open = func(context.Context, string) (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(data)), nil
				}
				if !yield(in, nil) {
					return
				}
			}
		}}, nil
	}
	c, err := scu.Dial(b.Context(), benchServer(b, &Session{Get: &provider{get: get}}), proposeGet())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(100 * int64(len(data)))
	for b.Loop() {
		final, err := last(c.Get(b.Context(), query(), func(_ context.Context, in *scu.Incoming) error { return in.Data.Discard() }))
		if err != nil || final.Completed != 100 {
			b.Fatalf("%+v, %v", final, err)
		}
	}
	if err := c.Release(b.Context()); err != nil {
		b.Fatal(err)
	}
}
