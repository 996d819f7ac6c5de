package bulk

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// Keys, index rows and ledger records are read as they were written
// (docs/formats/bulk.md).
func TestKeysIndexAndLedgerAreGolden(t *testing.T) {
	table := tableKey{Hot, 300}
	sizes := []int64{0, 1, -1, 1 << 33}
	records := []record{
		{kind: recordBegin, table: table},
		{kind: recordTable, table: table, sizes: sizes},
		{kind: recordDead, table: table, blobs: []uint32{0, 300}},
		{kind: recordGone, table: tableKey{Held, 1}},
		{kind: recordNext, table: tableKey{0, 1 << 40}},
	}
	var out strings.Builder
	fmt.Fprintln(&out, "magic", hex.EncodeToString([]byte(ledgerMagic)))
	fmt.Fprintln(&out, "piece", hex.EncodeToString(table.key(nil, 7, 2)))
	fmt.Fprintln(&out, "index", hex.EncodeToString(appendIndex(nil, sizes)))
	for _, r := range records {
		fmt.Fprintln(&out, "record", hex.EncodeToString(r.frame(nil)))
	}
	path := filepath.Join("testdata", "formats.hex")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the durable form has changed:\n%s", out.String())
	}
	var read []record
	for line := range strings.Lines(string(want)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "index":
			if got, ok := parseIndex(b); !ok || !slices.Equal(got, sizes) {
				t.Errorf("index reads back as %v, %t", got, ok)
			}
		case "record":
			r, ok := parseRecord(b[recordHead:])
			if !ok {
				t.Errorf("a record does not read back: %s", digits)
			}
			read = append(read, r)
		}
	}
	if !reflect.DeepEqual(read, records) {
		t.Errorf("records read back as %+v", read)
	}
}
