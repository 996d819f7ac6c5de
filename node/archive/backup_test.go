package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// onDisk are options for an archive in a real folder, with the version file
// that the data directory's owner would write.
func onDisk(t *testing.T, keys Keys) Options {
	t.Helper()
	o := testOptions(vfs.Default, keys)
	o.Dir = filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "version"), []byte("pelago 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestABackupHoldsEverythingAcknowledgedBeforeIt(t *testing.T) {
	ctx := context.Background()
	keys := newRing()
	o := onDisk(t, keys)
	b := open(t, o)
	for n := range 24 {
		b.store(serial(n))
	}
	b.pack()
	for n := 24; n < 32; n++ {
		b.store(serial(n))
	}
	other := serial(1)
	other.seed = 99
	b.store(other)
	if err := b.Delete(ctx, serial(8).study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	// Stores and packing go on meanwhile.
	busy, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1000; busy.Err() == nil; n++ {
			b.store(serial(n))
		}
	})
	wg.Go(func() {
		for busy.Err() == nil {
			if err := b.Pack(busy); err != nil && busy.Err() == nil {
				t.Errorf("pack: %v", err)
			}
		}
	})
	to := filepath.Join(t.TempDir(), "backup")
	var done, total uint64
	err := b.Backup(ctx, to, func(d, n uint64) { done, total = d, n })
	stop()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if err := b.Backup(ctx, to, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("over a backup: %v", err)
	}
	if err := b.Backup(ctx, filepath.Join(o.Dir, "inside"), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("inside the data directory: %v", err)
	}
	b.close()
	left, err := filepath.Glob(filepath.Join(o.Dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	o.Dir = filepath.Join(t.TempDir(), "restored")
	if err := Restore(ctx, to, o.Dir, nil); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	defer b.close()
	for n := range 32 {
		if m := serial(n); m.study != serial(8).study {
			b.same(m)
		} else if _, err := b.read(m); !fault.Is(err, fault.NotFound) {
			t.Errorf("deleted instance %s: %v", m.sop, err)
		}
	}
	if reviews, err := b.Reviews(0, 10); err != nil || len(reviews) != 1 {
		t.Errorf("quarantined: %+v, %v", reviews, err)
	}
	b.sound()
}

func TestABackupThatIsNotWholeIsNotRestored(t *testing.T) {
	o := onDisk(t, newRing())
	b := open(t, o)
	defer b.close()
	for n := range 8 {
		b.store(serial(n))
	}
	ctx, cancel := context.WithCancel(context.Background())
	to := filepath.Join(t.TempDir(), "backup")
	err := b.Backup(ctx, to, func(done, _ uint64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled backup: %v", err)
	}
	if err := Restore(context.Background(), to, filepath.Join(t.TempDir(), "restored"), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("restored: %v", err)
	}
	b.sound()
}

func TestVerifyAloneNeedsNoTasksAndDeletesNothing(t *testing.T) {
	o := onDisk(t, newRing())
	b := open(t, o)
	for n := range 16 {
		b.store(serial(n))
	}
	b.pack()
	if err := b.Delete(context.Background(), serial(0).study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	b.close()
	o.Grace = time.Nanosecond // a purge would find something
	a, err := openAlone(o)
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.VerifyAlone(context.Background(), nil)
	if err != nil || len(report.Findings) != 0 || report.Instances != 16 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := closeAlone(a); err != nil {
		t.Error(err)
	}
}

// The network goes on while a backup lies on the shelf: what is restored must not
// log under numbers that the network has seen.
func TestARestoredBackupBesideANewerCatalogueBeginsAnewIncarnation(t *testing.T) {
	ctx := t.Context()
	o := onDisk(t, newRing())
	b := open(t, o)
	for n := range 8 {
		b.store(serial(n))
	}
	proposed := func(b *bench) {
		t.Helper()
		for b.Journal().Pending() > 0 {
			if err := b.Journal().Settle(ctx); err != nil {
				t.Fatal(err)
			}
			b.Journal().Ended(serial(0).study, serial(8).study, serial(16).study)
			time.Sleep(10 * time.Millisecond)
		}
	}
	proposed(b)
	to := filepath.Join(t.TempDir(), "backup")
	if err := b.Backup(ctx, to, nil); err != nil {
		t.Fatal(err)
	}
	for n := 8; n < 16; n++ {
		b.store(serial(n))
	}
	proposed(b)
	if got := b.Journal().Status(); got.Incarnation != 1 || got.Committed < 2 {
		t.Errorf("before: %+v", got)
	}
	b.close()

	newer := o.Dir
	o.Dir = filepath.Join(t.TempDir(), "restored")
	if err := Restore(ctx, to, o.Dir, nil); err != nil {
		t.Fatal(err)
	}
	// What the network knows is what it knew, and not what it knew at the backup.
	if err := errors.Join(os.RemoveAll(filepath.Join(o.Dir, "catalog")), os.CopyFS(filepath.Join(o.Dir, "catalog"), os.DirFS(filepath.Join(newer, "catalog")))); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	defer b.close()
	for n := 16; n < 20; n++ {
		b.store(serial(n)) // under local numbers that were used before
	}
	proposed(b)
	if got := b.Journal().Status(); got.Incarnation != 2 || got.Refused != nil {
		t.Errorf("restored: %+v", got)
	}
	cursor, _, err := b.catalog.Cursor(o.Node)
	if err != nil || cursor.Incarnation != 2 {
		t.Errorf("the catalogue has %+v, %v", cursor, err)
	}
	for _, first := range []int{0, 16} {
		if study, err := b.catalog.Study(serial(first).study); err != nil || study.Instances == 0 {
			t.Errorf("study of instance %d: %+v, %v", first, study, err)
		}
	}
}
