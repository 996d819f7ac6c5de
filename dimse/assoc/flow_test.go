package assoc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/dimse/command"
	"pelago/dimse/dimsetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBlockedSendDoesNotBlockReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		got := make(chan error, 1)
		sent := make(chan error, 1)
		go func() {
			a, err := Accept(t.Context(), here, bounds, acceptAll)
			if err != nil {
				got <- err
				return
			}
			go func() { sent <- a.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, 1<<20))) }()
			synctest.Wait() // the peer does not read: the send hangs
			_, err = a.Receive(t.Context())
			got <- err
		}()
		peer := dimsetest.NewPeer(t, there)
		peer.Play(established + "-> P-DATA-TF [1 command last " + echoHex + "]")
		start := time.Now()
		if err := <-got; err != nil || time.Since(start) != 0 {
			t.Errorf("received after %v: %v", time.Since(start), err)
		}
		if err := <-sent; !fault.Is(err, fault.Unavailable) || time.Since(start) != bounds.Stall+abortLinger && time.Since(start) != bounds.Stall {
			t.Errorf("send ended after %v: %v", time.Since(start), err)
		}
		there.Close()
	})
}

func TestSlowReaderIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		sent := make(chan error, 1)
		go func() {
			a, err := Accept(t.Context(), here, bounds, acceptAll)
			if err == nil {
				err = a.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, 8000)))
				defer a.Abort()
			}
			sent <- err
		}()
		dimsetest.NewPeer(t, there).Play(established)
		for range 9 { // one PDU of some 8,000 bytes, a kilobyte every 50 seconds
			time.Sleep(50 * time.Second)
			if _, err := io.ReadFull(there, make([]byte, 1000)); err != nil {
				break
			}
			if len(sent) > 0 {
				break
			}
		}
		go io.Copy(io.Discard, there)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		there.Close()
	})
}

func TestSendsCountAgainstIdleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, bounds, Config{Idle: time.Hour * 24}, twoContexts())
		go func() {
			for {
				if _, err := scu.Receive(t.Context()); err != nil {
					return
				}
			}
		}()
		go func() {
			for range 10 {
				time.Sleep(bounds.Idle * 9 / 10)
				scp.Send(t.Context(), 1, echoRQ, nil)
			}
		}()
		start := time.Now()
		_, err := scp.Receive(t.Context())
		if took, want := time.Since(start), bounds.Idle*9+bounds.Idle; took < want || took > want+2*abortLinger {
			t.Errorf("idle after %v: %v", took, err)
		}
	})
}

func TestConcurrentSendsStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{MaxPDU: 512}, Config{}, twoContexts())
		const senders, each = 8, 20
		var group sync.WaitGroup
		for n := range senders {
			group.Go(func() {
				for range each {
					if err := scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(bytes.Repeat([]byte{byte(n)}, 2000+n))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		go func() {
			group.Wait()
			scu.Release(t.Context())
		}()
		count := map[byte]int{}
		for {
			m, err := scp.Receive(t.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(m.Data)
			if err != nil || len(b) != 2000+int(b[0]) || bytes.Count(b, b[:1]) != len(b) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			count[b[0]]++
		}
		for n := range senders {
			if count[byte(n)] != each {
				t.Errorf("sender %d: %d messages", n, count[byte(n)])
			}
		}
	})
}

func TestUnreadDataSetIsDroppedByTheNextReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{MaxPDU: 4096}, Config{}, twoContexts())
		go func() {
			scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, 50_000)))
			scu.Send(t.Context(), 1, echoRQ, nil)
			scu.Release(t.Context())
		}()
		first, err := scp.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Data.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if m, err := scp.Receive(t.Context()); err != nil || m.ContextID != 1 {
			t.Fatalf("%+v, %v", m, err)
		}
		if _, err := first.Data.Next(); err == nil || err == io.EOF {
			t.Errorf("the dropped data set ends with %v", err)
		}
		if _, err := scp.Receive(t.Context()); err != io.EOF {
			t.Error(err)
		}
	})
}

