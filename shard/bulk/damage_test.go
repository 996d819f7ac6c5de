package bulk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
)

// edit changes a file's bytes.
func edit(t testing.TB, fs vfs.FS, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(change(b)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func sorted(refs []Ref) []Ref {
	refs = slices.Clone(refs)
	slices.SortFunc(refs, func(a, b Ref) int {
		return bytes.Compare(tableKey{a.Space, a.Table}.key(nil, a.Blob, 0), tableKey{b.Space, b.Table}.key(nil, b.Blob, 0))
	})
	return refs
}

// blobsOf puts three tables of three blobs.
func blobsOf(w *world) (refs [][]Ref, blobs [][]byte) {
	for i := range 3 {
		blobs = append(blobs, content(uint64(10+i), 300_000))
	}
	for _, space := range []Space{Hot, Held, Hot} {
		refs = append(refs, w.put(space, blobs...))
	}
	return refs, blobs
}

func TestARottenBlockLosesItsBlobOnly(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		refs, blobs := blobsOf(w)
		names := w.tables()
		w.Close()
		edit(t, fs, fs.PathJoin(w.pebbleDir, names[1]), func(b []byte) []byte {
			at := bytes.Index(b, blobs[1][pieceBytes+100:pieceBytes+150])
			if at < 0 {
				t.Fatal("the blob's bytes are not in the second table")
			}
			b[at] ^= 1
			return b
		})
		w = open(t, fs, dir)
		if len(w.losses()) > 0 {
			t.Errorf("lost before it was read: %v", w.losses())
		}
		if p := make([]byte, 1000); true {
			if _, err := w.Reader(refs[1][1]).ReadAt(p, 0); err != nil || !bytes.Equal(p, blobs[1][:1000]) {
				t.Errorf("a sound piece before the rotten one: %v", err)
			}
		}
		if got, err := w.read(refs[1][1]); !fault.Is(err, fault.Corrupt) || !bytes.Equal(got, blobs[1][:len(got)]) {
			t.Errorf("rotten blob: %v, want corrupt", err)
		}
		if !slices.Equal(w.losses(), refs[1][1:2]) {
			t.Errorf("lost %v, want %v", w.losses(), refs[1][1:2])
		}
		for range 2 {
			w.checkGone(refs[1][1])
			for table := range 3 {
				for i, r := range refs[table] {
					if r != refs[1][1] {
						w.check(r, blobs[i])
					}
				}
			}
			w = w.reopen()
			if len(w.losses()) > 0 {
				t.Errorf("lost again: %v", w.losses())
			}
		}
		if freed, err := w.Reclaim(context.Background()); err != nil || freed < 250_000 {
			t.Errorf("the rotten bytes stay: freed %d, %v", freed, err)
		}
		w.check(refs[1][0], blobs[0])
		w.Close()
	})
}

func TestAnUnreadableTableLosesAllItsBlobs(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"rotten footer": func(b []byte) []byte { b[len(b)-20] ^= 1; return b },
		"rotten index":  func(b []byte) []byte { clear(b[len(b)-2000:]); return b },
		"cut in half":   func(b []byte) []byte { return b[:len(b)/2] },
		"empty":         func(b []byte) []byte { return nil },
		"zeros":         func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
				w := open(t, fs, dir)
				refs, blobs := blobsOf(w)
				names := w.tables()
				w.Close()
				edit(t, fs, fs.PathJoin(w.pebbleDir, names[0]), change)
				w = open(t, fs, dir)
				if _, err := w.read(refs[0][2]); !fault.Is(err, fault.Corrupt) {
					t.Errorf("%v, want corrupt", err)
				}
				checkLostTable(t, w, refs, blobs)
			})
		})
	}
}

func TestAMissingTableIsReportedAtOpen(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		refs, blobs := blobsOf(w)
		names := w.tables()
		w.Close()
		if err := fs.Remove(fs.PathJoin(w.pebbleDir, names[0])); err != nil {
			t.Fatal(err)
		}
		checkLostTable(t, open(t, fs, dir), refs, blobs)
	})
}

// A table that goes missing while the store is open is met by a reader once
// Pebble opens the file anew.
func TestAMissingTableIsReportedByAReader(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		refs, blobs := blobsOf(w)
		w = w.reopen()
		if err := fs.Remove(fs.PathJoin(w.pebbleDir, w.tables()[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := w.read(refs[0][2]); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%v, want corrupt", err)
		}
		checkLostTable(t, w, refs, blobs)
	})
}

