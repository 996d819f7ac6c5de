package dicom_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
)

func us(v int) string { return string(binary.LittleEndian.AppendUint16(nil, uint16(v))) }

// image is a data set's pixel description in explicit little endian.
func image(frames, rows, columns, samplesPerPixel, allocated int, photometric string) string {
	return ex(dict.SamplesPerPixel, "US", us(samplesPerPixel)) +
		ex(dict.PhotometricInterpretation, "CS", photometric) +
		ex(dict.NumberOfFrames, "IS", strconv.Itoa(frames)) +
		ex(dict.Rows, "US", us(rows)) + ex(dict.Columns, "US", us(columns)) +
		ex(dict.BitsAllocated, "US", us(allocated))
}

func TestNativeFrames(t *testing.T) {
	tests := []struct {
		rule   string
		in     string
		frames []string // nil: fault.NotFound
	}{
		{"8 bit", image(2, 2, 2, 1, 8, "MONOCHROME2") + ex(dict.PixelData, "OB", "abcdefgh"), []string{"abcd", "efgh"}},
		{"16 bit", image(2, 1, 2, 1, 16, "MONOCHROME2") + ex(dict.PixelData, "OW", "abcdefgh"), []string{"abcd", "efgh"}},
		{"colour", image(2, 1, 1, 3, 8, "RGB") + ex(dict.PixelData, "OB", "abcdef"), []string{"abc", "def"}},
		{"padding after the last frame", image(1, 1, 3, 1, 8, "MONOCHROME2") + ex(dict.PixelData, "OB", "abc\x00"), []string{"abc"}},
		{"two thirds for YBR_FULL_422", image(2, 1, 2, 3, 8, "YBR_FULL_422") + ex(dict.PixelData, "OB", "abcdefgh"), []string{"abcd", "efgh"}},
		{"1 bit, frames straddle bytes", image(3, 1, 6, 1, 1, "MONOCHROME2") + ex(dict.PixelData, "OB", "\x7F\x81\x02\x00"), []string{"\x3F", "\x05", "\x28"}},
		{"1 bit, 9 pixels", image(2, 3, 3, 1, 1, "MONOCHROME2") + ex(dict.PixelData, "OB", "\xFF\xFF\x03\x00"), []string{"\xFF\x01", "\xFF\x01"}},
		{"1 bit, whole bytes", image(2, 2, 4, 1, 1, "MONOCHROME2") + ex(dict.PixelData, "OB", "\xAA\x55"), []string{"\xAA", "\x55"}},
		{"12 bits allocated", image(2, 1, 1, 1, 12, "MONOCHROME2") + ex(dict.PixelData, "OW", "\x21\x43\x65\x00"), []string{"\x21\x03", "\x54\x06"}},
		{"float", image(2, 1, 1, 1, 32, "MONOCHROME2") + ex(dict.FloatPixelData, "OF", "abcdefgh"), []string{"abcd", "efgh"}},
		{"double", image(1, 1, 1, 1, 64, "MONOCHROME2") + ex(dict.DoubleFloatPixelData, "OD", "abcdefgh"), []string{"abcdefgh"}},
		{"no number of frames is one frame", ex(dict.Rows, "US", us(1)) + ex(dict.Columns, "US", us(2)) + ex(dict.BitsAllocated, "US", us(8)) + ex(dict.PixelData, "OB", "ab"), []string{"ab"}},
		{"no pixel data", image(1, 1, 2, 1, 8, "MONOCHROME2"), nil},
		{"too little pixel data", image(2, 2, 2, 1, 8, "MONOCHROME2") + ex(dict.PixelData, "OB", "abcdef"), nil},
		{"rows × columns beyond all bounds", image(2147483647, 65535, 65535, 65535, 1024, "MONOCHROME2") + ex(dict.PixelData, "OB", "abcdef"), nil},
		{"no description", ex(dict.PixelData, "OB", "abcdef"), nil},
		{"frames that are no number", strings.Replace(image(1, 1, 2, 1, 8, "MONOCHROME2"), "IS\x01\x001", "IS\x01\x00x", 1) + ex(dict.PixelData, "OB", "ab"), nil},
		{"no frames", image(0, 1, 2, 1, 8, "MONOCHROME2") + ex(dict.PixelData, "OB", "ab"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			checkFrames(t, tt.in, explicitLittle, tt.frames)
		})
	}
}

