package pack

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"pelago/dimse/dimsetest/samples"
)

// image is a file of the corpus whose native pixel data was found.
type image struct {
	name    string
	bytes   []byte
	samples Samples
}

// images finds the native images whose name has one of the prefixes.
func images(t testing.TB, prefixes ...string) []image {
	t.Helper()
	var found []image
	for _, f := range samples.All(t) {
		for _, p := range prefixes {
			if !strings.HasPrefix(f.Name, p) {
				continue
			}
			b, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			if s, ok := layout(b); ok {
				found = append(found, image{f.Name, b, s})
			}
		}
	}
	return found
}

// layout finds the pixel data of a little endian file by its tags: enough for a
// corpus, where a wrong find costs only compression.
func layout(b []byte) (Samples, bool) {
	number := func(element byte) int {
		for _, tag := range [][]byte{{0x28, 0, element, 0, 'U', 'S', 2, 0}, {0x28, 0, element, 0, 2, 0, 0, 0}} {
			if i := bytes.Index(b, tag); i >= 0 && i+10 <= len(b) {
				return int(binary.LittleEndian.Uint16(b[i+8:]))
			}
		}
		return 0
	}
	tag := []byte{0x28, 0, 0, 1} // Bits Allocated
	bits := 0
	if i := bytes.Index(b, append(tag, 'U', 'S', 2, 0)); i >= 0 {
		bits = int(binary.LittleEndian.Uint16(b[i+8:]))
	} else if i := bytes.Index(b, append(tag[:4:4], 2, 0, 0, 0)); i >= 0 {
		bits = int(binary.LittleEndian.Uint16(b[i+8:]))
	}
	i := bytes.LastIndex(b, []byte{0xe0, 0x7f, 0x10, 0})
	if i < 0 || i+12 > len(b) || bits%8 != 0 {
		return Samples{}, false
	}
	at, length := i+8, binary.LittleEndian.Uint32(b[i+4:])
	if b[i+4] == 'O' {
		at, length = i+12, binary.LittleEndian.Uint32(b[i+8:])
	}
	stride := max(1, number(2))
	s := Samples{Offset: int64(at), Length: int64(length), Width: number(0x11) * stride, Bytes: bits / 8, Stride: stride}
	return s, s.usable(int64(len(b))) && s.Length >= minSampled
}

// Real CT and MR rest in at most 0.31 of their bytes, 0.34 in haste, manifest
// included, and restore bit for bit.
func TestRealImagesRestInAThird(t *testing.T) {
	for _, effort := range []Effort{Best, Fast} {
		ct := packImages(t, "CT", effort, 0.35, "ct/", "enhanced-ct/")
		mr := packImages(t, "MR", effort, 0.5, "mr/", "enhanced-mr/")
		both := [2]int64{ct[0] + mr[0], ct[1] + mr[1]}
		limit := map[Effort]int64{Best: 31, Fast: 34}[effort]
		if corpusStep == 1 && both[1]*100 > both[0]*limit {
			t.Errorf("effort %d: %d of %d bytes of CT and MR remain", effort, both[1], both[0])
		}
	}
	packImages(t, "others", Best, 0.4, "us/", "xa/", "mg/", "cr-dx/", "nm/", "pet/", "sc/", "seg/", "palette/", "op/", "rt/")
}

