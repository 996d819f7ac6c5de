package codec_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/codec"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// load reads a file's header and its data set's bytes.
func load(t *testing.T, name string) (*dicom.Header, []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return nil, nil
	}
	var data bytes.Buffer
	if _, err := data.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(data.Bytes()), syntax, dicom.DefaultLimits)
	if err != nil {
		return nil, nil
	}
	return h, data.Bytes()
}

func decodeAll(t *testing.T, h *dicom.Header, data []byte) [][]byte {
	t.Helper()
	frames, err := h.Frames()
	if err != nil {
		t.Fatal(err)
	}
	m, err := codec.ImageOf(h.Dataset)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for n := 1; n <= frames.Count; n++ {
		b, err := frames.ReadFrame(nil, bytes.NewReader(data), n)
		if err != nil {
			t.Fatal(err)
		}
		out, err := codec.Decode(h.Syntax, b, m)
		if err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
		all = append(all, bytes.Clone(out))
	}
	return all
}

// lying files hold another process than their transfer syntax says: refusing
// them is right, for the samples are not what was promised.
var lying = map[string]bool{"op/sample-op.dcm": true}

func TestDecodedFramesAreThoseOfDcmtk(t *testing.T) {
	tools := map[string][]string{
		"1.2.840.10008.1.2.5":    {"dcmdrle"},
		"1.2.840.10008.1.2.4.57": {"dcmdjpeg", "+cn"},
		"1.2.840.10008.1.2.4.70": {"dcmdjpeg", "+cn"},
	}
	compared := map[string]int{}
	for _, file := range samples.All(t) {
		h, data := load(t, file.Path)
		if h == nil || !codec.Lossless(h.Syntax.UID) || !h.Dataset.Has(dict.PixelData) {
			continue
		}
		t.Run(file.Name, func(t *testing.T) {
			if lying[file.Name] {
				frames, err := h.Frames()
				if err != nil {
					t.Fatal(err)
				}
				b, err := frames.ReadFrame(nil, bytes.NewReader(data), 1)
				if err != nil {
					t.Fatal(err)
				}
				m, err := codec.ImageOf(h.Dataset)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := codec.Decode(h.Syntax, b, m); !fault.Is(err, fault.Unsupported) {
					t.Errorf("baseline under a lossless syntax: %v", err)
				}
				return
			}
			tool := tools[h.Syntax.UID]
			program := dimsetest.Tool(t, tool[0])
			plain := filepath.Join(t.TempDir(), "plain.dcm")
			if out, err := exec.Command(program, append(tool[1:], file.Path, plain)...).CombinedOutput(); err != nil {
				t.Skipf("SKIPPED: %s cannot decode this file either: %s", tool[0], out)
			}
			want, wantData := load(t, plain)
			theirs, ours := decodeAll(t, want, wantData), decodeAll(t, h, data)
			if len(theirs) != len(ours) {
				t.Fatalf("%d frames, dcmtk has %d", len(ours), len(theirs))
			}
			for i := range ours {
				if !bytes.Equal(ours[i], theirs[i]) {
					t.Errorf("frame %d differs", i+1)
				}
			}
			compared[h.Syntax.UID]++
		})
	}
	if compared["1.2.840.10008.1.2.5"] < 5 || compared["1.2.840.10008.1.2.4.70"] < 3 {
		t.Errorf("compared only %v", compared)
	}
}

func TestHostileFramesAreRefusedWithoutHarm(t *testing.T) {
	m := codec.Image{Rows: 4, Columns: 4, Samples: 1, Allocated: 8, Stored: 8}
	for _, uid := range []string{"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"} {
		syntax, _ := dict.Syntax(uid)
		for _, frame := range [][]byte{nil, {0}, make([]byte, 64), bytes.Repeat([]byte{0xFF}, 200), {0xFF, 0xD8, 0xFF, 0xC3, 0, 2}} {
			if _, err := codec.Decode(syntax, frame, m); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s, %d bytes: %v", syntax.Name, len(frame), err)
			}
		}
	}
}