// checkLostTable: the first table's blobs are lost, the rest is served, and the
// store goes on.
func checkLostTable(t *testing.T, w *world, refs [][]Ref, blobs [][]byte) {
	t.Helper()
	if !slices.Equal(sorted(w.losses()), sorted(refs[0])) {
		t.Errorf("lost %v, want %v", w.losses(), refs[0])
	}
	more := w.put(Cached, blobs[0])
	for range 2 {
		w.checkGone(refs[0]...)
		for _, table := range refs[1:] {
			for i, r := range table {
				w.check(r, blobs[i])
			}
		}
		w.check(more[0], blobs[0])
		w = w.reopen()
		if len(w.losses()) > 0 {
			t.Errorf("lost again: %v", w.losses())
		}
	}
	if len(w.ends()) > 0 {
		t.Errorf("fatal: %v", w.ends())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReclaimLeavesRottenBlobsOut(t *testing.T) {
	fs := vfs.NewMem()
	w := open(t, fs, "b")
	refs, blobs := blobsOf(w)
	if err := w.Delete(refs[0][0]); err != nil {
		t.Fatal(err)
	}
	name := w.tables()[0]
	w.Close()
	edit(t, fs, fs.PathJoin(w.pebbleDir, name), func(b []byte) []byte {
		b[bytes.Index(b, blobs[1][2*pieceBytes:2*pieceBytes+50])] ^= 1
		return b
	})
	w = open(t, fs, "b")
	if _, err := w.Reclaim(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.losses(), refs[0][1:2]) {
		t.Errorf("lost %v", w.losses())
	}
	w.checkGone(refs[0][:2]...)
	w = w.reopen()
	w.checkGone(refs[0][:2]...)
	w.check(refs[0][2], blobs[2])
	w.Close()
}

// Without a whole ledger, tables are adopted: nothing is removed because it is
// not known.
func TestADamagedLedgerLosesNoTable(t *testing.T) {
	for name, damage := range map[string]func(fs vfs.FS, path string){
		"missing":       func(fs vfs.FS, path string) { fs.Remove(path) },
		"empty":         func(fs vfs.FS, path string) { edit(t, fs, path, func([]byte) []byte { return nil }) },
		"rotten head":   func(fs vfs.FS, path string) { edit(t, fs, path, func(b []byte) []byte { b[2] ^= 1; return b }) },
		"rotten middle": func(fs vfs.FS, path string) { edit(t, fs, path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
		"rotten length": func(fs vfs.FS, path string) { edit(t, fs, path, func(b []byte) []byte { b[8] = 0xff; return b }) },
		"torn tail":     func(fs vfs.FS, path string) { edit(t, fs, path, func(b []byte) []byte { return b[:len(b)-3] }) },
		"garbage behind": func(fs vfs.FS, path string) {
			edit(t, fs, path, func(b []byte) []byte { return append(b, "garbage"...) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			w := open(t, fs, "b")
			refs, blobs := blobsOf(w)
			w = w.reopen() // the ledger as it is written anew: no table is merely begun
			w.Close()
			damage(fs, fs.PathJoin("b", ledgerName))
			w = open(t, fs, "b")
			for range 2 {
				for _, table := range refs {
					for i, r := range table {
						w.check(r, blobs[i])
					}
				}
				if !slices.Equal(w.list(Hot), append(slices.Clone(refs[0]), refs[2]...)) {
					t.Errorf("listed %v", w.list(Hot))
				}
				w = w.reopen()
			}
			if r := w.put(Hot, blobs[0]); r[0].Table <= refs[2][0].Table {
				t.Errorf("number %d after %d", r[0].Table, refs[2][0].Table)
			}
			if len(w.losses()) > 0 {
				t.Errorf("lost %v", w.losses())
			}
			w.Close()
		})
	}
}

func TestANewerLedgerIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	open(t, fs, "b").Close()
	edit(t, fs, "b/"+ledgerName, func(b []byte) []byte { b[7] = 2; return b })
	if _, err := tryOpen(t, fs, "b"); !fault.Is(err, fault.Unsupported) {
		t.Errorf("%v, want unsupported", err)
	}
}

// Pebble reads a manifest up to the first broken record and would remove the
// tables behind it.
func TestARottenManifestLosesNoTable(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		for percent := 5; percent < 100; percent += 30 {
			dir := fs.PathJoin(dir, fmt.Sprint(percent))
			w := open(t, fs, dir)
			refs, blobs := blobsOf(w)
			if err := errors.Join(w.Delete(refs[1]...), w.Delete(refs[0][0])); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Reclaim(context.Background()); err != nil {
				t.Fatal(err)
			}
			w.Close()
			names, _ := fs.List(w.pebbleDir)
			for _, name := range names {
				if strings.HasPrefix(name, "MANIFEST") {
					edit(t, fs, fs.PathJoin(w.pebbleDir, name), func(b []byte) []byte { b[len(b)*percent/100] ^= 1; return b })
				}
			}
			w, err := tryOpen(t, fs, dir)
			if fault.Is(err, fault.Corrupt) { // then nothing may be touched
				for _, name := range names {
					if _, err := fs.Stat(fs.PathJoin(dir, "tables", name)); err != nil {
						t.Errorf("rot at %d %%: %v", percent, err)
					}
				}
				continue
			}
			if err != nil {
				t.Fatalf("rot at %d %%: %v", percent, err)
			}
			for range 2 {
				for i := range 3 {
					w.check(refs[2][i], blobs[i])
					if i > 0 {
						w.check(refs[0][i], blobs[i])
					}
				}
				w.checkGone(refs[1]...)
				w.checkGone(refs[0][0])
				w = w.reopen()
			}
			if len(w.tables()) != 2 || len(w.losses()) > 0 {
				t.Errorf("rot at %d %%: tables %v, lost %v", percent, w.tables(), w.losses())
			}
			w.Close()
		}
	})
}

func TestNoRoomDropsTheTableAndGoesOn(t *testing.T) {
	for name, where := range map[string]func(errorfs.Op) bool{
		"create": func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate },
		"write":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite },
		"sync":   func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync },
		"ledger": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && op.Path == "b/"+ledgerTemp },
	} {
		t.Run(name, func(t *testing.T) {
			var full atomic.Bool
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && where(op) && !bytes.Contains([]byte(op.Path), []byte("tables/MANIFEST")) {
					return syscall.ENOSPC
				}
				return nil
			}))
			w := open(t, fs, "b")
			refs, blobs := blobsOf(w)
			full.Store(true)
			for range 2 {
				if _, err := w.tryPut(Hot, blobs...); !fault.Is(err, fault.Full) {
					t.Fatalf("%v, want full", err)
				}
			}
			full.Store(false)
			if names, _ := fs.List(w.ingestDir); len(names) > 0 {
				t.Errorf("left %v", names)
			}
			more := w.put(Hot, blobs...)
			if err := w.Delete(refs[0][0]); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if n := len(w.list(Hot)); n != 8 {
					t.Errorf("%d blobs listed", n)
				}
				w.check(more[1], blobs[1])
				w.check(refs[1][1], blobs[1])
				w.checkGone(refs[0][0])
				w = w.reopen()
			}
			if len(w.ends())+len(w.losses()) > 0 {
				t.Errorf("fatal %v, lost %v", w.ends(), w.losses())
			}
			w.Close()
		})
	}
}

