package world

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
)

const (
	ms = time.Millisecond
	mb = 1_000_000
)

// place is a world in memory with a node at site b, to which a dials.
type place struct {
	*World
	t    *testing.T
	m    *Memory
	gate *Gate
	node net.Listener
}

// virtual runs a test on virtual time, in a world with this link.
func virtual(t *testing.T, l Link, test func(p *place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		w, err := New(Options{Network: m, Link: l, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		node, err := m.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gate, err := w.Gate(t.Context(), "b", node.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		defer w.Close()
		test(&place{World: w, t: t, m: m, gate: gate, node: node})
	})
}

// dial connects from site a to b, without a word.
func (p *place) dial() Conn {
	p.t.Helper()
	c, err := p.m.Dial(p.t.Context(), "a", p.gate.Addr())
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// connect connects a to b and returns both ends once both know of it.
func (p *place) connect() (a, b Conn) {
	p.t.Helper()
	a = p.dial()
	accepted, err := p.node.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	back := p.Link("b", "a")
	time.Sleep(back.Delay + back.Jitter)
	return a, accepted.(Conn)
}

// say writes in the background: a connection in memory takes what is read.
func say(c net.Conn, b []byte) { go func() { _, _ = c.Write(b) }() }

// hear reads n bytes and returns them and how long that took.
func (p *place) hear(c net.Conn, n int) ([]byte, time.Duration) {
	p.t.Helper()
	from := time.Now()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		p.t.Fatalf("after %v: %v", time.Since(from), err)
	}
	return b, time.Since(from)
}

func within(t *testing.T, what string, got, want time.Duration, share float64) {
	t.Helper()
	if d := math.Abs(float64(got - want)); d > share*float64(want) {
		t.Errorf("%s: %v, want %v within %.2f %%", what, got, want, share*100)
	}
}

func TestFirstByteTakesTheHandshakeAndItsOwnWay(t *testing.T) {
	virtual(t, Link{Delay: 25 * ms}, func(p *place) {
		from := time.Now()
		a := p.dial()
		say(a, []byte("x"))
		b, err := p.node.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(from); d != 25*ms {
			t.Errorf("the node was dialled after %v", d)
		}
		p.hear(b, 1)
		if d := time.Since(from); d != 75*ms {
			t.Errorf("the first byte came after %v, want opening, answer and byte: 75ms", d)
		}
	})
}

func TestMessageTakesTheDelayOfItsDirection(t *testing.T) {
	for _, l := range []struct{ there, back time.Duration }{{0, 0}, {25 * ms, 25 * ms}, {10 * ms, 70 * ms}} {
		virtual(t, Link{}, func(p *place) {
			p.Set("a", "b", Link{Delay: l.there})
			p.Set("b", "a", Link{Delay: l.back})
			a, b := p.connect()
			for range 3 {
				say(a, []byte("ask"))
				if _, d := p.hear(b, 3); d != l.there {
					t.Errorf("there: %v, want %v", d, l.there)
				}
				say(b, []byte("answer"))
				if _, d := p.hear(a, 6); d != l.back {
					t.Errorf("back: %v, want %v", d, l.back)
				}
			}
		})
	}
}

func TestJitterStaysInItsRangeAndKeepsOrder(t *testing.T) {
	virtual(t, Link{Delay: 20 * ms, Jitter: 10 * ms}, func(p *place) {
		a, b := p.connect()
		var least, most time.Duration = time.Hour, 0
		for i := range 200 {
			say(a, []byte{byte(i)})
			got, d := p.hear(b, 1)
			if got[0] != byte(i) {
				t.Fatalf("byte %d: %d", i, got[0])
			}
			least, most = min(least, d), max(most, d)
		}
		if least < 20*ms || least > 21*ms || most > 30*ms || most < 29*ms {
			t.Errorf("between %v and %v", least, most)
		}
	})
}

func TestRateIsReachedAndNotExceeded(t *testing.T) {
	for _, rate := range []Rate{256 * Kbps, 10 * Mbps, 100 * Mbps, Gbps} {
		virtual(t, Both(50*ms, rate), func(p *place) {
			a, b := p.connect()
			n := rate.Bytes(2 * time.Second)
			say(a, make([]byte, n))
			_, d := p.hear(b, int(n))
			within(t, fmt.Sprintf("2 s of %d kb/s", rate/Kbps), d, 2*time.Second+25*ms, 0.001)
		})
	}
}

func TestConnectionsShareTheRate(t *testing.T) {
	virtual(t, Both(50*ms, 100*Mbps), func(p *place) {
		const conns, n = 4, 5 * mb
		took := make(chan time.Duration, conns)
		for range conns {
			a, b := p.connect()
			from := time.Now()
			go func() {
				time.Sleep(time.Until(from.Truncate(time.Second).Add(2 * time.Second)))
				from := time.Now() // before what waits for room in the queue
				say(a, make([]byte, n))
				io.ReadFull(b, make([]byte, n))
				took <- time.Since(from)
			}()
		}
		// Who is next of those that wait at one instant is the scheduler's choice, so
		// shares differ a little; together they are the link, exactly.
		last := time.Duration(0)
		for range conns {
			d := <-took
			within(t, "a quarter of the link", d, (25*Mbps).Time(n)+25*ms, 0.3)
			last = max(last, d)
		}
		within(t, "the link", last, (100*Mbps).Time(conns*n)+25*ms, 0.001)
	})
}

func TestLinksOfASiteShareItsAccess(t *testing.T) {
	const n = 5 * mb
	cases := []struct {
		rule   string
		site   Site // whose access is narrow
		access Access
		links  []direction // that carry n each, at once
		want   time.Duration
	}{
		{"no access set: each link has its rate", "x", Access{}, []direction{{"a", "b"}, {"c", "b"}}, (100 * Mbps).Time(n)},
		{"two senders to one site share its way down", "b", Access{Down: 100 * Mbps}, []direction{{"a", "b"}, {"c", "b"}}, (50 * Mbps).Time(n)},
		{"the way up does not slow the way down", "b", Access{Up: Mbps}, []direction{{"a", "b"}, {"c", "b"}}, (100 * Mbps).Time(n)},
		{"a narrow way up slows its site", "a", Access{Up: 20 * Mbps}, []direction{{"a", "b"}}, (20 * Mbps).Time(n)},
		{"and no other site", "a", Access{Up: 20 * Mbps}, []direction{{"c", "b"}}, (100 * Mbps).Time(n)},
		{"a link within the site is not of the access", "b", Access{Up: Mbps, Down: Mbps}, []direction{{"b", "b"}}, 0},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			virtual(t, Link{Rate: 100 * Mbps}, func(p *place) {
				if err := p.SetAccess(c.site, c.access); err != nil {
					t.Fatal(err)
				}
				took := make(chan time.Duration)
				var ends [][2]net.Conn // all before any carries: none is to be ahead
				for _, l := range c.links {
					a, err := p.m.Dial(p.t.Context(), l.from, p.gate.Addr())
					if err != nil {
						t.Fatal(err)
					}
					b, err := p.node.Accept()
					if err != nil {
						t.Fatal(err)
					}
					ends = append(ends, [2]net.Conn{a, b})
				}
				synctest.Wait()
				for _, e := range ends {
					go func() {
						from := time.Now()
						say(e[0], make([]byte, n))
						io.ReadFull(e[1], make([]byte, n))
						took <- time.Since(from)
					}()
				}
				var all []time.Duration
				for range c.links {
					all = append(all, <-took)
				}
				slices.Sort(all)
				within(t, "5 MB", all[len(all)-1], c.want, 0.05)
				// Who begins first fills the queues of its link and of the access, which
				// are 25 ms long at the full rate, and 50 ms at half of it.
				if ahead := 2 * 2 * defaultQueue; all[0] < c.want-ahead {
					t.Errorf("the first 5 MB took %v, %v are due", all[0], c.want)
				}
			})
		})
	}
}

