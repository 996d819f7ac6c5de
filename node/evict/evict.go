package evict

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// Packs are those that arrived here; *archive.Archive has them.
type Packs interface {
	EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error
	// Evict gives a pack's bytes up, and returns how many.
	Evict(id pack.ID) (int64, error)
}

// Copies cuts shards from hot copies; *virtual.Source does.
type Copies interface {
	Cut(ctx context.Context, n held.Name) (*stripe.Shard, error)
}

// Spread knows the heads of this node's stripes, and has the network learn of them;
// *spread.Spread does.
type Spread interface {
	Head(of shard.Stripe) (*stripe.Head, error)
	Tell(f *catalog.SealFact) error
}

// Holders are other nodes; *held.Client asks them.
type Holders interface {
	Upload(ctx context.Context, node string, offers []held.Offer) (*held.Landed, error)
	Prove(ctx context.Context, node string, shards []held.Audit) ([]error, error)
}

// Own is what rests here of shards; *held.Store is it.
type Own interface {
	held.Lander
	held.Source
}

// Rows is a part of store/; *archive.Rows is one.
type Rows interface {
	Commit(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
}

// Rule is the operator's.
type Rule struct {
	Above     float64       // percent of the disk in use above which copies go; 0: none ever does
	Below     float64       // until no more than this is in use
	Untouched time.Duration // packs that came or were opened since stay
}

// Options are what evicting needs.
type Options struct {
	Self    string // this node's id
	Rule    Rule
	Packs   Packs
	Copies  Copies
	Spread  Spread
	Holders Holders
	Own     Own
	Rows    Rows // of the name "evict"

	Placement func() *placement.State
	// Site is where a node is, and whether what it holds counts: that of one that is
	// lost or removed does not.
	Site func(node string) (site string, counts bool)
	// Seals returns what is committed of a pack, the latest generation first.
	Seals func(id [16]byte) ([]catalog.Seal, error)
	// Survives asks storage commitment's condition of a pack, now: nil if it holds.
	Survives func(ctx context.Context, id pack.ID) error
	// Disk is how full the disk is.
	Disk func() (Disk, error)

	// Fresh is how old a proof may be: 24 h.
	Fresh time.Duration
	// Doubt is told of a shard that its holder does not prove. nil: nobody.
	Doubt func(name held.Name, node string)
	Log   *slog.Logger // nil is silent
}

// Disk is how full a disk is, in bytes.
type Disk struct {
	Used, Size int64
	// Returning is what of Used comes back without anything more being given up: what is
	// dead in tables that are about to be rewritten.
	Returning int64
	// Ballast is what stays free, for that rewriting too.
	Ballast int64
	// Room is kept free for shards: of a site that is lost, for nothing can be evicted
	// while they are made anew. It counts as used.
	Room int64
}

// roomy is how many times the ballast is free on a disk that can wait for tables to be
// rewritten: they need room, and instances go on coming meanwhile.
const roomy = 4

// used is what is in use of a disk, and does not come back by itself in time, and what
// is to be.
func (d Disk) used() int64 {
	if d.Size-d.Used < roomy*d.Ballast {
		return d.Used + d.Room
	}
	return d.Used - d.Returning + d.Room
}

// Stats count since the start.
type Stats struct {
	Packs   atomic.Uint64 // that were evicted
	Bytes   atomic.Uint64 // that this freed
	Written atomic.Uint64 // shards that stood for a copy and are written
	Refused atomic.Uint64 // attempts at packs that may not go
}

// Evict gives hot copies up.
type Evict struct {
	o     Options
	stats Stats

	mu      sync.Mutex // guards what follows; a leaf
	touched map[pack.ID]int64
}

const (
	// every is how often the disk is looked at.
	every = 30 * time.Second
	// atOnce is how many packs are looked at in a round.
	atOnce = 4096
	// maxTouched bounds what was opened and is not noted yet.
	maxTouched = 1 << 16
)

// New returns what evicts by a rule.
func New(o Options) *Evict {
	if o.Fresh == 0 {
		o.Fresh = 24 * time.Hour
	}
	if o.Doubt == nil {
		o.Doubt = func(held.Name, string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Evict{o: o, touched: map[pack.ID]int64{}}
}

// Counters are the counters.
func (e *Evict) Counters() *Stats { return &e.stats }

// Touched says that packs came, or were opened by somebody, now.
func (e *Evict) Touched(ids ...pack.ID) {
	hour := hourOf(time.Now())
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if _, known := e.touched[id]; known || len(e.touched) < maxTouched {
			e.touched[id] = hour
		}
	}
}

func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// Task looks at the disk now and then.
func (e *Evict) Task() work.Task {
	return work.Task{Name: "evict", Restart: &work.Restart{}, Run: work.Every(every, e.round)}
}

// note writes when packs were touched.
func (e *Evict) note() error {
	e.mu.Lock()
	touched := e.touched
	e.touched = map[pack.ID]int64{}
	e.mu.Unlock()
	rows := map[string][]byte{}
	for id, hour := range touched {
		rows[string(id[:])] = binary.BigEndian.AppendUint32(nil, uint32(hour))
	}
	if len(rows) == 0 {
		return nil
	}
	return e.o.Rows.Commit(rows)
}

// lastTouched is the hour in which a pack was touched last; 0: it is not known.
func (e *Evict) lastTouched(id pack.ID) (int64, error) {
	value, ok, err := e.o.Rows.Get(string(id[:]))
	if err != nil || !ok || len(value) != 4 {
		return 0, err
	}
	return int64(binary.BigEndian.Uint32(value)), nil
}

// round frees what the disk is above the high mark, down to the low one.
func (e *Evict) round(ctx context.Context, progress *work.Progress) error {
	if e.o.Rule.Above <= 0 {
		return nil
	}
	if err := e.note(); err != nil {
		return err
	}
	disk, err := e.o.Disk()
	if err != nil {
		return err
	}
	used, size := disk.used(), disk.Size
	if size <= 0 || float64(used) <= e.o.Rule.Above/100*float64(size) || !e.o.Placement().Striped() {
		return nil
	}
	want := used - int64(e.o.Rule.Below/100*float64(size))
	all, err := e.candidates(ctx)
	if err != nil {
		return err
	}
	var why error
	for _, c := range all {
		if want <= 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil //nolint:nilerr // the task ends
		}
		freed, err := e.Pack(ctx, c.id)
		switch {
		case err != nil:
			e.stats.Refused.Add(1)
			why = err
			e.o.Log.Debug("a pack is not evicted", "pack", hex.EncodeToString(c.id[:]), "error", err)
			continue
		case freed > 0:
			progress.Add(freed)
			e.stats.Packs.Add(1)
			e.stats.Bytes.Add(uint64(freed))
			e.o.Log.Info("a hot copy was evicted; its pack is read from its shards", "pack", hex.EncodeToString(c.id[:]), "bytes", freed)
		}
		want -= c.bytes // of one that was told of too: it goes in a round to come
	}
	if want > 0 {
		progress.Note(why)
	}
	return nil
}

// candidate is a pack that may go by the rule.
type candidate struct {
	id    pack.ID
	hour  int64 // in which it was touched last
	table uint64
	bytes int64
}

// candidates are packs that were not touched for long, the longest first, and of
// those alike the oldest.
func (e *Evict) candidates(ctx context.Context) ([]candidate, error) {
	since := hourOf(time.Now().Add(-e.o.Rule.Untouched))
	var all []candidate
	order := func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.table, b.table), bytes.Compare(a.id[:], b.id[:]))
	}
	err := e.o.Packs.EachPack(ctx, pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		if p.Lost || p.Evicted {
			return true, nil
		}
		id := pack.ID(p.Id)
		hour, err := e.lastTouched(id)
		if err != nil || hour > since {
			return true, err
		}
		if all = append(all, candidate{id, hour, p.Table, p.BlobBytes}); len(all) == 2*atOnce {
			slices.SortFunc(all, order)
			all = all[:atOnce]
		}
		return true, nil
	})
	slices.SortFunc(all, order)
	return all[:min(len(all), atOnce)], err
}
