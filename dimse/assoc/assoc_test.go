package assoc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"pelago/dimse/command"
)

const (
	verification = "1.2.840.10008.1.1"
	ctStorage    = "1.2.840.10008.5.1.4.1.1.2"
	implicitLE   = "1.2.840.10008.1.2"
	explicitLE   = "1.2.840.10008.1.2.1"
)

// acceptAll accepts every context with its first syntax.
func acceptAll(_ context.Context, r *Request) Decision {
	d := Decision{Contexts: r.Contexts, MaxInvoked: r.MaxInvoked, MaxPerformed: r.MaxPerformed}
	for i := range d.Contexts {
		d.Contexts[i].Syntax = d.Contexts[i].Syntaxes[0]
	}
	return d
}

// twoContexts proposes verification and CT storage.
func twoContexts() Request {
	return Request{Called: "PELAGO", Calling: "TESTER", Contexts: []Context{
		{Abstract: verification, Syntaxes: []string{implicitLE}},
		{Abstract: ctStorage, Syntaxes: []string{explicitLE, implicitLE}},
	}}
}

// pair returns the two ends of an association over a pipe.
func pair(t *testing.T, acceptor, requestor Config, request Request) (scp, scu *Association) {
	t.Helper()
	here, there := net.Pipe()
	type result struct {
		a   *Association
		err error
	}
	accepted := make(chan result)
	go func() {
		a, err := Accept(t.Context(), here, acceptor, acceptAll)
		accepted <- result{a, err}
	}()
	scu, err := Dial(t.Context(), there, requestor, request)
	if err != nil {
		t.Fatal(err)
	}
	r := <-accepted
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.a, scu
}

// storeRQ is a C-STORE-RQ; echoRQ has no data set.
var (
	storeRQ = (&command.Set{Field: command.CStoreRQ, MessageID: 1, Class: ctStorage, Instance: "1.2.3", HasData: true}).Encode(nil)
	echoRQ  = (&command.Set{Field: command.CEchoRQ, MessageID: 1, Class: verification}).Encode(nil)
)

func TestMessagesArriveAsSent(t *testing.T) {
	for _, size := range []int{0, 1, 100, 3800, 4096, 16 << 10, 16<<10 - 12, 256 << 10, 256<<10 - 6, 256<<10 - 5, 1<<20 + 13} {
		for _, maxPDU := range []uint32{128, 129, 16384, 0} {
			if maxPDU < 1000 && size > 20000 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				scp, scu := pair(t, Config{MaxPDU: maxPDU}, Config{}, twoContexts())
				data := make([]byte, size)
				for i := range data {
					data[i] = byte(i * 7)
				}
				sent := make(chan error)
				go func() {
					if err := scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(data)); err != nil {
						sent <- err
						return
					}
					if err := scu.Send(t.Context(), 1, echoRQ, nil); err != nil {
						sent <- err
						return
					}
					sent <- scu.Release(t.Context())
				}()
				m, err := scp.Receive(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if m.ContextID != 3 || !bytes.Equal(m.Command, storeRQ) || m.Data == nil {
					t.Fatalf("message %+v", m)
				}
				got, err := io.ReadAll(m.Data)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("size %d max %d: %d bytes, %v", size, maxPDU, len(got), err)
				}
				m, err = scp.Receive(t.Context())
				if err != nil || m.Data != nil || m.ContextID != 1 || !bytes.Equal(m.Command, echoRQ) {
					t.Fatalf("echo %+v, %v", m, err)
				}
				if _, err := scp.Receive(t.Context()); err != io.EOF {
					t.Fatalf("after release: %v", err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				<-scp.Done()
				<-scu.Done()
				if err := scu.Send(t.Context(), 1, echoRQ, nil); !errors.Is(err, io.EOF) {
					t.Fatalf("send after release: %v", err)
				}
			})
		}
	}
}
