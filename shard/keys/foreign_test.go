package keys

import (
	"bytes"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/shard/seal"
)

// foreign makes a key of another node, wrapped under the newest epoch.
func foreign(t testing.TB, n *node, study, origin string) (StudyKey, seal.Key) {
	t.Helper()
	k := StudyKey{Study: study, Origin: origin, Epoch: n.current}
	rand.Read(k.ID[:])
	epoch, err := n.Epoch(n.current)
	if err != nil {
		t.Fatal(err)
	}
	key := seal.NewKey()
	wrapped, err := seal.Wrap(epoch, k.ID, key)
	if err != nil {
		t.Fatal(err)
	}
	copy(k.Wrapped[:], wrapped)
	return k, key
}

func keep(t testing.TB, r *Ring, all ...StudyKey) {
	t.Helper()
	if refused, err := r.Keep(all...); err != nil || refused != 0 {
		t.Fatalf("%d refused, %v", refused, err)
	}
}

func TestKeysOfOthersOpenByIDAndAreNeverForPacking(t *testing.T) {
	fs, n := vfs.NewMem(), &node{2}
	r := newRing(t, fs, n)
	a, keyA := foreign(t, n, "1.2.1", "a")
	b, keyB := foreign(t, n, "1.2.1", "b")
	keep(t, r, a, b)
	own := must(t, r, "1.2.1")
	if own.id == a.ID || own.id == b.ID {
		t.Fatal("another node's key is used for packing")
	}
	c, _ := foreign(t, n, "1.2.1", "c")
	keep(t, r, c) // later than the own one
	if err := r.Prepare("1.2.1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if must(t, r, "1.2.1") != own {
			t.Error("the study has another key now")
		}
		for id, want := range map[[16]byte]seal.Key{a.ID: keyA, b.ID: keyB, own.id: own.key} {
			if key, err := r.Key(id); err != nil || key != want {
				t.Errorf("by id: %v", err)
			}
		}
		for _, k := range []StudyKey{a, b, c} {
			if got, err := r.Wrapped(k.ID); err != nil || got != k {
				t.Errorf("as it is wrapped: %+v, %v", got, err)
			}
		}
		if got, err := r.Wrapped(own.id); err != nil || got.Origin != "" || got.Study != "1.2.1" {
			t.Errorf("its own, as it is wrapped: %+v, %v", got, err)
		}
		r.Close()
		r = newRing(t, fs, n)
	}
	r.Close()
}

func TestKeysOfOthersAreKeptOnceWithOneSync(t *testing.T) {
	syncs := 0
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			syncs++
		}
		return nil
	}))
	n := &node{1}
	r := newRing(t, fs, n)
	defer r.Close()
	var all []StudyKey
	for i := range 100 {
		k, _ := foreign(t, n, fmt.Sprint("1.", i%30), fmt.Sprint("n", i))
		all = append(all, k)
	}
	own := must(t, r, "1.5")
	announced, err := r.Wrapped(own.id)
	if err != nil {
		t.Fatal(err)
	}
	announced.Origin = "this node" // as the network tells of it
	all = append(all, announced, all[3])
	syncs = 0
	keep(t, r, all...)
	if syncs != copies {
		t.Errorf("%d syncs", syncs)
	}
	size := len(bytesOf(t, fs))
	keep(t, r, all...)
	if len(bytesOf(t, fs)) != size || syncs != copies {
		t.Errorf("again: %d bytes instead of %d, %d syncs", len(bytesOf(t, fs)), size, syncs)
	}
	if !bytes.Equal(bytesOf(t, fs), bytesIn(t, fs, copyNames[1])) {
		t.Error("the files differ")
	}
}

