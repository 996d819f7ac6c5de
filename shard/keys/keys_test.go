package keys

import (
	"bytes"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/shard/seal"
)

// node is epochs as a test needs them.
type node struct{ current uint32 }

func (n *node) Current() uint32 { return n.current }

func (n *node) Epoch(number uint32) (key [32]byte, err error) {
	if number == 0 || number > n.current {
		return key, fault.New(fault.NotFound, "no such epoch")
	}
	key[0] = byte(number)
	return key, nil
}

func newRing(t testing.TB, fs vfs.FS, n *node) *Ring {
	t.Helper()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := Open(fs, "keys", n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type named struct {
	id  [16]byte
	key seal.Key
}

func must(t testing.TB, r *Ring, study string) named {
	t.Helper()
	id, key, err := r.ForStudy(study)
	if err != nil {
		t.Fatal(err)
	}
	return named{id, key}
}

func bytesOf(t testing.TB, fs vfs.FS) []byte { return bytesIn(t, fs, fileName) }

func bytesIn(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open("keys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put writes both files.
func put(t testing.TB, fs vfs.FS, b []byte) {
	t.Helper()
	for _, name := range copyNames {
		putOne(t, fs, name, b)
	}
}

func putOne(t testing.TB, fs vfs.FS, name string, b []byte) {
	t.Helper()
	if err := identity.WriteFile(fs, "keys", name, b); err != nil {
		t.Fatal(err)
	}
}

func TestAStudyKeepsItsKeyAcrossRestartsAndEpochs(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	want := map[string]named{}
	for i := range 50 {
		if i == 25 {
			n.current = 2
		}
		study := fmt.Sprintf("1.2.%d", i)
		want[study] = must(t, r, study)
	}
	for range 2 {
		seen := map[seal.Key]bool{}
		for study, w := range want {
			if got := must(t, r, study); got != w {
				t.Errorf("study %s has another key", study)
			}
			if key, err := r.Key(w.id); err != nil || key != w.key {
				t.Errorf("by id: %v", err)
			}
			if seen[w.key] {
				t.Error("a key serves two studies")
			}
			seen[w.key] = true
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = newRing(t, fs, n)
	}
	if r.Damaged() != 0 {
		t.Errorf("%d damaged", r.Damaged())
	}
	for _, w := range want {
		if bytes.Contains(bytesOf(t, fs), w.key[:]) {
			t.Error("a study key lies open")
		}
	}
	if _, err := r.Key([16]byte{1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown id: %v", err)
	}
	for _, study := range []string{"", string(make([]byte, maxStudy+1))} {
		if _, _, err := r.ForStudy(study); !fault.Is(err, fault.Invalid) {
			t.Errorf("a name of %d bytes: %v", len(study), err)
		}
	}
	r.Close()
	if _, _, err := r.ForStudy("1.2.3"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("closed: %v", err)
	}
}

func TestForgottenKeysAreGoneFromTheFile(t *testing.T) {
	fs := vfs.NewMem()
	r := newRing(t, fs, &node{1})
	a, b, c := must(t, r, "1.2.1"), must(t, r, "1.2.2"), must(t, r, "1.2.3")
	if err := r.Forget("1.2.2", "1.2.99"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Key(b.id); !fault.Is(err, fault.NotFound) {
			t.Errorf("forgotten: %v", err)
		}
		if must(t, r, "1.2.1") != a || must(t, r, "1.2.3") != c {
			t.Error("another study's key went too")
		}
		if file := bytesOf(t, fs); bytes.Contains(file, b.id[:]) || bytes.Contains(file, []byte("1.2.2")) {
			t.Error("the forgotten key is still in the file")
		}
		r.Close()
		r = newRing(t, fs, &node{1})
	}
	if again := must(t, r, "1.2.2"); again.id == b.id || again.key == b.key {
		t.Error("a forgotten key came back")
	}
	r.Close()
}

func TestPrepareMakesKeysWithOneSyncOfEachFile(t *testing.T) {
	syncs := 0
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			syncs++
		}
		return nil
	}))
	r := newRing(t, fs, &node{1})
	defer r.Close()
	old := must(t, r, "1")
	syncs = 0
	if err := r.Prepare("1", "2", "3", "3", "4"); err != nil {
		t.Fatal(err)
	}
	if syncs != copies {
		t.Errorf("%d syncs", syncs)
	}
	for _, study := range []string{"2", "3", "4"} {
		must(t, r, study)
	}
	if must(t, r, "1") != old || syncs != copies {
		t.Errorf("a prepared study got a new key; %d syncs", syncs)
	}
}

func TestARecordThatIsRottenInBothFilesLosesItsKeyOnly(t *testing.T) {
	fs := vfs.NewMem()
	r := newRing(t, fs, &node{1})
	a, b, c := must(t, r, "1.2.1"), must(t, r, "1.2.2"), must(t, r, "1.2.3")
	r.Close()
	sound := bytesOf(t, fs)
	size := (len(sound) - len(fileMagic)) / 3
	for at := len(fileMagic) + size; at < len(fileMagic)+2*size; at++ {
		rotten := bytes.Clone(sound)
		rotten[at] ^= 0x20
		put(t, fs, rotten)
		r = newRing(t, fs, &node{1})
		if r.Damaged() != 1 {
			t.Fatalf("rot at %d: %d damaged", at, r.Damaged())
		}
		if _, err := r.Key(b.id); !fault.Is(err, fault.NotFound) {
			t.Fatalf("rot at %d: %v", at, err)
		}
		if must(t, r, "1.2.1") != a || must(t, r, "1.2.3") != c {
			t.Fatalf("rot at %d took another key", at)
		}
		r.Close()
		if !bytes.Equal(bytesOf(t, fs), rotten) {
			t.Fatalf("rot at %d: the rotten bytes were not kept", at)
		}
	}
	for name, bad := range map[string][]byte{"empty": nil, "not a ring": []byte("something else"), "rotten head": append([]byte("X"), sound[1:]...)} {
		put(t, fs, bad)
		if _, err := Open(fs, "keys", &node{1}); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := bytes.Clone(sound)
	newer[7]++
	put(t, fs, newer)
	if _, err := Open(fs, "keys", &node{1}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("newer: %v", err)
	}
}

func TestAFailedWriteLeavesAWholeRing(t *testing.T) {
	var fail error
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync {
			return fail
		}
		return nil
	}))
	r := newRing(t, fs, &node{1})
	a := must(t, r, "1")
	fail = syscall.ENOSPC
	for range 2 {
		if _, _, err := r.ForStudy("2"); !fault.Is(err, fault.Full) {
			t.Fatalf("%v, want full", err)
		}
	}
	fail = nil
	b := must(t, r, "2")
	r.Close()
	r = newRing(t, fs, &node{1})
	defer r.Close()
	if must(t, r, "1") != a || must(t, r, "2") != b || r.Damaged() != 0 {
		t.Error("keys changed")
	}
}

