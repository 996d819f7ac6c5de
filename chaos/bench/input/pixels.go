package input

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
)

// Pixels appends a 12-bit image that a compressor sees as it sees a real
// slice: nothing outside the field of view, air, a body with organs and bone,
// and noise of about 12 units in all of them. Stored without loss it takes a
// third to a half of its bytes, as thin CT slices do.
func Pixels(b []byte, rows, columns int, seed uint64) []byte {
	noise := rand.NewPCG(seed, 0x9E3779B97F4A7C15)
	shapes := phantom(rows, columns, seed)
	var bits uint64
	left := 0
	for y := range rows {
		spans := slice(shapes, y)
		for x := range columns {
			v := 0
			for _, s := range spans {
				if x >= s.from && x < s.to {
					v = s.value
				}
			}
			if v != 0 {
				if left == 0 {
					bits, left = noise.Uint64(), 4
				}
				// The sum of four 4-bit numbers: nearly normal, sigma 9.
				v += int(bits&15) + int(bits>>4&15) + int(bits>>8&15) + int(bits>>12&15) - 30 + (x+y)/16
				bits >>= 16
				left--
			}
			b = binary.LittleEndian.AppendUint16(b, uint16(max(v, 0)&0x0FFF))
		}
	}
	return b
}

// Noise appends a 12-bit image of even noise: stored without loss it takes three
// quarters of its bytes. It is for where many bytes are wanted at rest soon.
func Noise(b []byte, rows, columns int, seed uint64) []byte {
	noise := rand.NewPCG(seed, 0x9E3779B97F4A7C15)
	var bits uint64
	for n := range rows * columns {
		if n%4 == 0 {
			bits = noise.Uint64()
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(bits&0x0FFF))
		bits >>= 16
	}
	return b
}

// ellipse is a region of one mean value; later ones lie over earlier ones.
type ellipse struct{ x, y, a, b, value int }

func phantom(rows, columns int, seed uint64) []ellipse {
	place := rand.New(rand.NewPCG(seed, 7))
	part := func(whole, percent int) int { return whole * percent / 100 }
	shift := func(whole int) int { return place.IntN(whole/50+1) - whole/100 }
	cx, cy := columns/2, rows/2
	all := []ellipse{
		{cx, cy, part(columns, 50), part(rows, 50), 40},                      // field of view: air
		{cx + shift(columns), cy, part(columns, 40), part(rows, 30), 960},    // fat
		{cx, cy + shift(rows), part(columns, 38), part(rows, 28), 1070},      // muscle
		{cx - part(columns, 18), cy, part(columns, 13), part(rows, 17), 160}, // lungs
		{cx + part(columns, 18), cy, part(columns, 13), part(rows, 17), 170},
		{cx, cy + part(rows, 20), part(columns, 6), part(rows, 6), 1500}, // spine
	}
	for range 12 { // vessels, nodules, ribs
		all = append(all, ellipse{
			cx + place.IntN(columns/2+1) - columns/4, cy + place.IntN(rows/3+1) - rows/6,
			2 + columns*place.IntN(3)/100, 2 + rows*place.IntN(3)/100, 1000 + place.IntN(900),
		})
	}
	return all
}

type span struct{ from, to, value int }

// slice cuts the ellipses with a row.
func slice(shapes []ellipse, y int) []span {
	var spans []span
	for _, s := range shapes {
		dy := y - s.y
		if s.a == 0 || s.b == 0 || dy*dy >= s.b*s.b {
			continue
		}
		half := s.a * root2(s.b*s.b-dy*dy) / s.b
		spans = append(spans, span{s.x - half, s.x + half, s.value})
	}
	return spans
}

// root2 is the integer square root.
func root2(n int) int {
	r := n
	for x := n/2 + 1; x < r; x = (x + n/x) / 2 {
		r = x
	}
	return r
}

// seed names the pixels of a frame of an instance.
func seed(uid string, frame int) uint64 {
	h := fnv.New64a()
	h.Write([]byte(uid)) //nolint:errcheck // a hash does not fail
	return h.Sum64() + uint64(frame)
}
