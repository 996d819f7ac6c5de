package bulk

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
)

// fill begins a table with one blob.
func (w *world) fill(space Space, blob []byte) *Table {
	w.t.Helper()
	t, err := w.NewTable(space)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := t.Add()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := out.Write(blob); err != nil {
		w.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		w.t.Fatal(err)
	}
	return t
}

// Tables that are committed together are there together, in the order of the call,
// for the syncs of one and a sync of each file.
func TestTablesAreCommittedTogether(t *testing.T) {
	var syncs atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			syncs.Add(1)
		}
		return nil
	}))
	w := open(t, fs, "b")
	commit := func(n int) (cost int64, refs [][]Ref) {
		var tables []*Table
		for i := range n {
			tables = append(tables, w.fill(Held, content(uint64(i), 1000+i)))
		}
		before := syncs.Load()
		for _, table := range tables[:n/2] {
			if err := table.Finish(); err != nil {
				t.Fatal(err)
			}
			if _, err := table.Add(); err == nil {
				t.Error("added to a table that is finished")
			}
		}
		refs, err := w.Store.Commit(t.Context(), tables...)
		if err != nil {
			t.Fatal(err)
		}
		return syncs.Load() - before, refs
	}
	one, _ := commit(1)
	many, refs := commit(20)
	if many-one != 19 {
		t.Errorf("a table costs %d syncs, 20 cost %d", one, many)
	}
	for range 2 {
		for i, r := range refs {
			w.check(r[0], content(uint64(i), 1000+i))
			if !w.Has(r[0]) || w.Has(Ref{Held, r[0].Table, 1, 5}) {
				t.Errorf("%v: known %t", r[0], w.Has(r[0]))
			}
		}
		w = w.reopen()
	}
	var since []Ref
	if err := w.RefsSince(Held, refs[18][0].Table, func(r Ref) error { since = append(since, r); return nil }); err != nil || len(since) != 2 {
		t.Errorf("since the last but one: %v, %v", since, err)
	}
	numbers := 0
	w.Tables(Held, func(_ uint64, bytes int64) {
		if numbers++; bytes < 1000 {
			t.Errorf("a table of %d bytes", bytes)
		}
	})
	if numbers != 21 || len(w.TableRefs(Held, refs[3][0].Table)) != 1 || w.TableRefs(Hot, refs[3][0].Table) != nil {
		t.Errorf("%d tables", numbers)
	}
	w.Close()
}

// If one cannot be committed none is, and nothing of them is left.
func TestAllTablesOfACommitOrNone(t *testing.T) {
	for name, where := range map[string]func(errorfs.Op) bool{
		"file": func(op errorfs.Op) bool {
			return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.Contains(op.Path, "ingest")
		},
		"ledger": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "LEDGER") },
	} {
		t.Run(name, func(t *testing.T) {
			var full atomic.Bool
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && where(op) {
					return syscall.ENOSPC
				}
				return nil
			}))
			w := open(t, fs, "b")
			tables := []*Table{w.fill(Held, content(1, 100)), w.fill(Held, content(2, 100)), w.fill(Hot, content(3, 100))}
			full.Store(true)
			if _, err := w.Store.Commit(t.Context(), tables...); !fault.Is(err, fault.Full) {
				t.Errorf("%v, want full", err)
			}
			full.Store(false)
			for range 2 {
				if len(w.list(Held))+len(w.list(Hot)) != 0 {
					t.Errorf("left %v, %v", w.list(Held), w.list(Hot))
				}
				if names, _ := fs.List(w.ingestDir); len(names) > 0 {
					t.Errorf("files %v", names)
				}
				w = w.reopen()
			}
			w.check(w.put(Held, []byte("after"))[0], []byte("after"))
			w.Close()
		})
	}
	w := open(t, vfs.NewMem(), "b")
	defer w.Close()
	good, ended, empty := w.fill(Held, content(1, 100)), w.fill(Held, content(2, 100)), w.fill(Held, nil)
	ended.Abort()
	if _, err := w.Store.Commit(t.Context(), good, ended); err == nil || len(w.list(Held)) != 0 {
		t.Errorf("committed with a table that had ended: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Store.Commit(gone, empty); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	none, err := w.NewTable(Held)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := w.Store.Commit(t.Context(), none, w.fill(Held, []byte("x")))
	if err != nil || len(refs) != 2 || len(refs[0]) != 0 || len(refs[1]) != 1 {
		t.Errorf("with one without blobs: %v, %v", refs, err)
	}
}
