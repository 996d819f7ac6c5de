package dicom_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	suyash "github.com/suyashkumar/dicom"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// opened is a sample file taken apart.
type opened struct {
	meta   dicom.Meta
	syntax dict.TransferSyntax
	data   []byte // the data set as it stands in the file
	plain  []byte // inflated
	header *dicom.Header
}

func open(path string) (*opened, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var o opened
	meta, r, err := dicom.OpenFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	o.meta = meta
	o.syntax, _ = dict.Syntax(meta.Syntax)
	if o.data, err = io.ReadAll(r); err != nil {
		return nil, err
	}
	o.plain = o.data
	if o.header, err = dicom.ReadHeader(bytes.NewReader(o.data), o.syntax, dicom.DefaultLimits); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if o.syntax.Deflated {
		o.plain, err = io.ReadAll(dicom.NewInflater(bytes.NewReader(o.data), dicom.DefaultLimits))
	}
	return &o, err
}

// refused are the samples that cannot be delimited, and why they are refused.
var refused = map[string]string{
	"enhanced-mr/emri_small_jpeg_2k_lossless_too_short.dcm": "cut short", // the sequence delimiter of the pixel data is missing
	"odd/GH626.dcm": "no element", // a lost byte: what follows is no element
	"dicomdir/pydicom-fileset/DICOMDIR-nooffset": "cut short",   // the last item is shorter than its length
	"odd/MR_truncated.dcm":                       "cut short",   // pixel data shorter than its length
	"odd/no_meta.dcm":                            "can be told", // starts in the middle of an element
	"odd/rtplan_truncated.dcm":                   "cut short",
}

// everySample calls f for every sample that is not refused.
func everySample(t *testing.T, f func(t *testing.T, name string, o *opened)) {
	n := 0
	for _, file := range samples.All(t) {
		if refused[file.Name] != "" {
			continue
		}
		n++
		o, err := open(file.Path)
		if err != nil {
			t.Errorf("%s: %v", file.Name, err)
			continue
		}
		f(t, file.Name, o)
	}
	if n < 700 {
		t.Errorf("only %d samples", n)
	}
}

func TestSamplesThatCannotBeDelimitedAreInvalid(t *testing.T) {
	dir := samples.Dir(t)
	for name, want := range refused {
		_, err := open(filepath.Join(dir, name))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want fault.Invalid: %s", name, err, want)
		}
	}
}

// splice puts the cuts back.
func splice(h *dicom.Header, plain []byte) []byte {
	var out []byte
	at := int64(0)
	for _, c := range h.Cuts {
		out = append(out, h.Raw[at:c.At]...)
		out = append(out, plain[c.Offset:c.Offset+c.Length]...)
		at = c.At
	}
	return append(out, h.Raw[at:]...)
}

func TestHeaderAndCutsAreTheWholeDataSet(t *testing.T) {
	everySample(t, func(t *testing.T, name string, o *opened) {
		if sha256.Sum256(splice(o.header, o.plain)) != sha256.Sum256(o.plain) || o.header.Size != int64(len(o.plain)) {
			t.Errorf("%s: header and cuts are not the data set", name)
		}
		for _, c := range o.header.Cuts {
			if c.Length <= 1024 && c.Tag != dict.PixelData && c.Tag != dict.FloatPixelData && c.Tag != dict.DoubleFloatPixelData {
				t.Errorf("%s: %v %v of %d bytes was cut", name, c.Tag, c.VR, c.Length)
			}
		}
		walk(o.header.Dataset, func(_ int, _ *dicom.Dataset, e *dicom.Element) {
			if e.Tag == dict.PixelData && e.Cut == nil {
				t.Errorf("%s: pixel data in the header", name)
			}
			if len(e.Value) > 64<<10 || e.VR.Bulk() && len(e.Value) > 1<<10 && e.Tag.Group() != 0x7FE0 {
				t.Errorf("%s: %v %v of %d bytes in the header", name, e.Tag, e.VR, len(e.Value))
			}
		})
	})
}

func walk(d *dicom.Dataset, f func(depth int, d *dicom.Dataset, e *dicom.Element)) { walkAt(d, 0, f) }

func walkAt(d *dicom.Dataset, depth int, f func(depth int, d *dicom.Dataset, e *dicom.Element)) {
	for i := range d.Elements {
		e := &d.Elements[i]
		f(depth, d, e)
		for _, item := range e.Items {
			walkAt(item, depth+1, f)
		}
	}
}