func TestSmallMessageWaitsForAQueueNotForAWholeTransfer(t *testing.T) {
	l := Both(50*ms, 10*Mbps)
	l.Queue = 25_000 // 20 ms
	virtual(t, l, func(p *place) {
		bulk, sink := p.connect()
		go io.Copy(io.Discard, sink)
		a, b := p.connect()
		say(bulk, make([]byte, 100*mb))
		time.Sleep(time.Second)
		say(a, []byte("x"))
		if _, d := p.hear(b, 1); d < 25*ms || d > 25*ms+2*20*ms {
			t.Errorf("%v beside a bulk transfer with a queue of 20 ms", d)
		}
		bulk.Close()
	})
}

func TestSendersFeelWhatTheLinkCannotTake(t *testing.T) {
	const window = 500_000
	cases := []struct {
		rule string
		link Link
		read bool          // the receiver reads
		most func() int64  // that the sender may have got rid of
		dur  time.Duration // after
	}{
		{"a receiver that does not read stops the sender after a window", Link{Delay: 10 * ms, Window: window}, false,
			func() int64 { return window }, time.Minute},
		{"a bottleneck takes its rate and its queue", Link{Delay: 10 * ms, Rate: 8 * Mbps, Queue: 100_000}, true,
			func() int64 { return 10*mb + 100_000 }, 10 * time.Second},
		{"a black hole takes a window", Link{Delay: 10 * ms, Window: window, Cut: BlackHole}, true,
			func() int64 { return window }, time.Minute},
		{"of small pieces only so many are on their way", Link{Delay: 10 * ms, Cut: BlackHole}, true,
			func() int64 { return (maxSegments + 1) * 1000 }, time.Minute},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			virtual(t, Link{}, func(p *place) {
				a, b := p.connect()
				if c.read {
					go io.Copy(io.Discard, b)
				}
				p.SetBoth("a", "b", c.link)
				var gone atomic.Int64
				go func() {
					for piece := make([]byte, 1000); ; gone.Add(1000) {
						if _, err := a.Write(piece); err != nil {
							return
						}
					}
				}()
				time.Sleep(c.dur)
				if got, want := gone.Load(), c.most(); got > want || got < want-want/20 {
					t.Errorf("the sender got rid of %d bytes, want %d", got, want)
				}
			})
		})
	}
}

