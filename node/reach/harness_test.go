package reach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/node/recalled"
	"pelago/node/work"
	"pelago/query"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/keys"
	"pelago/shard/pack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is some sites in memory.
type network struct {
	t     testing.TB
	sites map[string]*site

	mu      sync.Mutex // guards what follows
	down    map[string]bool
	silent  map[string]bool // nodes that take calls and say nothing
	sealing map[string][32]byte
	held    chan struct{} // if not nil, reads of packs wait until it is closed

	asked, ranges atomic.Int64 // manifests and reads of packs that crossed between sites
	located       atomic.Int64 // questions where instances are
	bytes         sync.Map     // *atomic.Int64 of bytes that a node sent to another, by both names
}

func (n *network) isDown(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[node]
}

func (n *network) isSilent(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.silent[node]
}

// silence makes a node take calls and say nothing.
func (n *network) silence(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[node] = true
}

// cut makes a node answer nobody, or everybody again.
func (n *network) cut(node string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[node] = down
}

// site is one node.
type site struct {
	solo    *alone.Solo // decides for the site's own catalogue
	net     *network
	node    string
	fs      vfs.FS
	self    *identity.Node
	keys    *keys.Ring
	archive *archive.Archive
	copies  *cached.Store
	reader  *Reader
	limit   int64
	keeper  *keeper
	far     *far.Client
	packs   atomic.Pointer[recalled.Client] // nil: no shards
	stop    func()

	listener *dimsetest.Listener
	handler  http.Handler
	dialer   *http.Transport

	rests  bool        // what is lost here is not fetched back in the background
	unsure atomic.Bool // gossip tells nothing here: all are taken to be alive
}

// newNetwork starts sites. None knows of what the others store before it is told.
func newNetwork(t testing.TB, nodes ...string) *network {
	n := &network{t: t, sites: map[string]*site{}, down: map[string]bool{}, silent: map[string]bool{}, sealing: map[string][32]byte{}}
	for _, node := range nodes {
		s := &site{net: n, node: node, fs: vfs.NewMem(), limit: 64 << 20}
		n.sites[node] = s
		s.start()
	}
	t.Cleanup(func() {
		for _, s := range n.sites {
			s.stop()
		}
	})
	return n
}

