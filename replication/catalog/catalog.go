package catalog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dicom"
	"pelago/replication"
)

// Options are where and how a catalogue rests.
type Options struct {
	FS         vfs.FS // nil: the operating system's
	Dir        string
	CacheBytes int64   // block cache; 0: DefaultCacheBytes
	Indexer    Indexer // nil: no secondary indexes

	resting bool // nothing is compacted: for what is read once
}

// DefaultCacheBytes is the block cache of a catalogue: upper index blocks and
// what is read often, at 1,000,000 studies.
const DefaultCacheBytes = 64 << 20

const (
	// memTableBytes bounds the rows in memory; two of them may wait to be flushed.
	memTableBytes = 16 << 20
	// blockBytes is small because records are read one by one, in any order.
	blockBytes = 8 << 10
)

// Catalog is the state machine and its indexes.
type Catalog struct {
	fs      vfs.FS
	writing sstable.WriterOptions // of tables that are taken in
	readers gate                  // of several rows

	db      *pebble.DB
	indexer Indexer
	named   func(node string, key ed25519.PublicKey) bool // see Rename
	utf8    func() *dicom.Charset                         // of all attributes

	totals                            atomic.Pointer[Totals]
	sealed                            atomic.Pointer[Sealed]
	state                             atomic.Pointer[state]
	registryChanges, tombstoneChanges atomic.Uint64

	stones  atomic.Bool // there is, or was, any tombstone
	founded atomic.Bool // there is, or was, any member
	ticked  atomic.Bool // the clock has begun
	names   atomic.Pointer[[]name]
	told    told

	entries, entryBytes atomic.Uint64 // applied since it was opened

	mu     sync.Mutex // held by Apply and Ahead throughout: one writer
	next   uint32     // dense number of the next study
	nameOf map[name]int
	rows   rows // of the Apply under way; kept for its room
	slots  slots

	vocabulary remembered // word rows that are written
	patients   remembered // prefixes of patients that have a posting
}

// state is what all nodes have alike at one index.
type state struct {
	position replication.Position
	hash     sum
}

// Entries returns how many entries were applied since the catalogue was opened,
// and their bytes.
func (c *Catalog) Entries() (count, bytes uint64) { return c.entries.Load(), c.entryBytes.Load() }

// Totals are the numbers of patients, studies, series and instances that
// queries see.
type Totals struct{ Patients, Studies, Series, Instances, Bytes uint64 }

// Open opens or creates the catalogue. A catalogue of a newer version is
// fault.Unsupported; one whose postings another indexer version wrote gets them
// written again, which takes minutes at a million studies.
func Open(o Options) (*Catalog, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.Indexer == nil {
		o.Indexer = noIndex{}
	}
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	po := pebbleOptions(o.FS, cache)
	if o.resting {
		rest(po)
	}
	db, err := pebble.Open(o.Dir, po)
	if err != nil {
		return nil, fmt.Errorf("catalog: open: %w", err)
	}
	c := &Catalog{fs: o.FS, writing: po.MakeWriterOptions(6, db.TableFormat()), db: db, told: newTold(), indexer: o.Indexer, named: isIDOf, vocabulary: remembered{}, patients: remembered{}, utf8: sync.OnceValue(func() *dicom.Charset {
		utf8, _ := dicom.NewCharset([]string{"ISO_IR 192"}) // a registered term
		return utf8
	})}
	if err := c.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return c, nil
}

func pebbleOptions(fs vfs.FS, cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 3,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                500,
		Logger:                      quiet{},
		// Who reads a rotten block gets an error. Without a listener of its own,
		// Pebble calls that fatal.
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	o.TargetFileSizes[0] = 8 << 20
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockBytes
		o.Levels[i].IndexBlockSize = 32 << 10
		if i < len(o.Levels)-1 {
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // most UIDs that Apply looks up are new
		}
	}
	// A query reads records and postings that lie far apart, a block for each that
	// is not in the cache: zstd, Pebble's choice for the lowest level, takes three
	// times as long to inflate one as the kernel to hand it over.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return o
}

// rest has Pebble compact nothing, and so never wait for that.
func rest(o *pebble.Options) {
	o.DisableAutomaticCompactions = true
	o.L0StopWritesThreshold = math.MaxInt32
}

// quiet drops Pebble's running commentary. What it calls fatal ends the
// process: a state machine that cannot write must not go on.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("catalog: " + fmt.Sprintf(format, args...))
}

// Close makes everything durable and closes it. What is in memory is flushed, so
// that the next Open replays no log. No read may be under way.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.db.Flush(), c.db.Close()); err != nil {
		return fmt.Errorf("catalog: close: %w", err)
	}
	return nil
}

