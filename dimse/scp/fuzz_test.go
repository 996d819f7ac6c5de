package scp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// fuzzSession is a session that does a little of everything.
func fuzzSession(closed chan<- error) *Session {
	retrieval := func(context.Context, *RetrieveRequest) (*Retrieval, error) {
		return &Retrieval{Total: 2, Instances: instances(2), Connect: func(context.Context) (Destination, error) {
			return nil, dimse.DestinationUnknown()
		}}, nil
	}
	p := &provider{get: retrieval, move: retrieval}
	s := sessionOf(p)
	s.Committed = func(context.Context, *dimse.CommitmentResult) error { return nil }
	s.Closed = func(err error) { closed <- err }
	return s
}

// recorded returns what a client writes that uses every service.
func recorded(f *testing.F) []byte {
	l := dimsetest.Listen()
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error, 1)
	server := &Server{Admit: admitAll{fuzzSession(closed)}}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ctx, l) })
	defer served.Wait()
	defer cancel()
	rec := &recorder{}
	tgt := target(l)
	tgt.Dialer = func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := l.Dial(ctx)
		rec.Conn = conn
		return rec, err
	}
	proposal := proposeGet()
	for _, class := range []string{dimse.Verification, studyFind, dimse.StudyRoot.Class(dimse.Move), dimse.StorageCommitment} {
		proposal.Contexts = append(proposal.Contexts, assoc.Context{Abstract: class, Syntaxes: []string{dict.ImplicitLittleEndian}})
	}
	proposal.Roles[0].SCU = true
	c, err := scu.Dial(ctx, tgt, proposal)
	if err != nil {
		f.Fatal(err)
	}
	_, stored := c.Store(ctx, storeRequest("1.2.3", "some data"))
	_, found := collect(c.Find(ctx, query()))
	_, got := last(c.Get(ctx, query(), func(context.Context, *scu.Incoming) error { return nil }))
	_, moved := last(c.Move(ctx, "NOBODY", query()))
	if err := errors.Join(c.Echo(ctx), stored, found, got, c.RequestCommitment(ctx, commitment()), c.Release(ctx)); err != nil || moved == nil {
		f.Fatalf("recording: %v, %v", err, moved)
	}
	<-closed
	return rec.written.Bytes()
}

// FuzzMessages sends bytes over an established association. Whatever they are,
// no provider or part of the server panics, and the association ends.
func FuzzMessages(f *testing.F) {
	script := recorded(f)
	request := 6 + int(binary.BigEndian.Uint32(script[2:6]))
	messages := script[request:]
	f.Add(messages)
	for start := 0; start < len(messages); { // each message alone, and without its end
		end := start + 6 + int(binary.BigEndian.Uint32(messages[start+2:start+6]))
		f.Add(messages[start:end])
		f.Add(messages[start : end-3])
		start = end
	}
	l := dimsetest.Listen()
	closed := make(chan error, 1)
	server := &Server{Admit: admitAll{fuzzSession(closed)}}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ctx, l) })
	f.Cleanup(func() { cancel(); served.Wait() })

	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(script[:request]); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 6) // the A-ASSOCIATE-AC
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[2:]))); err != nil {
			t.Fatal(err)
		}
		var drained sync.WaitGroup
		drained.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		_, _ = io.Copy(conn, bytes.NewReader(b)) // the server may hang up
		conn.Close()
		drained.Wait()
		if err := <-closed; errors.Is(err, errPanic) {
			t.Fatal("something panicked")
		}
	})
}
