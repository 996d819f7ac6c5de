package reach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is some sites in memory.
type network struct {
	t     testing.TB
	sites map[string]*site

	mu   sync.Mutex // guards what follows
	down map[string]bool

	asked, ranges atomic.Int64 // manifests and reads of packs that crossed between sites
}

func (n *network) isDown(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[node]
}

// cut makes a node answer nobody, or everybody again.
func (n *network) cut(node string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[node] = down
}

// site is one node.
type site struct {
	net     *network
	node    string
	fs      vfs.FS
	keys    *keys.Ring
	archive *archive.Archive
	copies  *cached.Store
	reader  *Reader
	limit   int64
	stop    func()
	unsure  atomic.Bool // gossip tells nothing here: all are taken to be alive
}

// newNetwork starts sites. None knows of what the others store before it is told.
func newNetwork(t testing.TB, nodes ...string) *network {
	n := &network{t: t, sites: map[string]*site{}, down: map[string]bool{}}
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
	self, err := identity.Open(s.fs, "data/keys")
	if err != nil {
		t.Fatal(err)
	}
	if s.keys, err = keys.Open(s.fs, "data/keys", self); err != nil {
		t.Fatal(err)
	}
	s.archive, err = archive.Open(archive.Options{
		FS: s.fs, Dir: "data", Node: s.node, Site: "site " + s.node, Keys: s.keys,
		TableBytes: 1 << 20, PackBytes: 64 << 10, Ballast: 1, CacheBytes: 1 << 20,
		Quiet: time.Hour, Age: time.Hour, Gather: time.Hour,
		Free: func() (int64, int64, error) { return 1 << 40, 1 << 40, nil },
	})
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
	s.reader = New(Options{Node: s.node, Archive: s.archive, Copies: s.copies, Client: client{s}, Nodes: hints{s}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- work.New(nil, append(s.archive.Tasks(), s.reader.Tasks()...)...).Run(ctx) }()
	s.stop = func() {
		cancel()
		err := <-ended
		s.copies.Close()
		if err := errors.Join(err, s.archive.Close(), s.keys.Close()); err != nil {
			t.Errorf("%s: %v", s.node, err)
		}
	}
}

// restart ends the site's node and starts it again on the same disk.
func (s *site) restart() {
	s.stop()
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
	fact := &catalog.SeriesFact{Origin: s.node, Site: "site " + s.node, Study: study, Series: series, Classes: []string{dimsetest.CTImageStorage}}
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
		results, err := s.net.sites[node].archive.Journal().Append(context.Background(), fact)
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

// client reads other sites as node/far does: whole packs are offered to be kept.
type client struct{ at *site }

func (c client) peer(node string) (*site, error) {
	if c.at.net.isDown(node) || c.at.net.isDown(c.at.node) {
		return nil, fault.New(fault.Unavailable, "%s does not answer", node)
	}
	return c.at.net.sites[node], nil
}

func (c client) Series(ctx context.Context, node, study, series string) (*far.Manifest, error) {
	return c.manifest(ctx, node, study, series, "")
}

func (c client) Find(ctx context.Context, node, sop string) (*far.Manifest, error) {
	peer, err := c.peer(node)
	if err != nil {
		return nil, err
	}
	for h, err := range peer.archive.Holdings(ctx, "", "", sop) {
		if err != nil {
			return nil, err
		}
		return c.manifest(ctx, node, h.Record.Study, h.Record.Series, "")
	}
	return nil, fault.New(fault.NotFound, "nothing")
}

func (c client) manifest(ctx context.Context, node, study, series, sop string) (*far.Manifest, error) {
	c.at.net.asked.Add(1)
	peer, err := c.peer(node)
	if err != nil {
		return nil, err
	}
	m := &far.Manifest{Node: node, Study: study, Series: series}
	at := map[string]int{}
	for h, err := range peer.archive.Holdings(ctx, study, series, sop) {
		if err != nil {
			return nil, err
		}
		in := far.Instance{Record: h.Record, Header: h.Header, Pack: -1}
		if len(h.Location.Pack) > 0 {
			i, ok := at[string(h.Location.Pack)]
			if !ok {
				i = len(m.Packs)
				at[string(h.Location.Pack)] = i
				p, err := peer.packOf(pack.ID(h.Location.Pack))
				if err != nil {
					return nil, err
				}
				m.Packs = append(m.Packs, p)
			}
			in.Pack, in.Chunks = i, archivepb.PackChunks(h.Location.Chunks)
		}
		m.Instances = append(m.Instances, in)
	}
	return m, nil
}

func (s *site) packOf(id pack.ID) (far.Pack, error) {
	p, _, err := s.archive.Ciphertext(id)
	if err != nil {
		return far.Pack{}, err
	}
	key, err := s.keys.Key([16]byte(p.Key))
	return far.Pack{
		ID: id, Study: p.Study, Series: p.Series, Bytes: p.BlobBytes, Plaintext: p.Plaintext, Manifest: p.Manifest,
		Root: [32]byte(p.Root), KeyID: [16]byte(p.Key), Key: key, Instances: p.Instances,
	}, err
}

func (c client) Read(m *far.Manifest, nodes ...string) Bytes {
	return &remote{client: c, m: m, nodes: append(nodes, m.Node), got: map[int]map[int64]bool{}}
}

// remote reads one manifest's bytes.
type remote struct {
	client client
	m      *far.Manifest
	nodes  []string

	mu  sync.Mutex
	got map[int]map[int64]bool // segments of packs
}

func (b *remote) Whole() {}

func (b *remote) Plaintext(i int) io.ReaderAt {
	p := b.m.Packs[i]
	return seal.Reader(remotePack{b, i}, p.Bytes, seal.PackKey(p.Key, p.ID))
}

// remotePack is a pack's ciphertext at whoever has it.
type remotePack struct {
	b *remote
	i int
}

func (r remotePack) ReadAt(p []byte, off int64) (int, error) {
	var failed error
	for _, node := range r.b.nodes {
		ciphertext, err := r.at(node)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		r.b.client.at.net.ranges.Add(1)
		n, err := ciphertext.ReadAt(p, off)
		if err == nil || errors.Is(err, io.EOF) {
			r.note(ciphertext, off, int64(n))
		}
		return n, err
	}
	return 0, fault.New(fault.Unavailable, "no node has the pack: %w", failed)
}

func (r remotePack) at(node string) (io.ReaderAt, error) {
	peer, err := r.b.client.peer(node)
	if err != nil {
		return nil, err
	}
	id := r.b.m.Packs[r.i].ID
	if _, ciphertext, err := peer.copies.Ciphertext(id); err == nil {
		return ciphertext, nil
	}
	_, ciphertext, err := peer.archive.Ciphertext(id)
	return ciphertext, err
}

// note offers the pack to be kept once all of it was read.
func (r remotePack) note(ciphertext io.ReaderAt, off, n int64) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	if r.b.got[r.i] == nil {
		r.b.got[r.i] = map[int64]bool{}
	}
	for at := off / seal.LeafBytes; at*seal.LeafBytes < off+n; at++ {
		r.b.got[r.i][at] = true
	}
	p := r.b.m.Packs[r.i]
	if int64(len(r.b.got[r.i])) < (p.Bytes+seal.LeafBytes-1)/seal.LeafBytes {
		return
	}
	if err := r.b.client.at.copies.Keep(context.Background(), p, ciphertext); err != nil && !fault.Is(err, fault.Full) {
		r.b.client.at.net.t.Errorf("keep: %v", err)
	}
}

func (b *remote) Staged(_ context.Context, i int) io.ReaderAt { return remoteStaged{b, i} }

type remoteStaged struct {
	b *remote
	i int
}

func (r remoteStaged) ReadAt(p []byte, off int64) (int, error) {
	peer, err := r.b.client.peer(r.b.m.Node)
	if err != nil {
		return 0, err
	}
	record := r.b.m.Instances[r.i].Record
	_, stored, done, err := peer.archive.Stored(context.Background(), record.Number, record.Sop)
	if err != nil {
		return 0, err
	}
	defer done()
	return stored.ReadAt(p, off)
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

// settle writes the copies that are waiting for others.
func (s *site) settle() {
	s.net.t.Helper()
	if err := s.copies.Flush(context.Background()); err != nil {
		s.net.t.Fatal(err)
	}
}

// delete writes a tombstone into a site's catalogue.
func (s *site) delete(study, series, sop string) {
	s.net.t.Helper()
	results, err := s.archive.Journal().Append(context.Background(), &catalog.TombstoneFact{
		Study: study, Series: series, Instance: sop, Tick: time.Now().Unix(), By: "test",
	})
	if err := errors.Join(append(results, err)...); err != nil {
		s.net.t.Fatal(err)
	}
}

func readerAt(b []byte) io.ReaderAt { return bytes.NewReader(b) }

func hashOf(b []byte) [32]byte { return blake3.Sum256(b) }