// Applied returns the highest applied index.
func (c *Catalog) Applied() uint64 { return c.state.Load().position.Index }

// Position returns where the catalogue stands in the order of entries. The
// caller must not change its members.
func (c *Catalog) Position() replication.Position { return c.state.Load().position }

// StateHash returns the hash of all committed records and the index that it is
// of: at equal indexes it is equal on every node, whatever was said ahead there.
func (c *Catalog) StateHash() (hash [32]byte, index uint64) {
	s := c.state.Load()
	return s.hash.bytes(), s.position.Index
}

// IndexerVersion is the version of the Indexer that the postings are of.
func (c *Catalog) IndexerVersion() uint32 { return c.indexer.Version() }

// Totals returns the counts, kept up to date by Apply.
func (c *Catalog) Totals() Totals { return *c.totals.Load() }

// Sync makes what was applied durable.
func (c *Catalog) Sync() error {
	if err := c.db.LogData(nil, pebble.Sync); err != nil {
		return fmt.Errorf("catalog: sync: %w", err)
	}
	return nil
}

// Bytes is what the catalogue occupies on disk.
func (c *Catalog) Bytes() uint64 { return c.db.Metrics().DiskSpaceUsage() }

// load reads the meta row, and writes the postings anew if another indexer
// wrote them.
func (c *Catalog) load() error {
	m := meta{indexer: c.indexer.Version()}
	row, err := get(c.db, []byte{rowMeta})
	if err != nil {
		return err
	}
	if row != nil {
		if m, err = decodeMeta(row); err != nil {
			return err
		}
	}
	position, err := c.loadPosition(m)
	if err != nil {
		return err
	}
	c.state.Store(&state{position, m.hash})
	c.next = m.next
	c.founded.Store(m.founded)
	c.ticked.Store(m.ticked)
	c.totals.Store(&m.totals)
	c.sealed.Store(&m.sealed)
	for _, err := range c.Tombstones(context.Background()) {
		if err != nil {
			return err
		}
		c.stones.Store(true)
		break
	}
	c.registryChanges.Add(1) // of a copy that was put in place, all records may be others
	if err := c.loadNames(); err != nil {
		return err
	}
	if m.indexer != c.indexer.Version() {
		if err := c.reindex(m); err != nil {
			return err
		}
	}
	return c.adopt()
}

// loadPosition returns where the catalogue stands, by its two rows.
func (c *Catalog) loadPosition(m meta) (replication.Position, error) {
	var p replication.Position
	row, err := get(c.db, []byte{rowPosition})
	if err != nil {
		return p, err
	}
	if row != nil {
		if p, err = replication.DecodePosition(row); err != nil {
			return p, fmt.Errorf("catalog: %w", err)
		}
	}
	p.Index, p.Term = m.index, m.term
	return p, nil
}

// reindex drops all postings of the Indexer and writes them again. The meta row
// names the new version only at the end, so that a crash starts over.
func (c *Catalog) reindex(m meta) error {
	const batchRows = 1000
	if err := c.db.DeleteRange([]byte{rowIndex}, after([]byte{rowWord}), pebble.NoSync); err != nil {
		return fmt.Errorf("catalog: drop postings: %w", err)
	}
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowStudy}, UpperBound: after([]byte{rowStudy})})
	if err != nil {
		return fmt.Errorf("catalog: read studies: %w", err)
	}
	defer it.Close()
	batch := c.db.NewBatch()
	defer func() { batch.Close() }()
	rows := 0
	for it.First(); it.Valid(); it.Next() {
		s, err := decodeStudy(it.Value())
		if err != nil {
			return err
		}
		keys := postings(s, c.indexer)
		c.words(s, func(key []byte) { keys = append(keys, key) })
		for _, key := range keys {
			if err := batch.Set(key, nil, nil); err != nil {
				return fmt.Errorf("catalog: write postings: %w", err)
			}
		}
		if rows++; rows%batchRows != 0 {
			continue
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return fmt.Errorf("catalog: write postings: %w", err)
		}
		batch = c.db.NewBatch()
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read studies: %w", err)
	}
	m.indexer = c.indexer.Version()
	if err := batch.Set([]byte{rowMeta}, m.encode(), nil); err != nil {
		return fmt.Errorf("catalog: write meta: %w", err)
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("catalog: write postings: %w", err)
	}
	return nil
}

// get returns a copy of a row, nil when absent.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: read: %w", err)
	}
	row := append([]byte{}, v...)
	return row, errors.Join(closer.Close())
}

// Checkpoint makes a copy of the catalogue in a folder that must not exist, on
// the same file system: its tables are links.
func (c *Catalog) Checkpoint(dir string) error {
	if err := c.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("catalog: checkpoint: %w", err)
	}
	return nil
}
