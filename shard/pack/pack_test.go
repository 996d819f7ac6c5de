package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"pelago/cluster/fault"
)

var update = flag.Bool("update", false, "write the golden files")

// picture makes bytes of a data set: a header, smooth noisy samples, a tail.
func picture(seed uint64, header, rows, tail int, s Samples, signed bool) ([]byte, Samples) {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, header, header+rows*s.Width*s.Bytes+tail)
	for i := range b {
		b[i] = "(0010,0010) PN "[i%15]
	}
	s.Offset = int64(header)
	var order binary.AppendByteOrder = binary.LittleEndian
	if s.BigEndian {
		order = binary.BigEndian
	}
	for y := range rows {
		for x := range s.Width {
			v := (x/s.Stride*3+y*2)/4 + 100*(x%s.Stride) + r.IntN(6)
			if signed {
				v -= (s.Width + rows) / 2
			}
			switch s.Bytes {
			case 1:
				b = append(b, byte(v))
			case 2:
				b = order.AppendUint16(b, uint16(v))
			case 4:
				b = order.AppendUint32(b, uint32(v))
			}
		}
	}
	s.Length = int64(len(b) - header)
	for i := range tail {
		b = append(b, byte(i))
	}
	return b, s
}

// roundTrip packs one instance and reads it back, whole and by ranges.
func roundTrip(t *testing.T, b []byte, s Samples, effort Effort) (Manifest, []byte) {
	t.Helper()
	return roundTripWith(t, NewCodec(0), b, s, effort)
}

func roundTripWith(t *testing.T, codec *Codec, b []byte, s Samples, effort Effort) (Manifest, []byte) {
	t.Helper()
	var out bytes.Buffer
	w := codec.NewWriter(&out, ID{1, 2, 3})
	if err := w.Add(bytes.NewReader(b), int64(len(b)), blake3.Sum256(b), s, effort, []byte("record")); err != nil {
		t.Fatal(err)
	}
	m, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if m.Bytes != int64(out.Len()) || m.Bytes != w.Bytes() || string(m.Entries[0].Record) != "record" {
		t.Fatalf("manifest %d bytes, writer %d, wrote %d", m.Bytes, w.Bytes(), out.Len())
	}
	durable, err := m.AppendBinary([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseManifest(durable[len("before"):])
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain(parsed), plain(m)) {
		t.Fatalf("parsed manifest differs:\n%+v\n%+v", parsed, m)
	}
	e := &parsed.Entries[0]
	readBack(t, codec.Instance(m.ID, bytes.NewReader(out.Bytes()), e), b)
	return *parsed, out.Bytes()
}

// plain turns empty lists into nil for comparison.
func plain(m *Manifest) Manifest {
	c := *m
	c.Entries = append([]Entry(nil), m.Entries...)
	for i := range c.Entries {
		if len(c.Entries[i].Chunks) == 0 {
			c.Entries[i].Chunks = nil
		}
		if len(c.Entries[i].Record) == 0 {
			c.Entries[i].Record = nil
		}
	}
	return c
}

func readBack(t *testing.T, r io.ReaderAt, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := r.ReadAt(got, 0); n != len(want) || (err != nil && err != io.EOF) || !bytes.Equal(got, want) {
		t.Fatalf("read %d of %d, %v; equal %v", n, len(want), err, bytes.Equal(got, want))
	}
	random := rand.New(rand.NewPCG(3, uint64(len(want))))
	for range 6 {
		off := random.IntN(len(want) + 3)
		p := make([]byte, random.IntN(len(want)+5))
		var out bytes.Buffer
		err := r.(*instance).WriteRange(&out, int64(off), int64(len(p)))
		if off+len(p) > len(want) {
			if !errors.Is(err, io.ErrUnexpectedEOF) || out.Len() > 0 {
				t.Fatalf("WriteRange(%d, %d bytes) behind the end wrote %d, %v", off, len(p), out.Len(), err)
			}
		} else if err != nil || !bytes.Equal(out.Bytes(), want[off:off+len(p)]) {
			t.Fatalf("WriteRange(%d, %d bytes) = %d, %v", off, len(p), out.Len(), err)
		}
		n, err := r.ReadAt(p, int64(off))
		wantN := max(0, min(len(p), len(want)-off))
		if n != wantN || (n > 0 && !bytes.Equal(p[:n], want[off:off+n])) || (err == io.EOF) != (n < len(p)) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
		}
	}
}

