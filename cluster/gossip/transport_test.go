package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"pelago/cluster/fault"
	"pelago/cluster/port/porttest"
)

func newTransport(t *testing.T, n *porttest.Network, i int) *Transport {
	t.Helper()
	host := n.Host(ip(i))
	l, err := host.Listen(porttest.Port)
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTransport(l, func(ctx context.Context, _, address string) (net.Conn, error) { return host.Dial(ctx, "tcp", address) }, address(i))
	t.Cleanup(func() { tr.Shutdown() })
	return tr
}

func to(i int) memberlist.Address { return memberlist.Address{Name: id(i), Addr: address(i).String()} }

func send(t *testing.T, tr *Transport, i int, text string) {
	t.Helper()
	if _, err := tr.WriteToAddress([]byte(text), to(i)); err != nil {
		t.Fatal(err)
	}
}

func next(tr *Transport) string {
	select {
	case p := <-tr.PacketCh():
		return string(p.Buf)
	case <-time.After(time.Minute):
		return ""
	}
}

func TestPacketsKeepTheirBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := porttest.New()
		a, b := newTransport(t, n, 0), newTransport(t, n, 1)
		large := string(bytes.Repeat([]byte{7}, maxPacket))
		for _, text := range []string{"one", "two", large} {
			send(t, a, 1, text)
		}
		for _, want := range []string{"one", "two", large} {
			if got := next(b); got != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
		}
		if _, err := a.WriteToAddress(make([]byte, maxPacket+1), to(1)); !fault.Is(err, fault.Invalid) {
			t.Errorf("a packet that is too long: %v", err)
		}
		if _, err := a.WriteTo(nil, to(1).Addr); !fault.Is(err, fault.Unsupported) {
			t.Errorf("to an address: %v", err)
		}
		if _, err := a.DialTimeout(to(1).Addr, time.Second); !fault.Is(err, fault.Unsupported) {
			t.Errorf("dial an address: %v", err)
		}
		buf := []byte("reused")
		a.WriteToAddress(buf, to(1))
		copy(buf, "edited")
		if got := next(b); got != "reused" {
			t.Errorf("the caller's buffer was kept: %q", got)
		}
	})
}

func TestAFullQueueDropsAndNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := porttest.New()
		a, b := newTransport(t, n, 0), newTransport(t, n, 1)
		n.Part([]string{ip(0)}, []string{ip(1)})
		start := time.Now()
		for range 10 * outQueue {
			send(t, a, 1, "lost")
		}
		if time.Since(start) != 0 {
			t.Errorf("writing took %v", time.Since(start))
		}
		time.Sleep(dialTime + redialPauses) // the attempt and what waited for it are given up
		n.Join([]string{ip(0)}, []string{ip(1)})
		send(t, a, 1, "late")
		if got := next(b); got != "late" {
			t.Errorf("got %q", got)
		}
		for range 2 * inQueue { // and nobody reads
			send(t, a, 1, "more")
			synctest.Wait()
		}
		if len(b.packets) != inQueue {
			t.Errorf("%d packets wait", len(b.packets))
		}
		if err := a.Shutdown(); err != nil {
			t.Error(err)
		}
		if _, err := a.WriteToAddress([]byte("x"), to(1)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestAKeptConnectionIsReplacedWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := porttest.New()
		a, b := newTransport(t, n, 0), newTransport(t, n, 1)
		send(t, a, 1, "first")
		if got := next(b); got != "first" {
			t.Fatalf("got %q", got)
		}
		n.Reset(ip(0), ip(1))
		time.Sleep(redialPause)
		send(t, a, 1, "second")
		if got := next(b); got != "second" {
			t.Errorf("after a reset: %q", got)
		}
		time.Sleep(idleTime + time.Second)
		synctest.Wait()
		if len(a.out) != 0 {
			t.Errorf("%d idle connections are kept", len(a.out))
		}
		send(t, a, 1, "third")
		if got := next(b); got != "third" {
			t.Errorf("after idling: %q", got)
		}
	})
}

func TestExchangesAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := porttest.New()
		a, b := newTransport(t, n, 0), newTransport(t, n, 1)
		out, err := a.DialAddressTimeout(to(1), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		in := <-b.StreamCh()
		if _, err := out.Write([]byte("state")); err != nil {
			t.Fatal(err)
		}
		out.Close()
		if got, err := io.ReadAll(in); err != nil || string(got) != "state" {
			t.Errorf("%q, %v", got, err)
		}
		in.Close()
		for range streamQueue + 1 {
			conn, err := a.DialAddressTimeout(to(1), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		synctest.Wait()
		if len(b.streams) != streamQueue {
			t.Errorf("%d exchanges wait", len(b.streams))
		}
	})
}

func TestWhatIsNoGossipIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := porttest.New()
		newTransport(t, n, 1)
		for name, c := range map[string]struct {
			bytes string
			after time.Duration
		}{
			"nothing":             {"", firstByte},
			"another kind":        {"\x09hello", 0},
			"an empty packet":     {"\x01\x00\x00", 0},
			"a packet over limit": {"\x01\x40\x01", 0},
			"half a packet":       {"\x01\x00\x05ab", 2 * idleTime},
		} {
			conn, err := n.Host("10.9.9.9").Dial(t.Context(), "tcp", address(1).String())
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte(c.bytes))
			start := time.Now()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(start) != c.after {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			conn.Close()
		}
	})
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte("\x01\x00\x03abc\x00\x01x"))
	f.Add([]byte("\x02stream"))
	f.Add([]byte("\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := porttest.New()
		l, err := n.Host(ip(1)).Listen(porttest.Port)
		if err != nil {
			t.Fatal(err)
		}
		tr := NewTransport(l, nil, netip.AddrPort{})
		conn, err := n.Host(ip(0)).Dial(t.Context(), "tcp", address(1).String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(b)
		conn.Close()
		if err := tr.Shutdown(); err != nil {
			t.Fatal(err)
		}
		for len(tr.packets) > 0 {
			if p := <-tr.packets; len(p.Buf) == 0 || len(p.Buf) > min(maxPacket, len(b)) {
				t.Fatalf("a packet of %d bytes", len(p.Buf))
			}
		}
	})
}
