package held

import (
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/shard/bulk"
	"pelago/shard/stripe"
)

// merging says when shards of small tables are moved into one. What lands has a
// table for each group that came together, and a table costs memory whatever it
// holds (DESIGN §4).
type merging struct {
	// target is what a table of many shards has. Tables of half of it stay.
	target int64
	// tiny is what a table is below that is merged with others of its kind when there
	// are count of them, before all small ones are as long as the target.
	tiny  int64
	count int
}

// mergeAt: a byte is written when it lands, once more into its last table, and in
// between while its table is tiny: merging then doubles a table at least, as none of
// the others is less than 1/count of it, but for the smallest shards; so once if what
// lands has 4 KiB. Tables of 1 MiB and more are written twice. Fewer than count tiny
// ones and target ÷ tiny others are waiting at any time.
func mergeAt() merging { return merging{target: 256 << 20, tiny: 1 << 20, count: 256} }

// moved is a shard on its way to another table.
type moved struct {
	Entry
	from, to bulk.Ref
}

// Merge moves the shards of small tables into larger ones until there is nothing to
// gain, and returns how many tables less there are. Each shard is verified on the
// way; one that is rotten is noted as lost. Readers notice nothing. fault.Full
// without the room of one table. Call it from one goroutine.
func (s *Store) Merge(ctx context.Context) (less int, err error) {
	for {
		tables := s.pickTables()
		if len(tables) == 0 {
			return less, nil
		}
		done, err := s.merge(ctx, tables)
		if err != nil {
			return less, err
		}
		if done {
			less += len(tables) - 1
		}
	}
}

// pickTables returns the tables that are to become one, the oldest first.
func (s *Store) pickTables() []uint64 {
	at := s.merging
	named := s.writing.mark(nil, nil) // tables below it
	var all, tiny []uint64
	var bytes int64
	s.o.Bulk.Tables(bulk.Held, func(number uint64, size int64) {
		if number >= named || size >= at.target/2 || bytes >= at.target || s.stays[number] {
			return
		}
		all, bytes = append(all, number), bytes+size
		if size < at.tiny && len(tiny) < at.count {
			tiny = append(tiny, number)
		}
	})
	switch {
	case len(all) > 1 && bytes >= at.target:
		return all
	case len(tiny) >= at.count:
		return tiny
	}
	return nil
}

// merge moves the shards of tables into one; false if one of them cannot be
// emptied, which is passed over from then on: it has a blob that is not held, or
// none any more.
func (s *Store) merge(ctx context.Context, tables []uint64) (done bool, err error) {
	var all []moved
	total := int64(0)
	for _, number := range tables {
		refs := s.o.Bulk.TableRefs(bulk.Held, number)
		if len(refs) == 0 {
			s.stays[number] = true
			return false, nil
		}
		for _, ref := range refs {
			e, ok, err := s.heldAt(ref)
			if err != nil {
				return false, err
			}
			if !ok {
				s.stays[number] = true
				return false, nil
			}
			all = append(all, moved{Entry: e, from: ref})
			total += ref.Bytes
		}
	}
	if err := s.o.Reserve(total); err != nil {
		return false, err
	}
	table, opening, err := s.writing.begin(s.o.Bulk)
	if err != nil {
		return false, err
	}
	defer s.writing.end(opening)
	whole, err := s.fill(ctx, table, all)
	if err != nil || !whole {
		table.Abort()
		return false, err
	}
	return true, s.place(ctx, table, all)
}

// heldAt returns the shard whose bytes a blob is; false if it is nobody's.
func (s *Store) heldAt(ref bulk.Ref) (e Entry, ok bool, err error) {
	value, ok, err := s.o.Rows.Get(keyBlob(ref))
	if err != nil || !ok {
		return e, false, err
	}
	if e.Name, err = parseName(value); err != nil {
		return e, false, fault.New(fault.Corrupt, "held: a blob's row: %w", err)
	}
	r, err := s.row(e.Name)
	if err != nil || r == nil || r.state != Held || r.ref != ref {
		return e, false, err
	}
	e.Root = r.root
	return e, true, nil
}

