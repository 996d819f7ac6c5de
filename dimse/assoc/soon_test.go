package assoc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/command"
	"pelago/dimse/dimsetest"
)

// written is one write: when, and how many PDUs it had.
type written struct {
	after time.Duration
	pdus  int
}

// clocked is a connection that notes its writes and can be made to fail.
type clocked struct {
	net.Conn
	mu     sync.Mutex
	began  time.Time
	writes []written
	fails  error
}

func (c *clocked) Write(b []byte) (int, error) {
	c.mu.Lock()
	n := 0
	for rest := b; len(rest) > 0; n++ {
		rest = rest[6+int(rest[2])<<24+int(rest[3])<<16+int(rest[4])<<8+int(rest[5]):]
	}
	c.writes = append(c.writes, written{time.Since(c.began), n})
	fails := c.fails
	c.mu.Unlock()
	if fails != nil {
		return 0, fails
	}
	return c.Conn.Write(b)
}

// start forgets what was written, a moment after it was.
func (c *clocked) start() {
	time.Sleep(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.writes = time.Now(), nil
}

// seen returns the writes so far.
func (c *clocked) seen() []written {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

// soonPair is an association whose requestor's writes are noted; the acceptor reads all.
func soonPair(t *testing.T) (*Association, *clocked, <-chan end) {
	t.Helper()
	here, there := net.Pipe()
	c := &clocked{Conn: there}
	ended := make(chan end, 1)
	go func() { ended <- readAll(t.Context(), here, Config{}, acceptAll) }()
	a, err := Dial(t.Context(), c, Config{}, twoContexts())
	if err != nil {
		t.Fatal(err)
	}
	c.start()
	return a, c, ended
}

// soon sends messages of so many bytes of data.
func soon(t *testing.T, a *Association, sizes ...int) {
	t.Helper()
	for _, n := range sizes {
		if err := a.SendSoon(t.Context(), 3, storeRQ, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessagesSentSoonShareWrites(t *testing.T) {
	const ms = time.Millisecond
	sleep := func(d time.Duration) func(*testing.T, *Association) {
		return func(*testing.T, *Association) { time.Sleep(d) }
	}
	send := func(sizes ...int) func(*testing.T, *Association) {
		return func(t *testing.T, a *Association) { soon(t, a, sizes...) }
	}
	type steps []func(*testing.T, *Association)
	for _, tt := range []struct {
		name  string
		steps steps
		want  []written
	}{
		{"the first goes at once", steps{send(2)}, []written{{0, 1}}},
		{"the next wait for one another, not for long", steps{send(2, 2, 2, 2)}, []written{{0, 1}, {ms, 3}}},
		{"the wait begins with the last write", steps{send(2), sleep(ms / 4), send(2), sleep(ms / 4), send(2)}, []written{{0, 1}, {ms, 2}}},
		{"slow ones never wait", steps{send(2), sleep(ms), send(2), sleep(2 * ms), send(2)}, []written{{0, 1}, {ms, 1}, {3 * ms, 1}}},
		{"a full batch does not wait", steps{send(2, 8000, 8000, 8000, 2)}, []written{{0, 1}, {0, 3}, {ms, 1}}},
		{"one longer than a batch goes with those before it", steps{send(2, 2, soonBatch)}, []written{{0, 1}, {0, 2}}},
		{"one longer than a write goes in several", steps{send(2, 2, 300_000)}, []written{{0, 1}, {0, 2}, {0, 1}}},
		{"the timer starts anew after a batch", steps{send(2, 2), sleep(ms / 2), send(soonBatch), sleep(ms / 2), send(2)}, []written{{0, 1}, {ms / 2, 2}, {3 * ms / 2, 1}}},
		{"what is sent otherwise takes along what waits", steps{send(2, 2, 2), func(t *testing.T, a *Association) {
			if err := a.Send(t.Context(), 1, echoRQ, nil); err != nil {
				t.Error(err)
			}
		}}, []written{{0, 1}, {0, 3}}},
		{"nothing waits for a data set that is slow to come", steps{send(2, 2, 2), func(t *testing.T, a *Association) {
			r, w := io.Pipe()
			go func() {
				time.Sleep(5 * ms)
				w.Close()
			}()
			if err := a.Send(t.Context(), 3, storeRQ, r); err != nil {
				t.Error(err)
			}
		}}, []written{{0, 1}, {0, 2}, {5 * ms, 1}}},
		{"what waits outlives a source that fails", steps{send(2, 2, 2), func(t *testing.T, a *Association) {
			if err := a.Send(t.Context(), 3, storeRQ, io.MultiReader(bytes.NewReader(make([]byte, 9)), failing{})); !errors.Is(err, errSource) {
				t.Errorf("error %v", err)
			}
		}, send(2)}, []written{{0, 1}, {0, 2}, {ms, 1}}},
		{"what waits outlives a message that is refused", steps{send(2, 2), func(t *testing.T, a *Association) {
			if err := a.SendSoon(t.Context(), 3, make([]byte, command.MaxBytes+1), nil); !fault.Is(err, fault.Invalid) {
				t.Errorf("error %v", err)
			}
			if err := a.SendSoon(t.Context(), 9, storeRQ, nil); !fault.Is(err, fault.Unsupported) {
				t.Errorf("error %v", err)
			}
		}}, []written{{0, 1}, {ms, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, c, ended := soonPair(t)
				for _, step := range tt.steps {
					step(t, a)
				}
				time.Sleep(time.Second)
				got := c.seen()
				if !slices.Equal(got, tt.want) {
					t.Errorf("writes %v, want %v", got, tt.want)
				}
				if err := a.Release(t.Context()); err != nil {
					t.Error(err)
				}
				if e := <-ended; e.err != io.EOF {
					t.Errorf("the peer: %v", e.err)
				}
			})
		})
	}
}

var errSource = errors.New("source")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errSource }

func TestAReleaseLeavesNothingWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c, ended := soonPair(t)
		soon(t, a, 2, 2, 2)
		if err := a.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if e := <-ended; e.messages != 3 || e.err != io.EOF {
			t.Errorf("%d messages, %v", e.messages, e.err)
		}
		if err := a.SendSoon(t.Context(), 3, storeRQ, nil); !errors.Is(err, io.EOF) {
			t.Errorf("after the release: %v", err)
		}
		for _, w := range c.seen() {
			if w.after != 0 {
				t.Errorf("written after %v", w.after)
			}
		}
	})
}

func TestAPeersReleaseIsAnsweredBehindWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			a, err := Accept(t.Context(), here, Config{}, acceptAll)
			for n := 0; err == nil && n < 2; n++ {
				err = a.SendSoon(t.Context(), 1, echoRQ, nil)
			}
			if err == nil {
				_, err = a.Receive(t.Context())
			}
			ended <- err
		}()
		message := "<- P-DATA-TF [1 command last " + strconv.Itoa(len(echoRQ)) + "]\n"
		dimsetest.NewPeer(t, there).Play(established + "-> A-RELEASE-RQ\n" + message + message + "<- A-RELEASE-RP\n-> close")
		if err := <-ended; err != io.EOF {
			t.Errorf("ended with %v", err)
		}
		there.Close()
	})
}

func TestNothingIsAcceptedToWaitAfterAReleaseWasAskedFor(t *testing.T) {
	err, _ := dialScript(t, "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n.. 500ms\n-> A-RELEASE-RP\n<- closed", func(ctx context.Context, a *Association) error {
		released := make(chan error, 1)
		go func() { released <- a.Release(ctx) }()
		synctest.Wait() // for the peer's answer
		if err := a.SendSoon(ctx, 1, echoRQ, nil); !fault.Is(err, fault.Protocol) {
			t.Errorf("while being released: %v", err)
		}
		return <-released
	})
	if err != nil {
		t.Error(err)
	}
}

