package porttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const (
	a = "10.0.0.1"
	b = "10.0.0.2"
)

func pair(t *testing.T, n *Network) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := n.Host(b).Listen(7700)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err = n.Host(a).Dial(t.Context(), "tcp", b+":7700")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

func TestWhatIsSentOverACutLinkArrivesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		here, there := pair(t, n)
		n.Cut(a, b)
		if _, err := here.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		here.Close()
		there.SetReadDeadline(time.Now().Add(time.Minute))
		var buf [8]byte
		if _, err := there.Read(buf[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("over a cut link: %v", err)
		}
		if _, err := there.Write([]byte("x")); err == nil {
			t.Error("written to a connection whose reader has closed")
		}
		there.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			n.Heal(a, b)
		}()
		start := time.Now()
		if got, err := io.ReadAll(there); err != nil || string(got) != "late" || time.Since(start) != time.Hour {
			t.Errorf("%q, %v after %v", got, err, time.Since(start))
		}
	})
}

func TestADialWaitsForItsLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.Part([]string{a}, []string{b})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Host(a).Dial(ctx, "tcp", b+":7700"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("over a cut link: %v", err)
		}
		n.Join([]string{a}, []string{b})
		if _, err := n.Host(a).Dial(t.Context(), "tcp", b+":7700"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("where nobody listens: %v", err)
		}
		n.Delay(a, b, 30*time.Millisecond)
		n.Delay(b, a, 50*time.Millisecond)
		start := time.Now()
		here, there := pair(t, n)
		if time.Since(start) != 80*time.Millisecond {
			t.Errorf("a dial took %v", time.Since(start))
		}
		here.Write([]byte("x"))
		start = time.Now()
		if _, err := there.Read(make([]byte, 1)); err != nil || time.Since(start) != 30*time.Millisecond {
			t.Errorf("a byte took %v, %v", time.Since(start), err)
		}
		n.Reset(a, b)
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a reset: %v", err)
		}
	})
}

func TestWritersWaitForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := pair(t, New())
		data := bytes.Repeat([]byte("0123456789"), buffer/4)
		here.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := here.Write(data); n != buffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
		here.SetWriteDeadline(time.Time{})
		go func() {
			here.Write(data[buffer:])
			here.Close()
		}()
		if got, err := io.ReadAll(there); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
	})
}
