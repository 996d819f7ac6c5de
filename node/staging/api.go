// Package staging is the log that arrivals land in (DESIGN §4): append-only
// segments of checksummed frames, in which several associations interleave. An
// instance exists once its commit frame is synced. The package knows bytes and
// records, nothing of DICOM.
package staging

import (
	"context"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options bound the log.
type Options struct {
	FS           vfs.FS
	Dir          string
	SegmentBytes int64               // a new segment is begun beyond it; 1 GiB
	MaxBytes     int64               // of all segments; beyond it Begin answers fault.Full; 8 GiB
	Reserve      func(n int64) error // asks for disk space before it is used; fault.Full when there is none; nil: always granted
}

// Log is the set of segments.
type Log struct{}

// Extent is a run of payload bytes in a segment.
type Extent struct {
	Segment uint64
	Offset  int64 // in the segment file
	Length  int64
}

// Placed is where an arrival's bytes rest.
type Placed struct {
	Extents []Extent
	Bytes   int64
}

// Open opens the directory (creating and syncing it) and reads every segment,
// idempotently: whole arrivals are passed to replay in commit order; below the
// highest recorded synced offset a bad frame is corruption (reported in
// Corruptions, kept); above it whole arrivals stay and the rest is dropped.
// record is the commit frame's record, valid during the call.
func Open(o Options, replay func(record []byte, at Placed) error) (*Log, error) {
	panic("staging: Open")
}

// Corruption is a frame below the synced offset that fails its checksum.
type Corruption struct {
	Segment uint64
	Offset  int64
	Reason  string
}

// Corruptions returns what Open and reads have found.
func (l *Log) Corruptions() []Corruption { panic("staging") }

// Begin starts an arrival. It never blocks on other arrivals' syncs.
func (l *Log) Begin() (*Arrival, error) { panic("staging") }

// Arrival is one instance on its way in. Not for concurrent use.
type Arrival struct{}

// Write appends payload; small writes are gathered. A full disk is fault.Full
// and the arrival is dead; any other write error poisons the log (see Failed).
func (a *Arrival) Write(p []byte) (int, error) { panic("staging") }

// Commit appends the commit frame with the caller's record (at most 128 MiB)
// and returns once it and all payload are durable by one fdatasync shared with
// the commits that wait at the same time. After Commit the arrival is done.
func (a *Arrival) Commit(ctx context.Context, record []byte) (Placed, error) { panic("staging") }

// Abort gives the arrival up; its frames are dead. Safe after Commit or Abort.
func (a *Arrival) Abort() { panic("staging") }

// Open returns a reader over placed bytes, that checks frames' checksums as it
// goes where it reads them whole. The segment stays until Close.
func (l *Log) Open(at Placed) (Reader, error) { panic("staging") }

// Reader reads placed bytes.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Retain counts an arrival's bytes as live again after a restart (from replay)
// or is implied by Commit. Release drops them; a segment that is full and has
// no live arrival and no reader is removed. The caller has made it durable,
// with a synced commit, that the instance rests elsewhere.
func (l *Log) Release(at Placed) error { panic("staging") }

// Bytes is what the segments occupy, and how much of it is live.
func (l *Log) Bytes() (total, live int64) { panic("staging") }

// Failed is closed when a write or fsync has failed in a way that makes
// further acknowledgement unsafe: the process must end (DESIGN §4, Errors).
func (l *Log) Failed() <-chan struct{} { panic("staging") }

// Close ends the log after the commits under way.
func (l *Log) Close() error { panic("staging") }