func TestACrashKeepsEveryReturnedKey(t *testing.T) {
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		var crashed *vfs.MemFS
		count, known, promised, forgotten := 0, map[string]named{}, map[string]named{}, map[string]bool{}
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			if count++; count == at {
				crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (at % 3), RNG: rand.New(rand.NewPCG(uint64(at), 2))})
				for s, k := range known {
					promised[s] = k
				}
			}
			return nil
		}))
		if err := mem.MkdirAll("keys", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		r := newRing(t, fs, &node{1})
		for i := range 4 {
			study := fmt.Sprint(i)
			known[study] = must(t, r, study)
		}
		delete(known, "1")
		if err := r.Forget("1"); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			forgotten["1"] = true
		}
		known["5"] = must(t, r, "5")
		r.Close()
		if crashed == nil {
			break
		}
		for what, harm := range harms(uint64(at)) {
			after := crashed.CrashClone(vfs.CrashCloneCfg{})
			harm(t, after)
			holds(t, fmt.Sprintf("crash at %d, %s", at, what), after, promised)
		}
	}
}

func TestTheRingIsSafeForConcurrentUse(t *testing.T) {
	r := newRing(t, vfs.NewMem(), &node{1})
	defer r.Close()
	var wait sync.WaitGroup
	got := make([][]named, 4)
	for g := range got {
		wait.Go(func() {
			for i := range 30 {
				got[g] = append(got[g], must(t, r, fmt.Sprint(i)))
			}
			if err := r.Forget(fmt.Sprint("x", g)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, g := range got[1:] {
		for i := range g {
			if g[i] != got[0][i] {
				t.Fatalf("two keys for study %d", i)
			}
		}
	}
}

// The ring and a node's identity together, on a real disk.
func TestWithANode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var want named
	for i := range 2 {
		self, err := identity.Open(vfs.Default, dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := self.FirstEpoch(); err != nil {
			t.Fatal(err)
		}
		r, err := Open(vfs.Default, dir, self)
		if err != nil {
			t.Fatal(err)
		}
		got := must(t, r, "1.2.3")
		if i > 0 && got != want {
			t.Error("another key after a restart")
		}
		want = got
		if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		r.Close()
	}
}

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// writeGolden makes the golden ring: two keys of the node's own, and one of another.
func writeGolden(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	var text string
	for _, study := range []string{"1.2.840.1", "1.2.840.2"} {
		k := must(t, r, study)
		text += fmt.Sprintf("%s %x %x\n", study, k.id, k.key[:])
		n.current = 2
	}
	k, key := foreign(t, n, "1.2.840.1", "another")
	if _, err := r.Keep(k); err != nil {
		t.Fatal(err)
	}
	text += fmt.Sprintf("%s %x %x\n", k.Study+" of "+k.Origin, k.ID, key[:])
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"studies": bytesOf(t, fs), "golden.txt": []byte(text)} {
		if err := os.WriteFile(filepath.Join("testdata", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoldenRing(t *testing.T) {
	if *rewrite {
		writeGolden(t)
	}
	b, err := os.ReadFile(filepath.Join("testdata", "studies"))
	if err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, fs, b)
	r := newRing(t, fs, &node{2})
	defer r.Close()
	want, err := os.ReadFile(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for _, study := range []string{"1.2.840.1", "1.2.840.2"} {
		k := must(t, r, study)
		got += fmt.Sprintf("%s %x %x\n", study, k.id, k.key[:])
	}
	for _, at := range r.byStudy.find(maphash.String(r.seed, "1.2.840.1")) {
		rec, err := r.readLocked(at) // nobody else is here
		if err != nil {
			t.Fatal(err)
		}
		if rec.own() {
			continue
		}
		key, err := r.Key(rec.id)
		if err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%s of %s %x %x\n", rec.study, rec.origin, rec.id, key[:])
	}
	if !bytes.Equal(bytesOf(t, fs), b) {
		t.Error("opening the golden ring changes it")
	}
	if got != string(want) {
		t.Errorf("the golden ring reads as\n%swant\n%s", got, want)
	}
}

func FuzzIndex(f *testing.F) {
	rec := record{id: [16]byte{1}, epoch: 1, study: []byte("1.2")}
	other := record{id: [16]byte{2}, epoch: 7, study: []byte("1.2"), origin: []byte("another")}
	f.Add(append([]byte(fileMagic), rec.append(rec.append(nil))...))
	f.Add(append([]byte(fileMagic), other.append(rec.append(nil))...))
	f.Add([]byte(fileMagic + recordMark))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Ring{}
		err := r.index(bytes.NewReader(b), int64(len(b)))
		if err == nil && (r.size < int64(len(fileMagic)) || r.size > int64(len(b))) {
			t.Fatalf("whole up to %d of %d", r.size, len(b))
		}
		var rec record
		if rec.parse(b) && !bytes.Equal(rec.append(nil), b[:rec.size()]) {
			t.Fatal("a record changes when it is written again")
		}
	})
}

func BenchmarkOpenMillion(b *testing.B) {
	file := []byte(fileMagic)
	for i := range 1_000_000 {
		rec := record{epoch: 1, study: fmt.Appendf(nil, "1.2.840.113619.2.55.3.%d.%d", i*7919, i)}
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(rec.id[:])
		file = rec.append(file)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := &Ring{}
		if err := r.index(bytes.NewReader(file), int64(len(file))); err != nil {
			b.Fatal(err)
		}
	}
}
