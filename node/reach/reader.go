package reach

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/node/recent"
	"pelago/query"
	"pelago/replication/catalog"
)

// Client reads other nodes' archives; [Far] makes one of a *far.Client.
type Client interface {
	// Open asks a node for a manifest, in one round trip: fault.NotFound if it has no
	// such thing.
	Open(ctx context.Context, node string, want far.Want) (*far.Opening, error)
	// Read returns the bytes of a manifest; nodes may hold copies of its packs.
	Read(m *far.Manifest, nodes ...string) Bytes
}

// Nodes is what is believed of the network's nodes: hints.
type Nodes interface {
	// Others are the ids of all members that may hold something, this one excepted.
	Others() []string
	// Alive reports whether a node is believed to answer.
	Alive(node string) bool
}

// Options are what a reader is made of.
type Options struct {
	Node    string // this node's id
	Archive *archive.Archive
	Copies  *cached.Store
	Client  Client
	Nodes   Nodes
	// Shards are those of nodes that are silent; nil: there are none.
	Shards Shards
	// Sends says why this node opens nothing, with an [archive.Closed]; nil, or an
	// error of nil: it does.
	Sends func() error
	// Locate asks a node where it has instances, of at most query.MaxCandidates SOP
	// Instance UIDs; nil: each is asked for alone.
	Locate func(ctx context.Context, node string, sops []string) ([]query.Instance, error)
	Log    *slog.Logger // nil is silent
}

// Reader reads all that the network stores. It is an [archive.Reads].
type Reader struct {
	o       Options
	log     *slog.Logger
	catalog *catalog.Catalog

	known   recent.Values[seriesAt, *known]
	firsts  recent.Values[instanceAt, *known] // whose manifests may still be coming
	contact contacts
	sought  sought
	places  recent.Values[string, *place] // by SOP Instance UID
	lost    lostInstances
	stats   Stats

	work     sync.WaitGroup // of openings
	mu       sync.Mutex     // guards what follows
	closed   bool
	openings map[openingOf]*opening
}

var _ archive.Reads = (*Reader)(nil)

const (
	// knownBytes is the memory for manifests: some tens of thousands of instances.
	knownBytes = 64 << 20
	// firstBytes is the memory for what came before its manifest.
	firstBytes = 8 << 20
	// askAtOnce bounds the manifests that one call asks for at a time, and the nodes
	// that it asks for an instance.
	askAtOnce = 8
	// askTime bounds the wait for one manifest.
	askTime = 20 * time.Second
)

// New returns a reader.
func New(o Options) *Reader {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Reader{o: o, log: o.Log, catalog: o.Archive.Catalog(), openings: map[openingOf]*opening{}}
	r.known.Limit, r.firsts.Limit, r.places.Limit = knownBytes, firstBytes, placesBytes
	r.lost.numbers, r.lost.met = map[uint64]bool{}, make(chan struct{}, 1)
	return r
}

// Close waits for what is being opened, which ends with its client. What is whole
// here is read after it, too.
func (r *Reader) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait()
}

// Select implements [archive.Reads].
func (r *Reader) Select(ctx context.Context, study, series, instance string) iter.Seq2[archive.Ref, error] {
	if r.o.Sends != nil {
		if err := r.o.Sends(); err != nil {
			return func(yield func(archive.Ref, error) bool) { yield(archive.Ref{}, err) }
		}
	}
	if instance != "" {
		return r.selectOne(ctx, study, series, instance)
	}
	return r.selectAll(ctx, study, series)
}

// Open implements [archive.Reads]. fault.Unavailable if no node that stores the
// instance, or keeps a copy of it, answers.
func (r *Reader) Open(ctx context.Context, ref archive.Ref) (archive.Instance, error) {
	if ref.Origin == "" {
		return r.openHere(ctx, ref)
	}
	return r.open(ctx, ref)
}

// Headers implements [archive.Reads].
func (r *Reader) Headers(ctx context.Context, ref archive.Ref) (*dicom.Header, error) {
	if ref.Origin == "" {
		return r.headersHere(ctx, ref)
	}
	at, err := r.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	return r.header(ctx, at, true)
}

// Store stores an instance here, for faces that read and write.
func (r *Reader) Store(ctx context.Context, in archive.Incoming) (archive.Stored, error) {
	return r.o.Archive.Store(ctx, in)
}

// holders returns who holds the series of a study, or one series.
func (r *Reader) holders(study, series string) (_ []catalog.Holder, err error) {
	view := r.catalog.View()
	defer func() {
		if closing := view.Close(); err == nil {
			err = closing
		}
	}()
	return view.Holders(study, series)
}

// elsewhere reports whether any of the holders is another node.
func (r *Reader) elsewhere(holders []catalog.Holder) bool {
	for i := range holders {
		if holders[i].Node != r.o.Node {
			return true
		}
	}
	return false
}

// deleted reports whether an instance, as another node has it, is deleted.
func (r *Reader) deleted(study, series string, record *archivepb.Instance) bool {
	return r.catalog.Hidden(study, series, record.Sop, record.Hash)
}

// gone reports whether nothing can be there any more: a tombstone covers it, and
// nothing of the series was accepted over one.
func (r *Reader) gone(study, series, sop string) bool {
	if _, deleted := r.catalog.Deleted(study, series, sop); !deleted {
		return false
	}
	_, some := r.catalog.Accepted(study, series)
	return !some
}

func errNothing() error {
	return fault.New(fault.NotFound, "no such study, series or instance")
}

// sought are the series in which instances were found that were asked for by
// nothing but their own names, the last in front.
type sought struct {
	mu     sync.Mutex // guards what follows
	series []seriesAt // replaced, never changed
}

// maxSought is for some readers at once who each go through some series.
const maxSought = 16

func (s *sought) last() []seriesAt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.series
}

func (s *sought) note(name seriesAt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]seriesAt, 1, maxSought)
	all[0] = name
	for _, other := range s.series {
		if other != name && len(all) < maxSought {
			all = append(all, other)
		}
	}
	s.series = all
}

// contacts remembers when nodes answered, and when they did not, for a moment.
type contacts struct {
	mu sync.Mutex // guards what follows
	of map[string]contact
}

// maxContacts bounds what is remembered; beyond, all is forgotten and asked anew.
const maxContacts = 4096

type contact struct{ good, bad time.Time }

func (c *contacts) note(node string, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxContacts {
		c.of = map[string]contact{}
	}
	now := contact{bad: time.Now()}
	if good {
		now = contact{good: time.Now()}
	}
	c.of[node] = now
}

const (
	// goodFor is how long a node that answered is taken to go on answering: what is
	// promised by a status line is read within it, or begun.
	goodFor = 10 * time.Second
	// badFor is how long one that did not is not asked again, so that a retrieve of
	// hundreds of instances waits for it once.
	badFor = 5 * time.Second
)

// ask returns whether a node has just answered, or has just failed to.
func (c *contacts) ask(node string) (good, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.of[node]
	return !at.good.IsZero() && time.Since(at.good) < goodFor, !at.bad.IsZero() && time.Since(at.bad) < badFor
}