func TestConnectionIsBoundToItsWindow(t *testing.T) {
	virtual(t, Link{Delay: 50 * ms, Window: 1 * mb}, func(p *place) {
		a, b := p.connect()
		say(a, make([]byte, 20*mb))
		_, d := p.hear(b, 20*mb)
		within(t, "20 windows: one at once, 19 round trips", d, 19*100*ms+50*ms, 0.02)
	})
}

func TestSlowStartDoublesEveryRoundTrip(t *testing.T) {
	virtual(t, Link{Delay: 50 * ms, SlowStart: true}, func(p *place) {
		a, b := p.connect()
		n := initialWindow * (1 + 2 + 4 + 8)
		for range 2 { // the second time after an idle while: anew
			say(a, make([]byte, n))
			if _, d := p.hear(b, n); d != 3*100*ms+50*ms {
				t.Errorf("four windows, each twice the one before: %v, want 350ms", d)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestLossHoldsItsConnectionForTheTimeout(t *testing.T) {
	const rounds, loss = 2000, 0.02
	virtual(t, Link{}, func(p *place) {
		p.Set("a", "b", Link{Delay: 10 * ms, Loss: loss, RTO: 300 * ms})
		a, b := p.connect()
		before := p.Traffic("a", "b")
		late := 0
		for range rounds {
			say(a, []byte("x"))
			switch _, d := p.hear(b, 1); d {
			case 10 * ms:
			case 310 * ms:
				late++
			default:
				t.Fatalf("%v: neither the delay nor a timeout more", d)
			}
		}
		// Five standard deviations of a binomial distribution; and the seed is fixed.
		mean, deviation := rounds*loss, math.Sqrt(rounds*loss*(1-loss))
		if math.Abs(float64(late)-mean) > 5*deviation {
			t.Errorf("%d of %d lost, want about %.0f", late, rounds, mean)
		}
		if got := p.Traffic("a", "b").Sub(before).Lost; got != int64(late) {
			t.Errorf("%d counted as lost, %d were", got, late)
		}
	})
}

func TestLossHoldsNoOtherConnection(t *testing.T) {
	virtual(t, Link{Delay: 10 * ms}, func(p *place) {
		held, heldEnd := p.connect()
		free, freeEnd := p.connect()
		l := p.Link("a", "b")
		l.Loss, l.RTO = 0.999999, time.Second
		p.Set("a", "b", l)
		say(held, []byte("x"))
		synctest.Wait()
		p.Set("a", "b", Link{Delay: 10 * ms, RTO: time.Second})
		say(free, []byte("y"))
		if _, d := p.hear(freeEnd, 1); d != 10*ms {
			t.Errorf("beside a lost packet: %v", d)
		}
		if _, d := p.hear(heldEnd, 1); d != time.Second {
			t.Errorf("the lost packet came %v later, want 1s", d)
		}
	})
}

func TestBlackHoleKeepsWhatWasSentForTheNextRetransmission(t *testing.T) {
	cases := []struct {
		rule  string
		cut   time.Duration // heals after
		rto   time.Duration
		most  time.Duration
		takes time.Duration // of a byte sent when the cut begins
	}{
		{"healed before it arrives: nothing happened", 5 * ms, time.Second, 0, 10 * ms},
		{"healed before the first retransmission", 500 * ms, time.Second, 0, 1010 * ms},
		{"the timeout doubles: 1, 3, 7, 15 s", 8 * time.Second, time.Second, 0, 15*time.Second + 10*ms},
		{"up to its bound: 1, 3, 5, 7, 9 s", 8 * time.Second, time.Second, 2 * time.Second, 9*time.Second + 10*ms},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			virtual(t, Link{Delay: 10 * ms, RTO: c.rto, RTOMax: c.most}, func(p *place) {
				a, b := p.connect()
				p.Cut("a", "b", BlackHole)
				say(a, []byte("lost"))
				go func() {
					time.Sleep(c.cut)
					p.Cut("a", "b", Open)
				}()
				if got, d := p.hear(b, 4); d != c.takes || string(got) != "lost" {
					t.Errorf("%q after %v, want %v", got, d, c.takes)
				}
			})
		})
	}
}

func TestDialIntoABlackHoleHangs(t *testing.T) {
	cases := []struct {
		rule     string
		from, to Site
		heal     time.Duration // 0: never
		ends     time.Duration
		want     error
	}{
		{"the way there: until its next opening, 1, 3, 7 s", "a", "b", 4 * time.Second, 7 * time.Second, nil},
		{"the way back: the same", "b", "a", 4 * time.Second, 7 * time.Second, nil},
		{"given up after seven openings", "a", "b", 0, 127 * time.Second, syscall.ECONNRESET},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			virtual(t, Link{}, func(p *place) {
				p.Cut(c.from, c.to, BlackHole)
				go func() {
					if b, err := p.node.Accept(); err == nil {
						b.Write([]byte("x"))
					}
				}()
				from := time.Now()
				a := p.dial()
				if c.heal > 0 {
					time.Sleep(c.heal)
					p.Cut(c.from, c.to, Open)
				}
				_, err := a.Read(make([]byte, 1))
				if !errors.Is(err, c.want) || time.Since(from) != c.ends {
					t.Errorf("%v after %v, want %v after %v", err, time.Since(from), c.want, c.ends)
				}
			})
		})
	}
}

func TestDeadlinesHoldInABlackHole(t *testing.T) {
	virtual(t, Link{Cut: BlackHole}, func(p *place) {
		a := p.dial()
		a.SetDeadline(time.Now().Add(3 * time.Second))
		from := time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(from) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(from))
		}
	})
}