func TestEveryLayoutRestoresItsBytes(t *testing.T) {
	codec := NewCodec(0)
	for _, width := range []int{1, 7, 64, 513} {
		for _, size := range []int{1, 2, 4} {
			for _, stride := range []int{1, 3, 4} {
				if corpusStep > 1 && stride == 3 && width != 7 {
					continue // the race detector is slow, and finds nothing in a third colour
				}
				for variant := range 4 {
					s := Samples{Width: width * stride, Bytes: size, Stride: stride, BigEndian: variant&1 == 1}
					rows := 5000/(width*stride*size) + 3
					b, s := picture(uint64(width), 700, rows, variant*13, s, variant >= 2)
					for _, effort := range []Effort{Best, Fast, Store} {
						t.Run(fmt.Sprintf("%dx%dB/%d v%d e%d", width, size, stride, variant, effort), func(t *testing.T) {
							m, packed := roundTripWith(t, codec, b, s, effort)
							if effort == Store && len(packed) != len(b) {
								t.Errorf("Store changed %d bytes to %d", len(b), len(packed))
							}
							if effort == Best && size == 2 && stride == 1 && len(packed) > len(b)*2/3 {
								t.Errorf("%d of %d bytes remain", len(packed), len(b))
							}
							if effort == Fast && width == 64 && s.direct() && m.Entries[0].Chunks[1].Filter != filterGradient {
								t.Errorf("filter %d, want gradient", m.Entries[0].Chunks[1].Filter)
							}
						})
					}
				}
			}
		}
	}
}

// Residuals wrap around: noise over the whole range restores too.
func TestNoiseIsStoredAndExtremesRestore(t *testing.T) {
	noise := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{5}).Read(noise)
	for _, s := range []Samples{{}, {Length: 100_000, Width: 100, Bytes: 2, Stride: 1}, {Length: 99_999, Width: 33, Bytes: 1, Stride: 3}} {
		m, packed := roundTrip(t, noise, s, Best)
		if len(packed) != len(noise) {
			t.Errorf("%d bytes of noise became %d", len(noise), len(packed))
		}
		for _, c := range m.Entries[0].Chunks {
			if c.Filter != filterStored {
				t.Errorf("filter %d for noise", c.Filter)
			}
		}
	}
	extremes := make([]byte, 64_000)
	for i := range extremes {
		extremes[i] = []byte{0, 255, 128, 127, 0, 0, 255, 255, 1}[(i*i/7)%9]
	}
	for _, size := range []int{1, 2, 4} {
		for _, effort := range []Effort{Best, Fast} {
			roundTrip(t, extremes, Samples{Length: 64_000, Width: 80, Bytes: size, Stride: 1}, effort)
		}
	}
}

func TestSignedSamplesTurnTheirTopBit(t *testing.T) {
	b, s := picture(9, 100, 256, 0, Samples{Width: 256, Bytes: 2, Stride: 1}, true)
	m, _ := roundTrip(t, b, s, Best)
	if f := m.Entries[0].Chunks[1].Filter; f != filterMEDSigned {
		t.Errorf("filter %d for samples around zero", f)
	}
}

func TestMasksAreGeneralBytes(t *testing.T) {
	tile := make([]byte, 3000)
	rand.NewChaCha8([32]byte{5}).Read(tile)
	b := bytes.Repeat(tile, 88)[:512*512]
	m, _ := roundTrip(t, b, Samples{Length: int64(len(b)), Width: 512, Bytes: 1, Stride: 1}, Best)
	if f := m.Entries[0].Chunks[0].Filter; f != filterBytes {
		t.Errorf("filter %d for a repeating pattern", f)
	}
}

