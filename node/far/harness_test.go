package far_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/node/far"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is nodes that call each other's handlers, without sockets.
type network struct {
	mu     sync.Mutex
	nodes  map[string]*node
	broken map[string]func(*http.Request, http.Handler) http.Handler // in the way of a node
}

func newNetwork() *network {
	return &network{nodes: map[string]*node{}, broken: map[string]func(*http.Request, http.Handler) http.Handler{}}
}

// node is a node with an archive in memory.
type node struct {
	*archive.Archive
	t       testing.TB
	net     *network
	self    *identity.Node
	site    string
	handler http.Handler
	barred  bool

	mu       sync.Mutex
	accesses []far.Access
	audited  *sync.Cond       // of mu: accesses has grown
	sent     map[string]int64 // bytes by the beginning of the path
	requests map[string]int
}

func (n *network) node(t testing.TB, site string) *node {
	t.Helper()
	fs := vfs.NewMem()
	self, err := identity.Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := self.FirstEpoch(); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Open(fs, "keys", self)
	if err != nil {
		t.Fatal(err)
	}
	o := archive.Options{
		FS: fs, Dir: "data", Node: self.ID(), Site: site, Keys: ring,
		TableBytes: 64 << 20, PackBytes: 1 << 20, Ballast: 1, CacheBytes: 1 << 20,
		Quiet: time.Hour, Age: time.Hour, Gather: time.Hour,
		Free: func() (int64, int64, error) { return 1 << 40, 1 << 40, nil },
	}
	if o.Catalog, err = archive.OpenCatalog(o); err != nil {
		t.Fatal(err)
	}
	solo := catalogtest.Alone(o.Catalog)
	o.Propose, o.Decide, o.Signer = solo, solo, catalogtest.SignerOf(o.Node)
	if _, err := solo.Decide(t.Context(), nil, catalogtest.Member(o.Node, site)); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	one := n.serve(t, site, self, a)
	one.Archive = a
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, a.Close(), o.Catalog.Close(), ring.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return one
}

// serve makes a node that serves a source.
func (n *network) serve(t testing.TB, site string, self *identity.Node, from far.Source) *node {
	one := &node{t: t, net: n, self: self, site: site, sent: map[string]int64{}, requests: map[string]int{}}
	one.audited = sync.NewCond(&one.mu)
	one.handler = far.NewHandler(far.HandlerOptions{
		Source: from, Members: n,
		Audit: func(_ context.Context, a far.Access) {
			one.mu.Lock()
			defer one.mu.Unlock()
			one.accesses = append(one.accesses, a)
			one.audited.Broadcast()
		},
		Peer: n.peer,
	})
	n.mu.Lock()
	n.nodes[self.ID()] = one
	n.mu.Unlock()
	return one
}

// waitAudited waits for so many entries: who asks has his answer before the audit has
// its entry.
func (one *node) waitAudited(entries int) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for len(one.accesses) < entries {
		one.audited.Wait()
	}
}

// plain makes a node without an archive of its own.
func (n *network) plain(t testing.TB, site string, from far.Source) *node {
	t.Helper()
	self, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	return n.serve(t, site, self, from)
}

// between puts something in the way of a node's handler; nil: the node is gone.
func (n *network) between(id string, do func(*http.Request, http.Handler) http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken[id] = do
}

// SealingKey implements far.Members.
func (n *network) SealingKey(id string) ([32]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if one := n.nodes[id]; one != nil && !one.barred {
		return one.self.Sealing(), nil
	}
	return [32]byte{}, fault.New(fault.Denied, "no member")
}

const callerHeader = "Test-Caller"

func (n *network) peer(r *http.Request) (authority.Name, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := n.nodes[r.Header.Get(callerHeader)]
	if one == nil {
		return authority.Name{}, errors.New("a stranger")
	}
	return authority.Name{Network: "test", Site: one.site, Node: one.self.ID()}, nil
}

