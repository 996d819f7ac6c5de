package held

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/stripe"
)

// Limits of an upload.
const (
	// MaxBatch is how many shards a request or a receipt has.
	MaxBatch = 1000
	// MaxSmall is the longest shard of a batch: a ciphertext that is repeated, the
	// hashes of its leaves, its head.
	MaxSmall = shard.SmallBytes + 64<<10
	// MaxBytes is the longest shard at all. What is really taken is bounded by the
	// room that is reserved for it.
	MaxBytes = 1 << 40
	// spoolBytes is the longest upload that is taken into memory, to share a table
	// with others.
	spoolBytes = MaxSmall
)

// Claim is a shard that is offered, and how long it is at rest.
type Claim struct {
	Entry
	Bytes int64
}

func claimName(c *Claim) Name { return c.Name }

// Outcome is what became of an offered shard, or is known of one that was asked
// about.
type Outcome uint8

// The outcomes. Their numbers are part of the peer protocol.
const (
	Stored   Outcome = 1 + iota // it is here now, and was not before
	Known                       // it was here
	Conflict                    // another one stands under its name
	Refused                     // it was dropped here, and must not come back, or its pack was purged
	Busy                        // somebody else is sending it
	Missing                     // it is not here
	Rotten                      // it was here, and is lost
	outcomes
)

// Here reports whether the shard is held: a receipt covers it.
func (o Outcome) Here() bool { return o == Stored || o == Known }

func (o Outcome) String() string {
	switch o {
	case Stored:
		return "stored"
	case Known:
		return "known"
	case Conflict:
		return "conflict"
	case Refused:
		return "refused"
	case Busy:
		return "busy"
	case Missing:
		return "missing"
	case Rotten:
		return "lost"
	}
	return "unknown"
}

// Landed is what became of the shards of an upload, in its order.
type Landed struct {
	Outcomes []Outcome
	Receipt  *Receipt // for those that are here; nil if none is
}

// Stats count since the start.
type Stats struct {
	Landed  atomic.Uint64 // shards
	Bytes   atomic.Uint64 // of them
	Commits atomic.Uint64 // which made them durable
	Tables  atomic.Uint64 // that these committed
	Merged  atomic.Uint64 // shards that were moved into a table with others
	Dropped atomic.Uint64 // shards
	Lost    atomic.Uint64 // shards
	Scanned atomic.Uint64 // bytes that scrub has read
}

// Counters are the store's counters.
func (s *Store) Counters() *Stats { return &s.stats }

// Land takes shards in, whose bytes follow each other in from, in the order of the
// claims: ascending by name. Each is verified as it comes against itself and its
// claim; if one fails, or from ends early, none is taken. They are durable when
// Land returns, and the receipt says so. A shard that was here before is not taken
// again, and has the same receipt.
//
// fault.Invalid for bytes that are no shards, or not those of their claims,
// fault.Full without room, fault.Unavailable when from breaks off.
func (s *Store) Land(ctx context.Context, claims []Claim, from io.Reader) (*Landed, error) {
	if err := checkClaims(claims); err != nil {
		return nil, err
	}
	outcomes, leave, err := s.admit(claims)
	if err != nil {
		return nil, err
	}
	defer leave()
	l := &landing{turn: make(chan bool, 1)}
	room, total := int64(0), int64(0)
	for i, c := range claims {
		if total += c.Bytes; outcomes[i] == Stored {
			room += c.Bytes
			l.shards = append(l.shards, arrived{Claim: c})
		}
	}
	if len(l.shards) > 0 {
		release, err := s.reserve(room)
		if err != nil {
			return nil, err
		}
		defer release()
		l.spooled = total <= spoolBytes
		if err := s.take(ctx, l, claims, outcomes, from); err != nil {
			s.abort(l)
			return nil, err
		}
		if err := s.commit(ctx, l); err != nil {
			return nil, err
		}
		if err := s.refusePurged(ctx, claims, outcomes); err != nil {
			return nil, err
		}
	}
	return &Landed{Outcomes: outcomes, Receipt: s.receipt(claims, outcomes)}, nil
}

func checkClaims(claims []Claim) error {
	if err := inOrder(claims, claimName); err != nil {
		return err
	}
	longest := int64(MaxBytes)
	if len(claims) > 1 {
		longest = MaxSmall
	}
	for _, c := range claims {
		if c.Bytes < 1 || c.Bytes > longest {
			return fault.New(fault.Invalid, "held: a shard of %d bytes in a batch of %d", c.Bytes, len(claims))
		}
	}
	return nil
}