func TestAKeyUnderAnothersIDIsRefusedAndHarmsNone(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	defer r.Close()
	own := must(t, r, "1.1")
	good, key := foreign(t, n, "1.2", "a")
	keep(t, r, good)
	change := func(k StudyKey, f func(*StudyKey)) StudyKey { f(&k); return k }
	announced, err := r.Wrapped(own.id)
	if err != nil {
		t.Fatal(err)
	}
	fresh, _ := foreign(t, n, "1.3", "a")
	for name, bad := range map[string][]StudyKey{
		"another origin":           {change(good, func(k *StudyKey) { k.Origin = "b" })},
		"another study":            {change(good, func(k *StudyKey) { k.Study = "1.3" })},
		"another epoch of others":  {change(good, func(k *StudyKey) { k.Epoch, k.Origin = k.Epoch+1, "b" })},
		"another epoch of its own": {change(announced, func(k *StudyKey) { k.Epoch, k.Origin = k.Epoch+1, "b" })},
		"another key":              {change(good, func(k *StudyKey) { k.Wrapped[9] ^= 1 })},
		"of this node's own":       {change(announced, func(k *StudyKey) { k.Origin, k.Wrapped[9] = "b", k.Wrapped[9]^1 })},
		"no origin":                {change(fresh, func(k *StudyKey) { k.Origin = "" })},
		"an origin that is long":   {change(fresh, func(k *StudyKey) { k.Origin = strings.Repeat("a", maxOrigin+1) })},
		"no study":                 {change(fresh, func(k *StudyKey) { k.Study = "" })},
		"a study that is too long": {change(fresh, func(k *StudyKey) { k.Study = strings.Repeat("1", maxStudy+1) })},
	} {
		before := bytesOf(t, fs)
		if refused, err := r.Keep(bad...); refused != 1 || err != nil {
			t.Errorf("%s: %d refused, %v", name, refused, err)
		}
		if !bytes.Equal(bytesOf(t, fs), before) {
			t.Errorf("%s: the ring was written", name)
		}
	}
	twice, _ := foreign(t, n, "1.4", "a")
	if refused, err := r.Keep(twice, change(twice, func(k *StudyKey) { k.Origin = "b" })); refused != 1 || err != nil {
		t.Errorf("two under one id in one batch: %d refused, %v", refused, err)
	}
	if got, err := r.Wrapped(twice.ID); err != nil || got != twice {
		t.Errorf("the first of two: %+v, %v", got, err)
	}
	if got, err := r.Key(good.ID); err != nil || got != key || must(t, r, "1.1") != own {
		t.Errorf("the others: %v", err)
	}
}

// A key that its origin wraps anew opens by whichever wrapping can be opened, in each
// of the two files, whatever happened to the other.
func TestAKeyThatIsWrappedAnewIsKeptBesideTheFormer(t *testing.T) {
	mem, n := vfs.NewCrashableMem(), &node{3}
	if err := mem.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := identity.SyncDir(mem, "/"); err != nil {
		t.Fatal(err)
	}
	r := newRing(t, mem, n)
	before, _ := foreign(t, n, "1.1", "a")
	first, key := foreign(t, &node{2}, "1.2", "a")
	last, _ := foreign(t, n, "1.3", "a")
	anew := func(epoch uint32) StudyKey {
		k := first
		k.Epoch = epoch
		wrapping, err := n.Epoch(epoch)
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := seal.Wrap(wrapping, k.ID, key)
		if err != nil {
			t.Fatal(err)
		}
		copy(k.Wrapped[:], wrapped)
		return k
	}
	newer, older := anew(3), anew(1)
	keep(t, r, before, first)
	keep(t, r, newer, last, older)
	for range 2 {
		size := len(bytesOf(t, mem))
		keep(t, r, first, newer, older, last)
		if len(bytesOf(t, mem)) != size {
			t.Error("kept again")
		}
		if got, err := r.Wrapped(first.ID); err != nil || got != newer {
			t.Errorf("the latest wrapping: %+v, %v", got, err)
		}
		for _, newest := range []uint32{3, 2, 1} { // epochs that are held
			n.current = newest
			if got, err := r.Key(first.ID); err != nil || got != key {
				t.Errorf("with epochs up to %d: %v", newest, err)
			}
		}
		n.current = 0
		if _, err := r.Key(first.ID); !fault.Is(err, fault.Unavailable) {
			t.Errorf("with no epoch: %v", err)
		}
		n.current = 3
		r.Close()
		r = newRing(t, mem, n)
	}
	r.Close()
	for seed := range uint64(20) {
		for what, harm := range harms(seed) {
			fs := mem.CrashClone(vfs.CrashCloneCfg{})
			harm(t, fs)
			again := newRing(t, fs, n)
			if got, err := again.Wrapped(first.ID); err != nil || got != newer || again.Damaged() != 0 {
				t.Errorf("%s, %d: %+v, %v", what, seed, got, err)
			}
			again.Close()
		}
	}
}

