package keys

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// harms are what can happen to one of the two files, and nothing.
func harms(seed uint64) map[string]func(testing.TB, *vfs.MemFS) {
	all := map[string]func(testing.TB, *vfs.MemFS){"nothing": func(testing.TB, *vfs.MemFS) {}}
	for _, name := range copyNames {
		harm := func(what string, change func(b []byte, at int) []byte) {
			all[what+" "+name] = func(t testing.TB, fs *vfs.MemFS) {
				if _, err := fs.Stat("keys/" + name); err != nil {
					return // the crash was before it was there
				}
				b := bytesIn(t, fs, name)
				at := rand.New(rand.NewPCG(seed, uint64(len(what)))).IntN(max(1, len(b)))
				putOne(t, fs, name, change(b, at))
			}
		}
		harm("rot in", func(b []byte, at int) []byte {
			for i := at; i < min(at+60, len(b)); i++ {
				b[i] ^= 0x20
			}
			return b
		})
		harm("zeros in", func(b []byte, at int) []byte { clear(b[at:]); return b })
		harm("a cut", func(b []byte, at int) []byte { return b[:at] })
		harm("an emptied", func([]byte, int) []byte { return nil })
		all["a lost "+name] = func(t testing.TB, fs *vfs.MemFS) {
			if err := fs.Remove("keys/" + name); err != nil && !strings.Contains(err.Error(), "not exist") {
				t.Fatal(err)
			}
		}
	}
	return all
}

// holds checks that a ring opens, twice, with every key, and that its files are
// then the same.
func holds(t testing.TB, when string, fs *vfs.MemFS, keys map[string]named) {
	t.Helper()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := Open(fs, "keys", &node{1})
		if err != nil {
			if len(keys) > 0 {
				t.Fatalf("%s: %v", when, err)
			}
			return // a crash while the first file was made, and then damage to it
		}
		for study, k := range keys {
			if key, err := r.Key(k.id); err != nil || key != k.key {
				t.Errorf("%s: study %s: %v", when, study, err)
			}
			if r.Damaged() == 0 && must(t, r, study) != k {
				t.Errorf("%s: study %s has another key", when, study)
			}
		}
		if r.Damaged() != 0 {
			t.Errorf("%s: %d damaged", when, r.Damaged())
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if !bytes.Equal(bytesIn(t, fs, copyNames[0]), bytesIn(t, fs, copyNames[1])) {
			t.Errorf("%s: the files differ", when)
		}
	}
}

// someKeys makes a ring in a file system that can crash.
func someKeys(t testing.TB, mem *vfs.MemFS) map[string]named {
	t.Helper()
	keys := map[string]named{}
	if err := mem.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := identity.SyncDir(mem, "/"); err != nil {
		t.Fatal(err)
	}
	r := newRing(t, mem, &node{1})
	for i := range 6 {
		study := fmt.Sprint("1.2.", i)
		keys[study] = must(t, r, study)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestEitherFileAloneHoldsEveryKey(t *testing.T) {
	mem := vfs.NewCrashableMem()
	keys := someKeys(t, mem)
	for seed := range uint64(40) {
		for what, harm := range harms(seed) {
			fs := mem.CrashClone(vfs.CrashCloneCfg{})
			harm(t, fs)
			holds(t, fmt.Sprintf("%s, %d", what, seed), fs, keys)
		}
	}
}

// Both files are damaged, in different records, and every key is still there; and
// a crash at any point of the mending takes none.
func TestACrashWhileMendingKeepsEveryKey(t *testing.T) {
	mem := vfs.NewCrashableMem()
	keys := someKeys(t, mem)
	size := (len(bytesOf(t, mem)) - len(fileMagic)) / len(keys)
	for i, record := range []int{1, 4} {
		b := bytesIn(t, mem, copyNames[i])
		b[len(fileMagic)+record*size+30] ^= 1
		putOne(t, mem, copyNames[i], b)
	}
	for at := 1; ; at++ {
		for _, unsynced := range []int{0, 50, 100} {
			disk := mem.CrashClone(vfs.CrashCloneCfg{})
			var crashed *vfs.MemFS
			count := 0
			fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if count++; count == at {
					crashed = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(uint64(at), 3))})
				}
				return nil
			}))
			r := newRing(t, fs, &node{1})
			if r.Mended() != 2 || r.Damaged() != 0 {
				t.Fatalf("%d mended, %d damaged", r.Mended(), r.Damaged())
			}
			r.Close()
			if crashed == nil {
				if at < 6 {
					t.Fatalf("mending took %d writes: the test proves nothing", at)
				}
				holds(t, "mended", disk, keys)
				return
			}
			holds(t, fmt.Sprintf("crash at %d with %d %% unsynced", at, unsynced), crashed, keys)
		}
	}
}

