package schedule

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/evict"
	"pelago/node/protect"
	"pelago/node/purge"
	"pelago/node/spread"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// bug is a deliberate fault, put between the parts of a node; nil is none.
type bug struct {
	name   string
	cost   string // whom
	caught string // part of what the suite finds

	packs   func(*archive.Archive) spread.Packs
	spread  func(s *node) spread.Holders
	protect func(s *node) protect.Shards
	evict   func(s *node, o *evict.Options)
	purge   func(s *node, o *purge.Options)
	start   func(s *node)
	disk    func(s *node, disk vfs.FS) vfs.FS
	after   func(l *life, step string)
	loses   bool // a holder loses shards besides, which is no fault of the parts
}

// The bugs. Others live in the tests of node/protect, node/repair and node/purge.
var bugs = []*bug{
	{
		name:   "acknowledged at exactly k",
		cost:   "stores that answer once the data shards are written, and lose a site before the parity is",
		caught: "whose receipt is told",
		spread: func(s *node) spread.Holders { return assumed{s.client, s.n.nodes[2].id()} },
		protect: func(s *node) protect.Shards {
			return assumed{s.client, s.n.nodes[2].id()}
		},
	},
	{
		name:   "C-STORE acknowledged before it is synced",
		cost:   "archives on a file system that keeps what is written for 30 s",
		caught: "cannot read",
		disk:   unsynced(0, "staging"),
		after:  cutAfter("stored", 0),
	},
	{
		name:   "a receipt before the shard is synced",
		cost:   "replicas that answer from memory, all of which lose power at once",
		caught: "whose receipt is told",
		disk:   unsynced(1, "store", "bulk"),
		after:  cutAfter("committed", 1),
	},
	{
		name:   "purge of the unreferenced at start-up",
		cost:   "stores that look for orphans before they know all references",
		caught: "cannot read",
		start:  (*node).purgeUnreferenced,
		after:  cutAfter("committed", 1),
	},
	{
		name:   "eviction before receipts",
		cost:   "tiering that drops the local copy when the upload is queued",
		caught: "when the copy is evicted",
		evict: func(s *node, o *evict.Options) {
			o.Own, o.Survives = shown{s}, func(context.Context, pack.ID) error { return nil }
		},
	},
	{
		name:   "eviction by proofs of another day",
		cost:   "tiering that believes what it wrote down about the other tier",
		caught: "when the copy is evicted",
		evict: func(_ *node, o *evict.Options) {
			o.Holders, o.Survives = believed{o.Holders}, func(context.Context, pack.ID) error { return nil }
		},
		after: func(l *life, step string) {
			if step == "committed" {
				l.nodes[2].dropAll(func(held.Name) bool { return true })
			}
		},
		loses: true,
	},
	{
		name:   "dedupe that deletes the only copy",
		cost:   "dcm4chee #4754: the same SOP Instance UID twice in a row deleted both files",
		caught: "when the copy is evicted",
		evict: func(s *node, o *evict.Options) {
			o.Packs = deduped{evictable: o.Packs.(evictable), s: s}
		},
	},
	{
		name:   "bad padding at the tail",
		cost:   "erasure coders that pad a last column by other bytes than they decode it by",
		caught: "not committed",
		packs:  func(a *archive.Archive) spread.Packs { return padded{a} },
	},
	{
		name:   "tombstones that expire by a clock",
		cost:   "stores with a gc grace in wall-clock time: a clock that is set forward drops what could be restored",
		caught: "before the grace is over",
		purge: func(_ *node, o *purge.Options) {
			began := time.Now()
			o.Monotonic = func() time.Duration { return 600 * time.Since(began) }
		},
	},
}

