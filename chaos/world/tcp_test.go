package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"pelago/cluster/fault"
)

// TestMain makes this program a process that dials, when it is asked to be one.
func TestMain(m *testing.M) {
	if address := os.Getenv("WORLD_TEST_DIAL"); address != "" {
		os.Exit(dialAndEcho(address))
	}
	os.Exit(m.Run())
}

// dialAndEcho says a word to a node and prints the answer.
func dialAndEcho(address string) int {
	c, err := net.Dial("tcp", address)
	if err == nil {
		_, err = c.Write([]byte("hello\n"))
	}
	var answer string
	if err == nil {
		answer, err = bufio.NewReader(c).ReadString('\n')
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Print(answer)
	return 0
}

// real makes a world of sockets with an echoing node at site b.
func real(t testing.TB, l Link) (*World, *Gate) {
	t.Helper()
	w, err := New(Options{Network: TCP{Self: "a"}, Link: l})
	if err != nil {
		t.Fatal(err)
	}
	node, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go echo(node)
	t.Cleanup(func() {
		w.Close()
		node.Close()
	})
	gate, err := w.Gate(context.Background(), "b", node.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return w, gate
}

func dialTCP(t testing.TB, gate *Gate) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", gate.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestSocketsAreDelayedCutAndCounted(t *testing.T) {
	w, gate := real(t, Link{Delay: 10 * ms})
	c := dialTCP(t, gate)
	least := time.Hour
	for range 20 {
		from := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(from))
	}
	t.Logf("least of 20 round trips of 20 ms: %v", least)
	if least < 20*ms || least > 60*ms { // one of twenty at least is hardly disturbed
		t.Errorf("least round trip: %v", least)
	}
	if got, want := w.Traffic("a", "b"), (Traffic{Sent: 20, Delivered: 20, Segments: 20, Opened: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := w.Cut("a", "b", Refuse); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %v", err)
	}
	w.Heal()
	c = dialTCP(t, gate)
	io.WriteString(c, "again")
	c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "again" || err != nil {
		t.Errorf("healed: %q, %v", got, err)
	}
}

func TestSocketsGetNoMoreThanTheRate(t *testing.T) {
	const n = 5 * mb
	_, gate := real(t, Both(20*ms, 100*Mbps))
	c := dialTCP(t, gate)
	from := time.Now()
	go func() {
		c.Write(make([]byte, n))
		c.CloseWrite()
	}()
	if got, err := io.Copy(io.Discard, c); got != n || err != nil {
		t.Fatal(got, err)
	}
	d := time.Since(from)
	t.Logf("5 MB there and back at 100 Mb/s and 20 ms: %v, ideally 440ms", d)
	if d < 440*ms {
		t.Errorf("%v is faster than the link", d)
	}
}

func TestProcessesAreToldApartByTheirSite(t *testing.T) {
	w, gate := real(t, Link{})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(env, "WORLD_TEST_DIAL="+gate.Addr())
		out, err := cmd.Output()
		return string(out), err
	}
	for _, site := range []Site{"north", "south", "north"} {
		if out, err := run(Environ(site)); out != "hello\n" || err != nil {
			t.Fatalf("%s: %q, %v", site, out, err)
		}
	}
	if n, s := w.Traffic("north", "b"), w.Traffic("south", "b"); n.Opened != 2 || n.Sent != 12 || s.Opened != 1 || s.Sent != 6 {
		t.Errorf("north %+v, south %+v", n, s)
	}
	if out, err := run(); err == nil || w.Strangers() != 1 {
		t.Errorf("a stranger: %q, %d strangers", out, w.Strangers())
	}
}

func TestSocketIsFoundInTheKernelsTable(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 33 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
   4: torn
`
	for _, c := range []struct {
		rule, pair, want string
		kind             fault.Kind
	}{
		{"the dialler's", "0100007F:C350 0100007F:1F90", "33", 0},
		{"the listener's", "0100007F:1F90 0100007F:C350", "22", 0},
		{"closed: nobody holds it", "0100007F:C351 0100007F:1F90", "", fault.Canceled},
		{"never seen", "0100007F:C352 0100007F:1F90", "", fault.NotFound},
	} {
		got, err := findInode(bufio.NewScanner(strings.NewReader(table)), c.pair)
		if got != c.want || (err == nil) != (c.want != "") || fault.KindOf(err) != c.kind {
			t.Errorf("%s: %q, %v; want %q", c.rule, got, err, c.want)
		}
	}
	if got := kernelAddr(netip.MustParseAddrPort("127.0.0.1:8080")); got != "0100007F:1F90" && got != "7F000001:1F90" {
		t.Error(got)
	}
}

// BenchmarkRelay says what the relay itself can carry: one direction without
// delay or rate, by the number of connections. CPU is of the whole process,
// which also writes and reads: subtract BenchmarkSockets.
func BenchmarkRelay(b *testing.B) {
	for _, l := range []struct {
		name string
		link Link
	}{{"unlimited", Link{}}, {"1Gbps-50ms", Both(50*ms, Gbps)}, {"100Mbps-50ms", Both(50*ms, 100*Mbps)}} {
		for _, conns := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/%d", l.name, conns), func(b *testing.B) {
				w, err := New(Options{Network: TCP{}, Link: l.link})
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
				pour(b, conns, func(node string) string {
					g, err := w.GateFrom(context.Background(), "a", "b", node)
					if err != nil {
						b.Fatal(err)
					}
					return g.Addr()
				})
			})
		}
	}
}

// BenchmarkSockets is BenchmarkRelay without a relay.
func BenchmarkSockets(b *testing.B) {
	pour(b, 1, func(node string) string { return node })
}

// pour sends a mebibyte an iteration over conns connections to a node that
// drops it, by the address that via returns.
func pour(b *testing.B, conns int, via func(node string) string) {
	node, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	address := via(node.Addr().String())
	done := make(chan error, 2*conns)
	go func() {
		for range conns {
			c, err := node.Accept()
			if err != nil {
				done <- err
				continue
			}
			go func() {
				buf := make([]byte, 256<<10)
				for err = nil; err == nil; {
					_, err = c.Read(buf)
				}
				c.Close()
				if errors.Is(err, io.EOF) {
					err = nil
				}
				done <- err
			}()
		}
	}()
	b.SetBytes(1 << 20)
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	piece := make([]byte, 256<<10)
	for i := range conns {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			b.Fatal(err)
		}
		n := 4 * (b.N/conns + min(1, max(0, b.N%conns-i)))
		go func() {
			for range n {
				if _, err := c.Write(piece); err != nil {
					break
				}
			}
			c.Close()
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(cpu.Seconds()/b.Elapsed().Seconds(), "cores")
	b.ReportMetric(float64(b.N)*8*(1<<20)/1e6/b.Elapsed().Seconds(), "Mb/s")
}