func TestForgettingAStudyTakesTheKeysOfAllNodes(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	own := must(t, r, "1.1")
	a, _ := foreign(t, n, "1.1", "a")
	only, _ := foreign(t, n, "1.2", "a") // of a study of which this node has nothing
	other, key := foreign(t, n, "1.3", "a")
	keep(t, r, a, only, other)
	if err := r.Forget("1.1", "1.2"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range [][16]byte{own.id, a.ID, only.ID} {
			if _, err := r.Key(id); !fault.Is(err, fault.NotFound) {
				t.Errorf("forgotten: %v", err)
			}
			if bytes.Contains(bytesOf(t, fs), id[:]) || bytes.Contains(bytesIn(t, fs, copyNames[1]), id[:]) {
				t.Error("a forgotten key is still in a file")
			}
		}
		if got, err := r.Key(other.ID); err != nil || got != key {
			t.Errorf("another study's: %v", err)
		}
		r.Close()
		r = newRing(t, fs, n)
	}
	r.Close()
}

func TestWithoutEpochsKeysAreKeptAndNoneAreMade(t *testing.T) {
	fs, late := vfs.NewMem(), &node{}
	r := newRing(t, fs, late)
	defer r.Close()
	k, key := foreign(t, &node{3}, "1.1", "a")
	keep(t, r, k)
	wrapped := []byte{0, 0, 0, 1, 9}
	for name, f := range map[string]func() error{
		"whether it can":       r.Ready,
		"a key for packing":    func() error { _, _, err := r.ForStudy("1.1"); return err },
		"keys ahead":           func() error { return r.Prepare("1.1", "1.2") },
		"wrapping":             func() error { _, err := r.Wrap(k.ID, key); return err },
		"unwrapping":           func() error { _, err := r.Unwrap(k.ID, wrapped); return err },
		"another node's by id": func() error { _, err := r.Key(k.ID); return err },
	} {
		if err := f(); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	late.current = 3
	if got, err := r.Key(k.ID); err != nil || got != key || r.Ready() != nil {
		t.Errorf("once they are here: %v", err)
	}
	must(t, r, "1.1")
}

// A node of whose share of a study nothing is left, by a deletion of a series or a
// discarded version, must not shred what others have of it.
func TestForgettingItsOwnKeyLeavesThoseOfOthers(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	own := must(t, r, "1.1")
	a, key := foreign(t, n, "1.1", "a")
	only, _ := foreign(t, n, "1.2", "a")
	keep(t, r, a, only)
	size := len(bytesOf(t, fs))
	if err := r.ForgetOwn("1.2", "1.3"); err != nil || len(bytesOf(t, fs)) != size {
		t.Errorf("of studies that it has no key of: %v", err)
	}
	if err := r.ForgetOwn("1.1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Key(own.id); !fault.Is(err, fault.NotFound) || bytes.Contains(bytesOf(t, fs), own.id[:]) {
			t.Errorf("forgotten: %v", err)
		}
		if got, err := r.Key(a.ID); err != nil || got != key {
			t.Errorf("another node's: %v", err)
		}
		r.Close()
		r = newRing(t, fs, n)
	}
	if again := must(t, r, "1.1"); again.id == own.id || again.id == a.ID {
		t.Error("a forgotten key came back, or another node's is used")
	}
	r.Close()
}