func TestRotThatIsMetWhileRunningIsMended(t *testing.T) {
	mem := vfs.NewCrashableMem()
	keys := someKeys(t, mem)
	r := newRing(t, mem, &node{1})
	f, err := mem.OpenReadWrite("keys/"+copyNames[0], vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0}, 300), 100); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for study, k := range keys {
		if key, err := r.Key(k.id); err != nil || key != k.key {
			t.Errorf("study %s: %v", study, err)
		}
	}
	if r.Mended() == 0 {
		t.Error("nobody learns of it")
	}
	keys["9"] = must(t, r, "9")
	r.Close()
	holds(t, "after it", mem, keys)
}

// A disk that cannot read one file does not keep the node from its keys; one that
// can read neither whole does not overwrite what it cannot read.
func TestAFileThatCannotBeReadIsReplacedOnlyByAWholeOne(t *testing.T) {
	for i, name := range copyNames {
		mem := vfs.NewCrashableMem()
		keys := someKeys(t, mem)
		whole := bytesOf(t, mem)
		unreadable := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileReadAt && op.Path == "keys/"+name {
				return syscall.EIO
			}
			return nil
		}))
		other := copyNames[1-i]
		rotten := bytes.Clone(whole)
		rotten[150] ^= 1
		putOne(t, mem, other, rotten)
		if _, err := Open(unreadable, "keys", &node{1}); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s unreadable, the other rotten: %v", name, err)
		}
		if !bytes.Equal(bytesIn(t, mem, name), whole) || !bytes.Equal(bytesIn(t, mem, other), rotten) {
			t.Errorf("%s unreadable, the other rotten: a file was written", name)
		}
		putOne(t, mem, other, whole)
		gone := false // a file written anew can be read
		replaced := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			gone = gone || op.Kind == errorfs.OpRename && strings.HasPrefix(op.Path, "keys/"+name+".")
			if !gone && op.Kind == errorfs.OpFileReadAt && op.Path == "keys/"+name {
				return syscall.EIO
			}
			return nil
		}))
		r, err := Open(replaced, "keys", &node{1})
		if err != nil {
			t.Fatalf("%s unreadable: %v", name, err)
		}
		if r.Mended() != 1 {
			t.Errorf("%s unreadable: %d mended", name, r.Mended())
		}
		r.Close()
		holds(t, name+" unreadable", mem, keys)
	}
}

