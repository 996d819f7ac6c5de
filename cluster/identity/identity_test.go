package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
)

func TestAnIdentityIsMadeOnceAndStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "keys")
	a, err := Open(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.Current() != 0 || len(a.Epochs()) != 0 {
		t.Errorf("it begins with the epochs %v", a.Epochs())
	}
	for range 2 { // the second time changes nothing
		if err := a.FirstEpoch(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := Open(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	ka, err := a.Epoch(a.Current())
	if err != nil {
		t.Fatal(err)
	}
	if kb, err := b.Epoch(1); err != nil || ka != kb || a.ID() != b.ID() || len(a.ID()) != 32 || b.Current() != 1 || ka == [32]byte{} {
		t.Errorf("opened again: %v, ids %s and %s", err, a.ID(), b.ID())
	}
	if !ed25519.Verify(a.Public(), []byte("message"), b.Sign([]byte("message"))) {
		t.Error("the signature does not verify")
	}
	if _, err := a.Epoch(2); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown epoch: %v", err)
	}
	other, err := Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	if other.ID() == a.ID() {
		t.Errorf("another node has the id %s", other.ID())
	}
	for name, mode := range map[string]os.FileMode{"": 0o700 | os.ModeDir, nodeFile: 0o600, epochFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%q: mode %v, %v", name, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, epochFile))
	if err != nil || bytes.Contains(text, ka[:]) {
		t.Errorf("the epoch key lies open: %v", err)
	}
}

func TestLostOrRottenKeysAreRefused(t *testing.T) {
	change := func(name string, at int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			b[(at+len(b))%len(b)] ^= 1
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(names ...string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		kind   fault.Kind
	}{
		"node key gone":           {remove(nodeFile), fault.Corrupt},
		"both gone":               {remove(nodeFile, epochFile), fault.Corrupt},
		"all gone beside a store": {func(t *testing.T, dir string) { remove(nodeFile, epochFile, "studies")(t, dir) }, fault.Corrupt},
		"node key rotten":         {change(nodeFile, 20), fault.Corrupt},
		"node key's head rotten":  {change(nodeFile, 0), fault.Corrupt},
		"epochs rotten":           {change(epochFile, 30), fault.Corrupt},
		"checksum rotten":         {change(epochFile, -1), fault.Corrupt},
		"newer version":           {change(nodeFile, 7), fault.Unsupported},
		"newer epochs":            {change(epochFile, 7), fault.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			dir := filepath.Join(data, "keys")
			if n, err := Open(vfs.Default, dir); err != nil || n.FirstEpoch() != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "studies"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(data, "bulk"), 0o700); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			if _, err := Open(vfs.Default, dir); !fault.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
		})
	}
}

// A crash at any operation while founding leaves an identity that was returned,
// or none at all.
func TestACrashWhileFoundingHarmsNothing(t *testing.T) {
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		count := 0
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if count++; count == at {
					crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(at), 2))})
				}
			}
			return nil
		}))
		n, err := Open(fs, "data/keys")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.FirstEpoch(); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			after := mem.CrashClone(vfs.CrashCloneCfg{})
			again, err := Open(after, "data/keys")
			if err != nil || again.ID() != n.ID() || again.Current() != 1 || !sameEpoch(again, n, 1) {
				t.Errorf("a returned identity did not survive: %v", err)
			}
			break
		}
		again, err := Open(crashed, "data/keys")
		if err != nil {
			t.Errorf("crash at %d: %v", at, err)
			continue
		}
		if err := again.FirstEpoch(); err != nil || again.Current() != 1 {
			t.Errorf("crash at %d: it cannot be founded again: %v", at, err)
		}
	}
}

func sameEpoch(a, b *Node, number uint32) bool {
	x, errA := a.Epoch(number)
	y, errB := b.Epoch(number)
	return errA == nil && errB == nil && x == y
}

func TestGoldenKeyFiles(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{nodeFile, epochFile} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(fs, "keys", name, b); err != nil {
			t.Fatal(err)
		}
	}
	n, err := Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := n.Epoch(1)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.ID() + "\n" + hex.EncodeToString(key[:]) + "\n"; got != string(want) {
		t.Errorf("the golden keys read as\n%swant\n%s", got, want)
	}
}

func FuzzKeyFiles(f *testing.F) {
	for _, name := range []string{nodeFile, epochFile} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b[8:len(b)-32])
	}
	sealing, err := sealingKey(make([]byte, sealingBytes))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, file, payload []byte) {
		if b, err := parseFile(file, nodeMagic, "x"); err == nil && len(b) > len(file) {
			t.Fatal("more than there was")
		}
		if all, err := parseEpochs(payload, sealing); err == nil && len(all.keys)*entryBytes != len(payload) {
			t.Fatalf("%d epochs of %d bytes", len(all.keys), len(payload))
		}
	})
}