// start opens the site's node.
func (s *site) start() {
	t := s.net.t
	t.Helper()
	var err error
	if s.self, err = identity.Open(s.fs, "data/keys"); err != nil {
		t.Fatal(err)
	}
	if err := s.self.FirstEpoch(); err != nil {
		t.Fatal(err)
	}
	s.net.mu.Lock()
	s.net.sealing[s.node] = s.self.Sealing()
	s.net.mu.Unlock()
	if s.keys, err = keys.Open(s.fs, "data/keys", s.self); err != nil {
		t.Fatal(err)
	}
	o := archive.Options{
		FS: s.fs, Dir: "data", Node: s.node, Site: "site " + s.node, Keys: s.keys,
		TableBytes: 1 << 20, PackBytes: 64 << 10, Ballast: 1, CacheBytes: 1 << 20,
		Quiet: time.Hour, Age: time.Hour, Gather: time.Hour,
		Free: func() (int64, int64, error) { return 1 << 40, 1 << 40, nil },
	}
	if o.Catalog, err = archive.OpenCatalog(o); err != nil {
		t.Fatal(err)
	}
	s.solo = catalogtest.Alone(o.Catalog)
	o.Propose, o.Decide, o.Signer = s.solo, s.solo, catalogtest.SignerOf(s.node)
	if _, err := s.solo.Decide(context.Background(), nil, catalogtest.Member(s.node, o.Site)); err != nil {
		t.Fatal(err)
	}
	s.archive, err = archive.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s.copies, err = cached.Open(cached.Options{
		Bulk: s.archive.Bulk(), Ring: s.keys, Limit: s.limit, Reserve: s.archive.Reserve,
		Copies: s.archive.Rows("copies"), Told: s.archive.Rows("told"), Opened: s.archive.Rows("opened"),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.keeper = &keeper{copies: s.copies, kept: map[pack.ID]bool{}, moved: make(chan struct{})}
	closeFar := s.serve()
	s.reader = New(Options{Node: s.node, Archive: s.archive, Copies: s.copies, Client: Far(s.far), Nodes: hints{s}, Locate: s.locate})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	tasks := append(s.archive.Tasks(), s.reader.Tasks()...)
	if s.rests {
		tasks = slices.DeleteFunc(tasks, func(t work.Task) bool { return strings.HasPrefix(t.Name, "mend_") })
	}
	go func() { ended <- work.New(nil, tasks...).Run(ctx) }()
	s.stop = func() {
		cancel()
		err := errors.Join(<-ended, closeFar())
		s.reader.Close()
		s.copies.Close()
		if err := errors.Join(err, s.archive.Close(), s.archive.Catalog().Close(), s.keys.Close()); err != nil {
			t.Errorf("%s: %v", s.node, err)
		}
	}
}

// restart ends the site's node and starts it again on the same disk.
func (s *site) restart() {
	s.stop()
	s.start()
}

// forget has a site's node start on an empty disk.
func (s *site) forget() {
	s.stop()
	s.fs = vfs.NewMem()
	s.start()
}

// loseTables takes away the tables that a site's packs rest in.
func (s *site) loseTables() {
	t := s.net.t
	t.Helper()
	s.tables(func(name string) {
		if err := s.fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	})
}

// rotTables has a byte of each table rot that a site's packs rest in.
func (s *site) rotTables() {
	s.net.t.Helper()
	s.tables(func(name string) { bulktest.Rot(s.net.t, s.fs, name, 2000) })
}

// tables changes each table while the site is down.
func (s *site) tables(change func(name string)) {
	t := s.net.t
	t.Helper()
	s.restart() // lets the segment go that was being written
	s.stop()
	tables, err := s.fs.List("data/bulk/tables")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		if strings.HasSuffix(name, ".sst") {
			change("data/bulk/tables/" + name)
		}
	}
	s.start()
}

// store stores instances at a site.
func (s *site) store(all ...dimsetest.Instance) {
	s.net.t.Helper()
	for _, in := range all {
		_, err := s.archive.Store(context.Background(), archive.Incoming{
			Sender: archive.Sender{CallingAE: "MODALITY"}, Syntax: dict.ExplicitLittleEndian, Body: bytes.NewReader(in.Dataset()),
		})
		if err != nil {
			s.net.t.Fatal(err)
		}
	}
}

// pack packs what is stored at a site.
func (s *site) pack() {
	s.net.t.Helper()
	if err := s.archive.Pack(context.Background()); err != nil {
		s.net.t.Fatal(err)
	}
}

// announce tells the other sites' catalogues what a site holds of a series.
func (s *site) announce(study, series string, to ...string) {
	s.net.t.Helper()
	fact := &catalog.SeriesFact{Origin: s.node, Site: "site " + s.node, Study: study, Series: series, Classes: []string{dimsetest.CTImageStorage},
		Reserved: study == archive.ReservedStudy}
	for ref, err := range s.archive.Select(context.Background(), study, series, "") {
		if err != nil {
			s.net.t.Fatal(err)
		}
		fact.Instances++
		fact.Bytes += uint64(ref.Bytes)
		fact.AsOf = max(fact.AsOf, ref.Number)
		archive.AddUID(&fact.UIDHash, ref.SOP)
	}
	for _, node := range to {
		results, err := s.net.sites[node].solo.Do(fact)
		if err := errors.Join(append(results, err)...); err != nil {
			s.net.t.Fatal(err)
		}
	}
}

// images makes the n images of a series from a number on.
func images(seed uint64, from, n int) []dimsetest.Instance {
	all := make([]dimsetest.Instance, n)
	for i := range all {
		all[i] = dimsetest.CT(seed, from+i)
		all[i].Rows, all[i].Columns = 100, 90
	}
	return all
}

// serve opens a site's peer service, and returns the client of the others'.
func (s *site) serve() (done func() error) {
	s.far = far.NewClient(far.Options{
		Calls: call.NewClient(transport{s}), Self: named{s.self, s.node}, Keep: s.keeper, Memory: 16 << 20, Packs: onShards{s}, Alive: hints{s}.Alive,
	})
	handler := far.NewHandler(far.HandlerOptions{
		Source: Source{s.archive, s.copies}, Members: s.net,
		Told: func(ctx context.Context, origin, study, series string) (*far.Manifest, error) {
			return s.reader.Told(ctx, origin, study, series)
		},
		Peer: func(r *http.Request) (authority.Name, error) {
			from := r.Header.Get("From")
			return authority.Name{Node: from, Site: "site " + from}, nil
		},
	})
	s.listener = dimsetest.Listen()
	var answering sync.RWMutex // a server that is closed does not wait for its answers
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answering.TryRLock() {
			panic(http.ErrAbortHandler)
		}
		defer answering.RUnlock()
		handler.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: s.handler}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.listener) }()
	s.dialer = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.listener.Dial(ctx) }}
	return func() error {
		err := errors.Join(s.far.Close(), server.Close())
		<-ended
		s.dialer.CloseIdleConnections()
		answering.Lock() // for good
		return err
	}
}

// onShards reads packs from what shards there are.
type onShards struct{ at *site }

func (o onShards) ReadPack(ctx context.Context, p *far.Pack, b []byte, off int64) error {
	if packs := o.at.packs.Load(); packs != nil {
		return packs.ReadPack(ctx, p, b, off)
	}
	return fault.New(fault.NotFound, "there are no shards")
}

// named is a node's key under the name that a test has for it.
type named struct {
	*identity.Node
	name string
}

func (n named) ID() string { return n.name }

// SealingKey implements [far.Members].
func (n *network) SealingKey(node string) ([32]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sealing[node], nil
}

// transport carries a site's calls to the others.
type transport struct{ from *site }