func TestHintsThatDoNotFitAreIgnored(t *testing.T) {
	b, good := picture(2, 300, 100, 10, Samples{Width: 100, Bytes: 2, Stride: 1}, false)
	change := func(f func(*Samples)) Samples {
		s := good
		f(&s)
		return s
	}
	for name, s := range map[string]Samples{
		"beyond the end":    change(func(s *Samples) { s.Length += 11 }),
		"negative offset":   change(func(s *Samples) { s.Offset = -5 }),
		"overflow":          change(func(s *Samples) { s.Offset, s.Length = 1<<62, 1<<62 }),
		"negative length":   change(func(s *Samples) { s.Length = -1 }),
		"no width":          change(func(s *Samples) { s.Width = 0 }),
		"huge width":        change(func(s *Samples) { s.Width = 1 << 40 }),
		"no stride":         change(func(s *Samples) { s.Stride = 0 }),
		"huge stride":       change(func(s *Samples) { s.Stride = 100 }),
		"stride over width": change(func(s *Samples) { s.Stride = 3 }),
		"8 bytes":           change(func(s *Samples) { s.Bytes = 8 }),
		"few bytes":         change(func(s *Samples) { s.Length = 128 }),
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := roundTrip(t, b, s, Best)
			for _, c := range m.Entries[0].Chunks {
				if sampled(c.Filter) {
					t.Errorf("used as samples: %+v", c)
				}
			}
		})
	}
}

func TestChunksAreWholeRowsBetweenHeaderAndTail(t *testing.T) {
	b, s := picture(4, 5000, 1500, 999, Samples{Width: 1000, Bytes: 2, Stride: 1}, false)
	b, s.Length = append(b, 1), s.Length+1 // an odd byte after the last row
	m, _ := roundTrip(t, b, s, Fast)
	next := int64(0)
	for i, c := range m.Entries[0].Chunks {
		if c.Offset != next || c.Length > ChunkBytes {
			t.Errorf("chunk %d at %d, want %d", i, c.Offset, next)
		}
		if sampled(c.Filter) && ((c.Offset-s.Offset)%2000 != 0 || c.Length%2000 != 0) {
			t.Errorf("chunk %d cuts a row: %+v", i, c)
		}
		next += c.Length
	}
	if n := len(m.Entries[0].Chunks); n != 5 {
		t.Errorf("%d chunks, want header, three of rows, tail", n)
	}
}

func TestEmptyInstanceAndEmptyPack(t *testing.T) {
	roundTrip(t, nil, Samples{}, Best)
	m, err := NewWriter(io.Discard, ID{7}).Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseManifest(b); err != nil || got.ID != (ID{7}) || len(got.Entries) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDifferentBytesVoidThePack(t *testing.T) {
	b := bytes.Repeat([]byte("abc"), 5000)
	for name, add := range map[string]func(*Writer) error{
		"another hash": func(w *Writer) error {
			return w.Add(bytes.NewReader(b), int64(len(b)), [32]byte{1}, Samples{}, Best, nil)
		},
		"shorter than told": func(w *Writer) error {
			return w.Add(bytes.NewReader(b), int64(len(b))+1, blake3.Sum256(b), Samples{}, Best, nil)
		},
	} {
		w := NewWriter(io.Discard, ID{})
		if err := add(w); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v, want corrupt", name, err)
		}
		if err := w.Add(bytes.NewReader(b), int64(len(b)), blake3.Sum256(b), Samples{}, Best, nil); err == nil {
			t.Errorf("%s: a void pack takes more", name)
		}
		if _, err := w.Close(); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: Close: %v, want corrupt", name, err)
		}
	}
	w := NewWriter(io.Discard, ID{})
	if err := w.Add(bytes.NewReader(nil), -1, [32]byte{}, Samples{}, Best, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("negative size: %v", err)
	}
	w = NewWriter(io.Discard, ID{})
	if err := w.Add(bytes.NewReader(nil), 0, blake3.Sum256(nil), Samples{}, Best, make([]byte, maxRecord+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("huge record: %v", err)
	}
}