// No two lives are the same: in one of many a holder is busy when a shard comes, another
// stands in for it, and the bug meets nothing. The families of crashes are hundreds of lives.
func TestDeliberateBugsAreCaught(t *testing.T) {
	const lives = 6
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			var found []string
			for range lives {
				l := inLife(t, b, nil)
				for _, what := range l.found {
					if strings.Contains(what, b.caught) {
						return
					}
				}
				found = append(found, l.found...)
			}
			t.Errorf("not caught in %d lives; found: %q", lives, found)
		})
	}
}

// The page that lists them lists these.
func TestTheBugsAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs {
		if !strings.Contains(string(page), "| "+b.name+" |") {
			t.Errorf("docs/faults.md has no line of %q", b.name)
		}
	}
}

func (b *bug) striping(a *archive.Archive) spread.Packs {
	if b == nil || b.packs == nil {
		return a
	}
	return b.packs(a)
}

func (b *bug) spreading(s *node) spread.Holders {
	if b == nil || b.spread == nil {
		return s.client
	}
	return b.spread(s)
}

func (b *bug) proofs(s *node) protect.Shards {
	if b == nil || b.protect == nil {
		return s.client
	}
	return b.protect(s)
}

func (b *bug) evicting(s *node, o evict.Options) evict.Options {
	if b != nil && b.evict != nil {
		b.evict(s, &o)
	}
	return o
}

func (b *bug) purging(s *node, o purge.Options) purge.Options {
	if b != nil && b.purge != nil {
		b.purge(s, &o)
	}
	return o
}

func (b *bug) starting(s *node) {
	if b != nil && b.start != nil {
		b.start(s)
	}
}

// syncing is the disk of a node.
func (b *bug) syncing(s *node, disk vfs.FS) vfs.FS {
	if b == nil || b.disk == nil {
		return disk
	}
	return b.disk(s, disk)
}

// cutAfter has a node lose power behind a step.
func cutAfter(step string, index int) func(*life, string) {
	return func(l *life, done string) {
		if done == step {
			l.cut(l.nodes[index])
		}
	}
}

// assumed takes whatever is asked of one node for granted.
type assumed struct {
	*held.Client
	node string
}

// Upload implements [spread.Holders].
func (a assumed) Upload(ctx context.Context, node string, offers []held.Offer) (*held.Landed, error) {
	if node != a.node {
		return a.Client.Upload(ctx, node, offers)
	}
	entries := make([]held.Entry, len(offers))
	for i, o := range offers {
		entries[i] = o.Entry
	}
	return granted(node, entries), nil
}

// Receipts implements [protect.Shards].
func (a assumed) Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error) {
	if node != a.node {
		return a.Client.Receipts(ctx, node, entries)
	}
	return granted(node, entries), nil
}

// Prove implements [protect.Shards].
func (a assumed) Prove(ctx context.Context, node string, all []held.Audit) ([]error, error) {
	if node != a.node {
		return a.Client.Prove(ctx, node, all)
	}
	return make([]error, len(all)), nil
}

func granted(node string, entries []held.Entry) *held.Landed {
	l := &held.Landed{Outcomes: make([]held.Outcome, len(entries)), Receipt: &held.Receipt{Holder: node, Entries: entries}}
	for i := range l.Outcomes {
		l.Outcomes[i] = held.Stored
	}
	return l
}

// believed takes other holders' proofs for granted.
type believed struct{ evict.Holders }

// Prove implements [evict.Holders].
func (believed) Prove(_ context.Context, _ string, all []held.Audit) ([]error, error) {
	return make([]error, len(all)), nil
}

// shown takes what can be cut from the copy for what is held.
type shown struct{ *node }

// Land implements [held.Lander].
func (s shown) Land(_ context.Context, claims []held.Claim, from io.Reader) (*held.Landed, error) {
	if _, err := io.Copy(io.Discard, from); err != nil {
		return nil, err
	}
	entries := make([]held.Entry, len(claims))
	for i, c := range claims {
		entries[i] = c.Entry
	}
	return granted(s.id(), entries), nil
}

// Ask implements [held.Lander].
func (s shown) Ask(entries []held.Entry) (*held.Landed, error) { return granted(s.id(), entries), nil }

