package held

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/bulk"
	"pelago/shard/stripe"
)

// Rows is a part of store/; *archive.Rows is one.
type Rows interface {
	// Commit writes rows, and drops those whose value is nil, all or none. They are
	// durable when it returns.
	Commit(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
	// From visits rows in key order, from the first one that is not before key on,
	// until visit returns false. The value is valid during the call.
	From(key string, visit func(key string, value []byte) (bool, error)) error
}

// Options are what a store is made of.
type Options struct {
	Self Signer
	Bulk *bulk.Store
	Rows Rows

	// Limit is how many bytes of shards this node has pledged to hold, at the time
	// of the call; nil: no limit but the disk's.
	Limit func() int64
	// Reserve is asked for the room of an upload before its first byte; fault.Full.
	// nil: there is always room.
	Reserve func(n int64) error

	// Purged returns the index of the committed purge of a pack, 0 if there is none: its
	// shards are refused, and those that land while it is committed dropped. nil: none is.
	Purged func(pack [16]byte) (index uint64, err error)

	// Period is how long scrub takes to read all that is held: 30 days.
	Period time.Duration
	// Busy reports whether scrub should wait for readers; nil: never.
	Busy func() bool
	// KeepReasons is how long it is remembered why a shard was dropped: 180 days,
	// six times the delete grace.
	KeepReasons time.Duration

	// OnLost is told once of each shard whose bytes turn out rotten or missing, when
	// that is durable. What it misses by a crash, [Store.EachLost] has. It must not
	// block for long.
	OnLost func(name Name, cause error)
	// OnConflict is told when a shard is offered under a name that another one has.
	OnConflict func(offered Entry, held [32]byte)

	Log *slog.Logger // nil is silent
}

func (o *Options) setDefaults() {
	if o.Limit == nil {
		o.Limit = func() int64 { return math.MaxInt64 }
	}
	if o.Reserve == nil {
		o.Reserve = func(int64) error { return nil }
	}
	if o.Purged == nil {
		o.Purged = func([16]byte) (uint64, error) { return 0, nil }
	}
	if o.Period == 0 {
		o.Period = 30 * 24 * time.Hour
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	if o.KeepReasons == 0 {
		o.KeepReasons = 180 * 24 * time.Hour
	}
	if o.OnLost == nil {
		o.OnLost = func(Name, error) {}
	}
	if o.OnConflict == nil {
		o.OnConflict = func(Entry, [32]byte) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Store holds shards of other nodes' stripes.
type Store struct {
	o       Options
	opened  recent
	stats   Stats
	writing writing
	merging merging
	stays   map[uint64]bool // tables that Merge cannot empty; its own

	// moving is held by whoever moves shards in bulk/ or gives them up, from the rows
	// that say so to the deletion. It is taken before changing.
	moving sync.Mutex
	// changing is held by whoever changes rows, from reading them to the synced
	// batch.
	changing sync.Mutex
	settled  []string // rows that the next batch drops: their blobs are deleted

	mu       sync.Mutex // guards what follows; a leaf, never held over I/O
	arriving map[Name]bool
	waiting  []*landing // for the next commit
	leading  bool       // a commit is under way
	used     int64      // bytes that are held, about
	reserved int64      // bytes that are on their way
}

// Open finds what is held. Shards that a crash kept from having rows get them:
// they are as whole as the others, and say themselves what they are.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{o: o, arriving: map[Name]bool{}, opened: newRecent()}
	s.writing.floors, s.merging, s.stays = map[*opening]uint64{}, mergeAt(), map[uint64]bool{}
	mark, err := s.mark()
	if err == nil {
		err = s.finishDrops()
	}
	if err == nil {
		err = s.adopt(mark)
	}
	if err != nil {
		return nil, fmt.Errorf("held: %w", err)
	}
	s.used = o.Bulk.BytesOf(bulk.Held)
	return s, nil
}

// mark is the table from which on blobs may have no rows.
func (s *Store) mark() (uint64, error) {
	value, ok, err := s.o.Rows.Get(string(rowMark))
	if err != nil || !ok {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fault.New(fault.Corrupt, "a mark of %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// finishDrops deletes the blobs whose rows say that they are to be deleted.
func (s *Store) finishDrops() error {
	var refs []bulk.Ref
	rows := map[string][]byte{}
	err := s.prefix(rowGoing, func(key string, _ []byte) (bool, error) {
		ref, ok := refOfGoing(key)
		if !ok {
			return false, fault.New(fault.Corrupt, "a row's key of %d bytes", len(key))
		}
		refs, rows[key] = append(refs, ref), nil
		return true, nil
	})
	if err != nil || len(refs) == 0 {
		return err
	}
	if err := s.o.Bulk.Delete(refs...); err != nil {
		return err
	}
	return s.o.Rows.Commit(rows)
}

// adopt gives rows to the blobs of the tables from one on that have none: their
// commit returned, and the process ended before their rows were durable.
func (s *Store) adopt(from uint64) error {
	rows := map[string][]byte{}
	taken := map[Name]bool{}
	next := from
	err := s.o.Bulk.RefsSince(bulk.Held, from, func(r bulk.Ref) error {
		next = max(next, r.Table+1)
		_, known, err := s.o.Rows.Get(keyBlob(r))
		if err != nil || known {
			return err
		}
		return s.adoptOne(r, rows, taken)
	})
	s.writing.committed = max(next, 1) - 1
	s.writing.seen = s.writing.committed
	if err != nil || next == from {
		return err
	}
	rows[string(rowMark)] = binary.BigEndian.AppendUint64(nil, next)
	if len(taken) > 0 {
		s.o.Log.Info("shards that were durable when the last process ended, and had not been named yet, are held", "shards", len(taken))
	}
	return s.o.Rows.Commit(rows)
}

// adoptOne names one blob, unless another is known under its name: that one then
// was here before.
func (s *Store) adoptOne(r bulk.Ref, rows map[string][]byte, taken map[Name]bool) error {
	sh, err := stripe.Open(s.o.Bulk.Reader(r), r.Bytes)
	if fault.Is(err, fault.Unavailable) {
		return err
	}
	if err != nil {
		s.o.Log.Error("bytes among the held shards are no shard; they stay, unserved", "blob", r.String(), "error", err)
		return nil
	}
	head := sh.Head()
	e := Entry{Name{head.Stripe, sh.Index()}, head.Root()}
	if err := e.check(); err != nil || taken[e.Name] {
		s.o.Log.Error("a held shard without a row cannot be named; it stays, unserved", "blob", r.String(), "shard", e.Name.String(), "error", err)
		return nil
	}
	old, err := s.row(e.Name)
	if err != nil {
		return err
	}
	if old != nil && old.state == Held && s.o.Bulk.Has(old.ref) {
		s.o.Log.Warn("a shard is here twice; the second stays, unserved", "blob", r.String(), "shard", e.Name.String())
		return nil
	}
	taken[e.Name] = true
	nameRows(rows, e, r, old)
	return nil
}

// nameRows are the rows that make a blob the shard of a name, of which old was
// known. It returns the blob that it replaces, if any.
func nameRows(rows map[string][]byte, e Entry, r bulk.Ref, old *row) (gone *bulk.Ref) {
	if old != nil {
		gone = leaveRows(rows, e.Name, old)
	}
	one := row{state: Held, root: e.Root, ref: r, when: now()}
	rows[keyShard(e.Name)] = one.append(nil)
	rows[keyBlob(r)] = e.Name.append(nil)
	return gone
}

// leaveRows drops what rows say of a shard beside its own, and has its blob
// deleted, which it returns.
func leaveRows(rows map[string][]byte, n Name, old *row) (gone *bulk.Ref) {
	switch old.state {
	case Dropped:
		rows[keyDropped(old.when, n)] = nil
		return nil
	case Lost:
		rows[keyLost(n)] = nil
	case Held:
	}
	rows[keyBlob(old.ref)] = nil
	rows[keyGoing(old.ref)] = []byte{}
	return &old.ref
}

// commitRows writes rows durably, with those that earlier ones left behind.
// changing is held.
func (s *Store) commitRows(rows map[string][]byte) error {
	for _, key := range s.settled {
		rows[key] = nil
	}
	if err := s.o.Rows.Commit(rows); err != nil {
		return fmt.Errorf("held: %w", err)
	}
	s.settled = nil
	return nil
}

// remove deletes blobs that durable rows give up. changing is held. What fails is
// done by the next start.
func (s *Store) remove(refs []bulk.Ref) {
	if len(refs) == 0 {
		return
	}
	if err := s.o.Bulk.Delete(refs...); err != nil {
		s.o.Log.Warn("dropped shards could not be deleted; the next start tries again", "shards", len(refs), "error", err)
		return
	}
	for _, r := range refs {
		s.settled = append(s.settled, keyGoing(r))
	}
}

// row returns what is known of a shard; nil if nothing is.
func (s *Store) row(n Name) (*row, error) {
	value, ok, err := s.o.Rows.Get(keyShard(n))
	if err != nil || !ok {
		return nil, err
	}
	return parseRow(value)
}

// prefix visits the rows of a kind.
func (s *Store) prefix(kind byte, visit func(key string, value []byte) (bool, error)) error {
	return s.o.Rows.From(string(kind), func(key string, value []byte) (bool, error) {
		if key == "" || key[0] != kind {
			return false, nil
		}
		return visit(key, value)
	})
}

// Status is what is known of a shard.
type Status struct {
	Entry
	State  State
	Bytes  int64     // of the shard at rest
	When   time.Time // since then; whole seconds
	Cause  string    // of a lost one
	Reason Reason    // of a dropped one
}

// Status returns what is known of a shard; fault.NotFound if it never was here,
// or was dropped longer ago than Options.KeepReasons.
func (s *Store) Status(n Name) (Status, error) {
	r, err := s.row(n)
	if err != nil {
		return Status{}, err
	}
	if r == nil {
		return Status{}, errNotHeld(n)
	}
	return statusOf(n, r)
}

func statusOf(n Name, r *row) (st Status, err error) {
	st = Status{Entry: Entry{n, r.root}, State: r.state, Bytes: r.ref.Bytes, When: time.Unix(r.when, 0)}
	switch r.state {
	case Lost:
		st.Cause = string(r.detail)
	case Dropped:
		st.Reason, err = parseReason(r.detail)
	case Held:
	}
	return st, err
}

func errNotHeld(n Name) error { return fault.New(fault.NotFound, "held: shard %v is not here", n) }

// List visits the shards that are held or lost of packs whose [shard.Spread] is
// from lo to hi, in that order and then by name, until visit returns false. after
// goes on behind a name; nil begins.
func (s *Store) List(lo, hi uint64, after *Name, visit func(Status) (bool, error)) error {
	from := string(binary.BigEndian.AppendUint64([]byte{rowShard}, lo))
	if after != nil {
		from = max(from, keyShard(*after)+"\x00")
	}
	return s.o.Rows.From(from, func(key string, value []byte) (bool, error) {
		if key[0] != rowShard {
			return false, nil
		}
		n, err := nameOf(key)
		if err != nil || binary.BigEndian.Uint64([]byte(key[1:9])) > hi {
			return false, err
		}
		r, err := parseRow(value)
		if err != nil || r.state == Dropped {
			return err == nil, err
		}
		st, err := statusOf(n, r)
		if err != nil {
			return false, err
		}
		return visit(st)
	})
}

// EachLost visits the shards that are lost, in the order of List.
func (s *Store) EachLost(visit func(Status) (bool, error)) error {
	return s.prefix(rowLost, func(key string, _ []byte) (bool, error) {
		n, err := nameOf(key)
		if err != nil {
			return false, err
		}
		st, err := s.Status(n)
		if err != nil {
			return false, err
		}
		return visit(st)
	})
}

// Drop gives shards up, for a reason that is checked for each, and that their rows
// then tell; their bytes go. It is durable when it returns. Shards of which
// nothing is known, or that were dropped before, are no error; if the reason does
// not hold for one of them, none is dropped.
func (s *Store) Drop(ctx context.Context, why Reason, names ...Name) (dropped int, err error) {
	s.moving.Lock()
	defer s.moving.Unlock()
	s.changing.Lock()
	defer s.changing.Unlock()
	rows := map[string][]byte{}
	var gone []bulk.Ref
	when := now()
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		old, err := s.row(n)
		if err != nil {
			return 0, err
		}
		if old == nil || old.state == Dropped || rows[keyShard(n)] != nil {
			continue
		}
		if err := why.check(s.o.Self.ID(), Entry{n, old.root}); err != nil {
			return 0, err
		}
		gone = append(gone, *leaveRows(rows, n, old))
		one := row{state: Dropped, root: old.root, ref: old.ref, when: when, detail: why.append(nil)}
		rows[keyShard(n)] = one.append(nil)
		rows[keyDropped(when, n)] = []byte{}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	if err := s.commitRows(rows); err != nil {
		return 0, err
	}
	s.freed(gone)
	s.opened.drop(names)
	s.stats.Dropped.Add(uint64(len(gone)))
	s.o.Log.Info("held shards dropped", "shards", len(gone), "reason", why.String())
	s.remove(gone)
	return len(gone), nil
}

// Still runs do while no shard is moved or given up: a copy of rows and blobs that
// begins with the rows, and is taken in it, has every shard that its rows name.
// Those that land meanwhile are named by who opens the copy. do must not call the
// store.
func (s *Store) Still(do func() error) error {
	s.moving.Lock()
	defer s.moving.Unlock()
	return do()
}

func (s *Store) freed(refs []bulk.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		s.used -= r.Bytes
	}
}

// forgetReasons drops the rows of shards that were dropped long ago.
func (s *Store) forgetReasons() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	before := keyDropped(time.Now().Add(-s.o.KeepReasons).Unix(), Name{})
	rows := map[string][]byte{}
	err := s.prefix(rowDropped, func(key string, _ []byte) (bool, error) {
		if key >= before || len(rows) >= 2*MaxBatch {
			return false, nil
		}
		n, err := parseName([]byte(key[min(len(key), 1+8):]))
		if err != nil {
			return false, err
		}
		rows[key], rows[keyShard(n)] = nil, nil
		return true, nil
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return s.commitRows(rows)
}

// Bytes is what is held, about, and what is on its way here.
func (s *Store) Bytes() (held, arriving int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.reserved
}

// reserve takes room for n bytes; release gives back what was not used.
func (s *Store) reserve(n int64) (release func(), err error) {
	limit := s.o.Limit()
	s.mu.Lock()
	if n > limit-s.used-s.reserved {
		s.mu.Unlock()
		return nil, fault.New(fault.Full, "held: no room for %d bytes of shards", n)
	}
	s.reserved += n
	s.mu.Unlock()
	release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reserved -= n
	}
	if err := s.o.Reserve(n); err != nil {
		release()
		return nil, errors.Join(err)
	}
	return release, nil
}