// client returns a client of a node's, closed at the end of the test.
func (one *node) client(configure func(*far.Options)) *far.Client {
	o := far.Options{Calls: call.NewClient(wire{one}), Self: one.self}
	if configure != nil {
		configure(&o)
	}
	c := far.NewClient(o)
	one.t.Cleanup(func() { c.Close() })
	return c
}

// wire carries a node's requests to the handlers of others.
type wire struct{ from *node }

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	n := w.from.net
	n.mu.Lock()
	to, breaking := n.nodes[r.URL.Host], n.broken[r.URL.Host]
	n.mu.Unlock()
	if to == nil {
		return nil, errors.New("no such host")
	}
	handler := to.handler
	if breaking != nil {
		if handler = breaking(r, handler); handler == nil {
			return nil, errors.New("connection refused")
		}
	}
	in := r.Clone(r.Context())
	in.Header.Set(callerHeader, w.from.self.ID())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, out := io.Pipe()
	answer := &answer{header: http.Header{}, out: out, began: make(chan struct{}), to: to, path: r.URL.Path}
	stop := context.AfterFunc(r.Context(), func() { out.CloseWithError(r.Context().Err()) })
	go func() {
		defer stop()
		defer func() {
			if e := recover(); e != nil {
				out.CloseWithError(errors.New("stream reset"))
				answer.WriteHeader(http.StatusInternalServerError)
			}
		}()
		handler.ServeHTTP(answer, in)
		answer.WriteHeader(http.StatusOK)
		out.Close()
	}()
	select {
	case <-answer.began:
		return &http.Response{StatusCode: answer.status, Header: answer.header, Body: body, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// answer is an http.ResponseWriter into a pipe.
type answer struct {
	header http.Header
	out    *io.PipeWriter
	once   sync.Once
	status int
	began  chan struct{}
	to     *node
	path   string
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	a.once.Do(func() {
		a.status = status
		a.to.count(a.path, 0, 1)
		close(a.began)
	})
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	n, err := a.out.Write(b)
	a.to.count(a.path, int64(n), 0)
	return n, err
}

func (a *answer) Flush() {}

func (one *node) count(path string, bytes int64, requests int) {
	for _, kind := range []string{"/archive/open", "/archive/pack", "/archive/staged"} {
		if strings.HasPrefix(path, kind) {
			one.mu.Lock()
			one.sent[kind] += bytes
			one.requests[kind] += requests
			one.mu.Unlock()
		}
	}
}

// sentOf is how many bytes a node sent, of ranges of packs say.
func (one *node) sentOf(kind string) int64 {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.sent["/archive/"+kind]
}

func (one *node) requestsFor(kind string) int {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.requests["/archive/"+kind]
}

// small is an image whose series has packs of a few, and whose names sort as they
// arrive only up to a point.
func small(seed uint64, n int) dimsetest.Instance {
	i := dimsetest.CT(seed, n)
	i.Rows, i.Columns = 300, 300
	return i
}

// store stores instances that must be taken.
func (one *node) store(all ...dimsetest.Instance) {
	one.t.Helper()
	for _, i := range all {
		syntax := i.Syntax
		if syntax == "" {
			syntax = dimsetest.ExplicitLittleEndian
		}
		s, err := one.Store(context.Background(), archive.Incoming{Syntax: syntax, Body: bytes.NewReader(i.Dataset())})
		if err != nil || s.Outcome != archive.New {
			one.t.Fatalf("store: %d, %v", s.Outcome, err)
		}
	}
}

// pack packs what is staged.
func (one *node) pack() {
	one.t.Helper()
	if err := one.Pack(context.Background()); err != nil {
		one.t.Fatal(err)
	}
}

// series makes n small images.
func series(seed uint64, n int) []dimsetest.Instance {
	all := make([]dimsetest.Instance, n)
	for i := range all {
		all[i] = small(seed, i)
	}
	return all
}