func TestChunksThatDoNotRestoreAreCaught(t *testing.T) {
	k, err := newCoder()
	if err != nil {
		t.Fatal(err)
	}
	b, s := picture(1, 0, 64, 0, Samples{Width: 64, Bytes: 2, Stride: 1}, false)
	out, filter := k.compress(b, &s, Best)
	out = bytes.Clone(out)
	if err := k.verify(b, out, filter, &s); err != nil {
		t.Fatal(err)
	}
	wrong := s
	wrong.BigEndian = true
	other := bytes.Clone(b)
	other[77] ^= 1
	for name, err := range map[string]error{
		"other bytes":    k.verify(other, out, filter, &s),
		"other layout":   k.verify(b, out, filter, &wrong),
		"another filter": k.verify(b, out, filterGradient, &s),
		"cut off":        k.verify(b, out[:len(out)-1], filter, &s),
		"other length":   k.verify(b[:len(b)-128], out, filter, &s),
	} {
		if !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v, want corrupt", name, err)
		}
	}
}

func TestWriteErrorsKeepTheirKind(t *testing.T) {
	w := NewWriter(fullWriter{}, ID{})
	b := []byte("abc")
	if err := w.Add(bytes.NewReader(b), 3, blake3.Sum256(b), Samples{}, Best, nil); !fault.Is(err, fault.Full) {
		t.Errorf("%v, want full", err)
	}
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, fault.New(fault.Full, "full") }

func TestRottenPlaintextIsCorrupt(t *testing.T) {
	b, s := picture(4, 500, 300, 10, Samples{Width: 300, Bytes: 2, Stride: 1}, false)
	m, packed := roundTrip(t, b, s, Best)
	e := &m.Entries[0]
	if _, err := Instance(bytes.NewReader(packed[:len(packed)-5]), e).ReadAt(make([]byte, len(b)), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut: %v", err)
	}
	if _, err := Instance(gone{}, e).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("gone: %v", err)
	}
	part := *e
	part.Chunks = e.Chunks[1:]
	if _, err := Instance(bytes.NewReader(packed), &part).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("bytes in another pack: %v", err)
	}
	for _, change := range []func(*Chunk){
		func(c *Chunk) { c.Length = 1 << 40 }, func(c *Chunk) { c.Compressed = -1 }, func(c *Chunk) { c.Filter = 99 },
		func(c *Chunk) { c.At = -7 }, func(c *Chunk) { c.Samples.Width = 0 }, func(c *Chunk) { c.Samples.Width++ },
	} {
		bad := *e
		bad.Chunks = append([]Chunk(nil), e.Chunks...)
		change(&bad.Chunks[1])
		if _, err := Instance(bytes.NewReader(packed), &bad).ReadAt(make([]byte, len(b)), 0); err == nil || err == io.EOF {
			t.Errorf("chunk %+v was read", bad.Chunks[1])
		}
	}
	if _, err := Instance(bytes.NewReader(packed), e).ReadAt(make([]byte, 1), -1); !fault.Is(err, fault.Invalid) {
		t.Errorf("negative offset: %v", err)
	}
}

type gone struct{}

func (gone) ReadAt([]byte, int64) (int, error) { return 0, fault.New(fault.NotFound, "gone") }

// counting counts reads below a reader.
type counting struct {
	io.ReaderAt
	mu    sync.Mutex
	reads int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
	return c.ReaderAt.ReadAt(p, off)
}