func TestStoredHeaderIsTheHeader(t *testing.T) {
	everySample(t, func(t *testing.T, name string, o *opened) {
		b, err := o.header.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := dicom.ParseHeader(b[len("before"):])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(o.header, back) {
			t.Errorf("%s: restored header differs", name)
		}
	})
}

// How the bytes arrive makes no difference.
func TestHeaderDoesNotDependOnReadSizes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	everySample(t, func(t *testing.T, name string, o *opened) {
		if len(o.data) > 50<<10 || random.IntN(8) > 0 {
			return
		}
		for _, r := range []io.Reader{
			iotest.OneByteReader(bytes.NewReader(o.data)), iotest.DataErrReader(bytes.NewReader(o.data)),
			iotest.HalfReader(bytes.NewReader(o.data)),
		} {
			h, err := dicom.ReadHeader(r, o.syntax, dicom.DefaultLimits)
			if err != nil || !reflect.DeepEqual(h, o.header) {
				t.Errorf("%s: %T: %v", name, r, err)
			}
		}
	})
}

// Every byte at which a data set may end is either its end, or padding's, or
// refused; nothing is accepted by half.
func TestCutAnywhereIsRefusedOrWhole(t *testing.T) {
	dir := samples.Dir(t)
	for _, name := range []string{"odd/UN_sequence.dcm", "odd/priv_SQ.dcm", "charset/chrSQEncoding.dcm", "sc/SC_rgb_rle_16bit_2frame.dcm", "odd/image_dfl.dcm"} {
		o, err := open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ends := map[int64]bool{} // where top-level elements end, in an undeflated data set
		whole, err := dicom.ParseDataset(o.plain, plainSyntax(o.syntax), dicom.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		for n := range o.data {
			h, err := dicom.ReadHeader(bytes.NewReader(o.data[:n]), o.syntax, dicom.DefaultLimits)
			if err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%s at %d: %v is no fault.Invalid", name, n, err)
				}
				continue
			}
			ends[int64(n)] = true
			if len(h.Dataset.Elements) > len(whole.Elements) {
				t.Errorf("%s at %d: more elements than there are", name, n)
			}
		}
		if o.syntax.Deflated {
			continue
		}
		if want := len(whole.Elements); len(ends) < want || len(ends) > want+64 {
			t.Errorf("%s: accepted at %d ends, of %d elements", name, len(ends), want)
		}
	}
}

func plainSyntax(s dict.TransferSyntax) dict.TransferSyntax {
	if s.Deflated {
		s, _ = dict.Syntax(dict.ExplicitLittleEndian)
	}
	return s
}

// dumped is one line of dcmdump.
type dumped struct {
	depth  int
	tag    dict.Tag
	vr     string
	length int64
}

var (
	dumpFile    = regexp.MustCompile(`^# dcmdump \(\d+/\d+\): (.*)$`)
	dumpElement = regexp.MustCompile(`^( *)\(([0-9a-f]{4}),([0-9a-f]{4})\) (\S\S)( .*?) +# *(\d+|u/l), *\d+ `)
)

// dump lists all elements of the files in one run of dcmdump.
func dump(t *testing.T, paths []string) map[string][]dumped {
	t.Helper()
	dimsetest.Tool(t, "dcmdump")
	args := append([]string{"-q", "+F", "+Qn"}, paths...)
	out, _ := exec.Command("dcmdump", args...).Output() // it exits with 1 for odd files
	all := map[string][]dumped{}
	file := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if m := dumpFile.FindStringSubmatch(lines.Text()); m != nil {
			file = m[1]
			continue
		}
		m := dumpElement.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		tag, _ := strconv.ParseUint(m[2]+m[3], 16, 32)
		length, err := strconv.ParseInt(m[6], 10, 64)
		if err != nil {
			length = -1
		}
		all[file] = append(all[file], dumped{len(m[1]) / 2, dict.Tag(tag), m[4], length})
	}
	return all
}

// notDumped are samples that dcmdump reads in another way, and why.
var notDumped = map[string]string{
	"odd/no_preamble_dicm_in_data.dcm": "dcmdump takes the preamble for one",
	"sc/SC_rgb_jpeg.dcm":               "dcmdump does not tell that the data set is in implicit VR",
}

