package held

import (
	"container/list"
	"context"
	"io"
	"sync"

	"pelago/cluster/fault"
	"pelago/shard/bulk"
	"pelago/shard/stripe"
)

// Shard is a shard that can be read: one at rest, or one that is cut from a full
// copy.
type Shard interface {
	Head() *stripe.Head
	Index() int
	// Range returns whole leaves of the body, which lead to the shard's root by the
	// proof (seal.VerifyRange).
	Range(first, count int64) (data []byte, proof [][32]byte, err error)
	// Tail is the stripe's tail; nil if the shard does not carry it.
	Tail() *io.SectionReader
}

// Source finds shards; *Store is one. fault.NotFound if one is not here,
// fault.Corrupt if it is lost.
type Source interface {
	Shard(n Name) (Shard, error)
}

// Shard implements [Source]: a held one, whose rot is noted when a read meets it.
func (s *Store) Shard(n Name) (Shard, error) {
	r, err := s.row(n)
	switch {
	case err != nil:
		return nil, err
	case r == nil || r.state == Dropped:
		return nil, errNotHeld(n)
	case r.state == Lost:
		return nil, errLost(n)
	}
	return s.openShard(n, r)
}

// openShard opens a shard where its row says that it rests.
func (s *Store) openShard(n Name, r *row) (*readable, error) {
	one := &readable{store: s, name: n, ref: r.ref}
	if one.Shard = s.opened.get(n, r.ref); one.Shard != nil {
		return one, nil
	}
	var err error
	if one.Shard, err = stripe.Open(s.o.Bulk.Reader(r.ref), r.ref.Bytes); err != nil {
		return one.met(err)
	}
	head := one.Head()
	if head.Stripe != n.Stripe || one.Index() != n.Index || head.Root() != r.root {
		return one.met(fault.New(fault.Corrupt, "held: the bytes of shard %v are those of another", n))
	}
	s.opened.put(n, r.ref, one.Shard)
	return one, nil
}

// readable is a held shard, where it rested when it was opened.
type readable struct {
	*stripe.Shard
	store *Store
	name  Name
	ref   bulk.Ref
}

func (r *readable) Range(first, count int64) ([]byte, [][32]byte, error) {
	data, proof, err := r.Shard.Range(first, count)
	if err == nil {
		return data, proof, nil
	}
	moved, err := r.met(err)
	if err != nil {
		return nil, nil, err
	}
	return moved.Range(first, count)
}

// Tail notes rot that is met while it is read.
func (r *readable) Tail() *io.SectionReader {
	tail := r.Shard.Tail()
	if tail == nil {
		return nil
	}
	return io.NewSectionReader(&metReader{r, tail}, 0, tail.Size())
}

type metReader struct {
	of   *readable
	from io.ReaderAt
}

func (m *metReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.from.ReadAt(p, off)
	if n == len(p) || err == io.EOF { //nolint:errorlint // io.ReaderAt gives it as it is
		return n, err
	}
	moved, err := m.of.met(err)
	if err != nil {
		return n, err
	}
	return moved.Tail().ReadAt(p, off)
}

// met has a reader's failure noted if the bytes are at fault. If the shard has been
// moved meanwhile, to a table with others, it is opened there; one that was dropped
// is fault.NotFound.
func (r *readable) met(err error) (moved *readable, _ error) {
	if !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	lost, noted := r.store.lose(r.name, r.ref, err)
	switch {
	case noted != nil:
		return nil, noted
	case lost:
		return nil, fault.New(fault.Corrupt, "held: shard %v: %w", r.name, err)
	}
	now, err := r.store.row(r.name)
	switch {
	case err != nil:
		return nil, err
	case now == nil || now.state == Dropped:
		return nil, errNotHeld(r.name)
	case now.state == Lost:
		return nil, errLost(r.name)
	}
	return r.store.openShard(r.name, now) // tables ascend: it is not where it was
}

func errLost(n Name) error { return fault.New(fault.Corrupt, "held: shard %v is lost", n) }

// lose notes that a shard's bytes at a place are rotten or missing, once, and
// reports whether they are so by now: false if the shard rests elsewhere, or was
// dropped.
func (s *Store) lose(n Name, at bulk.Ref, cause error) (lost bool, err error) {
	s.opened.drop([]Name{n})
	s.changing.Lock()
	old, err := s.row(n)
	if err != nil || old == nil || old.ref != at || old.state != Held {
		s.changing.Unlock()
		return old != nil && old.ref == at && old.state == Lost, err
	}
	rows := map[string][]byte{}
	loseRows(rows, n, old, cause)
	err = s.commitRows(rows)
	s.changing.Unlock()
	if err != nil {
		return false, err
	}
	s.tell(n, cause)
	return true, nil
}