func TestOneWayCutStopsTheOtherWayAfterAWindow(t *testing.T) {
	const window = 100_000
	virtual(t, Link{Delay: 10 * ms, Window: window}, func(p *place) {
		a, b := p.connect()
		p.Cut("a", "b", BlackHole)
		say(b, make([]byte, 3*window)) // whose acknowledgements are lost
		got := make([]byte, 3*window)
		a.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := io.ReadFull(a, got); n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes and %v, want one window", n, err)
		}
		p.Cut("a", "b", Open)
		a.SetReadDeadline(time.Time{})
		if _, d := p.hear(a, 2*window); d > 100*ms {
			t.Errorf("the rest took %v after healing", d)
		}
	})
}

func TestRefuseEndsAndRefuses(t *testing.T) {
	for _, way := range [][2]Site{{"a", "b"}, {"b", "a"}} {
		virtual(t, Link{Delay: 10 * ms}, func(p *place) {
			a, b := p.connect()
			p.Cut(way[0], way[1], Refuse)
			for _, end := range []Conn{a, b} {
				if _, err := end.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("an established connection ended with %v", err)
				}
			}
			before := p.Traffic("a", "b")
			if _, err := p.dial().Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a new one: %v", err)
			}
			if got := p.Traffic("a", "b").Sub(before); got.Refused != 1 || got.Opened != 0 {
				t.Errorf("counted %+v", got)
			}
			p.Cut(way[0], way[1], Open)
			a, b = p.connect()
			say(a, []byte("x"))
			p.hear(b, 1)
		})
	}
}

