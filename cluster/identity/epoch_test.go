package identity

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
)

func TestEpochsAreAddedForGoodAndTheNewestIsCurrent(t *testing.T) {
	fs := vfs.NewMem()
	n, err := Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	seven, nine := NewEpoch(), NewEpoch()
	if err := n.AddEpochs(map[uint32][32]byte{9: nine, 7: seven}); err != nil {
		t.Fatal(err)
	}
	if err := n.AddEpochs(map[uint32][32]byte{8: NewEpoch(), 7: seven}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		added map[uint32][32]byte
		kind  fault.Kind
	}{
		"another key under a number": {map[uint32][32]byte{7: nine, 10: nine}, fault.Conflict},
		"no number":                  {map[uint32][32]byte{0: nine}, fault.Invalid},
	} {
		if err := n.AddEpochs(c.added); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 {
		if got := n.Epochs(); !slices.Equal(got, []uint32{7, 8, 9}) || n.Current() != 9 {
			t.Fatalf("holds %v, the newest %d", got, n.Current())
		}
		if got, err := n.Epoch(7); err != nil || got != seven {
			t.Errorf("epoch 7: %v", err)
		}
		if n, err = Open(fs, "keys"); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.FirstEpoch(); err != nil || len(n.Epochs()) != 3 {
		t.Errorf("who holds epochs founds one: %v, %v", n.Epochs(), err)
	}
}

func TestAnEpochIsOpenedByTheNodeItWasSealedToOnly(t *testing.T) {
	a, b := openNew(t), openNew(t)
	if _, err := a.SealEpoch(b.Sealing(), 1); !fault.Is(err, fault.NotFound) {
		t.Errorf("an epoch that is not held: %v", err)
	}
	if err := a.FirstEpoch(); err != nil {
		t.Fatal(err)
	}
	sealed, err := a.SealEpoch(b.Sealing(), 1)
	if err != nil || len(sealed) != EnvelopeBytes {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	want, err := a.Epoch(1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.OpenEpoch(1, sealed); err != nil || got != want || b.Current() != 0 {
		t.Errorf("the node it is for: %v", err)
	}
	changed := bytes.Clone(sealed)
	changed[50] ^= 1
	long, err := SealTo(b.Sealing(), epochContext(1), make([]byte, 33))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		by     *Node
		number uint32
		sealed []byte
	}{
		"another node": {a, 1, sealed}, "another number": {b, 2, sealed}, "a changed byte": {b, 1, changed},
		"cut short": {b, 1, sealed[:40]}, "nothing": {b, 1, nil}, "longer than a key": {b, 1, long},
	} {
		if _, err := c.by.OpenEpoch(c.number, c.sealed); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := want
	if CheckOf(1, want) == CheckOf(2, want) || CheckOf(1, want) == CheckOf(1, NewEpoch()) || CheckOf(1, want) != CheckOf(1, same) {
		t.Error("a check does not tell keys apart")
	}
}

// Envelopes bring them back from the catalogue; a founder that lost them must not
// make others under their numbers.
func TestLostEpochKeysAreNotMadeAnew(t *testing.T) {
	fs := vfs.NewMem()
	n, err := Open(fs, "data/keys")
	if err != nil || n.FirstEpoch() != nil {
		t.Fatal(err)
	}
	want, err := n.Epoch(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.MkdirAll("data/store", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("data/keys/" + epochFile); err != nil {
		t.Fatal(err)
	}
	again, err := Open(fs, "data/keys")
	if err != nil || again.ID() != n.ID() || again.Current() != 0 {
		t.Fatalf("opened without: %v", err)
	}
	if err := again.FirstEpoch(); !fault.Is(err, fault.Corrupt) || again.Current() != 0 {
		t.Errorf("a first epoch beside a store: %v", err)
	}
	if err := again.AddEpochs(map[uint32][32]byte{1: want}); err != nil || !sameEpoch(again, n, 1) {
		t.Errorf("given back: %v", err)
	}
}

// A crash at any operation while epochs are added, one after the other, leaves those
// that were returned; one that was not may be there, and then whole.
func TestACrashWhileEpochsAreAddedLosesNone(t *testing.T) {
	keys := map[uint32][32]byte{1: NewEpoch(), 5: NewEpoch(), 6: NewEpoch()}
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		first, err := Open(mem, "data/keys")
		if err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		var promised []uint32
		count := 0
		var n *Node
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if count++; count == at {
					crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (at % 3), RNG: rand.New(rand.NewPCG(uint64(at), 2))})
					if n != nil {
						promised = n.Epochs()
					}
				}
			}
			return nil
		}))
		if n, err = Open(fs, "data/keys"); err != nil {
			t.Fatal(err)
		}
		for _, number := range []uint32{1, 5, 6} {
			if err := n.AddEpochs(map[uint32][32]byte{number: keys[number]}); err != nil {
				t.Fatal(err)
			}
		}
		if crashed == nil {
			if at < 12 {
				t.Fatalf("adding took %d writes: the test proves nothing", at)
			}
			return
		}
		again, err := Open(crashed, "data/keys")
		if err != nil || again.ID() != first.ID() {
			t.Errorf("crash at %d: %v", at, err)
			continue
		}
		for _, number := range promised {
			if key, err := again.Epoch(number); err != nil || key != keys[number] {
				t.Errorf("crash at %d: epoch %d, which was held: %v", at, number, err)
			}
		}
		if err := again.AddEpochs(keys); err != nil || len(again.Epochs()) != 3 {
			t.Errorf("crash at %d: it does not go on: %v", at, err)
		}
	}
}

// A disk that fails leaves what is held as it is.
func TestAFailedWriteHoldsNothingNew(t *testing.T) {
	fail := false
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail && op.Kind == errorfs.OpFileSync {
			return errorfs.ErrInjected
		}
		return nil
	}))
	n, err := Open(fs, "keys")
	if err != nil || n.FirstEpoch() != nil {
		t.Fatal(err)
	}
	fail = true
	if err := n.AddEpochs(map[uint32][32]byte{2: NewEpoch()}); err == nil || n.Current() != 1 {
		t.Errorf("%v, the newest %d", err, n.Current())
	}
	fail = false
	if err := n.AddEpochs(map[uint32][32]byte{2: NewEpoch()}); err != nil || n.Current() != 2 {
		t.Errorf("afterwards: %v", err)
	}
}
