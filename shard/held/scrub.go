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
	"pelago/shard/scrub"
	"pelago/shard/stripe"
)

// walkRows is how many rows are looked at at a time: no iterator stays open while
// bytes are read.
const walkRows = 256

const (
	scrubVersion = 1
	scrubBytes   = 1 + scrub.TimesBytes + 8 + 4 + 8
)

// Scrub is how far reading all that is held is.
type Scrub struct {
	scrub.Pass
	at bulk.Ref // the next to be read
}

func (p *Scrub) append(b []byte) []byte {
	b = p.AppendTimes(append(b, scrubVersion))
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
	p.Began, p.Finished = scrub.ParseTimes(b[1:])
	p.at.Table, p.at.Blob = binary.BigEndian.Uint64(b[17:]), binary.BigEndian.Uint32(b[25:])
	p.Read = int64(binary.BigEndian.Uint64(b[29:]))
	return p
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
		pause.For(ctx, scrub.NoteEvery)
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
	for i := time.Duration(0); i < scrub.NoteEvery && s.o.Busy(); i += scrub.YieldFor {
		pause.For(ctx, scrub.YieldFor)
	}
	s.recount() // merging may take long
	forgotten := s.forgetReasons()
	_, err := s.Merge(ctx)
	s.recount()
	return errors.Join(err, forgotten)
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
		if !place.Due(s.o.Period) {
			return nil
		}
		place = Scrub{place.Begin(), bulk.Ref{Space: bulk.Held}}
	}
	pace := scrub.NewPace(ctx, scrub.Options{
		Period: s.o.Period, Busy: s.o.Busy,
		Total: func() int64 { total, _ := s.Bytes(); return total },
		Took:  func(n int) { s.stats.Scanned.Add(uint64(n)) },
	}, &place.Pass)
	var failed error // to note its place
	err := s.walk(ctx, place.at, func(n Name, at bulk.Ref) error {
		place.at = at
		pace.Done()
		if pace.Note() {
			if err := s.note(&place); err != nil {
				failed = err
			}
		}
		_, err := s.check(ctx, n, at, pace.Reader(s.o.Bulk.Reader(at)))
		return err
	})
	if err == nil {
		place = Scrub{Pass: place.End()}
	}
	return errors.Join(err, failed, s.note(&place))
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
