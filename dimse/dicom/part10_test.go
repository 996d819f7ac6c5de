package dicom_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
)

func TestOpenFile(t *testing.T) {
	preamble := strings.Repeat("\x00", 128)
	data := ex(dict.SOPClassUID, "UI", "1.2.") + ex(dict.PatientID, "LO", "12")
	implicit := im(dict.SOPClassUID, "1.2.") + im(dict.PatientID, "12")
	big := "\x00\x08\x00\x16UI\x00\x041.2."
	full := ex(dict.FileMetaInformationGroupLength, "UL", "\xFF\x00\x00\x00") + // wrong on purpose
		ex(dict.FileMetaInformationVersion, "OB", "\x00\x01") + ex(dict.MediaStorageSOPClassUID, "UI", "1.2\x00") +
		ex(dict.MediaStorageSOPInstanceUID, "UI", "1.2.3\x00") + ex(dict.TransferSyntaxUID, "UI", dict.ExplicitLittleEndian+"\x00") +
		ex(dict.SourceApplicationEntityTitle, "AE", "MODALITY ")
	whole := dicom.Meta{Class: "1.2", Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, SourceAE: "MODALITY"}
	told := func(syntax string) dicom.Meta { return dicom.Meta{Syntax: syntax} }
	tests := []struct {
		rule string
		in   string
		meta dicom.Meta
		data string
	}{
		{"all of it", preamble + "DICM" + full + data, whole, data},
		{"preamble that is not zero", strings.Repeat("\xAB", 128) + "DICM" + full + data, whole, data},
		{"preamble of a TIFF file", "II*\x00" + preamble[4:] + "DICM" + full + data, whole, data},
		{"no preamble", "DICM" + full + data, whole, data},
		{"neither preamble nor magic", full + data, whole, data},
		{"empty data set", preamble + "DICM" + full, whole, ""},
		{"no group 0002", preamble + "DICM" + data, told(dict.ExplicitLittleEndian), data},
		{"data set alone, explicit", data, told(dict.ExplicitLittleEndian), data},
		{"data set alone, implicit", implicit, told(dict.ImplicitLittleEndian), implicit},
		{"data set alone, big endian", big, told(dict.ExplicitBigEndian), big},
		{"DICM inside a data set", ex(dict.PatientComments, "LT", strings.Repeat(" ", 120)+"DICM")[:0] + padTo128(data) + "DICM" + strings.Repeat(" ", 20), told(dict.ExplicitLittleEndian), padTo128(data) + "DICM" + strings.Repeat(" ", 20)},
		{"no transfer syntax", preamble + "DICM" + ex(dict.MediaStorageSOPClassUID, "UI", "1.2\x00") + implicit, dicom.Meta{Class: "1.2", Syntax: dict.ImplicitLittleEndian}, implicit},
		{"no transfer syntax and nothing to tell it by", preamble + "DICM" + ex(dict.MediaStorageSOPClassUID, "UI", "1.2\x00"), dicom.Meta{Class: "1.2", Syntax: dict.ImplicitLittleEndian}, ""},
		{"group 0002 in implicit VR", preamble + "DICM" + im(dict.TransferSyntaxUID, dict.ImplicitLittleEndian+"\x00") + implicit, told(dict.ImplicitLittleEndian), implicit},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				meta, rest, err := dicom.OpenFile(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(rest)
				if err != nil || meta != tt.meta || string(got) != tt.data {
					t.Errorf("%+v, %q, %v; want %+v, %q", meta, got, err, tt.meta, tt.data)
				}
			}
		})
	}
}

// padTo128 makes a data set whose 128th byte is inside a value.
func padTo128(data string) string {
	return data + exLen(dict.PatientComments, "LT", uint32(128-len(data)-8+24)) + strings.Repeat(" ", 128-len(data)-8)
}

func TestWhatIsNoDicomFileIsInvalid(t *testing.T) {
	preamble := strings.Repeat("\x00", 128) + "DICM"
	tests := map[string]string{
		"empty":                  "",
		"text":                   "Hello, world. This is no DICOM file at all.",
		"JPEG":                   "\xFF\xD8\xFF\xE0\x00\x10JFIF\x00" + strings.Repeat("x", 200),
		"zip":                    "PK\x03\x04" + strings.Repeat("x", 200),
		"zeros":                  strings.Repeat("\x00", 500),
		"preamble alone":         preamble,
		"meta cut short":         preamble + exLen(dict.MediaStorageSOPClassUID, "UI", 20) + "1.2",
		"meta of 2 GB":           preamble + exLen(dict.PrivateInformation, "OB", 2<<30) + "1.2",
		"meta of many elements":  preamble + strings.Repeat(ex(dict.PrivateInformation, "OB", strings.Repeat("x", 4096)), 300),
		"undefined-length value": preamble + exLen(dict.PrivateInformation, "OB", undef),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			if meta, _, err := dicom.OpenFile(strings.NewReader(in)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v, %v", meta, err)
			}
		})
	}
	gone := errors.New("disk is gone")
	if _, _, err := dicom.OpenFile(io.MultiReader(strings.NewReader(preamble[:40]), iotest.ErrReader(gone))); !errors.Is(err, gone) {
		t.Errorf("reader's error: %v", err)
	}
}

func TestMetaIsWrittenTheSameWay(t *testing.T) {
	m := dicom.Meta{Class: dict.CTImageStorage, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, SourceAE: "MODALITY"}
	b := dicom.AppendMeta([]byte("before"), m)
	if !bytes.Equal(b, dicom.AppendMeta([]byte("before"), m)) {
		t.Error("twice is not the same")
	}
	b = b[len("before"):]
	if !bytes.Equal(b[:132], append(make([]byte, 128), "DICM"...)) {
		t.Error("preamble is not zero")
	}
	back, rest, err := dicom.OpenFile(bytes.NewReader(append(b, ex(dict.PatientID, "LO", "12")...)))
	if err != nil || back != m {
		t.Errorf("%+v, %v", back, err)
	}
	if data, _ := io.ReadAll(rest); string(data) != ex(dict.PatientID, "LO", "12") {
		t.Errorf("%q", data)
	}
	golden(t, "meta.golden", b)
}

func TestDcmdumpReadsWhatAppendMetaWrites(t *testing.T) {
	dimsetest.Tool(t, "dcmdump")
	m := dicom.Meta{Class: dict.CTImageStorage, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, SourceAE: "MODALITY"}
	path := filepath.Join(t.TempDir(), "file.dcm")
	if err := os.WriteFile(path, append(dicom.AppendMeta(nil, m), ex(dict.PatientID, "LO", "12")...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dcmdump", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "W: ") || strings.Contains(string(out), "E: ") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"=CTImageStorage", "[1.2.3]", "=LittleEndianExplicit", "[MODALITY]", dicom.ImplementationClassUID, dicom.ImplementationVersionName} {
		if !strings.Contains(string(out), want) {
			t.Errorf("dcmdump does not say %s:\n%s", want, out)
		}
	}
}
