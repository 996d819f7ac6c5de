package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
	"pelago/node/recent"
	"pelago/node/staging"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/journal"
	"pelago/shard/bulk"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Keys is the ring of study keys as the archive uses it.
type Keys interface {
	// Ready reports why no key can be made now: fault.Unavailable until the node has
	// its network's epoch keys. Instances stay in staging meanwhile.
	Ready() error
	// ForStudy returns the study's key, making one, durably, when there is none.
	ForStudy(study string) (id [16]byte, key seal.Key, err error)
	// Prepare makes the keys that studies lack, durably, all at once.
	Prepare(studies ...string) error
	// Key returns a key by its id.
	Key(id [16]byte) (seal.Key, error)
	// ForgetOwn drops this node's keys of studies, so that its packs of them are noise.
	// Those of other nodes stay: that nothing is left here says nothing of them.
	ForgetOwn(studies ...string) error
}

// Decider has the network decide.
type Decider interface {
	// Decide returns the results of the commands once they are decided and applied
	// here: of all, or of none if a condition does not hold.
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Graces knows what the network has agreed on about deletions (node/purge).
type Graces interface {
	// Over reports whether a tombstone's grace is over and nothing keeps what it covers.
	Over(stone *catalog.Tombstone) (bool, error)
}

// Options are what an archive is made of.
type Options struct {
	FS   vfs.FS
	Dir  string // the data directory
	Node string // this node's id
	Site string // this site's name; the issuer of Patient IDs that name none
	// Issuer returns what a name of an issuer stands for at this site; nil: itself.
	Issuer func(local string) (string, error)
	Keys   Keys
	Log    *slog.Logger
	Limits dicom.Limits

	// Catalog is what the archive is found by, from [OpenCatalog]; the caller closes
	// it after the archive. Propose and Decide put what is to be agreed on into its
	// order, and Signer is the node's key. An archive whose tasks do not run, and in
	// which nothing is deleted, needs neither Propose nor Decide.
	Catalog *catalog.Catalog
	Propose journal.Proposer
	Decide  Decider
	Signer  catalog.Signer
	// Packs are what the network must learn of this node's packs, and told by its
	// journal; nil: nothing. Asked by tasks.
	Packs journal.Packs
	// Packed is told of packs that rest in bulk/ now, with rows that are durable, by the
	// packer, which waits for it. What it misses by a crash, [Archive.EachPack] has.
	// nil: nobody.
	Packed func(ids []pack.ID)
	// Spread reports whether packs go to other sites, where alone they are safe: no pack
	// waits for others, that would fill its table, for longer than spreadGather then.
	// nil: they do not.
	Spread func() bool

	// Takes says why no instance is taken in now, with a [Closed]; nil, or an error
	// of nil: they are. Asked for each one.
	Takes func() error

	StagingBytes int64         // most that staging may hold; 8 GiB
	StagingAhead int64         // bytes of staging that are written before there is need, at most a quarter of it; 0: none
	TableBytes   int64         // packs gather to about this before a table is written; 256 MiB
	PackBytes    int64         // a pack is closed beyond it; 64 MiB after compression
	Quiet        time.Duration // a series without arrivals for this long may be packed; 30 s
	Age          time.Duration // … or when its first arrival is this old; 120 s
	Gather       time.Duration // a table is written, full or not, once a pack waited this long; 15 min
	Grace        time.Duration // deleted objects can be restored for this long; 30 days
	Patience     time.Duration // arrivals wait this long for room in staging; 20 s; negative: not at all
	Ballast      int64         // bytes of the disk that stay free; the larger of 1 GiB and 1 %
	CacheBytes   int64         // block cache of store/ and bulk/ each; 64 MiB
	ChunkBytes   int64         // cache of decoded chunks of packs; 256 MiB

	// PacksLost is told of hot packs whose bytes turned out rotten or missing, after
	// that is durable, by the goroutine that met it; [Archive.EachLost] has them, and
	// those of [Open]. It must not block. nil: nobody.
	PacksLost func(packs []pack.ID, cause error)
	// BulkLost is told of what others keep in bulk/ ([Archive.Bulk]) and is rotten or
	// missing, before it is forgotten there, and must make that durable; in [Open] too,
	// when rows are all that there is. nil: nobody.
	BulkLost func(rows func(name string) *Rows, refs []bulk.Ref, cause error) error
	// Evicted reads the ciphertext of a pack that was evicted, from its shards; asked
	// each time that the pack is opened. nil: nothing does, and none is ever evicted.
	Evicted func(p *archivepb.Pack) (io.ReaderAt, error)
	// Opened is told of the pack of each packed instance that somebody opens here; it
	// must not block. nil: nobody.
	Opened func(id pack.ID)
	// Still runs do while others neither move nor give up anything in bulk/: a backup
	// takes hold of all files in it. nil: they never do.
	Still func(do func() error) error

	// Graces says what may be purged, by the network's time. nil: the wall clock ends
	// graces.
	Graces Graces

	// Fatal is told, once, why the process must end: a failed write or fsync
	// (DESIGN §4, Errors).
	Fatal func(error)
	// Observe is told how long a piece of background work took: a table packed, a
	// round of purging or reclaiming, a backup, a verification. nil: nobody.
	Observe func(work string, took time.Duration, err error)
	// Free returns the bytes free on the data directory's file system, and its
	// size; nil: statfs.
	Free func() (free, size int64, err error)
}

func (o *Options) setDefaults() {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.StagingBytes, 8<<30)
	def(&o.TableBytes, 256<<20)
	def(&o.PackBytes, 64<<20)
	def(&o.CacheBytes, 64<<20)
	def(&o.ChunkBytes, 256<<20)
	def((*int64)(&o.Quiet), int64(30*time.Second))
	def((*int64)(&o.Age), int64(120*time.Second))
	def((*int64)(&o.Gather), int64(15*time.Minute))
	def((*int64)(&o.Patience), int64(defaultPatience))
	def((*int64)(&o.Grace), int64(30*24*time.Hour))
	if o.Limits == (dicom.Limits{}) {
		o.Limits = dicom.DefaultLimits
	}
	if o.Issuer == nil {
		o.Issuer = func(local string) (string, error) { return local, nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Packed == nil {
		o.Packed = func([]pack.ID) {}
	}
	if o.Spread == nil {
		o.Spread = func() bool { return false }
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration, error) {}
	}
	if o.PacksLost == nil {
		o.PacksLost = func([]pack.ID, error) {}
	}
	if o.BulkLost == nil {
		o.BulkLost = func(func(string) *Rows, []bulk.Ref, error) error { return nil }
	}
	if o.Still == nil {
		o.Still = func(do func() error) error { return do() }
	}
}

// Archive is one node's archive.
type Archive struct {
	o       Options
	log     *slog.Logger
	onDisk  bool // not a file system in memory
	space   *space
	store   *pebble.DB
	staging *staging.Log
	bulk    *bulk.Store
	catalog *catalog.Catalog
	journal *journal.Journal

	number    atomic.Uint64                       // the last local number given out
	visible   atomic.Uint64                       // the highest whose arrival is durable and has its rows
	taking    taking                              // how many arrivals there are, for those who wait meanwhile
	arrival   inflight                            // SOP Instance UIDs on their way in
	packs     recent.Values[pack.ID, io.ReaderAt] // plaintext readers of the packs used last
	headers   *headers
	damage    damage
	rot       rot
	hashers   sync.Pool   // of *blake3.Hasher, 10 KB each
	said      sayings     // of instances whose series is about to be announced
	codec     *pack.Codec // one for all packs, so that readers share decoded chunks
	stats     Stats
	kick      chan kick     // Pack and PackSeries ask the packer
	hurry     chan struct{} // arrivals wait for the packer; capacity 1
	stuck     atomic.Bool   // the packer's last table failed: waiting for it is no use
	keyless   atomic.Bool   // the packer waits for keys
	stopped   chan struct{} // the packer has ended
	deciding  deciding
	undecided chan decision // one failed that may be taken yet; capacity 1
	unsettled []uint64      // versions to be compared by Run; not touched after Open by others

	// still is held while bytes are moved or dropped: by the packer for a table,
	// by a purge for a slice, by a backup while it takes hold of all files. It is
	// taken before changing, and held over I/O: that is its purpose.
	still sync.Mutex
	// changing is held by whoever changes the state or the place of an instance
	// that was committed before, or the row of a pack, from reading the rows to the
	// synced commit of the new ones. Nothing of bulk/ is read under it: whoever meets
	// damage there takes it. Arrivals do not take it unless their UID is known.
	changing sync.Mutex

	fatalOnce sync.Once
	fatal     chan struct{}
	fatalErr  error // set before fatal is closed
}

// Stats are counters for metrics; all only ever grow.
type Stats struct {
	Stored, Same, Renditions, Quarantined, Refused atomic.Uint64
	BytesIn                                        atomic.Uint64
	PackedInstances, PackedRaw, PackedBytes        atomic.Uint64
	PackErrors                                     atomic.Uint64
	PacksLost                                      atomic.Uint64 // to rotten or missing tables, found since the start
	HeadersMended                                  atomic.Uint64 // header records made anew from the instances' bytes
	Held                                           atomic.Uint64 // arrivals that waited for room in staging
}

// Open opens the archive under o.Dir, creating what is missing, and replays
// staging. Nothing is acknowledged before it has returned.
func Open(o Options) (_ *Archive, err error) {
	o.setDefaults()
	onDisk := o.FS == vfs.Default
	o.FS = ordered{o.FS}
	a := &Archive{
		o: o, log: o.Log, onDisk: onDisk, catalog: o.Catalog,
		kick:      make(chan kick),
		hurry:     make(chan struct{}, 1),
		codec:     pack.NewCodec(o.ChunkBytes),
		headers:   newHeaders(),
		rot:       rot{found: make(chan struct{}, 1)},
		stopped:   make(chan struct{}),
		undecided: make(chan decision, 1),
		fatal:     make(chan struct{}),
	}
	a.packs.Limit = maxOpenPacks
	a.hashers.New = func() any { return blake3.New() }
	a.arrival.waiting = map[string]chan struct{}{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.space, err = newSpace(o); err != nil {
		return nil, err
	}
	if err = makeFolder(o); err != nil {
		return nil, err
	}
	if onDisk {
		if err = removeStages(o.Dir); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	if a.store, err = openStore(o, o.FS.PathJoin(o.Dir, "store"), a.die, a.rot.note); err != nil {
		return nil, err
	}
	if a.journal, err = journal.Open(a.store, a.catalog, journal.Options{Node: o.Node, Site: o.Site, Signer: o.Signer, Packs: o.Packs}); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err = a.openBulk(); err != nil {
		return nil, err
	}
	if err = a.lookForDamage(); err != nil {
		return nil, err
	}
	if err = a.openStaging(); err != nil {
		return nil, err
	}
	if err = errors.Join(a.dropEmpty(), a.finishEvicting()); err != nil {
		return nil, err
	}
	return a, nil
}

// makeFolder makes the data directory. Nothing in a folder is durable before the
// folder's own name is.
func makeFolder(o Options) error {
	if err := errors.Join(o.FS.MkdirAll(o.Dir, 0o700), syncFolder(o.FS, o.FS.PathDir(o.Dir))); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// OpenCatalog opens the catalogue of a data directory as its archive needs it:
// with the indexes that queries use, and with o.Fatal told when it cannot be
// written.
func OpenCatalog(o Options) (*catalog.Catalog, error) {
	o.setDefaults()
	o.FS = ordered{o.FS}
	if err := makeFolder(o); err != nil {
		return nil, err
	}
	path := o.FS.PathJoin(o.Dir, "catalog")
	die := func(err error) {
		if o.Fatal != nil {
			o.Fatal(err)
		}
	}
	c, err := catalog.Open(catalog.Options{FS: &watched{o.FS, path, die}, Dir: path, CacheBytes: o.CacheBytes, Indexer: plan.Indexer{}})
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	return c, nil
}

// bulkShare is what bulk/ gets of a store's cache: its values are read once and
// kept decoded elsewhere (Options.ChunkBytes), so only its indexes gain from one.
const bulkShare = 4

func (a *Archive) bulkAt(path string) bulk.Options {
	return bulk.Options{
		FS: a.o.FS, Dir: path, CacheBytes: a.o.CacheBytes / bulkShare,
		Reserve: a.space.reserveToFree, Lost: a.lost, Fatal: a.die, Log: a.log,
	}
}

// openStore opens the Pebble of instance records, work queues and journal. A
// rotten table is told to rotten; the read that met it gets an error.
func openStore(o Options, path string, die func(error), rotten func(pebble.DataCorruptionInfo)) (*pebble.DB, error) {
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                         &watched{o.FS, path, die},
		Cache:                      cache,
		FormatMajorVersion:         pebble.FormatNewest,
		MemTableSize:               16 << 20,
		Logger:                     pebbleLogger{log: o.Log, name: "store", die: die},
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		// Without a listener of its own, Pebble ends the process on such a read.
		EventListener: &pebble.EventListener{DataCorruption: func(info pebble.DataCorruptionInfo) {
			o.Log.Error("a table of store/ is rotten", "table", o.FS.PathBase(info.Path), "error", info.Details)
			rotten(info)
		}},
	}
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	options.TargetFileSizes[0] = 16 << 20 // 2 MiB, the default, costs an fsync each
	db, err := pebble.Open(path, options)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return db, nil
}

// openBulk opens bulk/ and drops the tables that a crash left behind between
// their ingestion and the rows that would have named their packs: those that
// were announced, and never adopted. A table that store/ knows nothing of stays:
// perhaps it is store/ that is not what it was.
func (a *Archive) openBulk() error {
	var err error
	a.bulk, err = bulk.Open(a.bulkAt(a.o.FS.PathJoin(a.o.Dir, "bulk")))
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	begun := map[uint64]bool{}
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := a.each([]byte{rowTable}, func(key, _ []byte) error {
		begun[numberOf(key)] = true
		return batch.Delete(key, nil)
	}); err != nil || len(begun) == 0 {
		return err
	}
	var left []bulk.Ref
	if err := a.bulk.Refs(bulk.Hot, func(r bulk.Ref) error {
		if begun[r.Table] {
			left = append(left, r)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	if len(left) > 0 {
		a.log.Info("dropping packs that a crash left unfinished; their instances are still in staging", "packs", len(left))
		if err := a.bulk.Delete(left...); err != nil {
			return err
		}
	}
	return fmtStore(batch.Commit(pebble.Sync))
}

// segmentShare is how many segments staging is made of at least. A segment goes
// when nothing in it is needed any more, but not while it is written to: a log
// of few segments would stay full although all of it is packed.
const segmentShare = 8

// openStaging replays the segments: rows that a crash kept from store/ are
// written again, and arrivals whose bytes rest in a pack are let go.
func (a *Archive) openStaging() error {
	if err := a.lastNumber(); err != nil {
		return err
	}
	// The log syncs its own folder; that the folder has a name is ours to sync.
	dir := a.o.FS.PathJoin(a.o.Dir, "staging")
	if err := errors.Join(a.o.FS.MkdirAll(dir, 0o700), syncFolder(a.o.FS, a.o.Dir)); err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	replay := replayer{a: a, dropped: map[uint64]bool{}}
	log, err := staging.Open(staging.Options{
		FS: a.o.FS, Dir: dir,
		SegmentBytes: min(staging.DefaultSegmentBytes, a.o.StagingBytes/segmentShare),
		MaxBytes:     a.o.StagingBytes, Ahead: a.o.StagingAhead, Reserve: a.space.reserve,
	}, replay.arrival)
	if err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	a.staging = log
	a.visible.Store(a.number.Load())
	for _, c := range log.Corruptions() {
		a.log.Error("staging holds a corrupt frame; it is kept for inspection", "segment", c.Segment, "offset", c.Offset, "reason", c.Reason)
	}
	return replay.finish()
}

// lastNumber finds the highest local number that has a row.
func (a *Archive) lastNumber() error {
	it, err := a.store.NewIter(&pebble.IterOptions{LowerBound: []byte{rowInstance}, UpperBound: []byte{rowInstance + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	if it.Last() && len(it.Key()) == 9 {
		a.number.Store(binary.BigEndian.Uint64(it.Key()[1:]))
	}
	return it.Error()
}

// die ends the archive: an error after which nothing may be acknowledged.
func (a *Archive) die(err error) {
	a.fatalOnce.Do(func() {
		a.fatalErr = err
		close(a.fatal)
		if a.o.Fatal != nil {
			a.o.Fatal(err)
		}
	})
}

// Close closes the stores, the catalogue excepted; Run must have returned.
func (a *Archive) Close() error {
	var errs []error
	a.codec.Close()
	if a.staging != nil {
		errs = append(errs, a.staging.Close())
	}
	if a.bulk != nil {
		errs = append(errs, a.bulk.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}

// Catalog is the node's catalogue, for the query engine and the registry.
func (a *Archive) Catalog() *catalog.Catalog { return a.catalog }

// Journal is where facts of what is stored go out.
func (a *Archive) Journal() *journal.Journal { return a.journal }

// Counters returns the archive's statistics.
func (a *Archive) Counters() *Stats { return &a.stats }

// Usage is what the archive occupies, in bytes.
type Usage struct {
	Staging, StagingLive, StagingMost int64
	Bulk, Hot, Cached, Held           int64 // all that rests; of it what arrived here, copies of others', and their shards
	Free, Size                        int64 // of the file system
	Ballast                           int64
	Reclaimable                       int64 // of Bulk, what is dead and comes back when its tables are rewritten, within minutes
}

// Usage measures it.
func (a *Archive) Usage() (Usage, error) {
	var u Usage
	u.Staging, u.StagingLive = a.staging.Bytes()
	u.StagingMost = a.o.StagingBytes
	u.Bulk, u.Hot, u.Cached = a.bulk.Bytes(), a.bulk.BytesOf(bulk.Hot), a.bulk.BytesOf(bulk.Cached)
	u.Held, u.Reclaimable = a.bulk.BytesOf(bulk.Held), a.bulk.Reclaimable()
	var err error
	u.Free, u.Size, err = a.space.free()
	u.Ballast = a.space.ballast(u.Size)
	return u, err
}

func packRef(p *archivepb.Pack) bulk.Ref {
	return bulk.Ref{Space: bulk.Space(p.Space), Table: p.Table, Blob: p.Blob, Bytes: p.BlobBytes}
}

func packID(b []byte) (pack.ID, error) {
	var id pack.ID
	if len(b) != len(id) {
		return id, fault.New(fault.Corrupt, "store: pack id of %d bytes", len(b))
	}
	copy(id[:], b)
	return id, nil
}
