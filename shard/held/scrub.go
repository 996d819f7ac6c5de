package held

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/shard/bulk"
	"pelago/shard/stripe"
)

const (
	// slowest is what scrub reads in a second at least, while there is something.
	slowest = 64 << 10
	// aimPercent of the period is what a pass aims to take, so that pauses fit;
	// and nextPercent when the next begins at the earliest.
	aimPercent, nextPercent = 80, 75
	// yieldFor is how long scrub waits for readers before it looks again.
	yieldFor = time.Second
	// noteEvery is how often its place is noted, and what is due is done.
	noteEvery = time.Minute
	// walkRows is how many rows are looked at at a time: no iterator stays open
	// while bytes are read.
	walkRows = 256
)

const (
	scrubVersion = 1
	scrubBytes   = 1 + 8 + 8 + 8 + 4 + 8
)

// Scrub is how far reading all that is held is.
type Scrub struct {
	Began    time.Time // this pass; whole seconds. Zero: none is under way
	Finished time.Time // the last one
	Read     int64     // bytes, in this pass, of shards that are done
	at       bulk.Ref  // the next to be read
}

func (p *Scrub) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, scrubVersion), uint64(unix(p.Began)))
	b = binary.BigEndian.AppendUint64(b, uint64(unix(p.Finished)))
	b = binary.BigEndian.AppendUint64(b, p.at.Table)
	b = binary.BigEndian.AppendUint32(b, p.at.Blob)
	return binary.BigEndian.AppendUint64(b, uint64(p.Read))
}

// parseScrub reads what append wrote; a row of any other kind begins anew.
func parseScrub(b []byte) (p Scrub) {
	p.at.Space = bulk.Held
	if len(b) != scrubBytes || b[0] != scrubVersion {
		return p
	}
	p.Began, p.Finished = fromUnix(b[1:]), fromUnix(b[9:])
	p.at.Table, p.at.Blob = binary.BigEndian.Uint64(b[17:]), binary.BigEndian.Uint32(b[25:])
	p.Read = int64(binary.BigEndian.Uint64(b[29:]))
	return p
}

// unix is a time in seconds; 0 for none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(b []byte) time.Time {
	if seconds := int64(binary.BigEndian.Uint64(b)); seconds != 0 {
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}

// Scrubbed returns how far scrub was when its place was noted last.
func (s *Store) Scrubbed() (Scrub, error) {
	value, _, err := s.o.Rows.Get(string(rowScrub))
	if err != nil {
		return Scrub{}, err
	}
	return parseScrub(value), nil
}

// Run scrubs and tidies up until ctx ends. Each pass of scrub reads all that is held
// within Options.Period, and goes on where a restart cut it off; what it meets goes
// to Options.OnLost. Small tables are merged, and what was dropped long ago is
// forgotten. report is told of failures that are the store's, nil of a round
// without; it is called from two goroutines.
func (s *Store) Run(ctx context.Context, report func(error)) error {
	var tidying sync.WaitGroup
	tidying.Go(func() { s.again(ctx, report, s.tidy) })
	s.again(ctx, report, s.scrubAgain)
	tidying.Wait()
	return nil
}

// again does something every minute, until ctx ends.
func (s *Store) again(ctx context.Context, report func(error), do func(context.Context) error) {
	for ctx.Err() == nil {
		if err := do(ctx); ctx.Err() == nil {
			report(err)
		}
		pause.For(ctx, noteEvery)
	}
}

// scrubAgain goes on where scrub was.
func (s *Store) scrubAgain(ctx context.Context) error {
	place, err := s.Scrubbed()
	if err != nil {
		return err
	}
	return s.scrub(ctx, place)
}

// tidy does what is due now and then. It waits for readers, but not for ever.
func (s *Store) tidy(ctx context.Context) error {
	for i := time.Duration(0); i < noteEvery && s.o.Busy(); i += yieldFor {
		pause.For(ctx, yieldFor)
	}
	_, err := s.Merge(ctx)
	s.recount()
	return errors.Join(err, s.forgetReasons())
}