// A key that has rotted in both files comes back from the network.
func TestAKeyThatRottedInBothFilesIsKeptAnew(t *testing.T) {
	mem, n := vfs.NewMem(), &node{1}
	r := newRing(t, mem, n)
	first, _ := foreign(t, n, "1.1", "a")
	k, key := foreign(t, n, "1.2", "a")
	last, _ := foreign(t, n, "1.3", "a")
	keep(t, r, first, k, last)
	for _, name := range copyNames { // while it runs
		f, err := mem.OpenReadWrite("keys/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		at := len(fileMagic) + (len(bytesOf(t, mem))-len(fileMagic))/3
		if _, err := f.WriteAt([]byte("rot"), int64(at+50)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := r.Key(k.ID); !fault.Is(err, fault.Corrupt) {
		t.Fatalf("it is not rotten: %v", err)
	}
	keep(t, r, first, k, last)
	for range 2 {
		if got, err := r.Key(k.ID); err != nil || got != key {
			t.Errorf("kept anew: %v", err)
		}
		r.Close()
		r = newRing(t, mem, n)
		keep(t, r, first, k, last)
	}
	r.Close()
}

func TestACrashWhileKeepingLosesNoKeyThatWasKept(t *testing.T) {
	n := &node{1}
	var all []StudyKey
	for i := range 6 {
		k, _ := foreign(t, n, fmt.Sprint("1.", i), "a")
		all = append(all, k)
	}
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("keys", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		var kept, promised, count int
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if count++; count == at {
					crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (at % 3), RNG: mathrand.New(mathrand.NewPCG(uint64(at), 2))})
					promised = kept
				}
			}
			return nil
		}))
		r := newRing(t, fs, n)
		for i := 0; i < len(all); i += 2 {
			keep(t, r, all[i:i+2]...)
			kept = i + 2
			must(t, r, fmt.Sprint("own.", i))
		}
		r.Close()
		if crashed == nil {
			return
		}
		for what, harm := range harms(uint64(at)) {
			if promised == 0 && what != "nothing" {
				continue
			}
			after := crashed.CrashClone(vfs.CrashCloneCfg{})
			harm(t, after)
			again := newRing(t, after, n)
			for i := range promised {
				if got, err := again.Wrapped(all[i].ID); err != nil || got != all[i] {
					t.Errorf("crash at %d, %s: key %d of %d: %v", at, what, i, promised, err)
				}
			}
			keep(t, again, all...)
			again.Close()
		}
	}
}

func TestKeysAreForgottenByTheirIDs(t *testing.T) {
	fs, n := vfs.NewMem(), &node{1}
	r := newRing(t, fs, n)
	own := must(t, r, "1.1")
	a, _ := foreign(t, n, "1.1", "a")
	b, key := foreign(t, n, "1.1", "b")
	keep(t, r, a, b)
	size := len(bytesOf(t, fs))
	if err := r.ForgetKeys([16]byte{77}); err != nil || len(bytesOf(t, fs)) != size {
		t.Errorf("of a key that is not known: %v", err)
	}
	if err := r.ForgetKeys(a.ID, own.id, a.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range [][16]byte{own.id, a.ID} {
			if _, err := r.Key(id); !fault.Is(err, fault.NotFound) || bytes.Contains(bytesOf(t, fs), id[:]) || bytes.Contains(bytesIn(t, fs, copyNames[1]), id[:]) {
				t.Errorf("forgotten: %v", err)
			}
		}
		if got, err := r.Key(b.ID); err != nil || got != key {
			t.Errorf("another of the study: %v", err)
		}
		r.Close()
		r = newRing(t, fs, n)
	}
	r.Close()
}
