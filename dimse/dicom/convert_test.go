package dicom_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
)

func convert(t *testing.T, h *dicom.Header, plain []byte, to dict.TransferSyntax) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := h.Convert(&out, bytes.NewReader(plain), to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(t *testing.T, in []byte, s dict.TransferSyntax) *dicom.Header {
	t.Helper()
	h, err := dicom.ReadHeader(bytes.NewReader(in), s, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var targets = []dict.TransferSyntax{implicitLittle, explicitLittle, explicitBig}

func TestConvertRules(t *testing.T) {
	tests := []struct {
		rule string
		from dict.TransferSyntax
		in   string
		to   dict.TransferSyntax
		want string // hex-free: bytes
	}{
		{"group lengths are dropped", explicitLittle, ex(0x00100000, "UL", "\x0A\x00\x00\x00") + ex(dict.PatientID, "LO", "12"), explicitLittle, ex(dict.PatientID, "LO", "12")},
		{"in items and private groups too", explicitLittle, ex(seqTag, "SQ", item(ex(0x00090000, "UL", "\x0A\x00\x00\x00"))), explicitLittle,
			exLen(seqTag, "SQ", undef) + itemUndef + endItem + endSeq},
		{"trailing padding is dropped", explicitLittle, ex(dict.PatientID, "LO", "12") + ex(dict.DataSetTrailingPadding, "OB", "\x00\x00"), explicitLittle, ex(dict.PatientID, "LO", "12")},
		{"odd text is padded with a space", explicitLittle, ex(dict.PatientID, "LO", "1"), explicitLittle, ex(dict.PatientID, "LO", "1 ")},
		{"odd UID with a null", explicitLittle, ex(dict.SOPInstanceUID, "UI", "1.2"), explicitLittle, ex(dict.SOPInstanceUID, "UI", "1.2\x00")},
		{"odd bulk with a null", explicitLittle, ex(dict.PixelData, "OB", "123"), explicitLittle, ex(dict.PixelData, "OB", "123\x00")},
		{"unknown private elements are UN", implicitLittle, im(0x00091001, "12"), explicitLittle, ex(0x00091001, "UN", "12")},
		{"private creators are LO", implicitLittle, im(0x00090010, "AC"), explicitLittle, ex(0x00090010, "LO", "AC")},
		{"US or SS, unsigned", implicitLittle, im(dict.PixelRepresentation, "\x00\x00") + im(dict.SmallestImagePixelValue, "\x01\x00"), explicitLittle,
			ex(dict.PixelRepresentation, "US", "\x00\x00") + ex(dict.SmallestImagePixelValue, "US", "\x01\x00")},
		{"US or SS, signed", implicitLittle, im(dict.PixelRepresentation, "\x01\x00") + im(dict.SmallestImagePixelValue, "\x01\x00"), explicitLittle,
			ex(dict.PixelRepresentation, "US", "\x01\x00") + ex(dict.SmallestImagePixelValue, "SS", "\x01\x00")},
		{"long text in a short VR is UN", implicitLittle, im(dict.PatientComments, strings.Repeat("x", 65536)), explicitLittle, ex(dict.PatientComments, "UN", strings.Repeat("x", 65536))},
		{"65,534 bytes still fit", implicitLittle, im(dict.PatientComments, strings.Repeat("x", 65534)), explicitLittle, ex(dict.PatientComments, "LT", strings.Repeat("x", 65534))},
		{"words are swapped, 8-bit OW too", explicitLittle, ex(dict.PixelData, "OW", "1234"), explicitBig, "\x7F\xE0\x00\x10OW\x00\x00\x00\x00\x00\x042143"},
		{"bytes are not", explicitLittle, ex(dict.PixelData, "OB", "1234"), explicitBig, "\x7F\xE0\x00\x10OB\x00\x00\x00\x00\x00\x041234"},
		{"UN is never swapped", explicitLittle, ex(0x00091001, "UN", "1234"), explicitBig, "\x00\x09\x10\x01UN\x00\x00\x00\x00\x00\x041234"},
		{"floats, doubles, tags", explicitLittle, ex(0x00091001, "OF", "1234") + ex(0x00091002, "FD", "12345678") + ex(0x00091003, "AT", "1234"), explicitBig,
			"\x00\x09\x10\x01OF\x00\x00\x00\x00\x00\x044321" + "\x00\x09\x10\x02FD\x00\x0887654321" + "\x00\x09\x10\x03AT\x00\x042143"},
		{"UN of undefined length becomes a sequence", explicitLittle, exLen(0x00091001, "UN", undef) + itemUndef + im(dict.Rows, "\x01\x00") + endItem + endSeq, explicitLittle,
			exLen(0x00091001, "SQ", undef) + itemUndef + ex(dict.Rows, "US", "\x01\x00") + endItem + endSeq},
		{"empty sequences have length zero", explicitLittle, exLen(seqTag, "SQ", undef) + endSeq, explicitLittle, ex(seqTag, "SQ", "")},
		{"VRs that nobody knows are UN", explicitLittle, ex(0x00091001, "ZZ", "12"), explicitLittle, ex(0x00091001, "UN", "12")},
		{"explicit VRs are lost in implicit", explicitLittle, ex(0x00091001, "LO", "12"), implicitLittle, im(0x00091001, "12")},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := convert(t, read(t, []byte(tt.in), tt.from), []byte(tt.in), tt.to)
			if string(got) != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestEncapsulatedIsNotConverted(t *testing.T) {
	in := []byte(exLen(dict.PixelData, "OB", undef) + item("") + item("1234") + endSeq)
	h := read(t, in, jpegBaseline)
	if err := h.Convert(io.Discard, bytes.NewReader(in), explicitLittle); !fault.Is(err, fault.Unsupported) {
		t.Errorf("from: %v", err)
	}
	if err := h.Canonical(io.Discard, bytes.NewReader(in)); !fault.Is(err, fault.Unsupported) {
		t.Errorf("canonical: %v", err)
	}
	plain := []byte(ex(dict.PixelData, "OB", "1234"))
	if err := read(t, plain, explicitLittle).Convert(io.Discard, bytes.NewReader(plain), jpegBaseline); !fault.Is(err, fault.Unsupported) {
		t.Errorf("to: %v", err)
	}
	// Encapsulated in an uncompressed syntax is no contradiction for a reader.
	if err := read(t, in, explicitLittle).Convert(io.Discard, bytes.NewReader(in), implicitLittle); !fault.Is(err, fault.Unsupported) {
		t.Errorf("encapsulated in explicit little endian: %v", err)
	}
	if err := read(t, in, explicitLittle).Convertible(implicitLittle); !fault.Is(err, fault.Unsupported) {
		t.Errorf("told of it: %v", err)
	}
}

// Who sends a conversion has promised its bytes: what cannot be converted is
// told before.
func TestConvertibleForetellsConvert(t *testing.T) {
	everySample(t, func(t *testing.T, name string, o *opened) {
		if len(o.plain) > 100<<10 {
			return
		}
		for _, to := range append(targets, deflated, jpegBaseline) {
			told := o.header.Convertible(to)
			met := o.header.Convert(io.Discard, bytes.NewReader(o.plain), to)
			if (told == nil) != (met == nil) || fault.KindOf(told) != fault.KindOf(met) {
				t.Errorf("%s to %s: told %v, met %v", name, to.Name, told, met)
			}
		}
	})
}

func TestSourceThatEndsEarlyIsCorrupt(t *testing.T) {
	in := []byte(ex(dict.PixelData, "OW", strings.Repeat("1", 1000)))
	h := read(t, in, explicitLittle)
	if err := h.Convert(io.Discard, bytes.NewReader(in[:500]), explicitBig); !fault.Is(err, fault.Corrupt) {
		t.Errorf("%v", err)
	}
}

// Every uncompressed sample has one canonical form, whichever syntax it went
// through.
func TestCanonicalFormSurvivesConversion(t *testing.T) {
	n := 0
	everySample(t, func(t *testing.T, name string, o *opened) {
		// Of the long series every fifth image is enough.
		if n++; !o.syntax.Uncompressed() || len(o.plain) > 300<<10 || n%5 != 0 && strings.Contains(name, "/series-") {
			return
		}
		if p := o.header.Dataset.Get(dict.PixelData); p != nil && p.Undefined {
			return
		}
		want := canonical(t, o.header, o.plain)
		for _, to := range append(targets, deflated) {
			converted := convert(t, o.header, o.plain, to)
			if len(converted)&1 == 1 {
				t.Errorf("%s to %s: odd length", name, to.Name)
			}
			h := read(t, converted, to)
			plain := converted
			if to.Deflated {
				var err error
				if plain, err = io.ReadAll(dicom.NewInflater(bytes.NewReader(converted), dicom.DefaultLimits)); err != nil {
					t.Fatal(err)
				}
			}
			if got := canonical(t, h, plain); got != want {
				t.Errorf("%s to %s: another canonical form", name, to.Name)
			}
			// A second conversion to the same syntax changes nothing.
			if !to.Deflated && !bytes.Equal(convert(t, h, plain, to), converted) {
				t.Errorf("%s to %s: converting again changes it", name, to.Name)
			}
		}
	})
}

func canonical(t *testing.T, h *dicom.Header, plain []byte) uint64 {
	t.Helper()
	sum := fnv.New64a()
	if err := h.Canonical(sum, bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	return sum.Sum64()
}

func TestCanonicalFormTellsContentsApart(t *testing.T) {
	a := []byte(ex(dict.PatientID, "LO", "12") + ex(dict.PixelData, "OW", "1234"))
	b := []byte(im(dict.PatientID, "12") + im(dict.PixelData, "1234") + im(dict.DataSetTrailingPadding, "\x00\x00"))
	c := []byte(im(dict.PatientID, "12") + im(dict.PixelData, "1235"))
	if canonical(t, read(t, a, explicitLittle), a) != canonical(t, read(t, b, implicitLittle), b) {
		t.Error("one content, two forms")
	}
	if canonical(t, read(t, b, implicitLittle), b) == canonical(t, read(t, c, implicitLittle), c) {
		t.Error("two contents, one form")
	}
}

// dcmtk converts the same samples; its output, without group lengths and with
// undefined lengths, is ours to the byte where its dictionary of private
// attributes gives it no VR that the data set does not have.
func TestConvertsAsDcmconv(t *testing.T) {
	dimsetest.Tool(t, "dcmconv")
	flags := map[string]string{dict.ImplicitLittleEndian: "+ti", dict.ExplicitLittleEndian: "+te", dict.ExplicitBigEndian: "+tb"}
	dir := t.TempDir()
	compared, n := 0, 0
	everySample(t, func(t *testing.T, name string, o *opened) {
		n++
		if !o.syntax.Uncompressed() || notDumped[name] != "" || strings.HasPrefix(name, "dicomdir/") ||
			hasBlank(o.header) || o.header.Syntax.Implicit && hasPrivate(o.header) || n%97 != 0 && !strings.HasPrefix(name, "odd/") && !o.syntax.BigEndian && !o.syntax.Deflated {
			return
		}
		for _, to := range targets {
			out := filepath.Join(dir, "out")
			in := filepath.Join(dir, "in")
			if err := os.WriteFile(in, append(dicom.AppendMeta(nil, o.meta), o.data...), 0o600); err != nil {
				t.Fatal(err)
			}
			if msg, err := exec.Command("dcmconv", "-q", "-F", flags[to.UID], "-g", "-e", in, out).CombinedOutput(); err != nil {
				t.Logf("%s: dcmconv: %v %s", name, err, msg)
				continue
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			// dcmtk gives empty sequences of undefined length a delimiter. That
			// means the same, so its output is written once more by us.
			got := convert(t, o.header, o.plain, to)
			want = convert(t, read(t, want, to), want, to)
			compared++
			if !bytes.Equal(got, want) {
				t.Errorf("%s to %s: %s", name, to.Name, difference(got, want))
			}
		}
	})
	if compared < 30 {
		t.Errorf("only %d conversions were compared", compared)
	}
}

// hasBlank tells of values that are all padding: dcmtk empties them.
func hasBlank(h *dicom.Header) (found bool) {
	walk(h.Dataset, func(_ int, _ *dicom.Dataset, e *dicom.Element) {
		found = found || e.VR.Text() && len(e.Value) > 0 && strings.Trim(string(e.Value), " \x00") == ""
	})
	return found
}

func hasPrivate(h *dicom.Header) (found bool) {
	walk(h.Dataset, func(_ int, _ *dicom.Dataset, e *dicom.Element) {
		found = found || e.Tag.IsPrivate() && e.Tag.Element() > 0xFF
	})
	return found
}

func difference(got, want []byte) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	from := max(i-16, 0)
	return fmt.Sprintf("%d and %d bytes, first differ at %d: % X, want % X", len(got), len(want), i,
		got[from:min(i+16, len(got))], want[from:min(i+16, len(want))])
}

// zeroSource is a source of any size.
type zeroSource struct{}

func (zeroSource) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

// zeroReader reads a head and then n zeros.
func zeroReader(head string, n int64) io.Reader {
	return io.MultiReader(strings.NewReader(head), io.NewSectionReader(zeroSource{}, 0, n))
}

func TestLargeMultiFrameNeedsLittleMemory(t *testing.T) {
	const size = 128 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h, err := dicom.ReadHeader(zeroReader(ex(dict.Rows, "US", "\x00\x02")+exLen(dict.PixelData, "OW", size), size), explicitLittle, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	var out counter
	if err := h.Convert(&out, zeroSource{}, explicitBig); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if out.n != h.Size {
		t.Errorf("wrote %d of %d bytes", out.n, h.Size)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
		t.Errorf("allocated %d bytes", n)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
