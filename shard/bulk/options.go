package bulk

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Space is a key range: hot copies, cached copies, held shards.
type Space byte

// The spaces.
const (
	Hot    Space = 'h'
	Cached Space = 'c'
	Held   Space = 's'
)

// Ref names one blob (a pack's ciphertext, a shard). It is durable.
type Ref struct {
	Space Space
	Table uint64 // ascending number given at ingestion
	Blob  uint32 // in the table
	Bytes int64
}

// String names the blob in errors and logs.
func (r Ref) String() string { return fmt.Sprintf("%c/%d/%d", r.Space, r.Table, r.Blob) }

// Options are where and how.
type Options struct {
	FS         vfs.FS
	Dir        string
	CacheBytes int64               // of Pebble's block cache; 0 is 32 MiB
	Reserve    func(n int64) error // before n bytes of a table are written; fault.Full
	// Lost is told of every range that a rotten or missing table held, before it
	// is excised; it must make that durable. It is called without locks, by the
	// goroutine that met the damage, and may be told of a range again after a
	// crash.
	Lost func(refs []Ref, cause error)
	// Fatal is told of failures after which Pebble's memory and disk may differ
	// (a manifest that could not be written or synced). It should end the
	// process; if it returns, the store refuses every further change.
	Fatal func(error)
	Log   *slog.Logger // nil is silent
}

func (o *Options) setDefaults() {
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.Reserve == nil {
		o.Reserve = func(int64) error { return nil }
	}
	if o.Lost == nil {
		o.Lost = func([]Ref, error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