// List implements [held.Lander].
func (s shown) List(lo, hi uint64, after *held.Name, visit func(held.Status) (bool, error)) error {
	return s.held.Load().List(lo, hi, after, visit)
}

// Shard implements [held.Source].
func (s shown) Shard(n held.Name) (held.Shard, error) { return s.source.Shard(n) }

// deduped drops a shard whose bytes the copy has too, when that is evicted.
type deduped struct {
	evictable
	s *node
}

// Evict implements [evict.Packs].
func (d deduped) Evict(id pack.ID) (int64, error) {
	d.s.dropAll(func(n held.Name) bool { return pack.ID(n.Pack) == id })
	return d.evictable.Evict(id)
}

// dropAll drops held shards without a reason.
func (s *node) dropAll(which func(held.Name) bool) {
	store := s.held.Load()
	var names []held.Name
	err := store.List(0, 1<<64-1, nil, func(h held.Status) (bool, error) {
		if which(h.Name) {
			names = append(names, h.Name)
		}
		return true, nil
	})
	for _, n := range names {
		_, dropped := store.Drop(context.Background(), held.Purged{Index: 1}, n)
		err = errors.Join(err, dropped)
	}
	if err != nil {
		s.n.t.Errorf("the bug does not work: %v", err)
	}
}

// purgeUnreferenced drops what no pack of this node refers to.
func (s *node) purgeUnreferenced() {
	s.dropAll(func(n held.Name) bool {
		has, err := s.archive.HasPack(pack.ID(n.Pack))
		return err == nil && !has
	})
}

// padded has packs end otherwise than they do.
type padded struct{ *archive.Archive }

// Ciphertext implements [spread.Packs].
func (p padded) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	record, from, err := p.Archive.Ciphertext(id)
	if err != nil {
		return nil, nil, err
	}
	return record, zeroed{from, record.BlobBytes - seal.LeafBytes/8}, nil
}

type zeroed struct {
	io.ReaderAt
	from int64
}

// ReadAt implements [io.ReaderAt].
func (z zeroed) ReadAt(b []byte, off int64) (int, error) {
	n, err := z.ReaderAt.ReadAt(b, off)
	if at := max(z.from-off, 0); at < int64(n) {
		clear(b[at:n])
	}
	return n, err
}

// unsynced is a disk of which a node does not sync the files in some folders.
func unsynced(index int, folders ...string) func(*node, vfs.FS) vfs.FS {
	return func(s *node, disk vfs.FS) vfs.FS {
		if s.index != index {
			return disk
		}
		return lazy{disk, s, folders}
	}
}

type lazy struct {
	vfs.FS
	s       *node
	folders []string
}

func (l lazy) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	for _, folder := range l.folders {
		if err == nil && strings.Contains(name, "/"+folder+"/") {
			return lazyFile{f, l.s}, nil
		}
	}
	return f, err
}

// Create implements [vfs.FS].
func (l lazy) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.wrap(name, f, err)
}

// OpenReadWrite implements [vfs.FS].
func (l lazy) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, o...)
	return l.wrap(name, f, err)
}

// ReuseForWrite implements [vfs.FS].
func (l lazy) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(from, to, c)
	return l.wrap(to, f, err)
}

// lazyFile says that it is synced, once the network stands.
type lazyFile struct {
	vfs.File
	s *node
}

func (f lazyFile) lies() bool { return f.s.formed.Load() }

// Sync implements [vfs.File].
func (f lazyFile) Sync() error {
	if f.lies() {
		return nil
	}
	return f.File.Sync()
}

// SyncData implements [vfs.File].
func (f lazyFile) SyncData() error {
	if f.lies() {
		return nil
	}
	return f.File.SyncData()
}

// SyncTo implements [vfs.File].
func (f lazyFile) SyncTo(n int64) (bool, error) {
	if f.lies() {
		return true, nil
	}
	return f.File.SyncTo(n)
}