func TestRoomIsReservedBeforeItIsUsed(t *testing.T) {
	w := open(t, vfs.NewMem(), "b")
	defer w.Close()
	asked := int64(0)
	w.room = func(n int64) error { asked += n; return nil }
	w.put(Hot, make([]byte, 17<<20))
	if asked < 17<<20 {
		t.Errorf("reserved %d bytes", asked)
	}
	left := int64(2 * reserveBytes)
	w.room = func(n int64) error {
		if left -= n; left < 0 {
			return fault.New(fault.Full, "full")
		}
		return nil
	}
	if _, err := w.tryPut(Hot, make([]byte, 40<<20)); !fault.Is(err, fault.Full) {
		t.Errorf("%v, want full", err)
	}
	if _, err := w.NewTable(Hot); !fault.Is(err, fault.Full) {
		t.Errorf("%v, want full", err)
	}
	if n := len(w.tables()); n != 1 {
		t.Errorf("%d tables", n)
	}
}

// What Pebble would end the process for goes to Fatal; then nothing is changed
// any more, and what is there can be read.
func TestPebbleFailuresGoToFatal(t *testing.T) {
	var broken atomic.Bool // Pebble reads and writes on its own goroutines too
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileSync && bytes.Contains([]byte(op.Path), []byte("MANIFEST")) {
			return errors.New("disk failure")
		}
		return nil
	}))
	w := open(t, fs, "b")
	refs, blobs := blobsOf(w)
	broken.Store(true)
	if _, err := w.tryPut(Hot, blobs...); err == nil {
		t.Fatal("committed without a manifest")
	}
	broken.Store(false)
	if len(w.ends()) != 1 {
		t.Errorf("fatal %v", w.ends())
	}
	if _, err := w.tryPut(Hot, blobs...); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a change after the failure: %v, want unavailable", err)
	}
	if err := w.Delete(refs[0][0]); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a deletion after the failure: %v, want unavailable", err)
	}
	w.check(refs[0][0], blobs[0])
}