func TestGateWithoutANodeRefuses(t *testing.T) {
	cases := map[string]func(p *place){
		"no target":           func(p *place) { p.gate.Target("") },
		"nobody listens":      func(p *place) { p.node.Close() },
		"a target never seen": func(p *place) { p.gate.Target(":999") },
	}
	for rule, prepare := range cases {
		t.Run(rule, func(t *testing.T) {
			virtual(t, Link{Delay: 10 * ms}, func(p *place) {
				prepare(p)
				from := time.Now()
				_, err := p.dial().Read(make([]byte, 1))
				if !errors.Is(err, syscall.ECONNRESET) || time.Since(from) != 20*ms {
					t.Errorf("%v after %v, want a reset after a round trip", err, time.Since(from))
				}
			})
		})
	}
}

func TestEndsTravelLikeBytes(t *testing.T) {
	virtual(t, Link{Delay: 10 * ms}, func(p *place) {
		a, b := p.connect()
		say(a, []byte("last"))
		synctest.Wait()
		a.CloseWrite()
		from := time.Now()
		got, err := io.ReadAll(b)
		if string(got) != "last" || err != nil || time.Since(from) != 10*ms {
			t.Errorf("%q, %v after %v", got, err, time.Since(from))
		}
		// The other half goes on.
		say(b, []byte("answer"))
		p.hear(a, 6)
		b.SetLinger(0)
		b.Close()
		from = time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || time.Since(from) != 10*ms {
			t.Errorf("a reset: %v after %v", err, time.Since(from))
		}
	})
}

func TestSenderHearsThatTheReceiverIsGone(t *testing.T) {
	virtual(t, Link{Delay: 10 * ms}, func(p *place) {
		a, b := p.connect()
		b.Close()
		p.hear0(a)
		from := time.Now()
		for {
			if _, err := a.Write(make([]byte, 1)); err != nil {
				if d := time.Since(from); !errors.Is(err, syscall.ECONNRESET) || d < 20*ms || d > 21*ms {
					t.Errorf("%v after %v, want a reset after a round trip", err, d)
				}
				return
			}
			time.Sleep(ms)
		}
	})
}