// A forgetting that was cut short between the files is undone: its caller was
// not told that it was done, and asks again.
func TestAForgettingThatWasCutShortLosesNothingElse(t *testing.T) {
	mem := vfs.NewCrashableMem()
	keys := someKeys(t, mem)
	before := bytesOf(t, mem)
	r := newRing(t, mem, &node{1})
	if err := r.Forget("1.2.1"); err != nil {
		t.Fatal(err)
	}
	r.Close()
	after := bytesOf(t, mem)
	size := (len(before) - len(fileMagic)) / len(keys)
	for i := range copyNames {
		fs := mem.CrashClone(vfs.CrashCloneCfg{})
		putOne(t, fs, copyNames[i], before)
		putOne(t, fs, copyNames[1-i], after)
		holds(t, "cut short", fs, keys)

		// The same, and rot in the one that was written: nothing is taken for what
		// it was because it stands in the same place.
		fs = mem.CrashClone(vfs.CrashCloneCfg{})
		rotten := bytes.Clone(after)
		rotten[len(fileMagic)+2*size+30] ^= 1
		putOne(t, fs, copyNames[i], before)
		putOne(t, fs, copyNames[1-i], rotten)
		holds(t, "cut short, and rot", fs, keys)

		// And rot in both: what is readable in either stays, the rest is kept.
		torn := bytes.Clone(before)
		torn[len(fileMagic)+5*size-size+30] ^= 1 // the fifth, which stands fourth in the other
		fs = mem.CrashClone(vfs.CrashCloneCfg{})
		putOne(t, fs, copyNames[i], torn)
		putOne(t, fs, copyNames[1-i], rotten)
		again := newRing(t, fs, &node{1})
		for study, k := range keys {
			if _, err := again.Key(k.id); err != nil {
				t.Errorf("cut short, and rot in both: study %s: %v", study, err)
			}
		}
		again.Close()
	}
	left := maps.Clone(keys)
	delete(left, "1.2.1")
	holds(t, "done", mem, left)
}

func TestANewerRingIsRefusedWhicheverFileItIs(t *testing.T) {
	for _, name := range copyNames {
		mem := vfs.NewCrashableMem()
		someKeys(t, mem)
		newer := bytesOf(t, mem)
		newer[7]++
		putOne(t, mem, name, newer)
		if _, err := Open(mem, "keys", &node{1}); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(bytesIn(t, mem, name), newer) {
			t.Errorf("%s was written", name)
		}
	}
}

// idsIn are the keys that a file's whole records hold.
func idsIn(b []byte) map[wrapping]bool {
	ids := map[wrapping]bool{}
	if checkHead(bytes.NewReader(b), "", int64(len(b))) == nil {
		_ = scan(bytes.NewReader(b), int64(len(fileMagic)), int64(len(b)), func(_ int64, rec *record, _ []byte) error {
			if rec != nil {
				ids[rec.wrapping()] = true
			}
			return nil
		})
	}
	return ids
}

// Whatever the two files hold, no whole record of either is lost.
func FuzzMerge(f *testing.F) {
	var file []byte
	file = append(file, fileMagic...)
	for i := range byte(4) {
		rec := record{id: [16]byte{i + 1}, epoch: 1, study: []byte{'1', '.', '0' + i}}
		file = rec.append(file)
	}
	f.Add(file, file)
	f.Add(file[:200], file)
	f.Add(append(bytes.Clone(file[:150]), file[250:]...), append(bytes.Clone(file[:300]), "rot"...))
	f.Add([]byte(nil), file)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("keys", 0o700); err != nil {
			t.Fatal(err)
		}
		putOne(t, fs, copyNames[0], a)
		putOne(t, fs, copyNames[1], b)
		r, err := Open(fs, "keys", &node{1})
		if err != nil {
			if !bytes.Equal(bytesIn(t, fs, copyNames[0]), a) || !bytes.Equal(bytesIn(t, fs, copyNames[1]), b) {
				t.Fatal("refused, and written")
			}
			return
		}
		damaged := r.Damaged()
		r.Close()
		merged := bytesOf(t, fs)
		if !bytes.Equal(merged, bytesIn(t, fs, copyNames[1])) {
			t.Fatal("the files differ")
		}
		got := idsIn(merged)
		for _, file := range [][]byte{a, b} {
			for id := range idsIn(file) {
				if !got[id] {
					t.Fatalf("key %x is lost", id.id)
				}
			}
		}
		if r, err = Open(fs, "keys", &node{1}); err != nil || r.Damaged() != damaged || r.Mended() != 0 {
			t.Fatalf("a second start finds something else: %v", err)
		}
		r.Close()
		if !bytes.Equal(merged, bytesOf(t, fs)) {
			t.Fatal("a second start writes")
		}
	})
}
