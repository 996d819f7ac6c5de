package archive

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// goldenRecords have every field set.
func goldenRecords() map[string]proto.Message {
	id := bytes.Repeat([]byte{0xA5}, 16)
	instance := &archivepb.Instance{
		Version: 1, Number: 300, Study: "1.2", Series: "1.2.3", Sop: "1.2.3.4", Class: ctClass, Syntax: "1.2.840.10008.1.2.1",
		Bytes: 1 << 33, Hash: bytes.Repeat([]byte{7}, 32), Arrived: 1700000000123456, CallingAe: "CT1", Remote: "10.0.0.1",
		User: "ann", Issuer: "NORTH", Charset: "ISO_IR 100", State: archivepb.State_QUARANTINED, Against: 299, Reserved: true, Decided: 1700000001000000,
	}
	return map[string]proto.Message{
		"instance": instance,
		"arrival":  &archivepb.Arrival{Instance: &archivepb.Instance{Version: 1, Number: 1}, Header: []byte("header")},
		"staged":   &archivepb.Location{Extents: []*archivepb.Extent{{Segment: 2, Offset: 4096, Length: 100}, {Segment: 3, Offset: 64, Length: 5}}},
		"packed": &archivepb.Location{Pack: id, Chunks: []*archivepb.Chunk{{
			Offset: 1, Length: 2, At: 3, Compressed: 4, Filter: 5,
			Samples: &archivepb.Samples{Offset: 6, Length: 7, Width: 512, Bytes: 2, Stride: 3, BigEndian: true},
		}}},
		"pack": &archivepb.Pack{
			Version: 1, Id: id, Study: "1.2", Series: "1.2.3", Key: bytes.Repeat([]byte{1}, 16), Space: 1, Table: 2, Blob: 3,
			BlobBytes: 4, Root: bytes.Repeat([]byte{2}, 32), Plaintext: 5, Manifest: 6, Instances: 7, Lost: true,
		},
	}
}

// goldenKeys are keys, and values that are no message, in the order of docs/formats/store.md.
func goldenKeys() []string {
	id := pack.ID(bytes.Repeat([]byte{0xA5}, 16))
	named := func(name string, b []byte) string { return name + " " + hex.EncodeToString(b) }
	return []string{
		named("i", keyNumber(rowInstance, 300)), named("h", keyNumber(rowHeader, 300)), named("l", keyNumber(rowLocation, 300)),
		named("s", keySeries("1.2", "1.2.3", "1.2.3.4")), named("u", keyUID("1.2.3.4", 300)), named("v", keyParent("1.2.3", "1.2")),
		named("q", keyQueue("1.2", "1.2.3", 300)), named("p", keyPack(id)), named("m", keyMember(id, 300)), named("y", keyEmpty(id)),
		named("x", keyNumber(rowReview, 300)), named("w", keyNumber(rowDiscard, 300)), named("d", keyNumber(rowDropped, 300)),
		named("f", keyForget("1.2")), named("a", keyAgain(seriesName{"1.2", "1.2.3"})), named("t", []byte{rowClock}), named("b", keyNumber(rowTable, 300)),
		named("listing", listing{number: 300, bytes: 1 << 33, class: ctClass, syntax: "1.2.840.10008.1.2.1"}.append(nil)),
	}
}

// Rows that are on disks somewhere are read as they were written. A record may
// gain fields; what is here must read back to the same.
func TestStoreRowsAreGolden(t *testing.T) {
	var out strings.Builder
	for _, line := range goldenKeys() {
		fmt.Fprintln(&out, line)
	}
	names := []string{"instance", "arrival", "staged", "packed", "pack"}
	records := goldenRecords()
	for _, name := range names {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(records[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, name, hex.EncodeToString(b))
	}
	path := filepath.Join("testdata", "rows.hex")
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
	for line := range strings.Lines(string(want)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		record, ok := records[name]
		if !ok {
			continue
		}
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		got := record.ProtoReflect().New().Interface()
		if err := unmarshal(b, got); err != nil || !proto.Equal(got, record) {
			t.Errorf("%s reads back as %v, %v", name, got, err)
		}
	}
	l, ok := parseListing(listing{number: 300, bytes: 1 << 33, class: ctClass, syntax: "1.2.3"}.append(nil))
	if !ok || l.number != 300 || l.bytes != 1<<33 || l.class != ctClass || l.syntax != "1.2.3" {
		t.Errorf("listing %+v, %t", l, ok)
	}
	newer := marshal(&archivepb.Instance{Version: recordVersion + 1})
	if err := unmarshal(newer, &archivepb.Instance{}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a record of a newer version: %v", err)
	}
}