// admit says of each claim what becomes of it: Stored if its bytes are wanted. The
// names of those are the caller's until leave.
func (s *Store) admit(claims []Claim) (outcomes []Outcome, leave func(), err error) {
	outcomes = make([]Outcome, len(claims))
	mine := make([]Name, 0, len(claims))
	s.mu.Lock()
	for i, c := range claims {
		if s.arriving[c.Name] {
			outcomes[i] = Busy
			continue
		}
		s.arriving[c.Name] = true
		mine = append(mine, c.Name)
	}
	s.mu.Unlock()
	leave = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, n := range mine {
			delete(s.arriving, n)
		}
	}
	for i, c := range claims {
		if outcomes[i] != 0 {
			continue
		}
		if outcomes[i], err = s.judge(c.Entry); err != nil {
			leave()
			return nil, nil, err
		}
	}
	return outcomes, leave, nil
}

// refusePurged drops what has landed of packs that were purged meanwhile: whoever
// dropped the shards of such a pack may have looked before these were named.
func (s *Store) refusePurged(ctx context.Context, claims []Claim, outcomes []Outcome) error {
	for i, c := range claims {
		if outcomes[i] != Stored {
			continue
		}
		index, err := s.o.Purged(c.Pack)
		if err != nil {
			return err
		}
		if index == 0 {
			continue
		}
		if _, err := s.Drop(context.WithoutCancel(ctx), Purged{index}, c.Name); err != nil {
			return err
		}
		outcomes[i] = Refused
	}
	return nil
}

// judge compares an offered shard with what is known of it.
func (s *Store) judge(e Entry) (Outcome, error) {
	if index, err := s.o.Purged(e.Pack); err != nil || index > 0 {
		return Refused, err
	}
	r, err := s.row(e.Name)
	switch {
	case err != nil:
		return 0, err
	case r == nil:
		return Stored, nil
	case r.root != e.Root && r.state != Dropped:
		s.o.Log.Error("a shard is offered under the name of another", "shard", e.Name.String())
		s.o.OnConflict(e, r.root)
		return Conflict, nil
	case r.state == Held && s.o.Bulk.Has(r.ref):
		return Known, nil
	case r.state == Dropped:
		why, err := parseReason(r.detail)
		if err != nil {
			return 0, err
		}
		if why.final() {
			return Refused, nil
		}
	}
	return Stored, nil
}

// Ask says of each of a batch, ascending by name, whether it is here, and gives a
// receipt for those that are.
func (s *Store) Ask(entries []Entry) (*Landed, error) {
	if err := inOrder(entries, entryName); err != nil {
		return nil, err
	}
	claims := make([]Claim, len(entries))
	outcomes := make([]Outcome, len(entries))
	for i, e := range entries {
		claims[i] = Claim{Entry: e}
		r, err := s.row(e.Name)
		switch {
		case err != nil:
			return nil, err
		case r == nil || r.state == Dropped:
			outcomes[i] = Missing
		case r.root != e.Root:
			outcomes[i] = Conflict
		case r.state == Lost || !s.o.Bulk.Has(r.ref):
			outcomes[i] = Rotten
		default:
			outcomes[i] = Known
		}
	}
	return &Landed{Outcomes: outcomes, Receipt: s.receipt(claims, outcomes)}, nil
}

// receipt signs for those that are here; nil for none.
func (s *Store) receipt(claims []Claim, outcomes []Outcome) *Receipt {
	var here []Entry
	for i, c := range claims {
		if outcomes[i].Here() {
			here = append(here, c.Entry)
		}
	}
	if len(here) == 0 {
		return nil
	}
	return signReceipt(s.o.Self, here)
}

// take reads the bytes of an upload, into memory or into a table of its own.
func (s *Store) take(ctx context.Context, l *landing, claims []Claim, outcomes []Outcome, from io.Reader) error {
	if !l.spooled {
		if err := s.open(l); err != nil {
			return err
		}
	}
	next := 0
	for i, c := range claims {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if outcomes[i] == Stored {
			err = s.takeOne(l, &l.shards[next], from)
			next++
		} else {
			_, err = io.CopyN(io.Discard, from, c.Bytes)
			err = broken(err)
		}
		if err != nil {
			return err
		}
	}
	var more [1]byte
	switch _, err := io.ReadFull(from, more[:]); {
	case err == nil:
		return fault.New(fault.Invalid, "held: bytes behind the last shard of an upload")
	case !errors.Is(err, io.EOF):
		return broken(err)
	}
	if l.table == nil {
		return nil
	}
	return l.table.Finish() // its sync is its own, and beside those of others
}