// checkFrames reads all frames, at any place of a buffer.
func checkFrames(t *testing.T, in string, s dict.TransferSyntax, want []string) {
	t.Helper()
	h := read(t, []byte(in), s)
	f, err := h.Frames()
	if want == nil {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%+v, %v, want fault.NotFound", f, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if f.Count != len(want) {
		t.Errorf("%d frames, want %d", f.Count, len(want))
	}
	src := strings.NewReader(in)
	for i := range want {
		got, err := f.ReadFrame([]byte("before"), src, i+1)
		if err != nil || string(got) != "before"+want[i] {
			t.Errorf("frame %d: %q, %v; want %q", i+1, got, err, want[i])
		}
		runs, err := f.Runs(i + 1)
		if err != nil {
			t.Fatal(err)
		}
		alone := make([]byte, len(in)) // of all bytes, those that the frame lies in
		for _, run := range runs {
			copy(alone[run.Offset:], in[run.Offset:run.Offset+run.Length])
		}
		if got, err := f.ReadFrame(nil, bytes.NewReader(alone), i+1); err != nil || string(got) != want[i] {
			t.Errorf("frame %d of its runs %v: %q, %v; want %q", i+1, runs, got, err, want[i])
		}
	}
	for _, n := range []int{0, len(want) + 1, -1} {
		if _, err := f.ReadFrame(nil, src, n); !fault.Is(err, fault.NotFound) {
			t.Errorf("frame %d: %v", n, err)
		}
		if _, err := f.Runs(n); !fault.Is(err, fault.NotFound) {
			t.Errorf("runs of frame %d: %v", n, err)
		}
	}
}

func offsets(v ...uint32) string {
	var b []byte
	for _, o := range v {
		b = binary.LittleEndian.AppendUint32(b, o)
	}
	return string(b)
}

func longs(v ...uint64) string {
	var b []byte
	for _, o := range v {
		b = binary.LittleEndian.AppendUint64(b, o)
	}
	return string(b)
}

func TestEncapsulatedFrames(t *testing.T) {
	const a, b, c, d = "\xFF\xD8\xFF\xE0", "bbbb", "\xFF\xD8\xFF\xC0", "dd" // codestreams start at a and c
	pixels := func(table string, fragments ...string) string {
		s := exLen(dict.PixelData, "OB", undef) + item(table)
		for _, f := range fragments {
			s += item(f)
		}
		return s + endSeq
	}
	eot := func(offsets, lengths string) string {
		return ex(dict.ExtendedOffsetTable, "OV", offsets) + ex(dict.ExtendedOffsetTableLengths, "OV", lengths)
	}
	head := func(n int) string { return image(n, 1, 1, 1, 8, "MONOCHROME2") }
	tests := []struct {
		rule   string
		in     string
		frames []string
	}{
		{"one fragment a frame", head(2) + pixels("", a, d), []string{a, d}},
		{"one frame takes all", head(1) + pixels("", a, b, d), []string{a + b + d}},
		{"basic offset table", head(2) + pixels(offsets(0, 24), a, b, c, d), []string{a + b, c + d}},
		{"basic offset table where fragments would do", head(2) + pixels(offsets(0, 12), a, b), []string{a, b}},
		{"extended offset table, lengths without padding", head(2) + eot(longs(0, 12), longs(3, 2)) + pixels("", a, d), []string{a[:3], d}},
		{"extended offset table that hits no item", head(2) + eot(longs(0, 13), longs(3, 2)) + pixels("", a, d), []string{a, d}},
		{"extended lengths beyond the fragment", head(2) + eot(longs(0, 12), longs(5, 2)) + pixels("", a, d), []string{a, d}},
		{"extended offset table of another count", head(2) + eot(longs(0), longs(3)) + pixels("", a, d), []string{a, d}},
		{"basic offset that hits no item: codestreams", head(2) + pixels(offsets(0, 20), a, b, c, d), []string{a + b, c + d}},
		{"basic offsets that descend: codestreams", head(2) + pixels(offsets(24, 0), a, b, c, d), []string{a + b, c + d}},
		{"basic offset table of another count: codestreams", head(2) + pixels(offsets(0, 12, 24), a, b, c, d), []string{a + b, c + d}},
		{"no table: codestreams", head(2) + pixels("", a, b, c, d), []string{a + b, c + d}},
		{"codestreams of another count", head(3) + pixels("", a, b, c, d), nil},
		{"first fragment starts no codestream", head(2) + pixels("", b, a, c), nil},
		{"fewer fragments than frames", head(3) + pixels("", a, c), nil},
		{"no fragments", head(1) + pixels(""), nil},
		{"4 billion frames", head(2147483647) + pixels("", a, c), nil},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			checkFrames(t, tt.in, jpegBaseline, tt.frames)
		})
	}
	t.Run("fragments of a video are no frames", func(t *testing.T) {
		checkFrames(t, head(2)+pixels("", a, d), syntax(dict.MPEG4HP41F), nil)
	})
	t.Run("a video of one frame is one", func(t *testing.T) {
		checkFrames(t, head(1)+pixels("", a, d), syntax(dict.MPEG4HP41), []string{a + d})
	})
	t.Run("big table of extended offsets", func(t *testing.T) {
		const n = 1000
		var at, lengths []uint64
		var fragments, want []string
		for i := range n {
			at, lengths = append(at, uint64(12*i)), append(lengths, 4)
			fragments = append(fragments, fmt.Sprintf("%04d", i))
			want = append(want, fragments[i])
		}
		checkFrames(t, head(n)+eot(longs(at...), longs(lengths...))+pixels("", fragments...), jpegBaseline, want)
	})
}

