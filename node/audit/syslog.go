package audit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// Limits of the syslog follower.
const (
	dialTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
	closeTimeout = 2 * time.Second
	retryFirst   = time.Second
	retryLast    = 5 * time.Minute
	batchEvents  = 100
	batchBytes   = 1 << 20

	// DefaultSettle is how long a connection must live on after a batch before
	// its events count as delivered: RFC 5425 has no acknowledgement.
	DefaultSettle = 2 * time.Second
)

// SyslogOptions configure a follower that sends the log to a receiver.
type SyslogOptions struct {
	Name    string        // of the follower and its cursor's file: letters, digits, "-" and "_"
	Address string        // host:port; the registered port is 6514
	TLS     *tls.Config   // roots, client certificate; at least TLS 1.2 is used. nil: the system's roots
	Host    string        // HOSTNAME of the messages; "": os.Hostname
	App     string        // APP-NAME; "": pelago
	Settle  time.Duration // 0: DefaultSettle
	Log     *slog.Logger  // never sees an event; nil: none
}

// Syslog follows a log and sends its events as RFC 5424 messages over TLS (RFC
// 5425), at least once: what was under way when a connection broke is sent
// again. It is made by [NewSyslog].
type Syslog struct {
	log     *Log
	options SyslogOptions
	cursor  cursorFile

	mu     sync.Mutex
	status SyslogStatus
}

// SyslogStatus is what an operator sees of a follower.
type SyslogStatus struct {
	Connected bool
	Delivered Cursor // events before it were delivered
	Behind    uint64 // events that were not
	LastError string // "" once connected
}

// NewSyslog makes a follower of l, loads its cursor and holds the log there. A
// damaged cursor begins again at the oldest event.
func NewSyslog(l *Log, o SyslogOptions) (*Syslog, error) {
	if o.Name == "" || strings.ContainsFunc(o.Name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) {
		return nil, fault.New(fault.Invalid, "audit: syslog follower needs a name of letters, digits, - and _")
	}
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return nil, fault.New(fault.Invalid, "audit: syslog address: %w", err)
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{}
	}
	o.TLS = o.TLS.Clone()
	o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
	if o.Host == "" {
		o.Host, _ = os.Hostname() // "-" if there is none
	}
	if o.App == "" {
		o.App = "pelago"
	}
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Syslog{log: l, options: o, cursor: newCursorFile(l, "syslog-"+o.Name)}
	c, err := s.cursor.load()
	if fault.Is(err, fault.Corrupt) {
		o.Log.Warn("audit cursor is damaged; events are sent again", "follower", o.Name, "error", err)
		c, err = 1, nil
	}
	if err != nil {
		return nil, err
	}
	if end := l.Next(); c > end {
		o.Log.Warn("audit cursor is ahead of the log, which was restored or replaced", "follower", o.Name)
		c = end
	}
	s.status.Delivered = c
	l.Hold(o.Name, c)
	return s, nil
}

// Status tells how far it is.
func (s *Syslog) Status() SyslogStatus {
	s.mu.Lock()
	st := s.status
	s.mu.Unlock()
	if next := s.log.Next(); next > st.Delivered {
		st.Behind = uint64(next - st.Delivered)
	}
	return st
}

// Run sends until ctx ends; it connects again with back-off for as long. No
// goroutine is left when it returns.
func (s *Syslog) Run(ctx context.Context) error {
	wait := retryFirst
	for {
		before := s.Status().Delivered
		err := s.session(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end: what the session met on the way is not a failure
		}
		if s.Status().Delivered > before {
			wait = retryFirst
		}
		s.mu.Lock()
		s.status.Connected, s.status.LastError = false, err.Error()
		s.mu.Unlock()
		delay := wait - wait/4 + rand.N(wait/2)
		s.options.Log.Warn("audit events cannot be sent", "follower", s.options.Name, "error", err, "wait_seconds", delay.Seconds())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, retryLast)
	}
}

// mark is a batch that was written at a time.
type mark struct {
	cursor Cursor
	at     time.Time
}

// session sends over one connection until it breaks or ctx ends.
func (s *Syslog) session(ctx context.Context) error {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: s.options.TLS}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout) // the handshake too
	raw, err := dialer.DialContext(dialing, "tcp", s.options.Address)
	cancel()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	conn := raw.(*tls.Conn) // as documented
	s.mu.Lock()
	s.status.Connected, s.status.LastError = true, ""
	s.mu.Unlock()

	alive, broken := context.WithCancel(ctx)
	defer broken()
	peer := make(chan error, 1) // how the receiver's side ended
	go func() {
		_, err := io.Copy(io.Discard, conn) // a receiver says nothing
		broken()
		peer <- err
	}()
	sent, marks, err := s.follow(alive, conn)
	if ctx.Err() != nil && err == nil {
		s.finish(conn, peer, sent)
		return nil
	}
	s.settle(&marks, time.Now())
	conn.Close()
	if peerErr := <-peer; err == nil || errors.Is(err, context.Canceled) {
		err = fmt.Errorf("the receiver closed the connection: %w", errors.Join(peerErr, io.EOF))
	}
	return err
}