func (s *Store) takeOne(l *landing, a *arrived, from io.Reader) error {
	if l.table == nil {
		var b bytes.Buffer
		err := receive(a.Claim, from, &b)
		a.bytes = b.Bytes()
		return err
	}
	blob, err := l.table.Add()
	if err != nil {
		return err
	}
	return errors.Join(receive(a.Claim, from, blob), blob.Close())
}

// receive copies a shard as it comes, and proves that it is the one of its claim.
func receive(c Claim, from io.Reader, to io.Writer) error {
	in, out := &exact{from: from, left: c.Bytes}, &sink{to: to}
	head, index, err := stripe.Receive(in, out, c.Bytes)
	switch {
	case out.err != nil:
		return out.err
	case in.err != nil:
		return broken(in.err)
	case fault.Is(err, fault.Unsupported):
		return err
	case err != nil:
		return fault.New(fault.Invalid, "held: shard %v: %w", c.Name, err)
	case in.left > 0:
		return fault.New(fault.Invalid, "held: shard %v ends %d bytes early", c.Name, in.left)
	case head.Stripe != c.Stripe || index != c.Index || head.Root() != c.Root:
		return fault.New(fault.Invalid, "held: what comes as shard %v is shard %d of %v", c.Name, index, head.Stripe)
	}
	return nil
}

// exact reads so many bytes and no more; an end before is io.ErrUnexpectedEOF.
type exact struct {
	from io.Reader
	left int64
	err  error // of from
}

func (e *exact) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.from.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); errors.Is(err, io.EOF) {
		err = nil
		if e.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	e.err = err
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// sink remembers why writing failed.
type sink struct {
	to  io.Writer
	err error
}

func (w *sink) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// broken is the failure of who sends.
func broken(err error) error {
	if err == nil || fault.KindOf(err) != fault.Other {
		return err
	}
	return fault.New(fault.Unavailable, "held: an upload breaks off: %w", err)
}

// landing is an upload whose bytes have come, or are coming.
type landing struct {
	shards  []arrived
	spooled bool        // its bytes are in memory
	table   *bulk.Table // of its own; nil while there is none
	opening *opening    // that keeps the mark below the table

	turn chan bool // true: lead the next commit; false: err says how it ended
	err  error
}

type arrived struct {
	Claim
	bytes []byte // of a spooled one
	ref   bulk.Ref
}

// open begins a landing's own table.
func (s *Store) open(l *landing) (err error) {
	l.table, l.opening, err = s.writing.begin(s.o.Bulk)
	return err
}

// abort drops a landing that is not committed.
func (s *Store) abort(l *landing) {
	if l.table != nil {
		l.table.Abort()
		s.writing.end(l.opening)
	}
}

// commit makes a landing durable, together with all that wait meanwhile. Whoever
// finds no commit under way leads one at once; whoever comes while one is shares
// the next.
func (s *Store) commit(ctx context.Context, l *landing) error {
	s.mu.Lock()
	s.waiting = append(s.waiting, l)
	lead := !s.leading
	s.leading = true
	s.mu.Unlock()
	if !lead && !<-l.turn {
		return l.err
	}
	s.mu.Lock()
	group := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	s.commitGroup(context.WithoutCancel(ctx), group)
	s.mu.Lock()
	if s.leading = len(s.waiting) > 0; s.leading {
		s.waiting[0].turn <- true
	}
	s.mu.Unlock()
	for _, other := range group {
		if other != l {
			other.turn <- false
		}
	}
	return l.err
}

// commitGroup writes what is in memory into one table, commits it with the other
// tables, and names all shards by one synced batch.
func (s *Store) commitGroup(ctx context.Context, group []*landing) {
	shared := s.writeShared(group)
	var ready []*landing
	var tables []*bulk.Table
	for _, l := range group {
		switch {
		case l.err != nil:
		case l.spooled:
			ready = append(ready, l)
		default:
			ready, tables = append(ready, l), append(tables, l.table)
		}
	}
	if shared != nil {
		tables = append(tables, shared.table)
	}
	if len(tables) == 0 {
		return
	}
	refs, err := s.o.Bulk.Commit(ctx, tables...)
	if err == nil {
		place(ready, shared, refs)
		err = s.name(ready, shared)
	} else {
		s.ended(ready, shared)
	}
	if err != nil {
		for _, l := range ready {
			l.err = err
		}
		return
	}
	s.stats.Commits.Add(1)
	s.stats.Tables.Add(uint64(len(tables)))
}

// writeShared puts the spooled shards of a group into one table; nil if there are
// none, or it failed: then their landings have.
func (s *Store) writeShared(group []*landing) *landing {
	shared := &landing{}
	for _, l := range group {
		if !l.spooled {
			continue
		}
		err := shared.err
		if err == nil && shared.table == nil {
			err = s.open(shared)
		}
		for i := range l.shards {
			if err == nil {
				err = writeBlob(shared.table, l.shards[i].bytes)
			}
		}
		shared.err = err
	}
	if shared.err == nil && shared.table != nil {
		shared.err = shared.table.Finish()
	}
	if shared.err == nil {
		if shared.table == nil {
			return nil
		}
		return shared
	}
	s.abort(shared)
	for _, l := range group {
		if l.spooled {
			l.err = shared.err
		}
	}
	return nil
}

func writeBlob(table *bulk.Table, b []byte) error {
	blob, err := table.Add()
	if err != nil {
		return err
	}
	_, err = blob.Write(b)
	return errors.Join(err, blob.Close())
}

// place tells shards where they rest: refs of the landings' own tables in their
// order, and then of the shared one.
func place(ready []*landing, shared *landing, refs [][]bulk.Ref) {
	var common []bulk.Ref
	if shared != nil {
		common, refs = refs[len(refs)-1], refs[:len(refs)-1]
	}
	for _, l := range ready {
		from := &common
		if !l.spooled {
			from, refs = &refs[0], refs[1:]
		}
		for i := range l.shards {
			l.shards[i].ref = (*from)[i]
		}
		*from = (*from)[len(l.shards):]
	}
}

// ended ends the tables of a group, which are committed and named, or gone.
func (s *Store) ended(ready []*landing, shared *landing) {
	for _, l := range append(ready[:len(ready):len(ready)], shared) {
		if l != nil && l.opening != nil {
			s.writing.end(l.opening)
		}
	}
}

// name makes the blobs of a group shards, by one synced batch.
func (s *Store) name(ready []*landing, shared *landing) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	rows := map[string][]byte{}
	var gone, refs []bulk.Ref
	bytes, err := int64(0), error(nil)
	for _, l := range ready {
		for _, a := range l.shards {
			var old *row
			if err == nil {
				old, err = s.row(a.Name)
			}
			if r := nameRows(rows, a.Entry, a.ref, old); r != nil {
				gone = append(gone, *r)
			}
			refs, bytes = append(refs, a.ref), bytes+a.ref.Bytes
		}
	}
	rows[string(rowMark)] = binary.BigEndian.AppendUint64(nil, s.writing.mark(ready, shared))
	if err == nil {
		err = s.commitRows(rows)
	}
	if err != nil {
		// Nobody was told, and no row is durable: the senders send them again. If they
		// cannot be deleted now, the mark stays below them, and the next start adopts
		// them.
		deleted := s.o.Bulk.Delete(refs...)
		if deleted == nil {
			s.ended(ready, shared)
		}
		return errors.Join(err, deleted)
	}
	s.ended(ready, shared)
	s.mu.Lock()
	s.used += bytes
	s.mu.Unlock()
	s.stats.Landed.Add(uint64(len(refs)))
	s.stats.Bytes.Add(uint64(bytes))
	s.freed(gone)
	s.remove(gone)
	return nil
}

