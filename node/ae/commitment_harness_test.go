package ae

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
)

// rows are durable rows in memory.
type rows struct {
	mu      sync.Mutex
	all     map[string][]byte
	failing error
	puts    int
}

func newRows() *rows { return &rows{all: map[string][]byte{}} }

func (r *rows) Put(key string, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puts++
	if r.failing != nil {
		return r.failing
	}
	r.all[key] = slices.Clone(value)
	return nil
}

func (r *rows) Get(key string) ([]byte, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.all[key]
	return v, ok, nil
}

func (r *rows) Delete(key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, key)
	return nil
}

func (r *rows) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

func (r *rows) Each(visit func(string, []byte) error) error {
	r.mu.Lock()
	all := maps.Clone(r.all)
	r.mu.Unlock()
	for key, value := range all {
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// statuses say what became of instances; those that are not named are
// committed.
type statuses struct {
	mu    sync.Mutex
	of    map[string]error
	asked map[string]int
}

func (s *statuses) Committed(_ context.Context, _, sop, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[sop]++
	return s.of[sop]
}

func (s *statuses) set(sop string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]error{}
	}
	s.of[sop] = err
}

// modality takes storage commitment results on associations that it is called
// on, and knows when it is called.
type modality struct {
	mu      sync.Mutex
	results []*dimse.CommitmentResult
	calls   []time.Time
	listens *dimsetest.Listener // nil: it does not
	refuses error
}

func newModality(t *testing.T) *modality {
	m := &modality{}
	m.listens = serve(t, &scp.Server{Admit: admitAll{&scp.Session{Committed: func(_ context.Context, r *dimse.CommitmentResult) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.refuses != nil {
			return m.refuses
		}
		m.results = append(m.results, r)
		return nil
	}}}})
	return m
}

func (m *modality) dial(ctx context.Context, _ string) (net.Conn, error) {
	m.mu.Lock()
	m.calls = append(m.calls, time.Now())
	l := m.listens
	m.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.Dial(ctx)
}

// listen sets where it listens; nil: nowhere. It returns where it did.
func (m *modality) listen(at *dimsetest.Listener) (before *dimsetest.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, m.listens = m.listens, at
	return before
}

func (m *modality) got() []*dimse.CommitmentResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.results)
}

func dialer(l *dimsetest.Listener) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) { return l.Dial(ctx) }
}

// committing is a face whose commitments run.
type committing struct {
	*Face
	stop func()
}

// changing are statuses that tell when to ask again.
type changing struct {
	statuses
	changed chan struct{}
}

func (c *changing) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// notify says that something may be otherwise.
func (c *changing) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

func runCommitments(t *testing.T, rows *rows, status Status, m *modality) committing {
	t.Helper()
	o := Options{
		Title: "PELAGO", Rows: rows, Status: status, Dialer: m.dial, Arrivals: &endings{},
		Registry: registry(t, AE{Title: "CT1", Hosts: []string{"10.0.0.1"}, Port: 104}, AE{Title: "CT2", Hosts: []string{"10.0.0.2"}, Port: 104}),
	}
	if c, ok := status.(*changing); ok {
		o.Changed = c.Changed
	}
	f := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, nil) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return committing{f, stop}
}

// gone is the association of a requestor that has left.
func gone(context.Context, *dimse.CommitmentResult) error {
	return fault.New(fault.Unavailable, "the association has ended")
}

func references(sops ...string) []dimse.Reference {
	all := make([]dimse.Reference, len(sops))
	for i, sop := range sops {
		all[i] = dimse.Reference{Class: dimsetest.CTImageStorage, Instance: sop}
	}
	return all
}

// ask makes a request of an AE.
func (c committing) ask(ae, transaction string, report func(context.Context, *dimse.CommitmentResult) error, all ...dimse.Reference) error {
	return c.commits.take(ae, &scp.CommitRequest{
		CommitmentRequest: dimse.CommitmentRequest{Transaction: transaction, References: all}, Report: report,
	})
}
