package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// fill makes samples of three kinds: the whole range, a gentle slope, signed
// numbers around zero.
func fill(r *rand.Rand, s Samples, rows, kind int) []byte {
	b := make([]byte, 0, rows*s.rowBytes())
	for i := range rows * s.Width {
		v := r.Uint32()
		switch kind {
		case 1:
			v = uint32(i/3 + r.IntN(5))
		case 2:
			v = uint32(r.IntN(300) - 150)
		}
		var order binary.AppendByteOrder = binary.LittleEndian
		if s.BigEndian {
			order = binary.BigEndian
		}
		switch s.Bytes {
		case 1:
			b = append(b, byte(v))
		case 2:
			b = order.AppendUint16(b, uint16(v))
		case 4:
			b = order.AppendUint32(b, v)
		}
	}
	return b
}

func TestEveryFilterJoinsWhatItSplit(t *testing.T) {
	var f filterer
	r := rand.New(rand.NewPCG(1, 2))
	for width := 1; width <= 70; width++ {
		for _, stride := range []int{1, 3} {
			for _, size := range []int{1, 2, 4} {
				for variant := range 6 {
					s := Samples{Width: width * stride, Bytes: size, Stride: stride, BigEndian: variant&1 == 1}
					rows := 1 + (width+variant)%4 // pairs of rows and a last single one
					src := fill(r, s, rows, variant/2)
					for filter := byte(filterGradient); filter < filters; filter++ {
						planes, back := make([]byte, len(src)), make([]byte, len(src))
						f.split(planes, src, s, filter)
						f.join(back, planes, s, filter)
						if !bytes.Equal(back, src) {
							t.Fatalf("%+v, %d rows, kind %d, filter %d", s, rows, variant/2, filter)
						}
					}
				}
			}
		}
	}
}

// plainPlanes is the specification, sample by sample: docs/formats/pack.md.
func plainPlanes(src []byte, s Samples, filter byte) []byte {
	width, height, top := s.Width/s.Stride, len(src)/s.rowBytes(), int64(1)<<(8*s.Bytes-1)
	sample := func(colour, x, y int) int64 {
		at := y*s.rowBytes() + (x*s.Stride+colour)*s.Bytes
		v := int64(0)
		for j := range s.Bytes {
			if s.BigEndian {
				v |= int64(src[at+j]) << (8 * (s.Bytes - 1 - j))
			} else {
				v |= int64(src[at+j]) << (8 * j)
			}
		}
		if predictor(filter) == filterMEDSigned {
			v ^= top
		}
		return v
	}
	planes := make([]byte, len(src))
	for colour := range s.Stride {
		for y := range height {
			for x := range width {
				var b int64
				if y > 0 {
					b = sample(colour, x, y-1)
				}
				a, c := b, b
				if x > 0 {
					a, c = sample(colour, x-1, y), 0
					if y > 0 {
						c = sample(colour, x-1, y-1)
					}
				}
				guess := a + b - c
				if predictor(filter) != filterGradient {
					guess = max(min(a, b), min(max(a, b), guess))
				}
				rest := sample(colour, x, y) - guess
				for j := range s.Bytes {
					digit := int64(int8(rest))
					planes[((colour*s.Bytes+j)*height+y)*width+x] = byte(digit)
					rest = (rest - digit) >> 8
				}
			}
		}
	}
	return planes
}

func TestPlanesAreAsSpecified(t *testing.T) {
	var f filterer
	r := rand.New(rand.NewPCG(3, 4))
	for _, width := range []int{1, 2, 15, 16, 17, 18, 33, 50} {
		for _, stride := range []int{1, 3} {
			for _, size := range []int{1, 2, 4} {
				for variant := range 6 {
					s := Samples{Width: width * stride, Bytes: size, Stride: stride, BigEndian: variant&1 == 1}
					src := fill(r, s, 5, variant/2)
					for filter := byte(filterGradient); filter < filters; filter++ {
						planes := make([]byte, len(src))
						f.split(planes, src, s, filter)
						if !bytes.Equal(planes, plainPlanes(src, s, filter)) {
							t.Fatalf("%+v, kind %d, filter %d", s, variant/2, filter)
						}
					}
				}
			}
		}
	}
}

