package journal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"pelago/replication/catalog"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func goldenRows(t testing.TB) (stateRow, batchRow []byte) {
	s := state{incarnation: 2, oldest: 3, next: 4, nextFact: 50, cursor: 60, last: [32]byte{1, 2, 3}}
	row, _, err := encodeBatch(s, []*catalog.SeriesFact{{Origin: "n", Site: "s", AsOf: 3, Study: "1.2.3", Series: "1.2.3.4", Instances: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.encode(), row
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
	b, commands, _, err := decodeBatch(batchRow)
	if err != nil || b.Number != 4 || b.First != 50 || len(commands) != 1 {
		t.Errorf("batch %v, %v, %v", b, commands, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	stateRow, batchRow := goldenRows(f)
	f.Add(batchRow)
	f.Add(stateRow)
	f.Fuzz(func(t *testing.T, row []byte) {
		_, _, _, _ = decodeBatch(row) // it must not panic
		if s, err := decodeState(row); err == nil && !bytes.Equal(s.encode(), row) {
			t.Error("a state that was read is written otherwise")
		}
	})
}
