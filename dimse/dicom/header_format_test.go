package dicom_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes differ from the %d released ones: a new version is due", name, len(got), len(want))
	}
}

// everyPart is a data set whose header uses every field of the durable form.
func everyPart(t testing.TB) (*dicom.Header, []byte) {
	t.Helper()
	in := ex(dict.SpecificCharacterSet, "CS", "ISO_IR 100") +
		ex(dict.PatientName, "PN", "M\xFCller^J\xF6rg ") +
		ex(0x00091001, "OB", strings.Repeat("x", 1500)) +
		exLen(seqTag, "SQ", undef) + itemUndef + ex(uidTag, "UI", "1.2\x00") + endItem + endSeq +
		exLen(dict.PixelData, "OB", undef) + item(offsets(0, 12)) + item("\xFF\xD8\xFF\xE0") + item("\xFF\xD8\xFF\xE1__") + endSeq +
		ex(dict.DataSetTrailingPadding, "OB", "\x00\x00")
	h, err := dicom.ReadHeader(strings.NewReader(in), jpegBaseline, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return h, []byte(in)
}

func TestHeaderFormatIsAsReleased(t *testing.T) {
	h, _ := everyPart(t)
	b, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "header_v1.golden", b)
	back, err := dicom.ParseHeader(b)
	if err != nil || !reflect.DeepEqual(h, back) {
		t.Errorf("%v", err)
	}
}

func TestStoredHeaderThatIsDamagedIsCorrupt(t *testing.T) {
	h, _ := everyPart(t)
	good, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		bad := bytes.Clone(good)
		bad[n] ^= 0x41
		if _, err := dicom.ParseHeader(bad); !fault.Is(err, fault.Corrupt) && n != 3 {
			t.Errorf("byte %d changed: %v", n, err)
		}
		if _, err := dicom.ParseHeader(good[:n]); !fault.Is(err, fault.Corrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	later := bytes.Clone(good)
	later[3]++
	if _, err := dicom.ParseHeader(later); !fault.Is(err, fault.Unsupported) {
		t.Errorf("later version: %v", err)
	}
}

// Fields that contradict each other or claim more than there is are corrupt
// even where the checksum holds, and cost nothing.
func TestStoredHeaderThatLiesIsCorrupt(t *testing.T) {
	h, _ := everyPart(t)
	good, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for n := 4; n < len(good)-4; n++ {
		for _, c := range []byte{0x00, 0x01, 0x7F, 0x80, 0xFF, good[n] + 1, good[n] - 1} {
			bad := bytes.Clone(good[:len(good)-4])
			bad[n] = c
			bad = resum(bad)
			got, err := dicom.ParseHeader(bad)
			switch {
			case err == nil:
				// Some bytes are free: text, leads, values.
				accepted++
				again, err := got.AppendBinary(nil)
				if err != nil || !bytes.Equal(again, bad) {
					t.Errorf("byte %d set to %02X is accepted as another header: %v", n, c, err)
				}
			case !fault.Is(err, fault.Corrupt):
				t.Errorf("byte %d set to %02X: %v", n, c, err)
			}
		}
	}
	if accepted == 0 {
		t.Error("nothing was accepted: the test changes nothing that is free")
	}
}

// resum appends the right checksum.
func resum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}
