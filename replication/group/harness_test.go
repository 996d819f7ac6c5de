package group_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
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
	breach  bool // its records do not fit
	newer   bool // it knows the entries of a newer version

	read   int // entries that newest is of
	newest map[string]uint64

	fs       vfs.FS
	admit    func(from string, entry []byte) error // nil: all
	registry func(kind string) (map[string][]byte, error)
	replaced int

	preparing, verifying chan struct{} // what they wait for; nil: for nothing
	verified             int
}

func newToy(fs vfs.FS) *toy {
	return &toy{fs: fs, changed: make(chan struct{}), newest: map[string]uint64{}}
}

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

// Admit refuses what begins with "newer", unless the machine is, and what the
// test does.
func (m *toy) Admit(from string, entry []byte) (bool, error) {
	if m.admit != nil {
		if err := m.admit(from, entry); err != nil {
			return false, err
		}
	}
	if !m.newer && strings.HasPrefix(string(entry), "newer") {
		return false, fault.New(fault.Unsupported, "an entry of a newer version")
	}
	return strings.HasPrefix(string(entry), "again"), nil
}

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

// state is a toy's in a file.
type state struct {
	At      replication.Position
	Entries []replication.Entry
	Hash    [32]byte
	Breach  bool
}

const toyFiles = 40

func (m *toy) Checkpoint(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(state{m.at, m.entries, m.hash, m.breach})
	if err != nil {
		return err
	}
	if err := m.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range toyFiles {
		f, err := m.fs.Create(m.fs.PathJoin(dir, fmt.Sprintf("%02d", i)), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		part := b[len(b)*i/toyFiles : len(b)*(i+1)/toyFiles]
		if _, err := f.Write(slices.Clone(part)); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func (m *toy) load(dir string) (s state, err error) {
	var b []byte
	for i := range toyFiles {
		f, err := m.fs.Open(m.fs.PathJoin(dir, fmt.Sprintf("%02d", i)))
		if err != nil {
			return s, err
		}
		part, err := io.ReadAll(f)
		if err != nil {
			return s, err
		}
		b = append(b, part...)
		f.Close()
	}
	return s, json.Unmarshal(b, &s)
}

func (m *toy) Prepare(ctx context.Context, dir, _ string) ([32]byte, uint64, error) {
	if err := held(ctx, m.preparing); err != nil {
		return [32]byte{}, 0, err
	}
	s, err := m.load(dir)
	return s.Hash, s.At.Index, err
}

// held waits for a hold, if there is one.
func held(ctx context.Context, hold chan struct{}) error {
	if hold == nil {
		return nil
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Verify finds the breach that the machine has, or had where it was copied from.
func (m *toy) Verify(ctx context.Context, bad func(error)) error {
	if err := held(ctx, m.verifying); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verified++
	if m.breach {
		bad(errors.New("a breach"))
	}
	return nil
}

func (m *toy) Replace(_ context.Context, dir string) error {
	s, err := m.load(dir)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.entries, m.hash, m.breach = s.At, s.Entries, s.Hash, s.Breach
	m.replaced++
	m.read, m.newest = 0, map[string]uint64{}
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *toy) Registry(kind string) (map[string][]byte, error) { return m.registry(kind) }

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

// versions returns the newest version of each fact.
func (m *toy) versions() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; m.read < len(m.entries); m.read++ {
		var key string
		var version uint64
		if n, _ := fmt.Sscanf(string(m.entries[m.read].Data), "fact %s %d", &key, &version); n == 2 {
			m.newest[key] = max(m.newest[key], version)
		}
	}
	return maps.Clone(m.newest)
}

func (m *toy) copied() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.replaced
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
	admit    func(from string, entry []byte) error
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

	mu    sync.Mutex
	delay func(file string) time.Duration
	files int // of checkpoints, or pieces of them, that were asked for

	used   bool         // it has run before
	kept   atomic.Int64 // what the journal says
	group  *group.Group
	cancel context.CancelFunc
	done   chan error
}

// network runs a test on virtual time.
func network(t *testing.T, s group.Settings, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, cluster: porttest.NewCluster(t, "north"), settings: s, records: map[string]group.Record{}}
		defer func() {
			for _, m := range w.members {
				m.stop()
				m.rt.CloseIdleConnections()
			}
		}()
		test(w)
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
	m := &member{w: w, ip: ip, site: site, fs: vfs.NewMem()}
	m.machine = newToy(m.fs)
	m.machine.admit = m.w.admit
	m.machine.registry = w.registry
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
		if strings.HasPrefix(r.URL.Path, "/raft/checkpoint/") {
			m.mu.Lock()
			m.files++
			delay := m.delay
			m.mu.Unlock()
			if delay != nil {
				time.Sleep(delay(r.URL.Path))
			}
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

func (m *member) slow(delay func(file string) time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = delay
}

func (m *member) fetched() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files
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

// registry stands for that of the catalogue: it is the same at once everywhere.
func (w *world) registry(kind string) (map[string][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][]byte{}
	for id, r := range w.records {
		switch {
		case kind == catalog.KindRevoked && r.Revoked:
			all[id] = []byte{1}
		case kind == catalog.KindMember:
			value, err := proto.Marshal(&catalogpb.Member{
				Site: r.Site, Address: r.Address, PublicKey: make([]byte, 32), Witness: r.Witness, Barred: r.Barred, Founder: r.Founder, Drained: r.Drained,
			})
			if err != nil {
				return nil, err
			}
			all[id] = value
		}
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
		ID: m.id(), Address: m.port.Address, FS: m.fs, Dir: "data", Catalogue: m.machine, Signer: m.port.Self,
		Peers: call.NewClient(m.rt), Port: m.port.Port, Log: logger(m.ip), Settings: m.w.settings, Newcomer: !m.used,
		Kept: func() time.Duration { return time.Duration(m.kept.Load()) },
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.group = g
	h := g.Handler()
	m.handler.Store(&h)
}

func (m *member) run() {
	m.used = true
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

func (m *member) mustPropose(data string) (index uint64) {
	m.w.t.Helper()
	m.w.until("proposing "+data, time.Minute, func() bool {
		var err error
		if index, err = m.propose(data, time.Minute); err != nil && !fault.Is(err, fault.Unavailable) {
			m.w.t.Fatalf("%s: proposing %s: %v", m.ip, data, err)
		}
		return err == nil
	})
	if !m.machine.has(data) {
		m.w.t.Fatalf("%s: %s is not applied", m.ip, data)
	}
	return index
}
