package assoc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dimsetest"
	"pelago/dimse/pdu"
)

// bounds are small limits, different from each other.
var bounds = Config{ARTIM: 30 * time.Second, Idle: 600 * time.Second, Stall: 60 * time.Second}

func TestTimersEndWhatIsSilent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script string
		want   time.Duration
	}{
		{"ARTIM: nothing is sent", "<- closed", 30 * time.Second},
		{"ARTIM: a request byte by byte", ".. 20s\n-> bytes 01\n.. 9s\n-> bytes 00\n<- closed", 30 * time.Second},
		{"ARTIM after a rejection", "-> bytes 01000000004400000000" + strings.Repeat("20", 32) + strings.Repeat("00", 32) + "\n<- A-ASSOCIATE-RJ 1 2 2\n<- closed", 30 * time.Second},
		{"ARTIM after a release reply", established + ".. 5s\n-> A-RELEASE-RQ\n<- A-RELEASE-RP\n<- closed", 35 * time.Second},
		{"idle", established + "<- A-ABORT 0 0\n-> close", 600 * time.Second},
		{"idle counts from the last PDU", established + ".. 100s\n-> P-DATA-TF [1 command last " + echoHex + "]\n<- A-ABORT 0 0\n-> close", 700 * time.Second},
		{"stall inside a PDU", established + ".. 10s\n-> bytes 0400\n<- A-ABORT 0 0\n-> close", 70 * time.Second},
		{"stall inside a message", established + ".. 10s\n-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000]\n<- A-ABORT 0 0\n-> close", 70 * time.Second},
		{"stall counts all waits inside a PDU", established + "-> bytes 0400\n.. 40s\n-> bytes 00\n<- A-ABORT 0 0\n-> close", 60 * time.Second},
		{"an abort that the peer does not answer", established + "-> bytes 090000000000\n<- A-ABORT 2 1\n<- closed", abortLinger},
		{"an abort that the peer does not even read", established + "-> bytes 090000000000\n.. 1500ms", abortLinger},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := play(t, bounds, acceptAll, tt.script)
			if e.err == nil {
				t.Fatal("no error")
			}
			if e.took != tt.want {
				t.Errorf("took %v, want %v: %v", e.took, tt.want, e.err)
			}
		})
	}
}

func TestDialGivesUpAfterARTIM(t *testing.T) {
	never := func(context.Context, *Association) error { return nil }
	err, took := dialScript(t, "<- A-ABORT 0 0\n-> close", never)
	if took != defaultARTIM || !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v after %v", err, took)
	}
	release := func(ctx context.Context, a *Association) error { return a.Release(ctx) }
	err, took = dialScript(t, "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n<- A-ABORT 0 0\n-> close", release)
	if took != defaultARTIM || !fault.Is(err, fault.Unavailable) {
		t.Errorf("release: %v after %v", err, took)
	}
}

// conversation is what a well-behaved sender writes: association, a store in
// three PDUs, a release.
func conversation(t *testing.T) []byte {
	p := dimsetest.NewPeer(t, nil)
	b, err := p.RQ.AppendRQ(nil)
	if err != nil {
		t.Fatal(err)
	}
	add := func(h pdu.DataHeader, data []byte) {
		h.Length = uint32(len(data))
		b = pdu.AppendHeader(b, pdu.Header{Type: pdu.TypeData, Length: h.Length + pdu.DataHeaderBytes})
		b = append(pdu.AppendDataHeader(b, h), data...)
	}
	add(pdu.DataHeader{Context: 3, Command: true, Last: true}, storeRQ)
	add(pdu.DataHeader{Context: 3}, make([]byte, 50))
	add(pdu.DataHeader{Context: 3, Last: true}, make([]byte, 30))
	return pdu.AppendReleaseRQ(b)
}

// A sender that stalls after any number of bytes is ended in bounded time; one
// that disappears, at once. Neither is taken for a complete message or release.
func TestSenderThatStopsAtEveryByte(t *testing.T) {
	whole := conversation(t)
	for n := range len(whole) {
		for _, disappear := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				ended := make(chan end, 1)
				go func() { ended <- readAll(t.Context(), here, bounds, acceptAll) }()
				go io.Copy(io.Discard, there)
				if n > 0 {
					if _, err := there.Write(whole[:n]); err != nil {
						t.Error(err)
					}
				}
				if disappear {
					synctest.Wait()
					there.Close()
				}
				e := <-ended
				there.Close()
				limit := bounds.Idle + abortLinger
				if disappear {
					limit = 0
				}
				if e.err == nil || e.err == io.EOF || e.took > limit {
					t.Errorf("%d bytes, disappears %v: %v after %v", n, disappear, e.err, e.took)
				}
				if e.a != nil {
					<-e.a.Done()
				}
			})
		}
	}
}

