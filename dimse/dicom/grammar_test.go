package dicom_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

func syntax(uid string) dict.TransferSyntax {
	s, _ := dict.Syntax(uid)
	return s
}

var (
	explicitLittle = syntax(dict.ExplicitLittleEndian)
	implicitLittle = syntax(dict.ImplicitLittleEndian)
	explicitBig    = syntax(dict.ExplicitBigEndian)
	deflated       = syntax(dict.DeflatedExplicitLittleEndian)
	jpegBaseline   = syntax(dict.JPEGBaseline8Bit)
)

// element in explicit little endian with a given VR text; the length is that of
// the value.
func ex(t dict.Tag, vr, value string) string {
	return exLen(t, vr, uint32(len(value))) + value
}

// exLen is the head of an element with any length.
func exLen(t dict.Tag, vr string, length uint32) string {
	o := binary.LittleEndian
	b := o.AppendUint16(o.AppendUint16(nil, t.Group()), t.Element())
	b = append(b, vr...)
	switch vr {
	case "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV", "ZZ":
		b = append(b, 0, 0)
		return string(o.AppendUint32(b, length))
	}
	return string(o.AppendUint16(b, uint16(length)))
}

// im is an element in implicit little endian.
func im(t dict.Tag, value string) string { return imLen(t, uint32(len(value))) + value }

func imLen(t dict.Tag, length uint32) string {
	o := binary.LittleEndian
	return string(o.AppendUint32(o.AppendUint16(o.AppendUint16(nil, t.Group()), t.Element()), length))
}

const undef = 0xFFFFFFFF

var (
	itemUndef = imLen(dict.Item, undef)
	endItem   = imLen(dict.ItemDelimitationItem, 0)
	endSeq    = imLen(dict.SequenceDelimitationItem, 0)
)

func item(content string) string { return im(dict.Item, content) }

// outline writes a data set as text: tags, VRs, values and items.
func outline(d *dicom.Dataset) string {
	var b strings.Builder
	for i := range d.Elements {
		e := &d.Elements[i]
		b.WriteString(e.Tag.String() + e.VR.String())
		switch {
		case e.Cut != nil:
			b.WriteString("=cut")
		case e.Items != nil || e.VR == dict.SQ && len(e.Value) == 0:
			for _, item := range e.Items {
				b.WriteString("{" + outline(item) + "}")
			}
		default:
			b.WriteString("=" + string(e.Value))
		}
		b.WriteString(" ")
	}
	return b.String()
}

const (
	seqTag = dict.ReferencedImageSequence
	uidTag = dict.ReferencedSOPInstanceUID
)

