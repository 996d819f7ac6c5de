package archive

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/replication"
)

// The catalogue of a node is replaced by a copy of another one's: Pebble then asks
// whether both are on the same file system.
func TestTheCatalogueOfANodeIsReplacedByACopy(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	c, err := OpenCatalog(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := replication.Position{Index: 7, Term: 1}
	if err := c.Apply(nil, at); err != nil {
		t.Fatal(err)
	}
	if err := c.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(nil, replication.Position{Index: 8, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if _, index, err := c.Prepare(t.Context(), "copy", o.Node); err != nil || index != at.Index {
		t.Fatal(index, err)
	}
	if err := c.Replace(t.Context(), "copy"); err != nil || c.Position().Index != at.Index {
		t.Error(c.Position(), err)
	}
}

// A store that cannot be written ends the process, on whatever goroutine Pebble
// notices it.
func TestFailedWriteOfAStoreIsFatal(t *testing.T) {
	for _, folder := range []string{"data/store/", "data/catalog/"} {
		t.Run(folder, func(t *testing.T) {
			var full atomic.Bool
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && strings.HasPrefix(op.Path, folder) && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
					return syscall.ENOSPC
				}
				return nil
			}))
			o := testOptions(fs, newRing())
			died := make(chan error, 1)
			o.Fatal = func(err error) { died <- err }
			a, err := openAlone(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() { _ = a.Run(ctx) }() // it may end by the error, or be stuck
			full.Store(true)
			go func() {
				defer func() { _ = recover() }() // as the faces do
				for n := 0; ctx.Err() == nil; n++ {
					m := serial(n)
					_, _ = a.Store(ctx, m.incoming(m.encode(t)))
					_ = a.journal.Settle(ctx)
				}
			}()
			select {
			case err := <-died:
				if !strings.Contains(err.Error(), "no space left") {
					t.Errorf("died of %v", err)
				}
			case <-time.After(time.Minute): // only a hang takes that long
				t.Fatal("a store that cannot be written went on")
			}
		})
	}
}
