// Package bulk is where packs rest: a Pebble of its own (bulk/) that is only
// ever written by ingesting whole tables with ascending keys, and deleted from
// by range (DESIGN §4). A rotten or missing table is noted and served around.
package bulk

import (
	"context"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Space is a key range: hot copies, cached copies, held shards.
type Space byte

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

// Options are where and how.
type Options struct {
	FS         vfs.FS
	Dir        string
	CacheBytes int64
	Reserve    func(n int64) error // before a table is written; fault.Full
	// Lost is told of every range that a rotten or missing table held, before it
	// is excised; it must make that durable.
	Lost func(refs []Ref, cause error)
}

// Store holds the blobs.
type Store struct{}

// Open opens or creates; tables that are missing are reported through
// Options.Lost and the rest is served.
func Open(o Options) (*Store, error) { panic("bulk") }

// NewTable begins a table.
func (s *Store) NewTable(space Space) (*Table, error) { panic("bulk") }

// Table gathers blobs. Not for concurrent use.
type Table struct{}

// Add begins the next blob; Close it before the next Add.
func (t *Table) Add() (io.WriteCloser, error) { panic("bulk") }

// Bytes is the size so far.
func (t *Table) Bytes() int64 { panic("bulk") }

// Commit syncs and ingests the table and returns its blobs in order. After it
// returns they survive a crash. Abort drops an uncommitted table.
func (t *Table) Commit(ctx context.Context) ([]Ref, error) { panic("bulk") }
func (t *Table) Abort()                                    { panic("bulk") }

// Reader reads a blob by ranges; fault.Corrupt for rotten bytes (Lost is told),
// fault.NotFound for a blob that was deleted or lost.
func (s *Store) Reader(r Ref) io.ReaderAt { panic("bulk") }

// Delete removes blobs, durably. Space returns as tables become wholly dead or
// are rewritten (30 % dead).
func (s *Store) Delete(refs ...Ref) error { panic("bulk") }

// Refs yields every blob of a space in key order, for verify.
func (s *Store) Refs(space Space, yield func(Ref) error) error { panic("bulk") }

// Bytes is what the tables occupy.
func (s *Store) Bytes() int64 { panic("bulk") }

// Close closes the store.
func (s *Store) Close() error { panic("bulk") }