func TestALateWriteThatFailsEndsTheAssociation(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		a, c, ended := soonPair(t)
		soon(t, a, 2, 2)
		c.mu.Lock()
		c.fails = broken
		c.mu.Unlock()
		time.Sleep(soonDelay / 2)
		if err := a.Err(); err != nil {
			t.Errorf("before its time: %v", err)
		}
		<-a.Done()
		for _, err := range []error{
			a.Err(), a.Send(t.Context(), 1, echoRQ, nil), a.SendSoon(t.Context(), 1, echoRQ, nil), a.Release(t.Context()),
		} {
			if !errors.Is(err, broken) || !fault.Is(err, fault.Unavailable) {
				t.Errorf("error %v, want that of the late write", err)
			}
		}
		<-ended
	})
}

func TestALateWriteToASilentPeerStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		began := make(chan time.Time, 1)
		ended := make(chan *Association, 1)
		go func() {
			a, err := Accept(t.Context(), here, bounds, acceptAll)
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(soonDelay) // since the A-ASSOCIATE-AC
			soon(t, a, 2, 2)
			began <- time.Now()
			ended <- a
		}()
		peer := dimsetest.NewPeer(t, there)
		peer.Play(established + "<- P-DATA-TF [3 command last " + strconv.Itoa(len(storeRQ)) + "] [3 data last 2]")
		a, start := <-ended, <-began
		<-a.Done()
		took := time.Since(start) - soonDelay
		if err := a.Err(); !fault.Is(err, fault.Unavailable) || took < bounds.Stall || took > bounds.Stall+abortLinger {
			t.Errorf("ended after %v: %v", took, err)
		}
		there.Close()
	})
}

func TestAnAbortDropsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c, ended := soonPair(t)
		soon(t, a, 2, 2)
		a.Abort()
		if e := <-ended; e.messages != 1 || fault.KindOf(e.err) != fault.Unavailable {
			t.Errorf("%d messages, %v", e.messages, e.err)
		}
		time.Sleep(time.Second) // the timer finds nothing to do
		if got := c.seen(); len(got) != 2 || got[1] != (written{0, 1}) {
			t.Errorf("writes %v, want a message and an A-ABORT", got)
		}
	})
}

func TestMessagesSentSoonKeepTheirOrderAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scp, scu := pair(t, Config{}, Config{}, twoContexts())
		const senders, each = 4, 200
		var work sync.WaitGroup
		for s := range senders {
			work.Go(func() {
				for n := range each {
					set := command.Set{Field: command.CStoreRQ, MessageID: uint16(s*each + n), Class: ctStorage, Instance: "1.2.3", HasData: true}
					data := bytes.Repeat([]byte{byte(n), byte(s)}, n*7)
					var err error
					if (n+s)%5 == 0 {
						err = scu.Send(t.Context(), 3, set.Encode(nil), bytes.NewReader(data))
					} else {
						err = scu.SendSoon(t.Context(), 3, set.Encode(nil), data)
					}
					if err != nil {
						t.Error(err)
						return
					}
					if n%17 == 0 {
						time.Sleep(time.Duration(n) * time.Microsecond * 10)
					}
				}
			})
		}
		next := [senders]int{}
		for range senders * each {
			m, err := scp.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			set, err := command.Parse(m.Command)
			if err != nil {
				t.Fatal(err)
			}
			s, n := int(set.MessageID)/each, int(set.MessageID)%each
			data, err := io.ReadAll(m.Data)
			if err != nil || n != next[s] || !bytes.Equal(data, bytes.Repeat([]byte{byte(n), byte(s)}, n*7)) {
				t.Fatalf("sender %d: message %d of %s…, want %d: %v", s, n, hex.EncodeToString(data[:min(8, len(data))]), next[s], err)
			}
			next[s]++
		}
		work.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := scu.SendSoon(ctx, 3, storeRQ, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		scu.Abort()
		scp.Abort()
	})
}
