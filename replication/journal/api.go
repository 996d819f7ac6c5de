// Package journal is a node's outbox: the durable, densely numbered,
// hash-chained log of facts that the catalogue must learn (DESIGN §6). In a
// network of one it feeds the catalogue itself.
package journal

import (
	"context"

	"github.com/cockroachdb/pebble/v2"

	"pelago/replication/catalog"
)

// Source computes facts from the instances that this node holds.
type Source interface {
	// SeriesFact returns the absolute values of a series at this moment.
	SeriesFact(ctx context.Context, study, series string) (*catalog.SeriesFact, error)
	// After yields, in ascending order, the (study, series) of instances with
	// local numbers above after: what a start must announce again.
	After(ctx context.Context, after uint64, yield func(number uint64, study, series string) error) error
}

// Journal is the log and the goroutine that drains it.
type Journal struct{}

// Open reads the journal's rows from the node's store (key prefix "j/", no
// other package writes there).
func Open(db *pebble.DB, c *catalog.Catalog) (*Journal, error) { panic("journal") }

// Run drains until ctx ends: first it announces again what Source has beyond
// the durable cursor, then what Dirty names.
func (j *Journal) Run(ctx context.Context, s Source) error { panic("journal") }

// Dirty says that a series has changed by the instance of a local number. It
// never blocks and never fails; the first fact of a series goes out at once,
// then at most one a second doubling to 30 s.
func (j *Journal) Dirty(number uint64, study, series string) { panic("journal") }

// Flush lets the facts of the series out now (an association has ended).
func (j *Journal) Flush() { panic("journal") }

// Settle returns once everything named by Dirty before the call is applied.
func (j *Journal) Settle(ctx context.Context) error { panic("journal") }

// Append logs other commands and returns their results once applied and synced.
func (j *Journal) Append(ctx context.Context, commands ...catalog.Command) ([]error, error) {
	panic("journal")
}

// Pending is the number of facts not yet applied everywhere.
func (j *Journal) Pending() uint64 { panic("journal") }
