package virtual

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/archive/archivepb"
	"pelago/node/work"
	"pelago/shard/pack"
	"pelago/shard/scrub"
	"pelago/shard/seal"
)

const defaultPeriod = 30 * 24 * time.Hour

// Packs has all packs that arrived here; *archive.Archive does.
type Packs interface {
	Hot
	// EachPack visits packs behind an id, ascending, until visit returns false; zeros
	// begin.
	EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error
}

// Rows is a part of store/; *archive.Rows is one.
type Rows interface {
	Commit(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
}

// ScrubOptions are what a scrub is made of.
type ScrubOptions struct {
	Packs Packs
	Rows  Rows
	Bytes func() int64 // of all hot copies, about

	// Period is how long it takes to read all of them: 30 days.
	Period time.Duration
	// Busy reports whether scrub should wait; nil: never.
	Busy func() bool
	// Rotten is told of a copy that was read twice and is not what its record says,
	// although bulk/ reads it: the archive tells of what bulk/ finds. nil: nobody.
	Rotten func(id pack.ID, cause error)
	Log    *slog.Logger // nil is silent
}

// Scrub reads all hot copies, whether anything is cut from them or not, and compares
// them with the roots that they were sealed with. Rot that bulk/ meets while it reads
// is noted by the archive as that of any read.
type Scrub struct {
	o     ScrubOptions
	stats ScrubStats
}

// ScrubStats count since the start.
type ScrubStats struct {
	Packs  atomic.Uint64 // that were read
	Bytes  atomic.Uint64 // of them
	Rotten atomic.Uint64 // packs that were not what they were
}

// NewScrub returns a scrub.
func NewScrub(o ScrubOptions) *Scrub {
	if o.Period == 0 {
		o.Period = defaultPeriod
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	if o.Rotten == nil {
		o.Rotten = func(pack.ID, error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Scrub{o: o}
}

// Counters are the scrub's counters.
func (s *Scrub) Counters() *ScrubStats { return &s.stats }

// Place is how far a scrub is.
type Place struct {
	scrub.Pass
	after pack.ID // the last pack that is done
}

const (
	rowPlace     = "place"
	placeVersion = 1
	placeBytes   = 1 + scrub.TimesBytes + 8 + 16
)

func (p *Place) append(b []byte) []byte {
	b = p.AppendTimes(append(b, placeVersion))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Read))
	return append(b, p.after[:]...)
}

// parsePlace reads what append wrote; a row of any other kind begins anew.
func parsePlace(b []byte) (p Place) {
	if len(b) != placeBytes || b[0] != placeVersion {
		return p
	}
	p.Began, p.Finished = scrub.ParseTimes(b[1:])
	p.Read = int64(binary.BigEndian.Uint64(b[17:]))
	copy(p.after[:], b[25:])
	return p
}

// Place returns how far scrub was when that was noted last.
func (s *Scrub) Place() (Place, error) {
	value, _, err := s.o.Rows.Get(rowPlace)
	if err != nil {
		return Place{}, err
	}
	return parsePlace(value), nil
}

// Run scrubs until ctx ends: each pass reads all within Options.Period, and goes on
// where a restart cut it off.
func (s *Scrub) Run(ctx context.Context, progress *work.Progress) error {
	for ctx.Err() == nil {
		place, err := s.Place()
		if err == nil {
			err = s.pass(ctx, place, progress)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		pause.For(ctx, scrub.NoteEvery)
	}
	return nil
}

// pass goes on with the pass that is under way, or begins one if it is due.
func (s *Scrub) pass(ctx context.Context, place Place, progress *work.Progress) error {
	if place.Began.IsZero() {
		if !place.Due(s.o.Period) {
			return nil
		}
		place = Place{Pass: place.Begin()}
	}
	pace := scrub.NewPace(ctx, scrub.Options{
		Period: s.o.Period, Total: s.o.Bytes, Busy: s.o.Busy,
		Took: func(n int) { s.stats.Bytes.Add(uint64(n)) },
	}, &place.Pass)
	err := s.o.Packs.EachPack(ctx, place.after, func(p *archivepb.Pack) (bool, error) {
		if err := s.check(ctx, pace, p); err != nil {
			return false, err
		}
		copy(place.after[:], p.Id)
		pace.Done()
		progress.Set(place.Read, s.o.Bytes())
		if pace.Note() {
			return true, s.note(&place)
		}
		return true, nil
	})
	if err == nil {
		place = Place{Pass: place.End()}
	}
	return errors.Join(err, s.note(&place))
}

func (s *Scrub) note(place *Place) error {
	return s.o.Rows.Commit(map[string][]byte{rowPlace: place.append(nil)})
}

// check reads a pack. An error is of the disk, or of ctx: of what it finds wrong
// others are told.
func (s *Scrub) check(ctx context.Context, pace *scrub.Pace, p *archivepb.Pack) error {
	if len(p.Id) != len(pack.ID{}) || p.Lost || p.Evicted {
		return nil // verify names the first; of the second it was told when it was noted
	}
	id := pack.ID(p.Id)
	var cause error
	for range 2 { // memory may be at fault
		err := s.read(pace, id)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			s.stats.Packs.Add(1)
			return nil
		case fault.Is(err, fault.NotFound):
			return nil // it went, or bulk/ has told the archive
		case !fault.Is(err, fault.Corrupt):
			return err
		}
		if now, _, err := s.o.Packs.Ciphertext(id); err != nil || now.Lost {
			s.stats.Rotten.Add(1)
			return nil //nolint:nilerr // the archive has noted it, and told of it
		}
		cause = err
	}
	s.stats.Rotten.Add(1)
	s.o.Log.Error("a hot copy is not what it was sealed as", "pack", hex.EncodeToString(id[:]), "error", cause)
	s.o.Rotten(id, cause)
	return nil
}

// read compares a pack with its root.
func (s *Scrub) read(pace *scrub.Pace, id pack.ID) error {
	p, from, err := s.o.Packs.Ciphertext(id)
	if err != nil {
		return err
	}
	if len(p.Root) != 32 {
		return fault.New(fault.Corrupt, "a pack's record has a root of %d bytes", len(p.Root))
	}
	return seal.VerifyRoot(pace.Reader(from), p.BlobBytes, [32]byte(p.Root))
}
