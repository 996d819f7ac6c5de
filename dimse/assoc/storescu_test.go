package assoc

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"pelago/dimse/command"
	"pelago/dimse/dimsetest"
)

// sink accepts one association after the other on loopback, drops what it
// receives and answers success; it returns how many bytes of data sets came.
func sink(t testing.TB, config Config) (net.Addr, func() (messages int, bytes int64)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	type count struct {
		messages int
		bytes    int64
		err      error
	}
	counts := make(chan count, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var c count
			c.messages, c.bytes, c.err = drop(conn, config)
			counts <- c
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr(), func() (int, int64) {
		c := <-counts
		if c.err != io.EOF {
			t.Errorf("association ended: %v", c.err)
		}
		return c.messages, c.bytes
	}
}

// drop is the sink's association.
func drop(conn net.Conn, config Config) (messages int, bytes int64, err error) {
	ctx := context.Background()
	a, err := Accept(ctx, conn, config, acceptAll)
	if err != nil {
		return 0, 0, err
	}
	defer a.Abort()
	for {
		m, err := a.Receive(ctx)
		if err != nil {
			return messages, bytes, err
		}
		set, err := command.Parse(m.Command)
		if err != nil {
			return messages, bytes, err
		}
		if m.Data != nil {
			n, err := m.Data.WriteTo(io.Discard)
			bytes += n
			if err != nil {
				return messages, bytes, err
			}
		}
		messages++
		if err := a.Send(ctx, m.ContextID, set.Reply(command.Success).Encode(nil), nil); err != nil {
			return messages, bytes, err
		}
	}
}

func TestStoreSCUIsNotStalled(t *testing.T) {
	const count = 100
	var instances []dimsetest.Instance
	for n := range count {
		instances = append(instances, dimsetest.CT(1, n))
	}
	dir := dimsetest.WriteFiles(t, instances...)
	addr, counted := sink(t, Config{})
	send := func() time.Duration {
		start := time.Now()
		dimsetest.StoreSCU(t, addr, []string{"+sd", "-xe"}, dir)
		took := time.Since(start)
		messages, bytes := counted()
		if want := int64(len(instances[0].Dataset())) * count; messages != count || bytes < want-1000*count {
			t.Errorf("%d messages, %d bytes, want %d, %d", messages, bytes, count, want)
		}
		return took
	}
	// The same sender without Nagle's algorithm is never held back, and is as slow
	// as the machine is. Without quick acknowledgement the other one takes 0.7 to
	// 1.4 s more, every time: the kernel is quick by itself for the first images only.
	const stall = 500 * time.Millisecond
	var plain, nagle time.Duration
	for range 5 {
		t.Setenv("TCP_NODELAY", "1")
		plain = send()
		t.Setenv("TCP_NODELAY", "0")
		if nagle = send(); nagle < 2*plain+stall {
			return
		}
	}
	t.Errorf("%d images took %v, and %v with Nagle's algorithm: the sender was stalled", count, plain, nagle)
}

// BenchmarkStoreSCU sends 100 CT of 526 KB with an unmodified storescu, start
// of the program included.
func BenchmarkStoreSCU(b *testing.B) {
	var instances []dimsetest.Instance
	for n := range 100 {
		instances = append(instances, dimsetest.CT(1, n))
	}
	dir := dimsetest.WriteFiles(b, instances...)
	for _, announced := range []uint32{16 << 10, 64 << 10, 128 << 10, 256 << 10} {
		b.Run(fmt.Sprint(announced), func(b *testing.B) {
			addr, counted := sink(b, Config{MaxPDU: announced})
			var total int64
			for b.Loop() {
				dimsetest.StoreSCU(b, addr, []string{"+sd", "-xe"}, dir)
				_, n := counted()
				total += n
			}
			b.SetBytes(total / int64(b.N))
		})
	}
}