// The same conversation in pieces of every size arrives whole.
func TestSenderThatWritesInPieces(t *testing.T) {
	whole := conversation(t)
	for _, size := range []int{1, 2, 3, 5, 7, 11, 64, 100, len(whole)} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			ended := make(chan end, 1)
			go func() { ended <- readAll(t.Context(), here, bounds, acceptAll) }()
			go func() {
				io.Copy(io.Discard, there)
				there.Close()
			}()
			for at := 0; at < len(whole); at += size {
				if _, err := there.Write(whole[at:min(at+size, len(whole))]); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			there.Close()
			if e := <-ended; e.err != io.EOF || e.messages != 1 || e.bytes != 80 {
				t.Errorf("pieces of %d: %d messages, %d bytes, %v", size, e.messages, e.bytes, e.err)
			}
		})
	}
}

// What a peer claims is not what is allocated.
func TestClaimsCostNothing(t *testing.T) {
	for name, script := range map[string]string{
		"request":    "-> bytes 01000010000000010000\n-> close",
		"data":       established + "-> bytes 040000010000 0000fffc0303\n-> close",
		"a 4 GB PDU": established + "-> bytes 0400ffffffff\n<- A-ABORT 2 6\n-> close",
	} {
		t.Run(name, func(t *testing.T) {
			e := play(t, Config{}, acceptAll, script)
			if e.err == nil {
				t.Error("no error")
			}
			if e.a != nil && len(e.a.in.buf) != readSmall {
				t.Errorf("receive buffer of %d bytes", len(e.a.in.buf))
			}
		})
	}
}

func TestContextEndsWhatBlocks(t *testing.T) {
	reason := errors.New("the service stops")
	for name, f := range map[string]func(context.Context, *Association) error{
		"receive": func(ctx context.Context, a *Association) error { _, err := a.Receive(ctx); return err },
		"send": func(ctx context.Context, a *Association) error {
			return a.Send(ctx, 3, storeRQ, bytes.NewReader(make([]byte, 10<<20)))
		},
		"release": func(ctx context.Context, a *Association) error { return a.Release(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				ctx, cancel := context.WithCancelCause(t.Context())
				ended := make(chan error, 1)
				go func() {
					a, err := Accept(t.Context(), here, Config{}, acceptAll)
					if err == nil {
						err = f(ctx, a)
						select {
						case <-a.Done():
						default:
							t.Error("the association goes on")
						}
					}
					ended <- err
				}()
				dimsetest.NewPeer(t, there).Play(established)
				synctest.Wait()
				cancel(reason)
				start := time.Now()
				if err := <-ended; !errors.Is(err, reason) {
					t.Errorf("error %v", err)
				}
				if took := time.Since(start); took > 2*abortLinger {
					t.Errorf("took %v", took)
				}
				there.Close()
			})
		})
	}
	t.Run("accept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			start := time.Now()
			if _, err := Accept(ctx, here, Config{}, acceptAll); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("dial", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			start := time.Now()
			if _, err := Dial(ctx, here, Config{}, twoContexts()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second+2*abortLinger {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("while a data set is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				a, err := Accept(t.Context(), here, Config{}, acceptAll)
				if err != nil {
					ended <- err
					return
				}
				m, err := a.Receive(ctx)
				if err == nil {
					err = m.Data.Discard()
				}
				ended <- err
			}()
			peer := dimsetest.NewPeer(t, there)
			peer.Play(established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000]")
			synctest.Wait()
			cancel(reason)
			peer.Play("<- A-ABORT 0 0\n-> close")
			if err := <-ended; !errors.Is(err, reason) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v", err)
			}
		})
	})
}

func TestMessageContextMayEndAfterItsDataSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{}, Config{}, twoContexts())
		go func() {
			scu.Send(t.Context(), 3, storeRQ, strings.NewReader("data"))
			scu.Send(t.Context(), 1, echoRQ, nil)
		}()
		ctx, cancel := context.WithCancel(t.Context())
		m, err := scp.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Data.Discard(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if _, err := scp.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		scp.Abort()
		if _, err := scu.Receive(t.Context()); err == nil {
			t.Error("the peer saw no abort")
		}
	})
}
