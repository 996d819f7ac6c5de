package dicom_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dimsetest/samples"
)

// benchmarkCT is a CT of 512 × 512 × 16 bit with the header of a real one.
func benchmarkCT(b *testing.B) *opened {
	b.Helper()
	o, err := open(filepath.Join(samples.Dir(b), "ct/same-image-many-syntaxes/CTImage.dcm"))
	if err != nil {
		b.Fatal(err)
	}
	return o
}

func BenchmarkReadHeader(b *testing.B) {
	o := benchmarkCT(b)
	b.SetBytes(int64(len(o.data)))
	b.ReportAllocs()
	r := bytes.NewReader(nil)
	for b.Loop() {
		r.Reset(o.data)
		if _, err := dicom.ReadHeader(r, o.syntax, dicom.DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseHeader(b *testing.B) {
	o := benchmarkCT(b)
	stored, err := o.header.AppendBinary(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(stored)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dicom.ParseHeader(stored); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendBinary(b *testing.B) {
	o := benchmarkCT(b)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		var err error
		if buf, err = o.header.AppendBinary(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