func TestFramesCannotClaimMoreThanTheyHold(t *testing.T) {
	// What the attributes say is from outside as well: 200 bytes must not cost
	// 256 MB.
	m := codec.Image{Rows: 1 << 14, Columns: 1 << 14, Samples: 1, Allocated: 8, Stored: 8}
	rle, _ := dict.Syntax("1.2.840.10008.1.2.5")
	jpeg, _ := dict.Syntax("1.2.840.10008.1.2.4.70")
	head := []byte{0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 8, 0x40, 0, 0x40, 0, 1, 1, 0x11, 0,
		0xFF, 0xC4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0}
	for _, test := range []struct {
		syntax dict.TransferSyntax
		frame  []byte
	}{
		{rle, append([]byte{1, 0, 0, 0, 64, 0, 0, 0}, make([]byte, 200)...)},
		{jpeg, append(head, make([]byte, 200)...)},
	} {
		var err error
		bytes := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err = codec.Decode(test.syntax, test.frame, m)
			}
		}).AllocedBytesPerOp()
		if !fault.Is(err, fault.Invalid) || bytes > 1<<20 {
			t.Errorf("%s: %v, after allocating %d bytes", test.syntax.Name, err, bytes)
		}
	}
}

func TestImagesThatAreNotDecodedSaySo(t *testing.T) {
	explicit := func(change func(*dicom.Dataset)) *dicom.Dataset {
		ds := dicom.NewDataset()
		for tag, v := range map[dict.Tag]uint64{
			dict.SamplesPerPixel: 1, dict.Rows: 4, dict.Columns: 4, dict.BitsAllocated: 16, dict.BitsStored: 12,
		} {
			ds.SetUint(tag, dict.US, v)
		}
		change(ds)
		return ds
	}
	for name, test := range map[string]struct {
		change func(*dicom.Dataset)
		kind   fault.Kind
	}{
		"no rows":              {func(d *dicom.Dataset) { d.Remove(dict.Rows) }, fault.Invalid},
		"no columns":           {func(d *dicom.Dataset) { d.SetUint(dict.Columns, dict.US, 0) }, fault.Invalid},
		"five samples":         {func(d *dicom.Dataset) { d.SetUint(dict.SamplesPerPixel, dict.US, 5) }, fault.Invalid},
		"12 bits allocated":    {func(d *dicom.Dataset) { d.SetUint(dict.BitsAllocated, dict.US, 12) }, fault.Unsupported},
		"a frame of gigabytes": {func(d *dicom.Dataset) { d.SetUint(dict.Rows, dict.US, 65535); d.SetUint(dict.Columns, dict.US, 65535) }, fault.Invalid},
		"colour of single bits": {func(d *dicom.Dataset) {
			d.SetUint(dict.BitsAllocated, dict.US, 1)
			d.SetUint(dict.SamplesPerPixel, dict.US, 3)
		}, fault.Unsupported},
	} {
		if _, err := codec.ImageOf(explicit(test.change)); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, err := codec.ImageOf(explicit(func(*dicom.Dataset) {})); err != nil || m.Bytes() != 32 || m.Stored != 12 {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 8, 0, 2, 0, 2, 1, 1, 0x11, 0}, uint8(0), uint8(2), uint8(2), uint8(1), uint8(0))
	f.Add(append([]byte{1, 0, 0, 0, 64, 0, 0, 0}, make([]byte, 60)...), uint8(1), uint8(2), uint8(2), uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, frame []byte, which, rows, columns, samples, allocated uint8) {
		uid := []string{"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.5", dict.ExplicitBigEndian}[which%3]
		syntax, _ := dict.Syntax(uid)
		bits := []int{8, 16, 32}[allocated%3]
		m := codec.Image{Rows: int(rows) + 1, Columns: int(columns) + 1, Samples: int(samples%4) + 1, Allocated: bits, Stored: bits}
		out, err := codec.Decode(syntax, frame, m)
		if err == nil && int64(len(out)) != m.Bytes() {
			t.Errorf("%d bytes decoded where the image has %d", len(out), m.Bytes())
		}
	})
}