func (c transport) RoundTrip(r *http.Request) (*http.Response, error) {
	n := c.from.net
	node := r.URL.Host
	if n.isDown(node) || n.isDown(c.from.node) {
		return nil, fault.New(fault.Unavailable, "%s does not answer", node)
	}
	if n.isSilent(node) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	if r.URL.Path == "/archive/open" {
		n.asked.Add(1)
	} else {
		n.ranges.Add(1)
		n.await(r.Context())
	}
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	r.Header.Set("From", c.from.node)
	response, err := n.sites[node].dialer.RoundTrip(r)
	if err == nil {
		response.Body = counted{response.Body, n.sent(node, c.from.node)}
	}
	return response, err
}

// locate asks another site where instances are.
func (s *site) locate(ctx context.Context, node string, sops []string) (found []query.Instance, err error) {
	if s.net.isDown(node) || s.net.isDown(s.node) {
		return nil, fault.New(fault.Unavailable, "%s does not answer", node)
	}
	s.net.located.Add(1)
	for _, sop := range sops {
		all, err := s.net.sites[node].archive.Instances().Find(ctx, sop)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		found = append(found, all...)
	}
	return found, nil
}

// sent counts the bytes that a node sent to another.
func (n *network) sent(from, to string) *atomic.Int64 {
	count, _ := n.bytes.LoadOrStore(from+">"+to, new(atomic.Int64))
	return count.(*atomic.Int64)
}

// counted counts a body.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// hints is gossip as a site sees it.
type hints struct{ at *site }

func (h hints) Others() []string {
	var others []string
	for node := range h.at.net.sites {
		if node != h.at.node {
			others = append(others, node)
		}
	}
	return others
}

func (h hints) Alive(node string) bool { return h.at.unsure.Load() || !h.at.net.isDown(node) }

// read opens what is selected and returns the bytes by SOP Instance UID.
func (s *site) read(study, series, sop string) (map[string][]byte, []error) {
	got := map[string][]byte{}
	var failed []error
	for ref, err := range s.reader.Select(context.Background(), study, series, sop) {
		if err != nil {
			failed = append(failed, err)
			continue
		}
		b, err := s.open(ref)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		got[ref.SOP] = b
	}
	return got, failed
}

func (s *site) open(ref archive.Ref) ([]byte, error) {
	in, err := s.reader.Open(context.Background(), ref)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if header := in.Header().Dataset.String(dict.SOPInstanceUID); header != ref.SOP {
		return nil, fault.New(fault.Mismatch, "the header is of %s", header)
	}
	return io.ReadAll(io.NewSectionReader(in.Stored(), 0, ref.Bytes))
}

// same checks that a site reads images, all of them and no others, byte for byte.
func (s *site) same(study, series, sop string, want ...dimsetest.Instance) {
	s.net.t.Helper()
	got, failed := s.read(study, series, sop)
	if len(failed) > 0 {
		s.net.t.Errorf("%s: %v", s.node, failed)
	}
	if len(got) != len(want) {
		s.net.t.Errorf("%s: %d instances, want %d", s.node, len(got), len(want))
	}
	for _, in := range want {
		if b, ok := got[in.SOPInstanceUID]; !ok {
			s.net.t.Errorf("%s: %s is not there", s.node, in.SOPInstanceUID)
		} else if !bytes.Equal(b, in.Dataset()) {
			s.net.t.Errorf("%s: %s came back different", s.node, in.SOPInstanceUID)
		}
	}
}

// settle waits until the packs of what another site holds of a series are kept.
func (s *site) settle(study, series, node string) {
	s.net.t.Helper()
	k := s.reader.recall(seriesAt{study, series, node})
	if k == nil || len(k.Packs) == 0 {
		s.net.t.Fatal("no packs to be kept")
	}
	for _, p := range k.Packs {
		s.keeper.wait(s.net.t, p.ID)
	}
	if err := s.copies.Flush(context.Background()); err != nil {
		s.net.t.Fatal(err)
	}
}

// keeper tells when packs were kept.
type keeper struct {
	copies *cached.Store

	mu    sync.Mutex // guards what follows
	kept  map[pack.ID]bool
	moved chan struct{} // closed with every pack
}

func (k *keeper) Keep(ctx context.Context, p far.Pack, ciphertext io.ReaderAt) error {
	err := k.copies.Keep(ctx, p, ciphertext)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[p.ID] = err == nil
	close(k.moved)
	k.moved = make(chan struct{})
	return err
}

func (k *keeper) wait(t testing.TB, id pack.ID) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		k.mu.Lock()
		kept, moved := k.kept[id], k.moved
		k.mu.Unlock()
		if kept {
			return
		}
		select {
		case <-moved:
		case <-late:
			t.Fatal("a pack is not kept")
		}
	}
}

// delete writes a tombstone into a site's catalogue.
func (s *site) delete(study, series, sop string) {
	s.net.t.Helper()
	results, err := s.solo.Do(&catalog.TombstoneFact{
		Study: study, Series: series, Instance: sop, Tick: time.Now().Unix(), By: "test",
	})
	if err := errors.Join(append(results, err)...); err != nil {
		s.net.t.Fatal(err)
	}
}

func readerAt(b []byte) io.ReaderAt { return bytes.NewReader(b) }

func hashOf(b []byte) [32]byte { return blake3.Sum256(b) }

// eventually waits for what goes on in the background.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(late) {
			t.Fatal("it does not happen")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