// noFrames are the samples with pixel data whose frames cannot be told apart.
var noFrames = map[string]string{
	"odd/2026-05-26-oob-monochrome-65535.dcm": "256 bytes for 65,535 × 65,535 pixels",
	"odd/GH1146.dcm":               "empty pixel data",
	"odd/badVR.dcm":                "number of frames is 1A",
	"odd/nested_priv_SQ.dcm":       "no pixel description",
	"odd/meta_missing_tsyntax.dcm": "no pixel description",
}

func TestFramesOfTheSamples(t *testing.T) {
	checked := 0
	everySample(t, func(t *testing.T, name string, o *opened) {
		if !o.header.Dataset.Has(dict.PixelData) && !o.header.Dataset.Has(dict.FloatPixelData) {
			return
		}
		f, err := o.header.Frames()
		if noFrames[name] != "" {
			if !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: %v", name, err)
			}
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		total := 0
		for n := 1; n <= f.Count; n++ {
			b, err := f.ReadFrame(nil, bytes.NewReader(o.plain), n)
			if err != nil || len(b) == 0 {
				t.Errorf("%s: frame %d: %d bytes, %v", name, n, len(b), err)
				return
			}
			if !f.Native && (o.syntax.UID == dict.JPEGBaseline8Bit || strings.HasPrefix(o.syntax.Name, "JPEG-LS")) && !bytes.HasPrefix(b, []byte{0xFF, 0xD8}) {
				t.Errorf("%s: frame %d starts with % X", name, n, b[:4])
			}
			total += len(b)
		}
		checked += f.Count
		if want := fragmentBytes(o.header); !f.Native && !o.header.Dataset.Has(dict.ExtendedOffsetTable) && int64(total) != want {
			t.Errorf("%s: frames have %d bytes, fragments %d", name, total, want)
		}
	})
	if checked < 900 {
		t.Errorf("only %d frames", checked)
	}
}

func fragmentBytes(h *dicom.Header) (n int64) {
	for _, f := range h.Fragments {
		n += f.Length
	}
	return n
}

// The same images with and without offset tables have the same frames.
func TestFragmentationMakesNoDifference(t *testing.T) {
	dir := filepath.Join(samples.Dir(t), "odd")
	var want []byte
	for _, name := range []string{"CT1_UNC.not_fragmented_bot_jpeg_ls.80.dcm", "CT1_UNC.fragmented_bot_jpeg_ls.80.dcm", "CT1_UNC.fragmented_no_bot_jpeg_ls.80.dcm"} {
		o, err := open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := o.header.Frames()
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.ReadFrame(nil, bytes.NewReader(o.plain), 1)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d", name, len(got), len(want))
		}
	}
}