// fill copies shards into a table; false if one of them turned out lost, or went
// meanwhile: then the table is void.
func (s *Store) fill(ctx context.Context, table *bulk.Table, all []moved) (whole bool, err error) {
	gives := s.o.Busy
	if s.smallTables() >= manyTables {
		gives = func() bool { return false }
	}
	for i, m := range all {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		blob, err := table.Add()
		if err != nil {
			return false, err
		}
		from, out := &readerAt{from: s.o.Bulk.Reader(m.from), size: m.from.Bytes}, &sink{to: &yielding{to: blob, ctx: ctx, busy: gives, since: time.Now()}}
		head, index, err := stripe.Receive(from, out, m.from.Bytes)
		if err == nil && (head.Stripe != m.Stripe || index != m.Index || head.Root() != m.Root || from.at != from.size) {
			err = fault.New(fault.Corrupt, "held: the bytes of shard %v are those of another", m.Name)
		}
		switch {
		case out.err != nil:
			return false, out.err
		case err == nil:
			if err := blob.Close(); err != nil {
				return false, err
			}
			all[i].to = bulk.Ref{Space: bulk.Held, Table: table.Number(), Blob: uint32(i), Bytes: m.from.Bytes}
			continue
		case from.err != nil:
			err = from.err
		}
		if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.NotFound) {
			_, err = s.lose(m.Name, m.from, err)
		}
		return false, err
	}
	return true, nil
}

const (
	// beside is the part of the time that copying takes while others use the node: one in
	// so many. It comes to an end beside them, too.
	beside = 12
	// longestRest bounds how long it waits after a piece that took long.
	longestRest = time.Second
	// manyTables end that: where others come for weeks, what lands must be merged, too.
	manyTables = 4096
)

// smallTables is how many tables are merged in the end.
func (s *Store) smallTables() (n int) {
	s.o.Bulk.Tables(bulk.Held, func(_ uint64, size int64) {
		if size < s.merging.target/2 {
			n++
		}
	})
	return n
}

// yielding writes, and while others use the node waits afterwards, in proportion to the
// time that went by since it wrote last.
type yielding struct {
	to    io.Writer
	ctx   context.Context //nolint:containedctx // of one merging
	busy  func() bool
	since time.Time
}

func (y *yielding) Write(p []byte) (int, error) {
	n, err := y.to.Write(p)
	if err == nil && y.busy() && !pause.For(y.ctx, min((beside-1)*time.Since(y.since), longestRest)) {
		err = y.ctx.Err()
	}
	y.since = time.Now()
	return n, err
}

// readerAt reads from the beginning, and remembers why it failed.
type readerAt struct {
	from     io.ReaderAt
	at, size int64
	err      error
}

func (r *readerAt) Read(p []byte) (int, error) {
	if r.at == r.size {
		return 0, io.EOF
	}
	n, err := r.from.ReadAt(p[:min(int64(len(p)), r.size-r.at)], r.at)
	r.at += int64(n)
	if n > 0 {
		return n, nil
	}
	r.err = err
	return 0, err
}

// place commits a table of copies and has the rows name them instead of the
// originals. Before, a durable row says that the copies are to be deleted: that is
// what a start does whom a crash keeps from naming them.
func (s *Store) place(ctx context.Context, table *bulk.Table, all []moved) error {
	if err := table.Finish(); err != nil {
		return err
	}
	s.moving.Lock()
	defer s.moving.Unlock()
	rows := map[string][]byte{}
	for _, m := range all {
		rows[keyGoing(m.to)] = []byte{}
	}
	if err := s.o.Rows.Commit(rows); err != nil {
		table.Abort()
		return err
	}
	_, err := table.Commit(ctx)
	s.changing.Lock()
	defer s.changing.Unlock()
	if err != nil {
		for _, m := range all {
			s.settled = append(s.settled, keyGoing(m.to))
		}
		return err
	}
	gone, err := s.rename(all)
	s.remove(gone)
	return err
}

// rename points rows at copies, by one synced batch, and returns the blobs that
// are given up: originals, and copies of what was dropped or lost meanwhile. After
// an error it is not known which the rows name, and nothing is given up: the rows
// tell the next start. changing is held.
func (s *Store) rename(all []moved) (gone []bulk.Ref, err error) {
	rows := map[string][]byte{}
	names := make([]Name, 0, len(all))
	for _, m := range all {
		old, err := s.row(m.Name)
		if err != nil {
			return nil, err
		}
		if old == nil || old.state != Held || old.ref != m.from {
			gone = append(gone, m.to)
			continue
		}
		one := *old
		one.ref = m.to
		rows[keyShard(m.Name)] = one.append(nil)
		rows[keyBlob(m.to)] = m.Name.append(nil)
		rows[keyGoing(m.to)] = nil
		rows[keyBlob(m.from)] = nil
		rows[keyGoing(m.from)] = []byte{}
		gone, names = append(gone, m.from), append(names, m.Name)
	}
	if err := s.commitRows(rows); err != nil {
		return nil, err
	}
	s.opened.drop(names)
	s.stats.Merged.Add(uint64(len(names)))
	return gone, nil
}