// recount looks how many bytes the tables of shards really have: those of the dead
// stay until their table is rewritten.
func (s *Store) recount() {
	bytes := s.o.Bulk.BytesOf(bulk.Held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = bytes
}

// scrub goes on with the pass that is under way, or begins one if it is due.
func (s *Store) scrub(ctx context.Context, place Scrub) error {
	if place.Began.IsZero() {
		if time.Since(place.Finished) < s.o.Period/100*nextPercent && !place.Finished.IsZero() {
			return nil
		}
		place = Scrub{Began: time.Now(), Finished: place.Finished, at: bulk.Ref{Space: bulk.Held}}
	}
	pace := &pace{ctx: ctx, store: s, place: &place, noted: time.Now()}
	err := s.walk(ctx, place.at, func(n Name, at bulk.Ref) error {
		place.at, place.Read = at, place.Read+pace.part
		pace.part = 0
		pace.note()
		_, err := s.check(ctx, n, at, &pacedReader{pace, s.o.Bulk.Reader(at)})
		return err
	})
	if err == nil {
		// The next one is due by when this one began.
		place = Scrub{Finished: place.Began}
	}
	return errors.Join(err, pace.failed, s.note(&place))
}

func (s *Store) note(place *Scrub) error {
	return s.o.Rows.Commit(map[string][]byte{string(rowScrub): place.append(nil)})
}

// walk visits what is held in the order in which it lies, from a place on.
func (s *Store) walk(ctx context.Context, from bulk.Ref, visit func(n Name, at bulk.Ref) error) error {
	type one struct {
		name Name
		at   bulk.Ref
	}
	key := keyBlob(from)
	for {
		var some []one
		err := s.o.Rows.From(key, func(k string, value []byte) (bool, error) {
			if k == "" || k[0] != rowBlob {
				return false, nil
			}
			n, err := parseName(value)
			if err != nil || len(k) != 1+8+4 {
				return false, fault.New(fault.Corrupt, "held: a blob's row of %d and %d bytes", len(k), len(value))
			}
			b := []byte(k)
			some = append(some, one{n, bulk.Ref{Space: bulk.Held, Table: binary.BigEndian.Uint64(b[1:]), Blob: binary.BigEndian.Uint32(b[9:])}})
			return len(some) < walkRows, nil
		})
		if err != nil || len(some) == 0 {
			return err
		}
		for _, o := range some {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := s.row(o.name)
			if err != nil {
				return err
			}
			if r == nil || r.state != Held || r.ref.Table != o.at.Table || r.ref.Blob != o.at.Blob {
				continue // lost already, or it went meanwhile
			}
			if err := visit(o.name, r.ref); err != nil {
				return err
			}
		}
		key = keyBlob(some[len(some)-1].at) + "\x00"
	}
}

// check reads a shard whole; false if it is lost, which is noted. An error is the
// store's, or of a disk that does not answer.
func (s *Store) check(ctx context.Context, n Name, at bulk.Ref, from io.ReaderAt) (whole bool, err error) {
	sh, err := stripe.Open(from, at.Bytes)
	if err == nil {
		err = sh.Verify(ctx)
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil {
		var r *row
		if r, err = s.row(n); err != nil {
			return false, err
		}
		if r == nil || r.ref != at || sh.Head().Stripe == n.Stripe && sh.Index() == n.Index && sh.Head().Root() == r.root {
			return true, nil
		}
		err = fault.New(fault.Corrupt, "held: the bytes of shard %v are those of another", n)
	}
	if fault.Is(err, fault.Unavailable) {
		return false, err
	}
	_, err = s.lose(n, at, err)
	return false, err
}

// pace keeps scrub to the rate at which it ends in time.
type pace struct {
	ctx    context.Context //nolint:containedctx // of one pass
	store  *Store
	place  *Scrub
	part   int64 // bytes read of the shard in hand
	noted  time.Time
	failed error // to note its place
}

// took waits as long as n bytes may take, and for readers.
func (p *pace) took(n int) {
	s := p.store
	p.part += int64(n)
	s.stats.Scanned.Add(uint64(n))
	total, _ := s.Bytes()
	aim := s.o.Period / 100 * aimPercent
	left := max(aim-time.Since(p.place.Began), s.o.Period/100)
	rate := max(slowest, perSecond(total, aim), perSecond(total-p.read(), left))
	if !pause.For(p.ctx, time.Duration(float64(n)/float64(rate)*float64(time.Second))) {
		return
	}
	for s.o.Busy() && p.ahead(total) && pause.For(p.ctx, yieldFor) {
		continue
	}
}

// ahead reports whether the pass can wait without being late.
func (p *pace) ahead(total int64) bool {
	elapsed := time.Since(p.place.Began)
	return float64(p.read())*float64(p.store.o.Period) >= float64(total)*float64(elapsed)
}

func (p *pace) read() int64 { return p.place.Read + p.part }

func perSecond(bytes int64, in time.Duration) int64 { return bytes / max(1, int64(in/time.Second)) }

// note makes durable where the pass is, from time to time.
func (p *pace) note() {
	if time.Since(p.noted) < noteEvery {
		return
	}
	p.noted = time.Now()
	if err := p.store.note(p.place); err != nil {
		p.failed = err
	}
}

// pacedReader reads no faster than scrub may.
type pacedReader struct {
	pace *pace
	from io.ReaderAt
}

func (r *pacedReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.pace.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.from.ReadAt(b, off)
	r.pace.took(n)
	return n, err
}
