package archive

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

func TestPeersAreToldOfCanonicalInstancesOnly(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 4 {
		b.store(serial(n))
	}
	other := serial(1) // other content under a known UID
	other.seed = 77
	quarantined := b.store(other)
	if quarantined.Outcome != Quarantined {
		t.Fatalf("outcome %d", quarantined.Outcome)
	}
	deleted := serial(2)
	if err := b.Delete(t.Context(), deleted.study, deleted.series, deleted.sop, "test"); err != nil {
		t.Fatal(err)
	}
	m := serial(0)
	var told []string
	numbers := map[string]uint64{}
	for h, err := range b.Holdings(t.Context(), m.study, m.series, "") {
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, h.Record.Sop)
		numbers[h.Record.Sop] = h.Record.Number
	}
	if len(told) != 3 || told[0] != serial(0).sop || told[1] != serial(1).sop || told[2] != serial(3).sop {
		t.Errorf("told of %v", told)
	}
	for _, test := range []struct {
		name   string
		number uint64
		sop    string
		want   []byte
	}{
		{"canonical", numbers[serial(1).sop], serial(1).sop, serial(1).encode(t)},
		{"quarantined", quarantined.Number, other.sop, nil},
		{"of another UID", numbers[serial(1).sop], serial(0).sop, nil},
		{"unknown", 1 << 40, serial(0).sop, nil},
		{"deleted", numbers[serial(1).sop] + 1, deleted.sop, nil},
	} {
		in, from, done, err := b.Stored(t.Context(), test.number, test.sop)
		if test.want == nil {
			if !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(from, 0, in.Bytes))
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: comes back different, %v", test.name, err)
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	}
}

func TestPeersReadTheCiphertextOfPacksThatAreHere(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(fs, keys))
	m := serial(0)
	b.store(m)
	b.pack()
	id := packOf(t, b, m)
	p, from, err := b.Ciphertext(id)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := seal.ReadTree(from, p.BlobBytes)
	if err != nil || tree.Root() != [32]byte(p.Root) {
		t.Errorf("another root: %v", err)
	}
	if _, err := b.StudyKey([16]byte(p.Key)); err != nil {
		t.Error(err)
	}
	if _, _, err := b.Ciphertext(pack.ID{1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a pack that is nowhere: %v", err)
	}
	b.close()
	b = open(t, testOptions(fs, keys)) // lets the segment go that was being written
	b.close()
	removeTables(t, fs)
	b = open(t, testOptions(fs, keys))
	defer b.close()
	if _, _, err := b.Ciphertext(id); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a pack that was lost: %v", err)
	}
}

func packOf(t *testing.T, b *bench, m image) pack.ID {
	t.Helper()
	for h, err := range b.Holdings(context.Background(), m.study, m.series, m.sop) {
		if err != nil || len(h.Location.Pack) != 16 {
			t.Fatalf("not packed: %v", err)
		}
		return pack.ID(h.Location.Pack)
	}
	t.Fatal("no such instance")
	return pack.ID{}
}