// follow sends batches until alive ends (no error) or something fails.
func (s *Syslog) follow(alive context.Context, conn net.Conn) (sent Cursor, marks []mark, err error) {
	sent = s.Status().Delivered
	for alive.Err() == nil {
		next, err := s.batch(alive, conn, sent)
		if err != nil {
			if alive.Err() != nil {
				err = nil
			}
			return sent, marks, err
		}
		if next > sent {
			sent = next
			marks = append(marks, mark{sent, time.Now()})
		}
		s.settle(&marks, time.Now())
		pause, cancel := context.WithTimeout(alive, s.options.Settle)
		err = s.log.Wait(pause, sent+1)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && alive.Err() == nil {
			return sent, marks, err
		}
	}
	return sent, marks, nil
}

// settle moves the cursor over batches that were written long enough ago.
func (s *Syslog) settle(marks *[]mark, now time.Time) {
	n := 0
	for n < len(*marks) && now.Sub((*marks)[n].at) >= s.options.Settle {
		n++
	}
	if n == 0 {
		return
	}
	s.delivered((*marks)[n-1].cursor)
	*marks = append([]mark(nil), (*marks)[n:]...)
}

// delivered stores the cursor. If that fails, events are sent twice one day.
func (s *Syslog) delivered(c Cursor) {
	if err := s.cursor.store(c); err != nil {
		s.options.Log.Warn("audit cursor cannot be stored", "follower", s.options.Name, "error", err)
		return
	}
	s.log.Hold(s.options.Name, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Delivered = c
}

// finish ends a healthy connection. If the receiver closes its side in answer,
// it has read everything (RFC 5425 §4.4).
func (s *Syslog) finish(conn *tls.Conn, peer <-chan error, sent Cursor) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(closeTimeout))
	if err := conn.CloseWrite(); err != nil {
		conn.Close()
		<-peer //nolint:errcheck // it ends with the connection, for the reason at hand
		return
	}
	if err := <-peer; err == nil {
		s.delivered(sent)
	}
}

// errBatchFull ends a read once a batch is large enough.
var errBatchFull = errors.New("batch is full")

// batch sends some of what follows c and returns the cursor behind it.
func (s *Syslog) batch(ctx context.Context, conn net.Conn, c Cursor) (Cursor, error) {
	var out bytes.Buffer
	n := 0
	next, err := s.log.Read(ctx, c, func(e Entry) error {
		if n == batchEvents || out.Len() >= batchBytes {
			return errBatchFull
		}
		n++
		message, err := s.message(&e.Event)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%d ", len(message)) // octet counting, RFC 5425 §4.3
		out.Write(message)
		return nil
	})
	if err != nil && !errors.Is(err, errBatchFull) {
		return c, err
	}
	if n == 0 {
		return next, nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return c, err
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		return c, fmt.Errorf("send: %w", err)
	}
	return next, nil
}

// message is an event as RFC 5424 and PS3.15 A.6 want it: facility 10 (security),
// severity by outcome, MSGID DICOM+RFC3881, UTF-8 with a byte order mark.
func (s *Syslog) message(e *Event) ([]byte, error) {
	body, err := e.XML(s.log.options.Source)
	if err != nil {
		return nil, err
	}
	severity := 5 // notice
	switch e.Outcome {
	case Minor:
		severity = 4
	case Serious:
		severity = 3
	case Major:
		severity = 2
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>1 %s %s %s %s DICOM+RFC3881 - \ufeff", 10*8+severity,
		e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		headerField(s.options.Host, 255), headerField(s.options.App, 48), strconv.Itoa(os.Getpid()))
	b.Write(body)
	return b.Bytes(), nil
}

// headerField makes a value fit a header field: printable ASCII, bounded, "-"
// if there is none (RFC 5424 §6).
func headerField(v string, limit int) string {
	v = strings.Map(func(r rune) rune {
		if r < 33 || r > 126 {
			return '_'
		}
		return r
	}, v)
	if v == "" {
		return "-"
	}
	return v[:min(len(v), limit)]
}
