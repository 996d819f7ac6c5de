package keyring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/pause"
	"pelago/replication/catalog"
	"pelago/shard/keys"
)

const (
	cursorFile  = "followed"
	cursorMagic = "PelFoll\x01"
	cursorBytes = 8 + 8 // generation, place

	// maxKept bounds the keys that are kept at once: so many are in memory.
	maxKept = 1024
	// gather is how long study keys may gather before they are kept: each time costs
	// a sync of two files, and storage commitment waits for it.
	gather = 100 * time.Millisecond
	// noteEvery is how often the cursor is written at most. What a crash costs of it
	// is read once more.
	noteEvery = 30 * time.Second
)

// Agreed is where the network's study keys are told of: *catalog.Catalog, and the
// generation of the network that it is of.
type Agreed interface {
	// StudyKeys yields those whose place is above one, in the order of commit: At always
	// rises. It ends with the last that is applied, or an error. A key that was wrapped
	// anew comes again, at another place.
	StudyKeys(ctx context.Context, place uint64) iter.Seq2[catalog.StudyKey, error]
	// Generation is that of the network whose order it is: within one, a place is of
	// one key for ever.
	Generation() uint64
	// Changed is closed after the next change.
	Changed() <-chan struct{}
}

// Ring keeps study keys. *keys.Ring is one.
type Ring interface {
	// Keep returns once the keys are durable; refused are those that cannot be kept.
	Keep(all ...keys.StudyKey) (refused int, err error)
}

// StudiesOptions are what a follower of study keys is made of.
type StudiesOptions struct {
	FS   vfs.FS
	Dir  string // keys/
	Ring Ring
	From Agreed
	Log  *slog.Logger
}

// Studies keeps the study keys of all nodes in this node's ring, so that what they
// wrap can be opened when those nodes, and the catalogue, are gone. How far it is
// rests beside the ring, and is never further than the ring: a crash costs that some
// keys are looked at again.
type Studies struct {
	o StudiesOptions

	mu     sync.Mutex // guards what follows
	at     cursor
	round  uint64    // counts how often it was begun anew
	noted  cursor    // what rests
	noteAt time.Time // when it was written
}

// cursor is how far study keys are kept: all of a generation of the network up to a
// place in the order of commit.
type cursor struct{ generation, place uint64 }

// OpenStudies reads how far it was.
func OpenStudies(o StudiesOptions) (*Studies, error) {
	s := &Studies{o: o}
	b, err := identity.ReadFramed(o.FS, o.FS.PathJoin(o.Dir, cursorFile), cursorMagic)
	switch {
	case errors.Is(err, os.ErrNotExist), fault.Is(err, fault.Corrupt): // all keys are looked at again
	case err != nil:
		return nil, fmt.Errorf("keyring: how far study keys are kept: %w", err)
	case len(b) == cursorBytes:
		s.noted = cursor{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	}
	if s.noted.generation == o.From.Generation() { // of another one, the place says nothing
		s.at = s.noted
	}
	return s, nil
}

// At is the place in the order of commit up to which all study keys are kept, durably.
func (s *Studies) At() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.place
}

// Replaced says that the catalogue is another one now: its keys are looked at from
// the beginning. Keys that it lacks stay.
func (s *Studies) Replaced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.round = cursor{}, s.round+1
}

// Run keeps study keys as they are applied, until the context ends, or the catalogue
// cannot be read or a file not be written.
func (s *Studies) Run(ctx context.Context) error {
	for {
		changed := s.o.From.Changed() // before they are read
		if err := s.catchUp(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was cut short; the next start goes on
			}
			return err
		}
		if err := s.note(noteEvery); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return s.note(0)
		case <-changed:
		}
		if !pause.For(ctx, gather) {
			return s.note(0)
		}
	}
}

// catchUp keeps all that is applied.
func (s *Studies) catchUp(ctx context.Context) error {
	s.mu.Lock()
	round, done := s.round, s.at.place
	s.mu.Unlock()
	// Before they are read: that of a network that is recovered meanwhile is found to be
	// another one at the next start, and all are looked at again.
	generation := s.o.From.Generation()
	batch := make([]keys.StudyKey, 0, 64)
	for k, err := range s.o.From.StudyKeys(ctx, done) {
		if err == nil && k.At <= done {
			err = fault.New(fault.Corrupt, "keyring: the study key at place %d comes after that at %d", k.At, done)
		}
		if err != nil {
			return fault.New(fault.KindOf(err), "keyring: read the network's study keys: %w", err)
		}
		batch, done = append(batch, keys.StudyKey{ID: k.ID, Study: k.Study, Origin: k.Origin, Epoch: k.Epoch, Wrapped: k.Wrapped}), k.At
		if len(batch) == maxKept {
			if err := s.keep(round, batch, cursor{generation, done}); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return s.keep(round, batch, cursor{generation, done})
}

// keep keeps a batch; then all keys up to a place are kept, unless the catalogue was
// replaced since a round began.
func (s *Studies) keep(round uint64, batch []keys.StudyKey, upTo cursor) error {
	refused, err := s.o.Ring.Keep(batch...)
	if err != nil {
		return fault.New(fault.KindOf(err), "keyring: keep study keys: %w", err)
	}
	if refused > 0 {
		s.o.Log.Warn("study keys that nodes announced cannot be kept: their ids are those of others, or they are none", "study_keys", refused, "place", upTo.place)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.round == round {
		s.at = upTo
	}
	return nil
}

// note writes how far it is, if that has changed and it was not written for a while.
func (s *Studies) note(every time.Duration) error {
	s.mu.Lock()
	at, due := s.at, s.at != s.noted && time.Since(s.noteAt) >= every
	s.mu.Unlock()
	if !due {
		return nil
	}
	b := binary.BigEndian.AppendUint64(nil, at.generation)
	b = binary.BigEndian.AppendUint64(b, at.place)
	if err := identity.WriteFile(s.o.FS, s.o.Dir, cursorFile, identity.Frame(cursorMagic, b)); err != nil {
		return fmt.Errorf("keyring: how far study keys are kept: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted, s.noteAt = at, time.Now()
	return nil
}