// hear0 waits for the other end's close.
func (p *place) hear0(c net.Conn) {
	p.t.Helper()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		p.t.Fatal(err)
	}
}

func TestEndDoesNotPassABlackHole(t *testing.T) {
	virtual(t, Link{Delay: 10 * ms}, func(p *place) {
		a, b := p.connect()
		p.SetBoth("a", "b", Link{Cut: BlackHole})
		a.Close()
		b.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: of a host that was cut off, nothing is heard", err)
		}
	})
}

func TestChangesTakeEffectLive(t *testing.T) {
	virtual(t, Both(20*ms, 8*Mbps), func(p *place) {
		a, b := p.connect()
		say(a, make([]byte, 3*mb))
		_, d := p.hear(b, 1*mb)
		within(t, "1 MB at 8 Mb/s", d, time.Second+10*ms, 0.001)
		p.SetBoth("a", "b", Both(200*ms, 80*Mbps))
		_, d = p.hear(b, 2*mb)
		// What was in the queue keeps the old way's times.
		if d < 200*ms || d > 200*ms+90*ms+40*ms {
			t.Errorf("2 MB at 80 Mb/s, 90 ms further: %v", d)
		}
	})
}

func TestAccessChangesLive(t *testing.T) {
	virtual(t, Link{}, func(p *place) {
		a, b := p.connect()
		p.SetAccess("a", Access{Up: Kbps})
		say(a, make([]byte, 100_000)) // 800 s
		p.hear(b, 1)
		p.SetAccess("a", Access{})
		// What was on its way keeps its time: two packets in the queue.
		if _, d := p.hear(b, 99_999); d > Kbps.Time(2*packet) {
			t.Errorf("%v", d)
		}
	})
}

func TestTrafficIsCountedByDirection(t *testing.T) {
	virtual(t, Link{Delay: 10 * ms}, func(p *place) {
		a, b := p.connect()
		say(a, make([]byte, 1000))
		p.hear(b, 1000)
		say(b, make([]byte, 5))
		p.hear(a, 5)
		synctest.Wait()
		if got, want := p.Traffic("a", "b"), (Traffic{Sent: 1000, Delivered: 1000, Segments: 1, Opened: 1}); got != want {
			t.Errorf("a to b: %+v, want %+v", got, want)
		}
		if got, want := p.Traffic("b", "a"), (Traffic{Sent: 5, Delivered: 5, Segments: 1}); got != want {
			t.Errorf("b to a: %+v, want %+v", got, want)
		}
		if got := p.Traffic("a", "c"); got != (Traffic{}) {
			t.Errorf("a to c: %+v", got)
		}
	})
}

func TestPartCutsBetweenGroupsOnly(t *testing.T) {
	virtual(t, Link{}, func(p *place) {
		if err := p.Part(BlackHole, []Site{"a", "b"}, []Site{"c", "d"}); err != nil {
			t.Fatal(err)
		}
		for _, from := range []Site{"a", "b", "c", "d", "e"} {
			for _, to := range []Site{"a", "b", "c", "d", "e"} {
				want := Open
				if from != "e" && to != "e" && (from <= "b") != (to <= "b") {
					want = BlackHole
				}
				if got := p.Link(from, to).Cut; got != want {
					t.Errorf("%s to %s: %s, want %s", from, to, got, want)
				}
			}
		}
		p.Heal()
		if got := p.Link("a", "c").Cut; got != Open {
			t.Errorf("after healing: %s", got)
		}
		if err := p.Cut("a", "b", 3); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	})
	virtual(t, Link{Cut: BlackHole}, func(p *place) {
		p.Heal()
		if got := p.Link("a", "b").Cut; got != Open {
			t.Errorf("a direction first used after healing: %s", got)
		}
	})
}

