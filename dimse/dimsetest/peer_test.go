package dimsetest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"pelago/dimse/pdu"
)

func TestPeerPlaysAndDescribesEveryPDU(t *testing.T) {
	here, there := net.Pipe()
	left, right := NewPeer(t, here), NewPeer(t, there)
	go func() {
		for _, line := range []string{
			"A-ASSOCIATE-RQ", "A-ASSOCIATE-AC", "A-ASSOCIATE-RJ 1 2 3", "A-RELEASE-RQ", "A-RELEASE-RP", "A-ABORT 2 6",
			"P-DATA-TF [1 command last 00 01] [3 data 020304] [3 data last]", "bytes 0900 00000001 ff",
		} {
			here.Write(left.compose(line))
		}
		here.Close()
	}()
	right.Play(`
# what the other end sends, word for word
<- A-ASSOCIATE-RQ RAWPEER > PELAGO [1 1.2.840.10008.1.1 1.2.840.10008.1.2] [3 1.2.840.10008.5.1.4.1.1.2 1.2.840.10008.1.2]
<- A-ASSOCIATE-AC RAWPEER > PELAGO [1 0 1.2.840.10008.1.2] [3 0 1.2.840.10008.1.2]
<- A-ASSOCIATE-RJ 1 2 3
<- A-RELEASE-RQ
<- A-RELEASE-RP
<- A-ABORT 2…
<- P-DATA-TF [1 command last 2] [3 data 3] [3 data last 0]
<- PDU type 09H
<- closed`)
}

// failing catches what a test helper says instead of failing the test.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(string, ...any) {
	f.failed = true
	panic(f)
}

func TestPeerFailsOnAnotherPDU(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	go there.Write(pdu.AppendReleaseRQ(nil))
	tb := &failing{TB: t}
	func() {
		defer func() { recover() }()
		NewPeer(tb, here).Play("<- A-RELEASE-RP")
	}()
	if !tb.failed {
		t.Error("took A-RELEASE-RQ for A-RELEASE-RP")
	}
}

func TestListenerConnectsUntilClosed(t *testing.T) {
	l := Listen()
	go func() {
		conn, err := l.Dial(t.Context())
		if err == nil {
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with an ended context: %v", err)
	}
	l.Close()
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := l.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v", err)
	}
	if l.Addr().Network() != "pipe" || l.Addr().String() != "pipe" {
		t.Error("address")
	}
}