func TestWhatRealFilesHoldIsRead(t *testing.T) {
	tests := []struct {
		rule   string
		syntax dict.TransferSyntax
		in     string
		want   string
	}{
		{"empty data set", explicitLittle, "", ""},
		{"odd length", explicitLittle, ex(dict.PatientID, "LO", "123") + ex(dict.PatientSex, "CS", "M "), "(0010,0020)LO=123 (0010,0040)CS=M  "},
		{"group length", explicitLittle, ex(0x00100000, "UL", "\x08\x00\x00\x00") + ex(dict.PatientID, "LO", "12"), "(0010,0000)UL=\x08\x00\x00\x00 (0010,0020)LO=12 "},
		{"trailing padding element", explicitLittle, ex(dict.PatientID, "LO", "12") + ex(dict.DataSetTrailingPadding, "OB", "\x00\x00"), "(0010,0020)LO=12 (FFFC,FFFC)OB=\x00\x00 "},
		{"trailing zeros, fewer than an element", explicitLittle, ex(dict.PatientID, "LO", "12") + "\x00\x00\x00", "(0010,0020)LO=12 "},
		{"trailing zeros, up to a block", implicitLittle, im(dict.PatientID, "12") + strings.Repeat("\x00", 511), "(0010,0020)LO=12 "},
		{"elements out of order", explicitLittle, ex(dict.PatientSex, "CS", "M ") + ex(dict.PatientID, "LO", "12"), "(0010,0040)CS=M  (0010,0020)LO=12 "},
		{"sequence and item of undefined length", explicitLittle,
			exLen(seqTag, "SQ", undef) + itemUndef + ex(uidTag, "UI", "1.2\x00") + endItem + endSeq + ex(dict.PatientID, "LO", "12"),
			"(0008,1140)SQ{(0008,1155)UI=1.2\x00 } (0010,0020)LO=12 "},
		{"sequence and item of defined length", explicitLittle,
			ex(seqTag, "SQ", item(ex(uidTag, "UI", "1.2\x00"))+item("")) + ex(dict.PatientID, "LO", "12"),
			"(0008,1140)SQ{(0008,1155)UI=1.2\x00 }{} (0010,0020)LO=12 "},
		{"item of undefined length in a sequence of defined length", explicitLittle,
			ex(seqTag, "SQ", itemUndef+ex(uidTag, "UI", "1.2\x00")+endItem), "(0008,1140)SQ{(0008,1155)UI=1.2\x00 } "},
		{"delimiter after an item of defined length", explicitLittle,
			exLen(seqTag, "SQ", undef) + item(ex(uidTag, "UI", "1.2\x00")) + endItem + endSeq, "(0008,1140)SQ{(0008,1155)UI=1.2\x00 } "},
		{"delimiter after a sequence of defined length", explicitLittle,
			ex(seqTag, "SQ", item("")) + endSeq + ex(dict.PatientID, "LO", "12"), "(0008,1140)SQ{} (0010,0020)LO=12 "},
		{"item that its sequence's delimiter ends", explicitLittle,
			exLen(seqTag, "SQ", undef) + itemUndef + ex(uidTag, "UI", "1.2\x00") + endSeq, "(0008,1140)SQ{(0008,1155)UI=1.2\x00 } "},
		{"item that overruns its sequence", explicitLittle,
			exLen(seqTag, "SQ", 10) + item(ex(uidTag, "UI", "1.2\x00")) + ex(dict.PatientID, "LO", "12"), "(0008,1140)SQ{(0008,1155)UI=1.2\x00 } (0010,0020)LO=12 "},
		{"empty sequence", explicitLittle, ex(seqTag, "SQ", ""), "(0008,1140)SQ "},
		{"sequence that holds no items is a value", explicitLittle, ex(seqTag, "SQ", "12345678"), "(0008,1140)UN=12345678 "},
		{"UN of undefined length is implicit inside", explicitLittle,
			exLen(0x00091001, "UN", undef) + itemUndef + im(uidTag, "1.2\x00") + endItem + endSeq, "(0009,1001)SQ{(0008,1155)UI=1.2\x00 } "},
		{"UN of undefined length that is explicit inside", explicitLittle,
			exLen(0x00091001, "UN", undef) + itemUndef + ex(uidTag, "UI", "1.2\x00") + endItem + endSeq, "(0009,1001)SQ{(0008,1155)UI=1.2\x00 } "},
		{"UN of defined length stays as it is", explicitLittle, ex(0x00091001, "UN", item("")), "(0009,1001)UN=" + item("") + " "},
		{"private sequence in implicit VR", implicitLittle,
			imLen(0x00091001, undef) + item(im(uidTag, "1.2\x00")) + endSeq, "(0009,1001)SQ{(0008,1155)UI=1.2\x00 } "},
		{"private creator in implicit VR", implicitLittle, im(0x00090010, "ACME") + im(0x00091001, "12"), "(0009,0010)LO=ACME (0009,1001)UN=12 "},
		{"VR yet to come has a long length", explicitLittle, ex(0x00091001, "ZZ", "12"), "(0009,1001)UN=12 "},
		{"invented VR with a short length", explicitLittle, imShort(0x00091001, "ZZ", "12"), "(0009,1001)UN=12 "},
		{"VR of question marks", explicitLittle, imShort(dict.PatientID, "??", "12"), "(0010,0020)LO=12 "},
		{"VR of spaces", explicitLittle, imShort(dict.PatientID, "  ", "12"), "(0010,0020)LO=12 "},
		{"VR of zeros", explicitLittle, ex(dict.PatientName, "PN", "A ") + imShort(dict.PatientID, "\x00\x00", "12"), "(0010,0010)PN=A  (0010,0020)LO=12 "},
		{"VR in small letters", explicitLittle, imShort(dict.PatientID, "lo", "12"), "(0010,0020)LO=12 "},
		{"implicit element amid explicit ones", explicitLittle, ex(dict.PatientName, "PN", "A ") + im(dict.PatientID, "12") + ex(dict.PatientSex, "CS", "M "),
			"(0010,0010)PN=A  (0010,0020)LO=12 (0010,0040)CS=M  "},
		{"implicit data set in an explicit syntax", explicitLittle, im(dict.PatientName, "A ") + im(dict.PatientID, "12"), "(0010,0010)PN=A  (0010,0020)LO=12 "},
		{"explicit data set in the implicit syntax", implicitLittle, ex(dict.PatientName, "PN", "A ") + ex(dict.PatientID, "LO", "12"), "(0010,0010)PN=A  (0010,0020)LO=12 "},
		{"little endian data set in the big endian syntax", explicitBig, ex(dict.SOPClassUID, "UI", "1.") + ex(dict.PatientID, "LO", "12"), "(0008,0016)UI=1. (0010,0020)LO=12 "},
		{"US or SS by pixel representation", implicitLittle, im(dict.PixelRepresentation, "\x01\x00") + im(dict.SmallestImagePixelValue, "\xFF\xFF"), "(0028,0103)US=\x01\x00 (0028,0106)SS=\xFF\xFF "},
		{"of the enclosing data set", implicitLittle, im(dict.PixelRepresentation, "\x01\x00") + im(dict.ModalityLUTSequence, item(im(dict.LUTDescriptor, "\x01\x00"))),
			"(0028,0103)US=\x01\x00 (0028,3000)SQ{(0028,3002)SS=\x01\x00 } "},
		{"even for what came before it", implicitLittle, im(0x00189810, "\x01\x00") + im(dict.PixelRepresentation, "\x01\x00"), "(0018,9810)SS=\x01\x00 (0028,0103)US=\x01\x00 "},
		{"pixel data in implicit VR is OW and cut", implicitLittle, im(dict.PixelData, "1234"), "(7FE0,0010)OW=cut "},
		{"empty pixel data is cut too", explicitLittle, ex(dict.PixelData, "OW", ""), "(7FE0,0010)OW=cut "},
		{"float pixel data is cut", explicitLittle, ex(dict.FloatPixelData, "OF", "1234"), "(7FE0,0008)OF=cut "},
		{"pixel data in items is cut", explicitLittle, ex(dict.IconImageSequence, "SQ", item(ex(dict.PixelData, "OB", "12"))), "(0088,0200)SQ{(7FE0,0010)OB=cut } "},
		{"encapsulated pixel data in items is cut", jpegBaseline,
			ex(dict.IconImageSequence, "SQ", item(exLen(dict.PixelData, "OB", undef)+item("")+item("1234")+endSeq)), "(0088,0200)SQ{(7FE0,0010)OB=cut } "},
		{"long bulk is cut", explicitLittle, ex(0x00091001, "OB", strings.Repeat("x", 1026)) + ex(dict.PatientID, "LO", "12"), "(0009,1001)OB=cut (0010,0020)LO=12 "},
		{"bulk of 1 KiB is not", explicitLittle, ex(0x00091001, "OB", strings.Repeat("x", 1024)), "(0009,1001)OB=" + strings.Repeat("x", 1024) + " "},
		{"text of 64 KiB is not", explicitLittle, ex(dict.TextValue, "UT", strings.Repeat("x", 65536)), "(0040,A160)UT=" + strings.Repeat("x", 65536) + " "},
		{"longer text is", explicitLittle, ex(dict.TextValue, "UT", strings.Repeat("x", 65538)), "(0040,A160)UT=cut "},
		{"extended offset table stays, whatever its length", explicitLittle, ex(dict.ExtendedOffsetTable, "OV", strings.Repeat("x", 1600)), "(7FE0,0001)OV=" + strings.Repeat("x", 1600) + " "},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			h, err := dicom.ReadHeader(strings.NewReader(tt.in), tt.syntax, dicom.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			if got := outline(h.Dataset); got != tt.want {
				t.Errorf("read %q, want %q", got, tt.want)
			}
			if got := string(splice(h, []byte(tt.in))); got != tt.in {
				t.Errorf("header and cuts are %q, want %q", got, tt.in)
			}
		})
	}
}

