package journal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func goldenRows(t testing.TB) (stateRow, batchRow []byte) {
	s := state{incarnation: 2, oldest: 3, next: 4, cursor: 60, packs: 70, last: [hashBytes]byte{1, 2, 3}}
	r := row{previous: s.last}
	var err error
	r.entry, r.hash, err = catalog.EncodeBatch(catalogtest.SignerOf("n"), catalog.Batch{
		Node: "n", Site: "s", Incarnation: s.incarnation, Number: s.next, Facts: []*catalog.SeriesFact{{
			Origin: "n", Site: "s", AsOf: asOf(2, 50), Study: "1.2", Series: "1.2.3", Instances: 7, Bytes: 7000, Arrived: 1700000000000000,
			Attributes: catalogtest.Dataset(map[dict.Tag]string{dict.PatientID: "P", dict.Modality: "CT"}),
		}},
	}, s.last)
	if err != nil {
		t.Fatal(err)
	}
	return s.encode(), r.encode()
}

func TestRowsAreGolden(t *testing.T) {
	stateRow, batchRow := goldenRows(t)
	got := hex.EncodeToString(stateRow) + "\n" + hex.EncodeToString(batchRow) + "\n"
	path := filepath.Join("testdata", "rows.hex")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the durable form has changed:\n%s", got)
	}
	s, err := decodeState(stateRow)
	if err != nil || !bytes.Equal(s.encode(), stateRow) {
		t.Errorf("state %+v, %v", s, err)
	}
	r, b, err := decodeBatch(batchRow, catalogtest.SignerOf("n"))
	if err != nil || b.Number != 4 || b.Incarnation != 2 || len(b.Facts) != 1 || r.previous != s.last {
		t.Errorf("batch %v, %v", b, err)
	}
}

func TestABatchThatIsNotOursIsNotRead(t *testing.T) {
	_, batchRow := goldenRows(t)
	if _, _, err := decodeBatch(batchRow, catalogtest.SignerOf("another")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("signed by another: %v, want corrupt", err)
	}
	r, err := decodeRow(batchRow)
	if err != nil {
		t.Fatal(err)
	}
	r.previous[0] ^= 1
	if _, _, err := decodeBatch(r.encode(), catalogtest.SignerOf("n")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("bound to another batch: %v, want corrupt", err)
	}
	r.previous[0] ^= 1
	r.hash[0] ^= 1
	if _, _, err := decodeBatch(r.encode(), catalogtest.SignerOf("n")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("under another hash: %v, want corrupt", err)
	}
	for i := range batchRow {
		rotten := bytes.Clone(batchRow)
		rotten[i] ^= 1
		if _, _, err := decodeBatch(rotten, catalogtest.SignerOf("n")); err == nil {
			t.Fatalf("byte %d of %d may rot", i, len(batchRow))
		}
	}
}

func TestRowsOfANewerVersionAreUnsupported(t *testing.T) {
	stateRow, batchRow := goldenRows(t)
	stateRow[0], batchRow[0] = stateVersion+1, rowVersion+1
	if _, err := decodeState(stateRow); !fault.Is(err, fault.Unsupported) {
		t.Errorf("state: %v", err)
	}
	if _, _, err := decodeBatch(batchRow, catalogtest.SignerOf("n")); !fault.Is(err, fault.Unsupported) {
		t.Errorf("batch: %v", err)
	}
}

func FuzzDecodeRows(f *testing.F) {
	stateRow, batchRow := goldenRows(f)
	f.Add(batchRow)
	f.Add(stateRow)
	signer := catalogtest.SignerOf("n")
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRow(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Error("a row that was read is written otherwise")
		}
		// What a signature protects is reached without one, too.
		if e, err := catalog.DecodeEntry(b); err == nil {
			e.SignedBy(signer, [hashBytes]byte{})
		}
		if _, batch, err := decodeBatch(b, signer); err == nil && batch == nil {
			t.Error("neither a batch nor an error")
		}
		if s, err := decodeState(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Error("a state that was read is written otherwise")
		}
	})
}