// writing knows the tables that are being written: a start looks for blobs
// without rows in those from the lowest of them on.
type writing struct {
	mu        sync.Mutex
	seen      uint64 // the highest number that was given
	committed uint64 // the highest that bulk/ has committed: it gives none below again
	floors    map[*opening]uint64
}

// opening is a table that is being written.
type opening struct{ _ byte }

// begin begins a table.
func (w *writing) begin(from *bulk.Store) (*bulk.Table, *opening, error) {
	o := &opening{}
	w.mu.Lock()
	w.floors[o] = w.seen + 1 // its number will be no lower
	w.mu.Unlock()
	table, err := from.NewTable(bulk.Held)
	if err != nil {
		w.end(o)
		return nil, nil, err
	}
	w.mu.Lock()
	w.floors[o], w.seen = table.Number(), max(w.seen, table.Number())
	w.mu.Unlock()
	return table, o, nil
}

func (w *writing) end(o *opening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.floors, o)
}

// mark is the table below which all blobs have rows, once those of a group have
// that was committed. A number that was given and not committed may be given again
// by another process: it stays below no mark.
func (w *writing) mark(ready []*landing, shared *landing) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := map[*opening]bool{}
	for _, l := range append(ready[:len(ready):len(ready)], shared) {
		if l != nil && l.opening != nil {
			of[l.opening] = true
			w.committed = max(w.committed, l.table.Number())
		}
	}
	mark := w.committed + 1
	for o, floor := range w.floors {
		if !of[o] {
			mark = min(mark, floor)
		}
	}
	return mark
}