func TestSourceThatFails(t *testing.T) {
	broken := errors.New("the disk is gone")
	t.Run("before anything was sent: the association goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			scp, scu := pair(t, Config{MaxPDU: 4096}, Config{}, twoContexts())
			go func() {
				waiting := io.MultiReader(bytes.NewReader(make([]byte, sendBatch/2)), iotest.ErrReader(broken))
				for _, source := range []io.Reader{iotest.ErrReader(broken), waiting} {
					if err := scu.Send(t.Context(), 3, storeRQ, source); !errors.Is(err, broken) {
						t.Errorf("error %v", err)
					}
				}
				if err := scu.Send(t.Context(), 3, storeRQ, strings.NewReader("ok")); err != nil {
					t.Error(err)
				}
				scu.Release(t.Context())
			}()
			m, err := scp.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(m.Data); err != nil || string(b) != "ok" {
				t.Errorf("%q, %v", b, err)
			}
			if _, err := scp.Receive(t.Context()); err != io.EOF {
				t.Error(err)
			}
		})
	})
	t.Run("midway: the association is aborted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			scp, scu := pair(t, Config{MaxPDU: 4096}, Config{}, twoContexts())
			go func() {
				source := io.MultiReader(bytes.NewReader(make([]byte, sendBatch)), iotest.ErrReader(broken))
				if err := scu.Send(t.Context(), 3, storeRQ, source); !errors.Is(err, broken) {
					t.Errorf("error %v", err)
				}
				<-scu.Done()
			}()
			m, err := scp.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var abort *Aborted
			if _, err := io.ReadAll(m.Data); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &abort) || !abort.Remote {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("sources of every manner", func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789"), 3000)
		for name, source := range map[string]func() io.Reader{
			"byte by byte":        func() io.Reader { return iotest.OneByteReader(bytes.NewReader(data)) },
			"EOF with the last":   func() io.Reader { return iotest.DataErrReader(bytes.NewReader(data)) },
			"half of what is had": func() io.Reader { return iotest.HalfReader(bytes.NewReader(data)) },
		} {
			synctest.Test(t, func(t *testing.T) {
				scp, scu := pair(t, Config{MaxPDU: 4096}, Config{}, twoContexts())
				go func() {
					if err := scu.Send(t.Context(), 3, storeRQ, source()); err != nil {
						t.Error(err)
					}
					scu.Release(t.Context())
				}()
				m, err := scp.Receive(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(m.Data); err != nil || !bytes.Equal(b, data) {
					t.Errorf("%s: %d bytes, %v", name, len(b), err)
				}
				if _, err := scp.Receive(t.Context()); err != io.EOF {
					t.Error(err)
				}
			})
		}
	})
}

// recorder is a connection that notes the lengths of writes and of the PDUs in
// them, of which none is cut.
type recorder struct {
	net.Conn
	mu           sync.Mutex
	writes, pdus []int
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.writes = append(r.writes, len(b))
	for rest := b; len(rest) > 0; {
		n := 6 + int(binary.BigEndian.Uint32(rest[2:]))
		r.pdus = append(r.pdus, n)
		rest = rest[n:]
	}
	r.mu.Unlock()
	return r.Conn.Write(b)
}

func TestPDUsFillThePeersMaximumAndShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		r := &recorder{Conn: there}
		go readAll(t.Context(), here, Config{MaxPDU: 10_000}, acceptAll)
		scu, err := Dial(t.Context(), r, Config{}, twoContexts())
		if err != nil {
			t.Fatal(err)
		}
		r.writes, r.pdus = nil, nil
		for _, size := range []int{100, 9500, 9994, 9995, 30_000, 300_000} {
			if err := scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, size))); err != nil {
				t.Fatal(err)
			}
		}
		if err := scu.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		cmd := len(storeRQ) + 6
		first := 10_000 - cmd - 6 // bytes of data beside the command
		first &^= 1
		want := []int{6 + cmd + 6 + 100} // one PDU for a small message
		for _, size := range []int{9500, 9994, 9995, 30_000, 300_000} {
			n := min(size, first)
			want = append(want, 6+cmd+6+n)
			for size -= n; size > 0; size -= n {
				n = min(size, 9994)
				want = append(want, 6+6+n)
			}
		}
		want = append(want, 10)
		if !slices.Equal(r.pdus, want) {
			t.Errorf("PDUs %v\nwant %v", r.pdus, want)
		}
		// A write for each of the five small messages, three for the large one, and
		// one for the release.
		if len(r.writes) != 9 || slices.Max(r.writes) > sendBatch {
			t.Errorf("writes %v", r.writes)
		}
	})
}

func TestSendRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{}, Config{}, twoContexts())
		if err := scu.Send(t.Context(), 9, echoRQ, nil); !fault.Is(err, fault.Unsupported) {
			t.Errorf("a context that was not accepted: %v", err)
		}
		if err := scu.Send(t.Context(), 1, make([]byte, command.MaxBytes+1), nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("a command too long: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := scu.Send(ctx, 1, echoRQ, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		go scp.Receive(t.Context())
		if err := scu.Send(t.Context(), 1, echoRQ, nil); err != nil {
			t.Errorf("after refusals: %v", err)
		}
		scu.Abort()
		scp.Abort()
		if err := scu.Send(t.Context(), 1, echoRQ, nil); err == nil {
			t.Error("sent after the abort")
		}
	})
}

func TestReleaseBesideAReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{}, Config{}, twoContexts())
		received := make(chan error)
		go func() { _, err := scu.Receive(t.Context()); received <- err }()
		go scp.Receive(t.Context())
		synctest.Wait()
		if err := scu.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-received; err != io.EOF {
			t.Errorf("the receiver sees %v", err)
		}
		if err := scu.Release(t.Context()); err != nil {
			t.Errorf("releasing again: %v", err)
		}
		if err := scu.Err(); err != io.EOF {
			t.Errorf("Err %v", err)
		}
	})
}

func TestAbortWakesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var a *Association
		accepted := make(chan error)
		go func() {
			var err error
			a, err = Accept(t.Context(), here, Config{}, acceptAll)
			accepted <- err
		}()
		dimsetest.NewPeer(t, there).Play(established)
		if err := <-accepted; err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 3)
		go func() { _, err := a.Receive(t.Context()); errs <- err }()
		go func() { errs <- a.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, 1<<20))) }()
		synctest.Wait()
		go func() { errs <- a.Send(t.Context(), 1, echoRQ, nil) }() // waits for the first
		synctest.Wait()
		start := time.Now()
		a.Abort()
		for range 3 {
			var abort *Aborted
			if err := <-errs; !errors.As(err, &abort) {
				t.Errorf("error %v", err)
			}
		}
		if took := time.Since(start); took > 2*abortLinger {
			t.Errorf("took %v", took)
		}
		there.Close()
	})
}

func TestAssociationOverTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca := dimsetest.NewAuthority(t)
	cert := ca.Issue(t)
	ended := make(chan end, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			ended <- end{err: err}
			return
		}
		ended <- readAll(context.Background(), tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}), Config{}, acceptAll)
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	scu, err := Dial(t.Context(), tls.Client(conn, &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}), Config{}, twoContexts())
	if err != nil {
		t.Fatal(err)
	}
	if scu.quickAck == nil {
		t.Error("no quick acknowledgement under TLS")
	}
	const size = 3 << 20
	for range 3 {
		if err := scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := scu.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := <-ended
	if e.err != io.EOF || e.messages != 3 || e.bytes != 3*size {
		t.Errorf("%d messages, %d bytes, %v", e.messages, e.bytes, e.err)
	}
	if state := e.a.Request().TLS; state == nil || !state.HandshakeComplete {
		t.Errorf("TLS state %v", state)
	}
	if e.a.Request().Remote.String() != conn.LocalAddr().String() {
		t.Errorf("remote %v", e.a.Request().Remote)
	}
}

// An abort over TCP reaches a peer that is busy sending, though its bytes are
// still unread here.
func TestAbortReachesASenderOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		a, err := Accept(context.Background(), conn, Config{}, acceptAll)
		if err != nil {
			return
		}
		a.Receive(context.Background())
		a.Abort()
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	scu, err := Dial(t.Context(), conn, Config{}, twoContexts())
	if err != nil {
		t.Fatal(err)
	}
	if err := scu.Send(t.Context(), 3, storeRQ, bytes.NewReader(make([]byte, 1<<20))); err != nil {
		return // the connection went before all was written
	}
	var abort *Aborted
	if _, err := scu.Receive(t.Context()); !errors.As(err, &abort) || !abort.Remote {
		t.Errorf("error %v", err)
	}
}

func TestEchoSCU(t *testing.T) {
	addr, counted := sink(t, Config{})
	_, port, _ := net.SplitHostPort(addr.String())
	dimsetest.Run(t, "echoscu", "-aec", "PELAGO", "--repeat", "5", "127.0.0.1", port)
	if n, _ := counted(); n != 5 {
		t.Errorf("%d echoes", n)
	}
}
