package scp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// write is one write to a peer: when, and how many PDUs it had.
type write struct {
	after time.Duration
	pdus  int
}

// watched is a listener whose connections note what is written to them.
type watched struct {
	*dimsetest.Listener
	mu     sync.Mutex
	began  time.Time
	writes []write
}

type watchedConn struct {
	net.Conn
	l *watched
}

func (l *watched) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return watchedConn{conn, l}, err
}

func (c watchedConn) Write(b []byte) (int, error) {
	n := 0
	for rest := b; len(rest) > 0; n++ {
		rest = rest[6+binary.BigEndian.Uint32(rest[2:]):]
	}
	c.l.mu.Lock()
	c.l.writes = append(c.l.writes, write{time.Since(c.l.began), n})
	c.l.mu.Unlock()
	return c.Conn.Write(b)
}

// start forgets what was written.
func (l *watched) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began, l.writes = time.Now(), nil
}

func (l *watched) seen() []write {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

func TestPendingResponsesShareWritesUnlessTheQueryIsSlow(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name   string
		pauses []time.Duration // before each match, and before the end
		fails  error
		want   []write
	}{
		{"no matches", []time.Duration{3 * ms}, nil, []write{{3 * ms, 1}}},
		{"one match", []time.Duration{0, 0}, nil, []write{{0, 1}, {0, 1}}},
		{"the first at once, the others with the final one", make([]time.Duration, 21), nil, []write{{0, 1}, {0, 20}}},
		{"full batches", make([]time.Duration, 301), nil, []write{{0, 1}, {0, 116}, {0, 116}, {0, 68}}},
		{"a slow query", []time.Duration{5 * ms, 5 * ms, 5 * ms, 5 * ms}, nil, []write{{5 * ms, 1}, {10 * ms, 1}, {15 * ms, 1}, {20 * ms, 1}}},
		{"one that becomes slow", []time.Duration{0, 0, 0, 0, 50 * ms, 0, 50 * ms}, nil, []write{{0, 1}, {ms, 3}, {50 * ms, 1}, {51 * ms, 1}, {100 * ms, 1}}},
		{"one that fails", []time.Duration{0, 0, 0, 0}, fault.New(fault.Full, "x"), []write{{0, 1}, {0, 3}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{find: func(context.Context, *FindRequest) (*Matches, error) {
					return &Matches{Datasets: func(yield func(*dicom.Dataset, error) bool) {
						for n, pause := range tt.pauses {
							time.Sleep(pause)
							if n < len(tt.pauses)-1 && !yield(answer(n%10), nil) {
								return
							}
						}
						if tt.fails != nil {
							yield(nil, tt.fails)
						}
					}}, nil
				}}
				l := &watched{Listener: dimsetest.Listen()}
				serveOn(t, &Server{Admit: admitAll{sessionOf(p)}}, l)
				c := dial(t, l.Listener, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
				time.Sleep(time.Second) // since the A-ASSOCIATE-AC
				l.start()
				names, err := collect(c.Find(t.Context(), scu.Query{Root: dimse.StudyRoot, Identifier: identifier()}))
				if len(names) != len(tt.pauses)-1 || (err == nil) != (tt.fails == nil) {
					t.Errorf("%d matches, %v", len(names), err)
				}
				if got := l.seen(); !slices.Equal(got, tt.want) {
					t.Errorf("writes %v, want %v", got, tt.want)
				}
				release(t, c)
			})
		})
	}
}

func TestACancelSendsWhatWaitsWithTheFinalResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{find: func(ctx context.Context, _ *FindRequest) (*Matches, error) {
			return &Matches{Datasets: func(yield func(*dicom.Dataset, error) bool) {
				for n := range 3 {
					if !yield(answer(n), nil) {
						return
					}
				}
				<-ctx.Done()
				yield(nil, ctx.Err())
			}}, nil
		}}
		l := &watched{Listener: dimsetest.Listen()}
		serveOn(t, &Server{Admit: admitAll{sessionOf(p)}}, l)
		c := dial(t, l.Listener, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
		time.Sleep(time.Second)
		l.start()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond)
		defer cancel()
		names, err := collect(c.Find(ctx, scu.Query{Root: dimse.StudyRoot, Identifier: identifier()}))
		if len(names) != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d matches, %v", len(names), err)
		}
		if got, want := l.seen(), []write{{0, 1}, {500 * time.Microsecond, 3}}; !slices.Equal(got, want) {
			t.Errorf("writes %v, want %v", got, want)
		}
		release(t, c)
	})
}
