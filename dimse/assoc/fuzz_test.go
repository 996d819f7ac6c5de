package assoc

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"pelago/dimse/command"
	"pelago/dimse/dimsetest"
	"pelago/dimse/pdu"
)

// canned is a connection that yields bytes and drops what is written.
type canned struct{ r io.Reader }

func (c canned) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c canned) Write(b []byte) (int, error)      { return len(b), nil }
func (c canned) Close() error                     { return nil }
func (c canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c canned) SetDeadline(time.Time) error      { return nil }
func (c canned) SetReadDeadline(time.Time) error  { return nil }
func (c canned) SetWriteDeadline(time.Time) error { return nil }

// FuzzAcceptor feeds any bytes to an acceptor that reads everything: it ends,
// hands out no more than came, and tells a cut-off data set from a whole one.
func FuzzAcceptor(f *testing.F) {
	p := dimsetest.NewPeer(f, nil)
	rq, err := p.RQ.AppendRQ(nil)
	if err != nil {
		f.Fatal(err)
	}
	value := func(h pdu.DataHeader, data []byte) []byte {
		h.Length = uint32(len(data))
		b := pdu.AppendHeader(nil, pdu.Header{Type: pdu.TypeData, Length: h.Length + pdu.DataHeaderBytes})
		return append(pdu.AppendDataHeader(b, h), data...)
	}
	store := value(pdu.DataHeader{Context: 3, Command: true, Last: true}, storeRQ)
	data := value(pdu.DataHeader{Context: 3}, make([]byte, 20))
	last := value(pdu.DataHeader{Context: 3, Last: true}, make([]byte, 7))
	echo := value(pdu.DataHeader{Context: 1, Command: true, Last: true}, echoRQ)
	f.Add(bytes.Join([][]byte{rq, store, data, last, echo, pdu.AppendReleaseRQ(nil)}, nil))
	f.Add(bytes.Join([][]byte{rq, store, data, echo}, nil))
	f.Add(bytes.Join([][]byte{rq, pdu.Abort{}.Append(nil)}, nil))
	f.Add(bytes.Join([][]byte{rq, {4, 0, 0xff, 0xff, 0xff, 0xff}}, nil))
	f.Add(rq[:100])
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := readAll(context.Background(), canned{bytes.NewReader(b)}, Config{}, func(_ context.Context, r *Request) Decision {
			d := Decision{Contexts: r.Contexts}
			for i := range d.Contexts {
				if d.Contexts[i].Result = TransferSyntaxUnsupported; len(r.Contexts[i].Syntaxes) > 0 {
					d.Contexts[i].Result, d.Contexts[i].Syntax = Acceptance, r.Contexts[i].Syntaxes[0]
				}
			}
			return d
		})
		if e.err == nil || e.bytes > len(b) {
			t.Fatalf("%d bytes of %d, error %v", e.bytes, len(b), e.err)
		}
		if e.a != nil {
			<-e.a.Done()
		}
	})
}

// FuzzRequestor feeds any bytes to a requestor as its answer.
func FuzzRequestor(f *testing.F) {
	p := dimsetest.NewPeer(f, nil)
	ac, err := p.AC.AppendAC(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(ac, pdu.AppendReleaseRP(nil)...))
	f.Add(append(ac, pdu.AppendReleaseRQ(nil)...))
	f.Add(pdu.Reject{Result: 1, Source: 1, Reason: 7}.Append(nil))
	f.Add(pdu.Abort{Source: 2, Reason: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Dial(context.Background(), canned{bytes.NewReader(b)}, Config{}, twoContexts())
		if err != nil {
			return
		}
		for {
			m, err := a.Receive(context.Background())
			if err != nil {
				break
			}
			if _, err := command.HasData(m.Command); err != nil {
				t.Fatal(err)
			}
		}
		a.Release(context.Background())
		<-a.Done()
	})
}