func TestReadersShareChunksWithinTheLimit(t *testing.T) {
	b, s := picture(4, 500, 2500, 10, Samples{Width: 1000, Bytes: 2, Stride: 1}, false)
	m, packed := roundTrip(t, b, s, Fast)
	below := &counting{ReaderAt: bytes.NewReader(packed)}
	codec := NewCodec(3 * ChunkBytes)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			p := make([]byte, 1000)
			if _, err := codec.Instance(m.ID, below, &m.Entries[0]).ReadAt(p, 2_000_000); err != nil || !bytes.Equal(p, b[2_000_000:2_001_000]) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if below.reads != 1 {
		t.Errorf("%d reads for one chunk", below.reads)
	}
	readBack(t, codec.Instance(m.ID, below, &m.Entries[0]), b)
	before := below.reads
	for range 2 {
		if _, err := codec.Instance(ID{9}, gone{}, &m.Entries[0]).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
			t.Errorf("another pack's chunk from the cache: %v", err)
		}
	}
	if below.reads != before {
		t.Error("packs share chunks")
	}
}

// endless is a large instance that takes no memory.
type endless struct{}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		x := off + int64(i)
		p[i] = byte(x>>1) ^ byte(x>>12)
	}
	return len(p), nil
}

func TestMemoryIsBoundedByChunks(t *testing.T) {
	const size = 24 << 20
	h := blake3.New()
	if _, err := io.Copy(h, io.NewSectionReader(endless{}, 0, size)); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := NewWriter(io.Discard, ID{})
	s := Samples{Length: size, Width: 1024, Bytes: 2, Stride: 1}
	if err := w.Add(endless{}, size, [32]byte(h.Sum(nil)), s, Fast, nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 14<<20 {
		t.Errorf("allocated %d MiB for an instance of %d", used>>20, size>>20)
	}
}

func TestManifestGolden(t *testing.T) {
	if *update {
		updateGolden(t)
	}
	file := filepath.Join("testdata", "manifest_v1.bin")
	want := goldenManifest()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, *want) {
		t.Errorf("the golden manifest reads as\n%+v", got)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if _, err := ParseManifest(bad); err == nil {
			t.Errorf("byte %d changed: parsed", i)
		}
		if _, err := ParseManifest(b[:i]); !fault.Is(err, fault.Corrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	newer := bytes.Clone(b)
	newer[7] = 2
	if _, err := ParseManifest(newer); !fault.Is(err, fault.Unsupported) {
		t.Errorf("newer version: %v", err)
	}
}

func goldenManifest() *Manifest {
	s := Samples{Offset: 1000, Length: 1100_000, Width: 1536, Bytes: 2, Stride: 3, BigEndian: true}
	return &Manifest{ID: ID{0: 1, 15: 2}, Bytes: 500_000 + 300 + 4000 + 64, Entries: []Entry{
		{Record: []byte("first record"), Bytes: 1101_064, Hash: [32]byte{3}, Chunks: []Chunk{
			{Offset: 0, Length: 1000, At: 0, Compressed: 300, Filter: filterBytes},
			{Offset: 1000, Length: 1047552, At: 300, Compressed: 500_000, Filter: filterMED, Samples: s},
			{Offset: 1048552, Length: 52224, At: 500_300, Compressed: 4000, Filter: filterGradient, Samples: s},
			{Offset: 1100776, Length: 64, At: 504_300, Compressed: 64, Filter: filterStored},
		}},
		{Record: []byte{}, Bytes: 0, Hash: [32]byte{4}, Chunks: []Chunk{}},
	}}
}

// Packs of a released version stay readable: the golden pack holds one instance
// for every filter.
func TestPackGolden(t *testing.T) {
	if *update {
		updateGolden(t)
	}
	b, err := os.ReadFile(filepath.Join("testdata", "pack_v1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	mb, err := os.ReadFile(filepath.Join("testdata", "pack_v1.manifest"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(mb)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[byte]bool{}
	for i := range m.Entries {
		e := &m.Entries[i]
		got := make([]byte, e.Bytes)
		if _, err := Instance(bytes.NewReader(b), e).ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if blake3.Sum256(got) != e.Hash {
			t.Errorf("entry %d does not restore", i)
		}
		for _, c := range e.Chunks {
			seen[c.Filter] = true
		}
	}
	if len(seen) != filters {
		t.Errorf("the golden pack shows filters %v of %d", seen, filters)
	}
}

// updateGolden writes what this version makes: for new versions of the format
// only, beside the files of the old ones.
func updateGolden(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	m, err := writeGoldenPack(&out)
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func() ([]byte, error){
		"pack_v1.bin":      func() ([]byte, error) { return out.Bytes(), nil },
		"pack_v1.manifest": func() ([]byte, error) { return m.AppendBinary(nil) },
		"manifest_v1.bin":  func() ([]byte, error) { return goldenManifest().AppendBinary(nil) },
	} {
		b, err := write()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func writeGoldenPack(w io.Writer) (*Manifest, error) {
	p := NewWriter(w, ID{0xaa})
	for _, g := range []struct {
		s      Samples
		signed bool
		effort Effort
	}{
		{Samples{Width: 64, Bytes: 2, Stride: 1}, false, Best},
		{Samples{Width: 64, Bytes: 2, Stride: 1}, true, Best},
		{Samples{Width: 64, Bytes: 2, Stride: 1, BigEndian: true}, true, Fast},
		{Samples{Width: 96, Bytes: 1, Stride: 3}, false, Best},
		{Samples{Width: 160, Bytes: 4, Stride: 4}, false, Best},
		{Samples{Width: 96, Bytes: 2, Stride: 3}, true, Best},
		{Samples{Width: 40, Bytes: 4, Stride: 1}, false, Best},
		{Samples{Width: 64, Bytes: 2, Stride: 1}, false, Fast},
		{Samples{Width: 64, Bytes: 2, Stride: 1}, false, Store},
	} {
		b, s := picture(11, 200, 50, 3, g.s, g.signed)
		if err := p.Add(bytes.NewReader(b), int64(len(b)), blake3.Sum256(b), s, g.effort, []byte("r")); err != nil {
			return nil, err
		}
	}
	return p.Close()
}

func FuzzParseManifest(f *testing.F) {
	b, _ := goldenManifest().AppendBinary(nil)
	f.Add(goldenManifest().appendBody(nil))
	f.Add(b)
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, err := ParseManifest(body); err == nil && m == nil {
			t.Fatal("nothing, without an error")
		}
		// past the checksum, which a fuzzer does not guess
		p := parser{b: body}
		m := p.manifest()
		if p.err != nil || len(p.b) > 0 {
			return
		}
		for i := range m.Entries {
			for _, c := range m.Entries[i].Chunks {
				if err := c.check(); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(again); err != nil {
			t.Fatalf("what was parsed does not parse again: %v", err)
		}
	})
}

func FuzzInstance(f *testing.F) {
	f.Add([]byte("abcabc"), int64(9), byte(filterBytes), 3, 2, 1, int64(0))
	k, _ := newCoder()
	b, s := picture(1, 0, 64, 0, Samples{Width: 64, Bytes: 2, Stride: 1}, false)
	out, filter := k.compress(b, &s, Best)
	f.Add(out, int64(len(b)), filter, 64, 2, 1, int64(5))
	f.Fuzz(func(t *testing.T, packed []byte, length int64, filter byte, width, size, stride int, off int64) {
		c := Chunk{Length: length, Compressed: int64(len(packed)), Filter: filter,
			Samples: Samples{Length: length, Width: width, Bytes: size, Stride: stride}}
		p := make([]byte, 100)
		n, err := Instance(bytes.NewReader(packed), &Entry{Bytes: length, Chunks: []Chunk{c}}).ReadAt(p, off)
		if n < len(p) && err == nil {
			t.Fatal("a short read without an error")
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), 2, 2, 1, false, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, width, size, stride int, bigEndian bool, effort byte) {
		for len(b) > 0 && len(b) < minSampled {
			b = append(b, b...)
		}
		s := Samples{Length: int64(len(b)), Width: width, Bytes: size, Stride: stride, BigEndian: bigEndian}
		roundTrip(t, b, s, Effort(effort%3))
	})
}