func TestReadErrorsAreNotRot(t *testing.T) {
	var broken atomic.Bool // Pebble reads and writes on its own goroutines too
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileReadAt {
			return errors.New("input/output error")
		}
		return nil
	}))
	w := open(t, fs, "b")
	refs, blobs := blobsOf(w)
	w = w.reopen()
	broken.Store(true)
	if _, err := w.read(refs[0][0]); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v, want unavailable", err)
	}
	broken.Store(false)
	if len(w.losses()) > 0 {
		t.Errorf("lost %v", w.losses())
	}
	w.check(refs[0][0], blobs[0])
	w.Close()
}

func FuzzRecord(f *testing.F) {
	for _, r := range []record{
		{kind: recordBegin, table: tableKey{Hot, 3}}, {kind: recordNext, table: tableKey{0, 1 << 40}},
		{kind: recordTable, table: tableKey{Held, 300}, sizes: []int64{0, 1, -1, 1 << 33}},
		{kind: recordDead, table: tableKey{Cached, 1}, blobs: []uint32{0, 7, 1 << 19}}, {kind: recordGone, table: tableKey{Hot, 3}},
	} {
		f.Add(r.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parseRecord(b); ok {
			again, ok := parseRecord(r.append(nil))
			if !ok || again.kind != r.kind || again.table != r.table || !slices.Equal(again.sizes, r.sizes) || !slices.Equal(again.blobs, r.blobs) {
				t.Fatalf("%+v reads again as %+v", r, again)
			}
		}
		if sizes, ok := parseIndex(b); ok {
			if again, ok := parseIndex(appendIndex(nil, sizes)); !ok || !slices.Equal(again, sizes) {
				t.Fatalf("%v reads again as %v", sizes, again)
			}
		}
	})
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte{}, uint32(0))
	f.Add(record{kind: recordBegin, table: tableKey{Hot, 3}}.frame(nil), uint32(9))
	f.Fuzz(func(t *testing.T, b []byte, cut uint32) {
		fs := vfs.NewMem()
		fs.MkdirAll("b", 0o700)
		out, err := fs.Create("b/"+ledgerName, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) >= recordHead { // make the first checksum hold
			n := min(int64(binary.BigEndian.Uint32(b)), int64(len(b)-recordHead))
			binary.BigEndian.PutUint32(b[4:], checksum(b[recordHead:recordHead+n]))
		}
		out.Write(append([]byte(ledgerMagic), b...))
		out.Close()
		s := &Store{tables: map[tableKey]*table{}, begun: map[tableKey]bool{}}
		if _, err := readLedger(fs, "b", s.replay); err != nil {
			t.Fatal(err)
		}
		for _, r := range s.snapshot() {
			if _, ok := parseRecord(r.append(nil)); !ok {
				t.Fatalf("the state's record %+v does not parse", r)
			}
		}
	})
}

func TestRangesOfTablesDivideDownToOne(t *testing.T) {
	for _, want := range []tableKey{{0, 0}, {Hot, 0}, {Hot, 1}, {Held, 77}, {Cached, 1<<64 - 1}, {254, 1<<64 - 1}, {1, 1 << 63}} {
		lo, hi := tableKey{}, tableKey{255, 0}
		for range 100 {
			mid, ok := middle(lo, hi)
			if !ok {
				break
			}
			if compareTables(mid, lo) <= 0 || compareTables(mid, hi) >= 0 {
				t.Fatalf("%v is not between %v and %v", mid, lo, hi)
			}
			if compareTables(want, mid) < 0 {
				hi = mid
			} else {
				lo = mid
			}
		}
		if lo != want {
			t.Errorf("found %v..%v for %v", lo, hi, want)
		}
	}
}