// packImages packs some folders' images and reads them back; it returns their
// bytes and those at rest.
func packImages(t *testing.T, name string, effort Effort, limit float64, folders ...string) [2]int64 {
	t.Helper()
	var list []image
	for i, im := range images(t, folders...) {
		if i%corpusStep == 0 {
			list = append(list, im)
		}
	}
	codec := NewCodec(0)
	var raw int64
	var out bytes.Buffer
	w := codec.NewWriter(&out, ID{})
	for _, im := range list {
		if err := w.Add(bytes.NewReader(im.bytes), int64(len(im.bytes)), blake3.Sum256(im.bytes), im.samples, effort, nil); err != nil {
			t.Fatalf("%s: %v", im.name, err)
		}
		raw += int64(len(im.bytes))
	}
	m, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	rest := m.Bytes + int64(len(manifest))
	t.Logf("%-6s effort %d: %3d files, %8d bytes rest in %7d: %.3f; manifest %d", name, effort, len(list),
		raw, rest, float64(rest)/float64(raw), len(manifest))
	if len(list)*corpusStep < 15 {
		t.Errorf("%s: only %d images found", name, len(list))
	}
	if effort == Best && float64(rest) > limit*float64(raw) {
		t.Errorf("%s: %d of %d bytes remain", name, rest, raw)
	}
	for i, im := range list {
		got := make([]byte, len(im.bytes))
		r := codec.Instance(m.ID, bytes.NewReader(out.Bytes()), &m.Entries[i])
		if _, err := r.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, im.bytes) {
			t.Fatalf("%s does not restore: %v", im.name, err)
		}
	}
	return [2]int64{raw, rest}
}

func benchmarkAdd(b *testing.B, folder string, effort Effort) {
	list := images(b, folder)
	var total int64
	hashes := make([][32]byte, len(list))
	for i, im := range list {
		total += int64(len(im.bytes))
		hashes[i] = blake3.Sum256(im.bytes)
	}
	codec := NewCodec(0)
	b.SetBytes(total)
	b.ReportAllocs()
	var rest int64
	for b.Loop() {
		w := codec.NewWriter(io.Discard, ID{})
		for i, im := range list {
			if err := w.Add(bytes.NewReader(im.bytes), int64(len(im.bytes)), hashes[i], im.samples, effort, nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
		rest = w.Bytes()
	}
	b.ReportMetric(float64(rest)/float64(total), "ratio")
}

func BenchmarkAddBestCT(b *testing.B) { benchmarkAdd(b, "ct/series-ge-head-28/", Best) }
func BenchmarkAddFastCT(b *testing.B) { benchmarkAdd(b, "ct/series-ge-head-28/", Fast) }
func BenchmarkAddBestMR(b *testing.B) { benchmarkAdd(b, "mr/series-dcmqi-adc-20/", Best) }
func BenchmarkAddFastMR(b *testing.B) { benchmarkAdd(b, "mr/series-dcmqi-adc-20/", Fast) }

func benchmarkRead(b *testing.B, folder string, effort Effort) {
	list := images(b, folder)
	codec := NewCodec(0)
	var out bytes.Buffer
	w := codec.NewWriter(&out, ID{})
	var total int64
	for _, im := range list {
		total += int64(len(im.bytes))
		if err := w.Add(bytes.NewReader(im.bytes), int64(len(im.bytes)), blake3.Sum256(im.bytes), im.samples, effort, nil); err != nil {
			b.Fatal(err)
		}
	}
	m, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4<<20)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		for i := range m.Entries {
			e := &m.Entries[i]
			if _, err := codec.Instance(m.ID, bytes.NewReader(out.Bytes()), e).ReadAt(buf[:e.Bytes], 0); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkReadBestCT(b *testing.B) { benchmarkRead(b, "ct/series-ge-head-28/", Best) }
func BenchmarkReadFastCT(b *testing.B) { benchmarkRead(b, "ct/series-ge-head-28/", Fast) }

// A pack of one tiny instance: what thousands of tiny studies cost.
func BenchmarkTinyPack(b *testing.B) {
	data := bytes.Repeat([]byte("tiny"), 200)
	hash := blake3.Sum256(data)
	codec := NewCodec(0)
	b.ReportAllocs()
	for b.Loop() {
		w := codec.NewWriter(io.Discard, ID{})
		if err := w.Add(bytes.NewReader(data), int64(len(data)), hash, Samples{}, Best, data); err != nil {
			b.Fatal(err)
		}
		m, err := w.Close()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.AppendBinary(nil); err != nil {
			b.Fatal(err)
		}
	}
}
