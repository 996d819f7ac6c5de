package plan_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"pelago/query/plan"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
)

// shape is what studies are like.
type shape struct {
	series int
	sealed bool // each has a key, each series a pack with its seal
}

func (s shape) String() string {
	if s.sealed {
		return fmt.Sprintf("studies of %d, sealed", s.series)
	}
	return fmt.Sprintf("studies of %d", s.series)
}

var shapes = []shape{{1, false}, {5, false}, {1, true}, {5, true}}

// backlog returns the entries by which a node learns of so many series.
func backlog(b *testing.B, studies int, like shape) []replication.Entry {
	c, err := catalog.Open(catalog.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var entries []replication.Entry
	a := alone.New(c)
	a.Keep = func(e replication.Entry) { entries = append(entries, e) }
	var facts, keys, seals []any
	for i := range studies {
		s := catalogtest.Make(1, uint64(i))
		for n := range like.series {
			facts = append(facts, s.FactOf(1+n, uint64(i*like.series+n+1)))
		}
		if like.sealed {
			key, packs := catalogtest.Sealed(facts[len(facts)-like.series:])
			keys, seals = append(keys, key), append(seals, packs...)
		}
		if len(facts) < 200 && i+1 < studies { // what a quarter of a second brings, about
			continue
		}
		if _, err := a.Do(slices.Concat(facts, keys, seals)...); err != nil {
			b.Fatal(err)
		}
		facts, keys, seals = nil, nil, nil
	}
	return entries
}

// unfilled opens a catalogue that takes the members of a backlog for what they say.
func unfilled(b *testing.B) *catalog.Catalog {
	c, err := catalog.Open(catalog.Options{Dir: b.TempDir(), Indexer: plan.Indexer{}})
	if err != nil {
		b.Fatal(err)
	}
	c.Rename(alone.Named)
	return c
}

// whole ends the benchmark if the backlog was not taken: refusals are fast.
func whole(b *testing.B, c *catalog.Catalog, series uint64, like shape) {
	if have := c.Totals().Series; have != series {
		b.Fatalf("%d series of %d were taken", have, series)
	}
	if have := c.Sealed().Packs; like.sealed && have != series {
		b.Fatalf("%d packs of %d were taken", have, series)
	}
}

// BenchmarkBacklog applies what a node has missed, with all indexes: time is that of
// all threads, the bytes those on disk at the end.
func BenchmarkBacklog(b *testing.B) {
	const all = 100_000
	for _, like := range shapes {
		b.Run(like.String(), func(b *testing.B) {
			entries := backlog(b, all/like.series, like)
			logged := 0
			for _, e := range entries {
				logged += len(e.Data)
			}
			var spent, took time.Duration
			var rests uint64
			for b.Loop() {
				c := unfilled(b)
				before, began := processorTime(b), time.Now()
				for at := 0; at < len(entries); {
					next := min(at+512, len(entries)) // as Raft hands them over
					last := entries[next-1]
					if err := c.Apply(entries[at:next], replication.Position{Index: last.Index, Term: last.Term}); err != nil {
						b.Fatal(err)
					}
					at = next
				}
				whole(b, c, all, like)
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
				spent, took = spent+processorTime(b)-before, took+time.Since(began)
				rests = c.Bytes()
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N)/all, "cpu-µs/series")
			b.ReportMetric(float64(all)*float64(b.N)/took.Seconds(), "series/s")
			b.ReportMetric(float64(rests)/all, "B/series")
			b.ReportMetric(float64(logged)/all, "log-B/series")
		})
	}
}

// BenchmarkCopy is what a node does with a copied catalogue: it writes its
// rows anew, takes them in, and verifies them.
func BenchmarkCopy(b *testing.B) {
	const all = 100_000
	for _, like := range shapes {
		b.Run(like.String(), func(b *testing.B) {
			entries := backlog(b, all/like.series, like)
			c := unfilled(b)
			defer c.Close()
			last := entries[len(entries)-1]
			if err := c.Apply(entries, replication.Position{Index: last.Index, Term: last.Term}); err != nil {
				b.Fatal(err)
			}
			whole(b, c, all, like)
			var preparing, replacing, verifying time.Duration
			for b.Loop() {
				copied := filepath.Join(b.TempDir(), "copy")
				if err := c.Checkpoint(copied); err != nil {
					b.Fatal(err)
				}
				before := processorTime(b)
				if _, _, err := c.Prepare(b.Context(), copied, "nobody"); err != nil {
					b.Fatal(err)
				}
				between := processorTime(b)
				if err := c.Replace(b.Context(), copied); err != nil {
					b.Fatal(err)
				}
				after := processorTime(b)
				if err := c.Verify(b.Context(), func(err error) { b.Error(err) }); err != nil {
					b.Fatal(err)
				}
				preparing, replacing, verifying = preparing+between-before, replacing+after-between, verifying+processorTime(b)-after
			}
			b.ReportMetric(float64(preparing.Microseconds())/float64(b.N)/all, "prepare-cpu-µs/series")
			b.ReportMetric(float64(replacing.Microseconds())/float64(b.N)/all, "replace-cpu-µs/series")
			b.ReportMetric(float64(verifying.Microseconds())/float64(b.N)/all, "verify-cpu-µs/series")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