// imShort is an element with any VR letters and a 16-bit length.
func imShort(t dict.Tag, vr, value string) string {
	o := binary.LittleEndian
	b := append(o.AppendUint16(o.AppendUint16(nil, t.Group()), t.Element()), vr...)
	return string(o.AppendUint16(b, uint16(len(value)))) + value
}

func TestWhatCannotBeDelimitedIsInvalid(t *testing.T) {
	start := ex(dict.PatientName, "PN", "A ")
	tests := []struct {
		rule   string
		syntax dict.TransferSyntax
		in     string
	}{
		{"value cut short", explicitLittle, start + exLen(dict.PatientID, "LO", 10) + "123"},
		{"cut value cut short", explicitLittle, start + exLen(dict.PixelData, "OW", 4<<20) + "123"},
		{"value without a byte", explicitLittle, start + exLen(dict.PatientID, "LO", 10)},
		{"head cut short", explicitLittle, start + exLen(dict.PixelData, "OW", 0)[:10]},
		{"bytes that are no element", explicitLittle, start + "abc"},
		{"zeros and then something", explicitLittle, start + strings.Repeat("\x00", 100) + "a"},
		{"undefined-length sequence without end", explicitLittle, exLen(seqTag, "SQ", undef) + itemUndef + endItem},
		{"undefined-length item without end", explicitLittle, exLen(seqTag, "SQ", undef) + itemUndef + ex(uidTag, "UI", "1.2\x00")},
		{"defined-length sequence cut short", explicitLittle, exLen(seqTag, "SQ", 100) + item("")},
		{"defined-length item cut short", explicitLittle, exLen(seqTag, "SQ", 108) + imLen(dict.Item, 100) + ex(uidTag, "UI", "1.2\x00")},
		{"element that overruns its item", explicitLittle, ex(seqTag, "SQ", imLen(dict.Item, 10)+ex(uidTag, "UI", "1.2\x00"))},
		{"item that overruns the one around it", explicitLittle,
			ex(seqTag, "SQ", item(exLen(seqTag, "SQ", 8)+imLen(dict.Item, 20))) + strings.Repeat(ex(dict.PatientID, "LO", "12"), 3)},
		{"no item in a sequence of undefined length", explicitLittle, exLen(seqTag, "SQ", undef) + ex(uidTag, "UI", "1.2\x00") + endSeq},
		{"item outside a sequence", explicitLittle, item("")},
		{"text of undefined length", explicitLittle, exLen(dict.TextValue, "UT", undef) + "abc" + endSeq},
		{"pixel data without its delimiter", jpegBaseline, exLen(dict.PixelData, "OB", undef) + item("") + item("1234")},
		{"fragment cut short", jpegBaseline, exLen(dict.PixelData, "OB", undef) + item("") + imLen(dict.Item, 1000) + "12"},
		{"fragment of undefined length", jpegBaseline, exLen(dict.PixelData, "OB", undef) + item("") + itemUndef + endItem + endSeq},
		{"no fragment in pixel data", jpegBaseline, exLen(dict.PixelData, "OB", undef) + ex(uidTag, "UI", "1.2\x00") + endSeq},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			h, err := dicom.ReadHeader(strings.NewReader(tt.in), tt.syntax, dicom.DefaultLimits)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("accepted as %v, %v", h, err)
			}
			if _, err := dicom.ParseDataset([]byte(tt.in), tt.syntax, dicom.DefaultLimits); !fault.Is(err, fault.Invalid) {
				t.Errorf("in memory: %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	nested := func(n int) string {
		return strings.Repeat(exLen(seqTag, "SQ", undef)+itemUndef, n) + strings.Repeat(endItem+endSeq, n)
	}
	tests := []struct {
		rule   string
		limits dicom.Limits
		syntax dict.TransferSyntax
		in     string
		fits   bool
	}{
		{"depth reached", dicom.Limits{Depth: 5}, explicitLittle, nested(5), true},
		{"depth exceeded", dicom.Limits{Depth: 5}, explicitLittle, nested(6), false},
		{"20,000 nested items", dicom.DefaultLimits, explicitLittle, nested(20000), false},
		{"elements reached", dicom.Limits{Elements: 10}, explicitLittle, strings.Repeat(ex(dict.PatientID, "LO", ""), 10), true},
		{"elements exceeded", dicom.Limits{Elements: 10}, explicitLittle, strings.Repeat(ex(dict.PatientID, "LO", ""), 11), false},
		{"empty items count", dicom.Limits{Elements: 10}, explicitLittle, ex(seqTag, "SQ", strings.Repeat(item(""), 11)), false},
		{"bytes reached", dicom.Limits{HeaderBytes: 20}, explicitLittle, ex(dict.PatientID, "LO", "123456789012"), true},
		{"bytes exceeded", dicom.Limits{HeaderBytes: 20}, explicitLittle, ex(dict.PatientID, "LO", "1234567890123"), false},
		{"cuts do not count", dicom.Limits{HeaderBytes: 20}, explicitLittle, ex(dict.PixelData, "OW", strings.Repeat("1", 1000)), true},
		{"inline bytes", dicom.Limits{InlineBytes: 4, HeaderBytes: 20}, explicitLittle, ex(dict.PatientID, "LO", strings.Repeat("1", 1000)), true},
		{"fragments reached", dicom.Limits{Fragments: 3}, jpegBaseline, exLen(dict.PixelData, "OB", undef) + strings.Repeat(item(""), 4) + endSeq, true},
		{"fragments exceeded", dicom.Limits{Fragments: 3}, jpegBaseline, exLen(dict.PixelData, "OB", undef) + strings.Repeat(item(""), 5) + endSeq, false},
		{"offset table exceeded", dicom.Limits{Fragments: 3}, jpegBaseline, exLen(dict.PixelData, "OB", undef) + item(strings.Repeat("x", 16)) + endSeq, false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := dicom.ReadHeader(strings.NewReader(tt.in), tt.syntax, tt.limits)
			if tt.fits && err != nil || !tt.fits && !fault.Is(err, fault.Invalid) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Claims cost nothing: lengths of 2 GB in a file of 178 bytes, and nesting.
func TestClaimsAllocateNothing(t *testing.T) {
	inputs := map[string]string{
		"pixel data of 2 GB": ex(dict.PatientName, "PN", strings.Repeat("A", 100)) + exLen(dict.PixelData, "OW", 2<<30) + "12",
		"text of 2 GB":       ex(dict.PatientName, "PN", strings.Repeat("A", 100)) + exLen(dict.TextValue, "UT", 2<<30) + "12",
		"bulk of 2 GB":       ex(dict.PatientName, "PN", strings.Repeat("A", 100)) + exLen(0x00091001, "OB", 2<<30) + "12",
		"offset table":       exLen(dict.PixelData, "OB", undef) + imLen(dict.Item, 16<<20) + "12",
		"nested items":       strings.Repeat(exLen(seqTag, "SQ", undef)+itemUndef, 20000),
		"sequence of 4 GB":   exLen(seqTag, "SQ", 0xFFFFFFFE) + imLen(dict.Item, 0xFFFFFFF0),
	}
	for name, in := range inputs {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			const rounds = 10
			for range rounds {
				if _, err := dicom.ReadHeader(strings.NewReader(in), jpegBaseline, dicom.DefaultLimits); !fault.Is(err, fault.Invalid) {
					t.Fatalf("accepted: %v", err)
				}
			}
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > 256<<10 {
				t.Errorf("allocates %d bytes", n)
			}
		})
	}
}

func TestReadersErrorIsPassedOn(t *testing.T) {
	gone := errors.New("peer is gone")
	for _, s := range []dict.TransferSyntax{explicitLittle, deflated} {
		in := []byte(ex(dict.PatientName, "PN", "A "))
		if s.Deflated {
			in = deflate(t, in)
		}
		r := io.MultiReader(bytes.NewReader(in[:len(in)-1]), iotest.ErrReader(gone))
		if _, err := dicom.ReadHeader(r, s, dicom.DefaultLimits); !errors.Is(err, gone) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

func deflate(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDeflated(t *testing.T) {
	plain := ex(dict.PatientName, "PN", "A ") + ex(dict.PixelData, "OW", strings.Repeat("1", 100000))
	packed := string(deflate(t, []byte(plain)))
	tests := []struct {
		rule  string
		in    string
		limit int64
		fits  bool
	}{
		{"plain stream", packed, 0, true},
		{"one byte of padding", packed + "\x00", 0, true},
		{"gzip's trailer", packed + "12345678\x00", 0, true},
		{"zlib's header and trailer", "\x78\x9C" + packed + "1234", 0, true},
		{"more after the stream", packed + "1234567890", 0, false},
		{"cut short", packed[:len(packed)-2], 0, false},
		{"not deflate", plain, 0, false},
		{"within the limit", packed, int64(len(plain)), true},
		{"beyond the limit", packed, int64(len(plain)) - 1, false},
		{"empty", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			h, err := dicom.ReadHeader(strings.NewReader(tt.in), deflated, dicom.Limits{Inflated: tt.limit})
			if !tt.fits {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("accepted: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Size != int64(len(plain)) || h.Cuts[0].Length != 100000 || !h.Syntax.Deflated || h.Dataset.Syntax.Deflated {
				t.Errorf("size %d, cuts %v, syntax %v", h.Size, h.Cuts, h.Dataset.Syntax)
			}
			if got := outline(h.Dataset); got != "(0010,0010)PN=A  (7FE0,0010)OW=cut " {
				t.Errorf("%q", got)
			}
		})
	}
}

// A bomb: zeros at a ratio of a thousand. The limit stops it.
func TestDeflateBombIsInvalid(t *testing.T) {
	head := exLen(dict.PixelData, "OW", 1<<30)
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed)
	io.WriteString(w, head)
	zeros := make([]byte, 1<<20)
	for range 16 {
		w.Write(zeros)
	}
	w.Close()
	_, err := dicom.ReadHeader(bytes.NewReader(out.Bytes()), deflated, dicom.Limits{Inflated: 4 << 20})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v", err)
	}
}

func TestBigEndian(t *testing.T) {
	d := dicom.NewDataset()
	d.SetUint(dict.Rows, dict.US, 0x0102)
	d.Set(dict.PatientID, dict.LO, "12")
	in, err := d.Encode(nil, explicitBig)
	if err != nil {
		t.Fatal(err)
	}
	h, err := dicom.ReadHeader(bytes.NewReader(in), explicitBig, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := h.Dataset.Int(dict.Rows); !ok || n != 0x0102 || h.Dataset.String(dict.PatientID) != "12" {
		t.Errorf("%v, %v", n, ok)
	}
}

func TestFragmentsAndOffsets(t *testing.T) {
	in := ex(dict.PatientID, "LO", "12") + exLen(dict.PixelData, "OB", undef) +
		item("\x00\x00\x00\x00\x0A\x00\x00\x00") + item("\xFF\xD8\xFF\xE0__") + item("\xFF\xD8") + item("") + endSeq + ex(dict.DataSetTrailingPadding, "OB", "\x00\x00")
	h, err := dicom.ReadHeader(strings.NewReader(in), jpegBaseline, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(strings.Index(in, "\xFF\xD8\xFF"))
	want := []dicom.Fragment{{at, 6, 0xFFD8FFE0}, {at + 14, 2, 0xFFD80000}, {at + 24, 0, 0}}
	if len(h.Fragments) != 3 || h.Fragments[0] != want[0] || h.Fragments[1] != want[1] || h.Fragments[2] != want[2] {
		t.Errorf("fragments %v, want %v", h.Fragments, want)
	}
	if len(h.BasicOffsets) != 2 || h.BasicOffsets[1] != 10 {
		t.Errorf("offsets %v", h.BasicOffsets)
	}
	if c := h.Cuts[0]; c.Offset+c.Length != int64(len(in)-14) || c.Offset != c.At {
		t.Errorf("cut %+v", c)
	}
}
