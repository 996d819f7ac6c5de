package virtual

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held/volatile"
	"pelago/shard/pack"
	"pelago/shard/scrub"
)

// EachPack implements Packs.
func (o *origin) EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error {
	o.mu.Lock()
	ids := slices.SortedFunc(maps.Keys(o.packs), func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) })
	o.mu.Unlock()
	for _, id := range ids {
		o.mu.Lock()
		p := o.packs[id]
		o.mu.Unlock()
		if bytes.Compare(id[:], after[:]) <= 0 || p == nil {
			continue
		}
		if more, err := visit(p); err != nil || !more || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

func (o *origin) total() (bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.packs {
		bytes += p.BlobBytes
	}
	return bytes
}

// scrubs runs a scrub until stop is called.
func scrubs(t *testing.T, o ScrubOptions) (s *Scrub, stop func()) {
	t.Helper()
	s = NewScrub(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, nil) }()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

const testPeriod = 100 * time.Hour

// begin is a time with whole seconds: rows have no others.
func begin() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

// many are packs, whose reading is counted.
func many(t *testing.T, count int) (*origin, []*made) {
	o := newOrigin()
	var all []*made
	for i := range count {
		m := encode(t, byte(i), shard.Code{K: 2, M: 1}, 400_000)
		all = append(all, m)
		o.inMemory(m, uint64(i+1))
	}
	return o, all
}

func (o *origin) scrubOptions(rows Rows) ScrubOptions {
	return ScrubOptions{Packs: o, Rows: rows, Bytes: func() int64 { return o.total() }, Period: testPeriod, Rotten: func(id pack.ID, err error) {
		o.told(shard.Stripe{Pack: id}, err)
	}}
}

func TestScrubReadsAllOnceInItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		o, _ := many(t, 6)
		s, stop := scrubs(t, o.scrubOptions(&volatile.Rows{}))
		time.Sleep(time.Hour)
		if n := s.Counters().Packs.Load(); n != 6 || o.read.Load() != o.total() {
			t.Errorf("%d packs, %d bytes of %d", n, o.read.Load(), o.total())
		}
		time.Sleep(testPeriod * 7 / 10)
		if n := s.Counters().Packs.Load(); n != 6 {
			t.Errorf("a second pass began early: %d packs", n)
		}
		time.Sleep(testPeriod / 10)
		if n := s.Counters().Packs.Load(); n != 12 {
			t.Errorf("after a period %d packs", n)
		}
		place, err := s.Place()
		if err != nil || !place.Began.IsZero() || place.Finished.IsZero() || len(o.rotten) != 0 {
			t.Errorf("%+v, %v, rotten %v", place, err, o.rotten)
		}
		stop()
	})
}

func TestScrubGoesOnWhereARestartCutItOffAndEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		o, _ := many(t, 20)
		rows := &volatile.Rows{}
		opts := o.scrubOptions(rows)
		began := time.Now()
		// Short enough that the period, and not the least rate, says how fast it goes.
		opts.Period = time.Duration(float64(o.total()) / (scrub.Slowest * 2) * float64(time.Second) * 100 / scrub.AimPercent)
		for range 3 {
			s, stop := scrubs(t, opts)
			time.Sleep(opts.Period / 5)
			stop()
			if place, err := s.Place(); err != nil || place.Began.IsZero() {
				t.Fatalf("%+v, %v", place, err)
			}
		}
		_, stop := scrubs(t, opts)
		time.Sleep(opts.Period - time.Since(began))
		stop()
		if most := o.total() + 4*500_000; o.read.Load() < o.total() || o.read.Load() > most {
			t.Errorf("%d bytes were read of %d: no more than the packs in hand twice", o.read.Load(), o.total())
		}
		place, err := NewScrub(opts).Place()
		if err != nil || place.Finished.Unix() != began.Unix() {
			t.Errorf("%+v, %v", place, err)
		}
	})
}

func TestScrubWaitsForWhoIsServedButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		o, _ := many(t, 20)
		opts := o.scrubOptions(&volatile.Rows{})
		opts.Period = 10 * time.Hour
		var busy atomic.Bool
		busy.Store(true)
		opts.Busy = busy.Load
		s, stop := scrubs(t, opts)
		time.Sleep(opts.Period / 4)
		if read := o.read.Load(); read > o.total()/2 {
			t.Errorf("%d of %d bytes were read while others were served", read, o.total())
		}
		time.Sleep(opts.Period * 4 / 5)
		if n := s.Counters().Packs.Load(); n < 20 {
			t.Errorf("%d packs were read within the period", n)
		}
		stop()
	})
}

func TestScrubTellsOfRotAndOfNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		o, all := many(t, 5)
		id := func(i int) pack.ID { return pack.ID(all[i].head.Stripe.Pack) }
		all[1].ciphertext[200_000] ^= 1
		// Bulk meets rot while it reads, and the archive notes it.
		o.add(all[2], &failing{from: bytes.NewReader(all[2].ciphertext), err: fault.New(fault.Corrupt, "rotten"), then: func() {
			o.lost([]bulk.Ref{refOf(o.packs[id(2)])}, nil)
		}}, bulk.Ref{Space: bulk.Hot, Table: 50})
		// A pack goes while it is read.
		o.add(all[3], &failing{from: bytes.NewReader(all[3].ciphertext), err: fault.New(fault.NotFound, "gone"), then: func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.packs, id(3))
		}}, bulk.Ref{Space: bulk.Hot, Table: 51})
		// And memory is wrong once.
		flips := &flipping{from: bytes.NewReader(all[4].ciphertext)}
		o.add(all[4], flips, bulk.Ref{Space: bulk.Hot, Table: 52})
		s, stop := scrubs(t, o.scrubOptions(&volatile.Rows{}))
		time.Sleep(time.Hour)
		stop()
		if len(o.rotten) != 1 || pack.ID(o.rotten[0].Pack) != id(1) {
			t.Errorf("told of %v", o.rotten)
		}
		if c := s.Counters(); c.Rotten.Load() != 2 || c.Packs.Load() != 2 {
			t.Errorf("%d rotten, %d whole", c.Rotten.Load(), c.Packs.Load())
		}
		if place, err := s.Place(); err != nil || place.Finished.IsZero() {
			t.Errorf("the pass did not end: %+v, %v", place, err)
		}
	})
}

// A disk that does not answer ends the pass, which goes on there.
func TestScrubPassesOverNothingThatCouldNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		o, all := many(t, 2)
		broken := &failing{from: bytes.NewReader(all[0].ciphertext), err: fault.New(fault.Unavailable, "no disk"), then: func() {}}
		o.add(all[0], broken, bulk.Ref{Space: bulk.Hot, Table: 50})
		opts := o.scrubOptions(&volatile.Rows{})
		s := NewScrub(opts)
		if err := s.Run(t.Context(), nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v", err)
		}
		if place, err := s.Place(); err != nil || !place.Finished.IsZero() || place.Began.IsZero() {
			t.Errorf("%+v, %v", place, err)
		}
		o.inMemory(all[0], 1)
		s, stop := scrubs(t, opts)
		time.Sleep(time.Hour)
		stop()
		if place, err := s.Place(); err != nil || place.Finished.IsZero() || len(o.rotten) != 0 {
			t.Errorf("%+v, %v, %v", place, err, o.rotten)
		}
	})
}

// failing fails a while in, after it did something.
type failing struct {
	from io.ReaderAt
	err  error
	then func()
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 100_000 {
		f.then()
		return 0, f.err
	}
	return f.from.ReadAt(p, off)
}

// flipping has a wrong bit the first time.
type flipping struct {
	from io.ReaderAt
	done bool
}

func (f *flipping) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.from.ReadAt(p, off)
	if !f.done && n > 0 {
		p[0] ^= 1
		f.done = true
	}
	return n, err
}

func TestAPlaceIsReadAsItWasWritten(t *testing.T) {
	want := Place{scrub.Pass{Began: time.Unix(1_700_000_000, 0), Finished: time.Unix(1_600_000_000, 0), Read: 1 << 40}, pack.ID{1, 2, 15: 3}}
	b := want.append(nil)
	if got := parsePlace(b); got != want {
		t.Errorf("%+v", got)
	}
	if got := (Place{}); parsePlace(got.append(nil)) != got {
		t.Error("none")
	}
	for _, b := range [][]byte{nil, b[:len(b)-1], append([]byte{2}, b[1:]...), append(b, 0)} {
		if got := parsePlace(b); got != (Place{}) {
			t.Errorf("%x: %+v", b, got)
		}
	}
}
