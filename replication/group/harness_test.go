package group_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/replication"
	"pelago/replication/group"
)

// toy is a state machine that keeps everything in memory.
type toy struct {
	mu      sync.Mutex
	at      replication.Position
	entries []replication.Entry
	hash    [32]byte
	changed chan struct{}
	rot     bool // what is applied from now on is not what was decided
}

func newToy() *toy { return &toy{changed: make(chan struct{})} }

func (m *toy) Apply(entries []replication.Entry, at replication.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if e.Index <= m.at.Index || e.Index > at.Index {
			panic(fmt.Sprintf("entry %d at %d", e.Index, m.at.Index))
		}
		m.entries = append(m.entries, e)
		m.hash = blake3.Sum256(fmt.Appendf(m.hash[:], "%d %s %v", e.Index, e.Data, m.rot))
	}
	m.at = at
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *toy) Position() replication.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *toy) Sync() error { return nil }

func (m *toy) Results(index uint64) ([]error, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.Index == index {
			return []error{nil}, true
		}
	}
	return nil, false
}

func (m *toy) StateHash() ([32]byte, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hash, m.at.Index
}

func (m *toy) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *toy) has(data string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if string(e.Data) == data {
			return true
		}
	}
	return false
}

func (m *toy) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

// world is a network in one bubble.
type world struct {
	t        *testing.T
	cluster  *porttest.Cluster
	settings group.Settings
	members  []*member

	mu      sync.Mutex
	records map[string]group.Record
}

// member is a node with its disk.
type member struct {
	w       *world
	port    *porttest.Member
	ip      string
	site    string
	fs      *vfs.MemFS
	machine *toy
	handler atomic.Pointer[http.Handler]
	rt      *http.Transport

	group  *group.Group
	cancel context.CancelFunc
	done   chan error
}

// network runs a test on virtual time.
func network(t *testing.T, s group.Settings, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, cluster: porttest.NewCluster(t, "north"), settings: s, records: map[string]group.Record{}}
		test(w)
		for _, m := range w.members {
			m.stop()
			m.rt.CloseIdleConnections()
		}
	})
}

func logger(name string) *slog.Logger {
	if os.Getenv("RAFT_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
}

// add makes a node that is not started, and no member.
func (w *world) add(site string) *member {
	w.t.Helper()
	ip := fmt.Sprintf("10.0.0.%d", len(w.members)+1)
	m := &member{w: w, ip: ip, site: site, fs: vfs.NewMem(), machine: newToy()}
	m.port = w.cluster.Start(w.t, ip, site, nil)
	m.rt = m.port.Transport(w.locate)
	w.members = append(w.members, m)
	m.serve()
	return m
}

// serve serves peer calls by whatever handler the node has.
func (m *member) serve() {
	m.w.t.Helper()
	l, err := m.port.Listen(port.Peer)
	if err != nil {
		m.w.t.Fatal(err)
	}
	s := port.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := m.handler.Load()
		if h == nil {
			call.Refuse(w, fault.New(fault.Unavailable, "not started"))
			return
		}
		(*h).ServeHTTP(w, r)
	}), slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			m.w.t.Errorf("serve: %v", err)
		}
	}()
	m.w.t.Cleanup(func() {
		s.Close()
		<-done
	})
}

func (w *world) locate(_ context.Context, node string) (string, error) {
	for _, m := range w.members {
		if m.id() == node {
			return m.port.Address, nil
		}
	}
	return "", fault.New(fault.NotFound, "no such node")
}

func (m *member) id() string { return m.port.ID() }

// directory stands for the catalogue's registry: it is the same at once everywhere.
func (w *world) directory() ([]group.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []group.Record
	for _, r := range w.records {
		all = append(all, r)
	}
	return all, nil
}

func (w *world) record(m *member, change func(*group.Record)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records[m.id()]
	r.ID, r.Site, r.Address = m.id(), m.site, m.port.Address
	if change != nil {
		change(&r)
	}
	w.records[m.id()] = r
}

func (m *member) open() {
	m.w.t.Helper()
	g, err := group.Open(group.Options{
		ID: m.id(), Address: m.port.Address, FS: m.fs, Dir: "data", Catalogue: m.machine, Directory: m.w.directory,
		Peers: call.NewClient(m.rt), Port: m.port.Port, Log: logger(m.ip), Settings: m.w.settings,
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.group = g
	h := g.Handler()
	m.handler.Store(&h)
}

func (m *member) run() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan error, 1)
	go func(g *group.Group, done chan error) { done <- g.Run(ctx) }(m.group, m.done)
}

func (m *member) start() {
	m.w.t.Helper()
	m.open()
	m.run()
}

// found makes a node the founder of the network and starts it.
func (m *member) found() {
	m.w.t.Helper()
	m.w.record(m, func(r *group.Record) { r.Founder = true })
	m.open()
	if err := m.group.Found(); err != nil {
		m.w.t.Fatal(err)
	}
	m.run()
}

func (m *member) stop() {
	m.w.t.Helper()
	if m.done == nil {
		return
	}
	m.handler.Store(nil)
	m.cancel()
	if err := <-m.done; err != nil {
		m.w.t.Error(m.ip, err)
	}
	m.done = nil
	if err := m.group.Close(); err != nil {
		m.w.t.Error(m.ip, err)
	}
}

// until waits on virtual time.
func (w *world) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// propose proposes at a node and reports how that went.
func (m *member) propose(data string, limit time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.group.Propose(ctx, []byte(data))
}

func (m *member) mustPropose(data string) uint64 {
	m.w.t.Helper()
	index, err := m.propose(data, time.Minute)
	if err != nil {
		m.w.t.Fatalf("%s: proposing %s: %v", m.ip, data, err)
	}
	if !m.machine.has(data) {
		m.w.t.Fatalf("%s: %s is not applied", m.ip, data)
	}
	return index
}