func TestIndexIsWhatDcmdumpLists(t *testing.T) {
	var paths []string
	for _, f := range samples.All(t) {
		if refused[f.Name] == "" && notDumped[f.Name] == "" {
			paths = append(paths, f.Path)
		}
	}
	lists := dump(t, paths)
	if len(lists) < 700 {
		t.Fatalf("dcmdump listed %d files", len(lists))
	}
	dir := samples.Dir(t)
	everySample(t, func(t *testing.T, name string, o *opened) {
		want := lists[filepath.Join(dir, name)]
		if len(want) == 0 {
			if notDumped[name] == "" {
				t.Errorf("%s: dcmdump lists nothing", name)
			}
			return
		}
		want = slices.DeleteFunc(want, func(d dumped) bool { return d.tag.Group() == 2 || d.tag.Group() == 0xFFFE })
		compareDump(t, name, want, o.header.Dataset)
	})
}

func compareDump(t *testing.T, name string, want []dumped, d *dicom.Dataset) {
	t.Helper()
	i, bad := 0, 0
	walk(d, func(depth int, _ *dicom.Dataset, e *dicom.Element) {
		if bad > 3 {
			return
		}
		if i >= len(want) {
			t.Errorf("%s: %v is not in the list", name, e.Tag)
			bad++
			return
		}
		w := want[i]
		i++
		length := int64(len(e.Value))
		if e.Cut != nil {
			length = e.Cut.Length
		}
		length += length & 1 // dcmdump pads
		if e.VR == dict.SQ || e.Undefined {
			length = w.length
		}
		// dcmdump nests items one deeper than sequences.
		if w.tag != e.Tag || w.depth != 2*depth || w.length != length || !sameVR(w.vr, e) {
			t.Errorf("%s: element %d is %v %v of %d bytes at depth %d, dcmdump says %v %s of %d at %d",
				name, i, e.Tag, e.VR, length, 2*depth, w.tag, w.vr, w.length, w.depth)
			bad++
		}
	})
	if i < len(want) && bad == 0 {
		t.Errorf("%s: %v is missing, and %d more", name, want[i].tag, len(want)-i-1)
	}
}

// sameVR knows dcmtk's names of VRs that are not in the standard, and that it
// has a dictionary of private attributes.
func sameVR(dcmtk string, e *dicom.Element) bool {
	switch dcmtk {
	case "up":
		return e.VR == dict.UL
	case "xs":
		return e.VR == dict.US || e.VR == dict.SS
	case "UN":
		return e.VR == dict.UN || e.VR == dict.SQ
	case "OB":
		if e.VR == dict.OW {
			return true
		}
	}
	return dcmtk == e.VR.String() || dcmtk == "??" || e.Tag.IsPrivate() && e.VR == dict.UN
}

// The other oracle reads values too; it gets valid files only, since it
// allocates what a file claims.
func TestTextIsWhatTheOtherReaderReads(t *testing.T) {
	compared := 0
	for _, f := range samples.All(t) {
		if f.Dcmdump != "ok" || f.Bytes > 100<<10 || strings.HasPrefix(f.Name, "odd/") {
			continue
		}
		file, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		other, err := parseOther(file)
		if err != nil {
			continue
		}
		o, err := open(f.Path)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		for _, e := range other.Elements {
			tag := dict.Tag(e.Tag.Group)<<16 | dict.Tag(e.Tag.Element)
			texts, ok := e.Value.GetValue().([]string)
			got := o.header.Dataset.Get(tag)
			if !ok || tag.Group() <= 2 || got == nil || !got.VR.Text() || got.VR.Extended() {
				continue
			}
			for i := range texts {
				texts[i] = strings.Trim(texts[i], " \x00")
			}
			values := o.header.Dataset.Strings(tag)
			for i := range values {
				values[i] = strings.Trim(values[i], " ")
			}
			if strings.Join(values, `\`) != strings.Join(texts, `\`) {
				t.Errorf("%s: %v is %q, the other reader says %q", f.Name, tag, values, texts)
			}
			compared++
		}
	}
	if compared < 10000 {
		t.Errorf("only %d values were compared", compared)
	}
}

// parseOther reads a file with the other reader, which panics where it does not
// know the transfer syntax.
func parseOther(file []byte) (d suyash.Dataset, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return suyash.Parse(bytes.NewReader(file), int64(len(file)), nil, suyash.SkipPixelData())
}
