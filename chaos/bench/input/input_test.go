package input

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

func image(rows, columns, frames int) Instance {
	return Instance{
		Study: Population{Seed: 3, Size: 10}.Study(4), Class: CTImageStorage,
		Series: 2, Number: 5, Rows: rows, Columns: columns, Frames: frames,
	}
}

func TestInstanceReadsBackAsItself(t *testing.T) {
	i := image(16, 24, 3)
	var file bytes.Buffer
	if err := i.Write(&file); err != nil {
		t.Fatal(err)
	}
	meta, body, err := dicom.OpenFile(&file)
	if err != nil {
		t.Fatal(err)
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	header, err := dicom.ReadHeader(body, syntax, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := header.Frames()
	if err != nil || frames.Count != 3 {
		t.Errorf("frames: %v, %v", frames, err)
	}
	for tag, want := range map[dict.Tag]string{
		dict.SOPInstanceUID: i.UID(), dict.StudyInstanceUID: i.Study.UID, dict.SeriesInstanceUID: i.Study.SeriesUID(2),
		dict.PatientName: i.Study.Name, dict.Modality: i.Study.Modality, dict.Rows: "16",
	} {
		if got := header.Dataset.String(tag); got != want {
			t.Errorf("%v: %q, want %q", tag, got, want)
		}
	}
}

func TestInstanceIsTakenByDcmdump(t *testing.T) {
	dir := t.TempDir()
	if _, err := image(8, 8, 0).WriteFile(dir); err != nil {
		t.Fatal(err)
	}
	dimsetest.Run(t, "dcmdump", "+sd", dir)
}

// TestPixelsCompressAsRealOnesDo holds the images to what real CT slices
// reach by left prediction and zstd: 2.3 to 11 times.
func TestPixelsCompressAsRealOnesDo(t *testing.T) {
	pixels := Pixels(nil, 512, 512, 1)
	low, high := []byte{}, []byte{}
	previous := uint16(0)
	for at := 0; at < len(pixels); at += 2 {
		v := binary.LittleEndian.Uint16(pixels[at:])
		d := int16(v - previous)
		z := uint16(d<<1) ^ uint16(d>>15)
		low, high, previous = append(low, byte(z)), append(high, byte(z>>8)), v
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(len(pixels)) / float64(len(encoder.EncodeAll(append(low, high...), nil)))
	if ratio < 2.2 || ratio > 6 {
		t.Errorf("compressed %.2f times", ratio)
	}
}

func TestNoiseHardlyShrinks(t *testing.T) {
	i := image(64, 64, 0)
	i.Noise = true
	var file bytes.Buffer
	if err := i.Write(&file); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(file.Bytes(), i.Frame(0)) {
		t.Error("Frame gives other pixels than Write")
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(encoder.EncodeAll(i.Frame(0), nil)); float64(n) < 0.72*float64(i.Bytes()) {
		t.Errorf("%d bytes of %d", n, i.Bytes())
	}
	for at := 1; at < int(i.Bytes()); at += 2 {
		if i.Frame(0)[at] > 0x0F {
			t.Fatal("more than 12 bits")
		}
	}
}

func TestSameInstanceHasTheSameBytes(t *testing.T) {
	var a, b bytes.Buffer
	if err := errors.Join(image(32, 32, 0).Write(&a), image(32, 32, 0).Write(&b)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two writes differ")
	}
	if !bytes.HasSuffix(a.Bytes(), image(32, 32, 0).Frame(0)) {
		t.Error("Frame gives other pixels than Write")
	}
}

func TestPopulationsOfAnySizeSpanTenYears(t *testing.T) {
	for _, size := range []int{20, 1000} {
		p := Population{Seed: 1, Size: size}
		if from, to := p.Study(0).Date, p.Study(size-1).Date; from[:4] != "2015" || to[:4] != "2024" {
			t.Errorf("%d studies: from %s to %s", size, from, to)
		}
	}
	seen := map[string]bool{}
	for i := range 1000 {
		s := Population{Seed: 1, Size: 1000}.Study(i)
		if seen[s.UID] || seen[s.Accession] {
			t.Fatalf("study %d repeats a UID or accession number", i)
		}
		seen[s.UID], seen[s.Accession] = true, true
	}
}

func TestVariantsDifferInUIDsOnly(t *testing.T) {
	path := filepath.Join(samples.Dir(t), "ct", "series-ge-head-28", "01.dcm")
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, w := file.Vary(7, 2), file.Vary(8, 2)
	if v.Meta.Instance == w.Meta.Instance || v.Series != w.Series || v.Series == file.Series || v.Study == file.Study {
		t.Errorf("variants %s and %s, series %s and %s", v.Meta.Instance, w.Meta.Instance, v.Series, w.Series)
	}
	if !bytes.Equal(file.File, original) || len(v.File) != len(original) {
		t.Error("the original has changed, or the variant's length")
	}
	if err := v.Write(t.TempDir()); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := v.Write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Load(filepath.Join(dir, v.Meta.Instance+".dcm"))
	if err != nil || again.Meta.Instance != v.Meta.Instance || again.Series != v.Series || !again.Native() {
		t.Errorf("the variant reads back as %v of %v: %v", again.Meta, again.Series, err)
	}
}
