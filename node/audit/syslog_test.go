package audit

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dimsetest"
)

// receiver is a syslog receiver over TLS (RFC 5425) that hands out what it gets.
type receiver struct {
	t        *testing.T
	listener net.Listener
	roots    *x509.CertPool
	conns    chan net.Conn
	messages chan string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	ca := dimsetest.NewAuthority(t)
	r := &receiver{t: t, roots: ca.Pool, conns: make(chan net.Conn, 10), messages: make(chan string, 10000)}
	var err error
	r.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Issue(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listener.Close() })
	go func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return
			}
			r.conns <- conn
			go r.serve(conn)
		}
	}()
	return r
}

// serve reads octet-counted frames.
func (r *receiver) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		length, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || n <= 0 {
			r.t.Errorf("frame of length %q", length)
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return
		}
		r.messages <- string(b)
	}
}

// next returns the number of the event in the next message, and the message.
func (r *receiver) next() (int, string) {
	r.t.Helper()
	select {
	case m := <-r.messages:
		_, body, ok := strings.Cut(m, " \ufeff")
		if !ok {
			r.t.Fatalf("no byte order mark: %q", m)
		}
		var x xMessage
		if err := xml.Unmarshal([]byte(body), &x); err != nil {
			r.t.Fatalf("%v: %s", err, body)
		}
		var n int
		fmt.Sscanf(x.Objects[0].ID, "1.2.%d", &n)
		return n, m
	case <-time.After(2 * time.Minute):
		r.t.Fatal("no message")
		return 0, ""
	}
}

func (r *receiver) follower(t *testing.T, l *Log) (s *Syslog, stop func()) {
	t.Helper()
	s, err := NewSyslog(l, SyslogOptions{
		Name: "siem", Address: r.listener.Addr().String(), TLS: &tls.Config{RootCAs: r.roots},
		Host: "node one", Settle: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestSyslogSendsEveryEventOnce(t *testing.T) {
	r := newReceiver(t)
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d", Source: Source{Site: "north", ID: "node-1"}, FlushEvery: time.Millisecond})
	record(t, l, 0, 250)
	_, stop := r.follower(t, l)
	for want := range 250 {
		if got, _ := r.next(); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	record(t, l, 250, 260) // while it follows
	for want := 250; want < 260; want++ {
		if got, _ := r.next(); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	stop()
	record(t, l, 260, 263) // while it does not
	flush(t, l)
	s, stop := r.follower(t, l)
	if b := s.Status(); b.Delivered != 261 || b.Behind != 3 {
		t.Errorf("status after a restart: %+v", b)
	}
	for want := 260; want < 263; want++ {
		if got, _ := r.next(); got != want {
			t.Fatalf("event %d, want %d: sent twice or not at all", got, want)
		}
	}
	stop()
	if b := s.Status(); b.Behind != 0 {
		t.Errorf("status at the end: %+v", b)
	}
}

func TestSyslogMessageIsRFC5424(t *testing.T) {
	r := newReceiver(t)
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d", Source: Source{ID: "node-1"}, FlushEvery: time.Millisecond})
	e := eventOf(1)
	e.Outcome = Serious
	for _, e := range []Event{eventOf(0), e} {
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	_, stop := r.follower(t, l)
	defer stop()
	for i, start := range []string{"<85>1 2026-01-02T03:04:05.000000Z node_one pelago ", "<83>1 2026-01-02T03:04:05.000001Z node_one pelago "} {
		_, m := r.next()
		if !strings.HasPrefix(m, start) || !strings.Contains(m, " DICOM+RFC3881 - \ufeff<AuditMessage>") {
			t.Errorf("message %d: %q", i, m)
		}
	}
}

// TestSyslogSendsAgainWhatABrokenConnectionMayHaveLost breaks the connection
// before the events settle.
func TestSyslogSendsAgainWhatABrokenConnectionMayHaveLost(t *testing.T) {
	r := newReceiver(t)
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d", FlushEvery: time.Millisecond})
	s, err := NewSyslog(l, SyslogOptions{Name: "siem", Address: r.listener.Addr().String(), TLS: &tls.Config{RootCAs: r.roots}, Settle: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	record(t, l, 0, 5)
	first := <-r.conns
	for want := range 5 {
		if got, _ := r.next(); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	first.Close()
	for want := range 5 {
		if got, _ := r.next(); got != want {
			t.Fatalf("event %d again, want %d", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if b := s.Status(); b.Behind != 0 {
		t.Errorf("a clean end counts as delivered: %+v", b)
	}
}

func TestSyslogRefusesAReceiverItCannotTrust(t *testing.T) {
	r := newReceiver(t)
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d"})
	record(t, l, 0, 1)
	flush(t, l)
	s, err := NewSyslog(l, SyslogOptions{Name: "siem", Address: r.listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.session(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("session: %v", err)
	}
	if b := s.Status(); b.Behind != 1 || len(r.messages) != 0 {
		t.Errorf("status %+v, %d messages", b, len(r.messages))
	}
}

func TestACursorIsDurableAndADamagedOneBeginsAgain(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := Options{FS: mem, Dir: "d"}
	l, _ := running(t, o)
	record(t, l, 0, 9)
	flush(t, l)
	f := newCursorFile(l, "syslog-a")
	for _, c := range []Cursor{3, 7} {
		if err := f.store(c); err != nil {
			t.Fatal(err)
		}
		if got, err := f.load(); got != c || err != nil {
			t.Fatalf("%d, %v", got, err)
		}
	}
	f.fs = mem.CrashClone(vfs.CrashCloneCfg{})
	if got, err := f.load(); got != 7 || err != nil {
		t.Errorf("after a crash: %d, %v", got, err)
	}
	write(t, mem, "d/syslog-a.cursor", []byte("PELAGOAC and then not"))
	s, err := NewSyslog(l, SyslogOptions{Name: "a", Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if b := s.Status(); b.Delivered != 1 {
		t.Errorf("%+v", b)
	}
	for _, name := range []string{"", "a/b", "..", "é"} {
		if _, err := NewSyslog(l, SyslogOptions{Name: name, Address: "127.0.0.1:1"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}