func testPlanes() map[string][]byte {
	planes := map[string][]byte{}
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 7, 8, 9, 63, 64, 65, 200, 4097, blockBytes, blockBytes + 1, 3*blockBytes - 5} {
		zeros, same, few, noise, digits := make([]byte, n), make([]byte, n), make([]byte, n), make([]byte, n), make([]byte, n)
		for i := range n {
			same[i], noise[i], digits[i] = 7, byte(r.Uint32()), byte(r.IntN(9)-4)
			if r.IntN(40) == 0 {
				few[i] = byte(r.IntN(5))
			}
		}
		for name, p := range map[string][]byte{"zeros": zeros, "same": same, "few": few, "noise": noise, "digits": digits} {
			planes[fmt.Sprintf("%d %s", n, name)] = p
		}
	}
	return planes
}

func TestPlanesRestoreAndEndWhereTheySay(t *testing.T) {
	var h huffman
	for name, plane := range testPlanes() {
		coded := h.appendPlane([]byte("before"), plane)
		back := bytes.Repeat([]byte{0xaa}, len(plane))
		rest, err := h.readPlane(back, append(coded[6:], "after"...))
		if err != nil || string(rest) != "after" || !bytes.Equal(back, plane) {
			t.Errorf("%s: %v, %d bytes left", name, err, len(rest))
		}
		if len(coded)-6 > len(plane)+2+blockHeader*(2+len(plane)/blockBytes) {
			t.Errorf("%s: %d bytes became %d", name, len(plane), len(coded)-6)
		}
		for cut := 6; cut < len(coded); cut += 1 + len(coded)/50 {
			if _, err := h.readPlane(back, coded[6:cut]); err == nil {
				t.Errorf("%s: read from %d of %d bytes", name, cut-6, len(coded)-6)
			}
		}
	}
}

func TestZerosTakeNearlyNothing(t *testing.T) {
	var h huffman
	if n := len(h.appendPlane(nil, make([]byte, ChunkBytes))); n > 20 {
		t.Errorf("%d bytes for a plane of zeros", n)
	}
}

func TestMalformedPlanesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":               {},
		"unknown form":          {2, 0, 0, 0},
		"no block":              {planeDense},
		"kind 3":                {planeDense, 3 | 1<<2, 0, 0, 1},
		"block beyond the end":  {planeDense, blockRaw | 9<<2, 0, 0, 1},
		"too short a block":     {planeDense, blockRaw | 1<<2, 0, 0, 1},
		"two repeated bytes":    {planeDense, blockSame | 2<<2, 0, 0, 1, 1},
		"no table":              {planeDense, blockHuffman, 0, 0},
		"groups behind the end": {planeSparse, blockRaw | 1<<2, 0, 0, 4, blockSame | 1<<2, 0, 0, 1},
	} {
		var h huffman
		if _, err := h.readPlane(make([]byte, 9), b); err == nil {
			t.Errorf("%s: read", name)
		} else if len(b) > 0 && b[0] > planeSparse && !errors.Is(err, errPlane) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPlane(f *testing.F) {
	var h huffman
	for _, plane := range testPlanes() {
		if len(plane) <= 4097 {
			f.Add(h.appendPlane(nil, plane), len(plane))
			f.Add(plane, 100)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		var h huffman
		plane := make([]byte, max(1, min(n, ChunkBytes)))
		if _, err := h.readPlane(plane, b); err == nil {
			again := make([]byte, len(plane))
			if _, err := h.readPlane(again, h.appendPlane(nil, plane)); err != nil || !bytes.Equal(again, plane) {
				t.Fatalf("a plane that was read does not restore: %v", err)
			}
		}
		if len(b) == 0 {
			return
		}
		back := make([]byte, len(b))
		if rest, err := h.readPlane(back, h.appendPlane(nil, b)); err != nil || len(rest) > 0 || !bytes.Equal(back, b) {
			t.Fatalf("%v, %d left", err, len(rest))
		}
	})
}

// sameExpansion compares the two ways to put groups in place, and what they do
// beside it.
func sameExpansion(t *testing.T, mask, seed []byte) {
	t.Helper()
	there := 0
	for _, m := range mask {
		there += bits.OnesCount8(m)
	}
	groups := bytes.Repeat(append([]byte{1}, seed...), (there+1)*groupBytes)[:(there+1)*groupBytes]
	size := 8 * groupBytes * len(mask)
	fast, slow := bytes.Repeat([]byte{0xa5}, size+64), bytes.Repeat([]byte{0xa5}, size+64)
	n, m := expand(fast[:size], mask, groups), expandPlain(slow[:size], mask, groups)
	if n != there*groupBytes || m != n || !bytes.Equal(fast, slow) {
		t.Fatalf("mask %x: took %d and %d bytes of %d, same %t", mask, n, m, there*groupBytes, bytes.Equal(fast, slow))
	}
	var back []byte
	at := 0
	for i, m := range mask {
		for j := range 8 {
			group := slow[(8*i+j)*groupBytes:][:groupBytes]
			if m>>j&1 == 1 {
				back = append(back, group...)
			} else if !bytes.Equal(group, make([]byte, groupBytes)) {
				t.Fatalf("mask %x: group %d is not zero", mask, 8*i+j)
			}
			at += groupBytes
		}
	}
	if !bytes.Equal(back, groups[:n]) || !bytes.Equal(slow[at:], bytes.Repeat([]byte{0xa5}, 64)) {
		t.Fatalf("mask %x: other groups than given, or bytes beside them", mask)
	}
}

func TestGroupsGoWhereTheMaskSays(t *testing.T) {
	seed := []byte("thirteen byte")
	sameExpansion(t, nil, seed)
	for m := range 256 {
		sameExpansion(t, []byte{byte(m)}, seed)
		sameExpansion(t, []byte{0, byte(m), 0xff, byte(m), byte(^m), 1}, seed)
	}
}

func FuzzGroups(f *testing.F) {
	f.Add([]byte{0, 1, 0x80, 0xff, 0xaa}, []byte("seed"))
	f.Fuzz(func(t *testing.T, mask, seed []byte) {
		if len(mask) < 4096 && len(seed) < 256 {
			sameExpansion(t, mask, seed)
		}
	})
}

// Rows that are restored eight at a time come out as those that are restored by
// themselves, and nothing is written beside them.
func TestEightRowsAtOnceRestoreAsOneByOne(t *testing.T) {
	var f filterer
	r := rand.New(rand.NewPCG(7, 8))
	for width := 16; width <= 136; width += 8 {
		for rows := 7; rows <= 26; rows++ {
			s := Samples{Width: width, Bytes: 2, Stride: 1}
			for kind := range 3 {
				src := fill(r, s, rows, kind)
				for _, filter := range []byte{filterMED, filterMEDSigned} {
					planes := make([]byte, len(src), len(src)+1)
					f.split(planes, src, s, filter)
					guarded := bytes.Repeat([]byte{0xa5}, len(src)+64)
					f.join(guarded[32:32+len(src):32+len(src)], planes, s, filter)
					if !bytes.Equal(guarded[32:32+len(src)], src) {
						t.Fatalf("%d rows of %d, kind %d, filter %d", rows, width, kind, filter)
					}
					for i, b := range guarded {
						if b != 0xa5 && (i < 32 || i >= 32+len(src)) {
							t.Fatalf("%d rows of %d, filter %d: wrote beside them, at %d", rows, width, filter, i-32)
						}
					}
				}
			}
		}
	}
}

func FuzzEightRows(f *testing.F) {
	f.Add([]byte("gentle slopes and sudden edges, of which residuals are made"), uint8(2), uint8(9), true)
	f.Add([]byte{0xff, 0x7f, 0x80, 0, 1}, uint8(5), uint8(16), false)
	f.Fuzz(func(t *testing.T, seed []byte, width, rows uint8, signed bool) {
		if len(seed) == 0 {
			return
		}
		s := Samples{Width: 16 + 8*int(width%8), Bytes: 2, Stride: 1}
		filter := byte(filterMED)
		if signed {
			filter = filterMEDSigned
		}
		planes := bytes.Repeat(seed, (1+int(rows%32))*s.rowBytes()/len(seed)+1)[:(1+int(rows%32))*s.rowBytes()]
		var one filterer
		fast, slow := make([]byte, len(planes)), make([]byte, len(planes))
		one.join(slow, planes[:len(planes):len(planes)], s, filter)
		one.join(fast, append(make([]byte, 0, len(planes)+1), planes...), s, filter)
		again := make([]byte, len(planes))
		one.split(again, fast, s, filter)
		if !bytes.Equal(fast, slow) || !bytes.Equal(plainPlanes(fast, s, filter), again) {
			t.Fatalf("%d rows of %d differ", rows, s.Width)
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	s := Samples{Width: 512, Bytes: 2, Stride: 1}
	src := fill(rand.New(rand.NewPCG(1, 1)), s, 512, 1)
	var f filterer
	for name, filter := range map[string]byte{"gradient": filterGradient, "MED": filterMED, "MED signed": filterMEDSigned} {
		planes, back := make([]byte, len(src), len(src)+1), make([]byte, len(src))
		f.split(planes, src, s, filter)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				f.join(back, planes, s, filter)
			}
		})
	}
}