// tell tells of a shard that is durably lost. No lock is held.
func (s *Store) tell(n Name, cause error) {
	s.stats.Lost.Add(1)
	s.o.Log.Error("a held shard is lost", "shard", n.String(), "cause", cause)
	s.o.OnLost(n, cause)
}

// loseRows are the rows of a shard that is lost now. Its place stays known: it is
// given up when another copy lands.
func loseRows(rows map[string][]byte, n Name, old *row, cause error) {
	text := cause.Error()
	one := row{state: Lost, root: old.root, ref: old.ref, when: now(), detail: []byte(text[:min(len(text), 512)])}
	rows[keyShard(n)] = one.append(nil)
	rows[keyLost(n)] = []byte{}
}

// BulkLost is bulk's report that blobs are rotten or missing (bulk.Options.Lost):
// those that are shards are noted as lost, durably, and told of. Others are passed
// over.
func (s *Store) BulkLost(refs []bulk.Ref, cause error) error {
	s.changing.Lock()
	names, err := noteLost(s.o.Rows, refs, cause)
	s.changing.Unlock()
	s.opened.drop(names)
	for _, n := range names {
		s.tell(n, cause)
	}
	return err
}

// NoteLost is [Store.BulkLost] while there is no store yet: what bulk.Open finds
// missing. Nobody is told; [Store.EachLost] has them.
func NoteLost(rows Rows, refs []bulk.Ref, cause error) error {
	_, err := noteLost(rows, refs, cause)
	return err
}

func noteLost(to Rows, refs []bulk.Ref, cause error) (names []Name, err error) {
	rows := map[string][]byte{}
	for _, r := range refs {
		if r.Space != bulk.Held {
			continue
		}
		value, ok, err := to.Get(keyBlob(r))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // dropped, or not named yet: then nobody was told that it is here
		}
		n, err := parseName(value)
		if err != nil {
			return nil, fault.New(fault.Corrupt, "held: a blob's row: %w", err)
		}
		value, ok, err = to.Get(keyShard(n))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		old, err := parseRow(value)
		if err != nil {
			return nil, err
		}
		if old.state == Held && old.ref == r {
			loseRows(rows, n, old, cause)
			names = append(names, n)
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return names, to.Commit(rows)
}

// recent keeps the shards that were read last open: their trees are a leaf's worth
// to read for each 8 MiB.
type recent struct {
	mu    sync.Mutex
	known map[Name]*list.Element
	order *list.List // of kept, the last read in front
}

type kept struct {
	name Name
	ref  bulk.Ref
	is   *stripe.Shard
}

// maxOpened bounds them; of 64 MiB each they take 8 MiB.
const maxOpened = 64

func newRecent() recent { return recent{known: map[Name]*list.Element{}, order: list.New()} }

func (r *recent) get(n Name, ref bulk.Ref) *stripe.Shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[n]
	if e == nil || e.Value.(*kept).ref != ref {
		return nil
	}
	r.order.MoveToFront(e)
	return e.Value.(*kept).is
}

func (r *recent) put(n Name, ref bulk.Ref, is *stripe.Shard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(n)
	r.known[n] = r.order.PushFront(&kept{n, ref, is})
	if r.order.Len() > maxOpened {
		r.dropLocked(r.order.Back().Value.(*kept).name)
	}
}

func (r *recent) drop(names []Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		r.dropLocked(n)
	}
}

func (r *recent) dropLocked(n Name) {
	if e := r.known[n]; e != nil {
		r.order.Remove(e)
		delete(r.known, n)
	}
}

// Verify reads every held shard whole and notes those that are lost. progress is
// called with the bytes that were read so far.
func (s *Store) Verify(ctx context.Context, progress func(bytes int64)) error {
	var done int64
	return s.walk(ctx, bulk.Ref{Space: bulk.Held}, func(n Name, at bulk.Ref) error {
		_, err := s.check(ctx, n, at, s.o.Bulk.Reader(at))
		done += at.Bytes
		if progress != nil {
			progress(done)
		}
		return err
	})
}