func TestBytesStayWholeAndInOrderWhateverHappens(t *testing.T) {
	for seed := range uint64(10) {
		virtual(t, Link{Delay: 5 * ms, Jitter: 20 * ms, Rate: 20 * Mbps, Loss: 0.001, Window: 300_000, RTOMax: time.Second}, func(p *place) {
			dice := rand.New(rand.NewPCG(seed, 0))
			a, b := p.connect()
			done := make(chan bool)
			for _, way := range [][2]Conn{{a, b}, {b, a}} {
				data := make([]byte, 1_000_000)
				for i := range data {
					data[i] = byte(dice.Uint32())
				}
				sizes := rand.New(rand.NewPCG(seed, 1))
				go func() {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 1+sizes.IntN(1<<sizes.IntN(18)))
						way[0].Write(rest[:n])
						rest = rest[n:]
					}
					way[0].CloseWrite()
				}()
				go func() {
					got, err := io.ReadAll(way[1])
					if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
						t.Errorf("seed %d: %d bytes, %v", seed, len(got), err)
					}
					done <- true
				}()
			}
			for over := 0; over < 2; {
				select {
				case <-done:
					over++
				case <-time.After(time.Duration(dice.IntN(300)) * ms):
					p.Cut([]Site{"a", "b"}[dice.IntN(2)], []Site{"b", "a"}[dice.IntN(2)], Cut(dice.IntN(2)))
					if dice.IntN(3) == 0 {
						p.Heal()
					}
				}
			}
		})
	}
}

func TestLinksThatAreNoneAreRefused(t *testing.T) {
	virtual(t, Link{}, func(p *place) {
		for _, l := range []Link{
			{Delay: -1}, {Jitter: -1}, {RTO: -1}, {RTOMax: -1}, {Rate: -1}, {Queue: -1}, {Window: -1},
			{Loss: -0.1}, {Loss: 1}, {Loss: math.NaN()}, {Cut: 3},
		} {
			if err := p.Set("a", "b", l); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v: %v", l, err)
			}
		}
		for _, a := range []Access{{Up: -1}, {Down: -1}} {
			if err := p.SetAccess("a", a); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v: %v", a, err)
			}
		}
	})
}

func TestStrangersAreTurnedAwayAndCounted(t *testing.T) {
	virtual(t, Link{}, func(p *place) {
		g, err := p.GateFrom(p.t.Context(), "c", "b", p.node.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		// A gate of one site takes whoever comes to be there.
		c, err := p.m.Dial(p.t.Context(), "", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.node.Accept()
		if err != nil {
			t.Fatal(err)
		}
		say(c, []byte("x"))
		p.hear(b, 1)
		if got := p.Traffic("c", "b"); got.Opened != 1 || p.Strangers() != 0 {
			t.Errorf("%+v, %d strangers", got, p.Strangers())
		}
		// A gate of all asks.
		c, err = p.m.Dial(p.t.Context(), "", p.gate.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || p.Strangers() != 1 {
			t.Errorf("%v, %d strangers", err, p.Strangers())
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	virtual(t, Link{Delay: time.Hour, Cut: Open}, func(p *place) {
		a := p.dial()
		p.Close()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := p.Gate(p.t.Context(), "b", ""); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
		if _, err := p.m.Dial(p.t.Context(), "a", p.gate.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

func TestBuffersAreTheSmallestThatHold(t *testing.T) {
	var b buffers
	for n, want := range map[int]int{0: smallBuffer, 1: smallBuffer, smallBuffer: smallBuffer, smallBuffer + 1: mediumBuffer, mediumBuffer + 1: maxSegment} {
		buf := b.get(maxSegment)
		for i := range buf {
			buf[i] = byte(i)
		}
		whole := bytes.Clone(buf)
		if got := b.fit(buf, n); cap(got) != want || !bytes.Equal(got, whole[:n]) {
			t.Errorf("%d bytes rest in %d, want %d", n, cap(got), want)
		}
	}
}
