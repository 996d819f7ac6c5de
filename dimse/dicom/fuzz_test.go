package dicom_test

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
)

// fuzzLimits keep an input of a few KB from taking long.
var fuzzLimits = dicom.Limits{HeaderBytes: 1 << 20, Depth: 16, Elements: 1 << 12, Fragments: 1 << 10, Inflated: 1 << 20}

var fuzzSyntaxes = []dict.TransferSyntax{explicitLittle, implicitLittle, explicitBig, deflated, jpegBaseline}

// seeds adds small samples.
func seeds(f *testing.F, add func(o *opened, file []byte)) {
	f.Helper()
	for _, s := range samples.All(f) {
		if s.Bytes > 3000 {
			continue
		}
		file, err := os.ReadFile(s.Path)
		if err != nil {
			f.Fatal(err)
		}
		o, err := open(s.Path)
		if err != nil {
			o = nil
		}
		add(o, file)
	}
}

func seedData(f *testing.F) {
	n := 0
	seeds(f, func(o *opened, _ []byte) {
		if n++; o == nil || n%4 != 0 {
			return
		}
		for i, s := range fuzzSyntaxes {
			if s.UID == o.syntax.UID {
				f.Add(uint8(i), o.data)
			}
		}
	})
	_, in := everyPart(f)
	f.Add(uint8(4), in)
	f.Add(uint8(3), deflate(f, in))
}

// Whatever the bytes are: an error of kind invalid, or a header that holds all
// of them, is stored and restored, and can be used.
func FuzzReadHeader(f *testing.F) {
	seedData(f)
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		s := fuzzSyntaxes[int(which)%len(fuzzSyntaxes)]
		h, err := dicom.ReadHeader(bytes.NewReader(in), s, fuzzLimits)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is no fault.Invalid", err)
			}
			return
		}
		plain := in
		if s.Deflated {
			if plain, err = io.ReadAll(dicom.NewInflater(bytes.NewReader(in), fuzzLimits)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(splice(h, plain), plain) || h.Size != int64(len(plain)) {
			t.Fatal("header and cuts are not the data set")
		}
		stored, err := h.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := dicom.ParseHeader(stored)
		if err != nil || !reflect.DeepEqual(h, back) {
			t.Fatalf("stored header is restored as another: %v", err)
		}
		use(t, h, plain)
	})
}

// use does with a header what the node does.
func use(t *testing.T, h *dicom.Header, plain []byte) {
	walk(h.Dataset, func(_ int, d *dicom.Dataset, e *dicom.Element) {
		d.Strings(e.Tag)
		d.Int(e.Tag)
		if d.Get(e.Tag) == nil {
			t.Fatalf("%v is there and is not found", e.Tag)
		}
	})
	src := bytes.NewReader(plain)
	if frames, err := h.Frames(); err == nil {
		for n := 1; n <= min(frames.Count, 4); n++ {
			if _, err := frames.ReadFrame(nil, src, n); err != nil {
				t.Fatalf("frame %d: %v", n, err)
			}
		}
	}
	for _, to := range targets {
		var out bytes.Buffer
		if err := h.Convert(&out, src, to); err != nil {
			if !fault.Is(err, fault.Unsupported) {
				t.Fatalf("to %s: %v", to.Name, err)
			}
			continue
		}
		if _, err := dicom.ReadHeader(&out, to, dicom.DefaultLimits); err != nil {
			t.Fatalf("converted to %s and not readable: %v", to.Name, err)
		}
	}
	h.Dataset.Recode([]string{"ISO_IR 100"})
}

func FuzzParseHeader(f *testing.F) {
	seeds(f, func(o *opened, _ []byte) {
		if o == nil {
			return
		}
		stored, err := o.header.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored[:len(stored)-4])
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		in = resum(bytes.Clone(in)) // the checksum would keep the fuzzer out
		h, err := dicom.ParseHeader(in)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.Unsupported) {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := h.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := dicom.ParseHeader(again); err != nil || !reflect.DeepEqual(h, back) {
			t.Fatalf("restored as another: %v", err)
		}
		h.Frames()
	})
}

func FuzzParseDataset(f *testing.F) {
	seedData(f)
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		s := fuzzSyntaxes[int(which)%len(fuzzSyntaxes)]
		if s.Deflated {
			s = explicitLittle
		}
		d, err := dicom.ParseDataset(in, s, fuzzLimits)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is no fault.Invalid", err)
			}
			return
		}
		for _, to := range targets {
			b, err := d.Encode(nil, to)
			if err != nil {
				if !fault.Is(err, fault.Unsupported) {
					t.Fatalf("to %s: %v", to.Name, err)
				}
				continue
			}
			if _, err := dicom.ParseDataset(b, to, dicom.DefaultLimits); err != nil {
				t.Fatalf("encoded as %s and not readable: %v", to.Name, err)
			}
		}
	})
}

func FuzzOpenFile(f *testing.F) {
	n := 0
	seeds(f, func(_ *opened, file []byte) {
		if n++; n%4 == 0 {
			f.Add(file)
		}
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, r, err := dicom.OpenFile(bytes.NewReader(in))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is no fault.Invalid", err)
			}
			return
		}
		data, err := io.ReadAll(r)
		if err != nil || !bytes.HasSuffix(in, data) || m.Syntax == "" {
			t.Fatalf("%+v, %d of %d bytes, %v", m, len(data), len(in), err)
		}
	})
}
