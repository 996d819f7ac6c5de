package web

import (
	"image"
	"image/color"
	"math"
)

// apply cuts the region out and scales it into the viewport, keeping the aspect
// ratio (PS3.18 §8.3.5.1.3).
func (v viewport) apply(src image.Image) image.Image {
	box := src.Bounds()
	w, h := float64(box.Dx()), float64(box.Dy())
	x, y := min(v.x, w-1), min(v.y, h-1)
	sw, sh := v.sw, v.sh
	if sw == 0 || sw > w-x {
		sw = w - x
	}
	if sh == 0 || sh > h-y {
		sh = h - y
	}
	if v.width == 0 {
		return src
	}
	scale := min(float64(v.width)/sw, float64(v.height)/sh)
	width, height := max(1, int(math.Round(sw*scale))), max(1, int(math.Round(sh*scale)))
	if width == box.Dx() && height == box.Dy() && !v.flipH && !v.flipV && sw == w && sh == h {
		return src
	}
	pick := func(i, n int, flip bool) int {
		if flip {
			return n - 1 - i
		}
		return i
	}
	columns := spans(x, sw, width, box.Dx())
	rows := spans(y, sh, height, box.Dy())
	if gray, ok := src.(*image.Gray); ok {
		out := image.NewGray(image.Rect(0, 0, width, height))
		for j := range height {
			for i := range width {
				r, c := rows[pick(j, height, v.flipV)], columns[pick(i, width, v.flipH)]
				out.SetGray(i, j, color.Gray{Y: mean(r, c, func(x, y int) uint8 { return gray.Pix[y*gray.Stride+x] })})
			}
		}
		return out
	}
	rgba, ok := src.(*image.RGBA)
	if !ok {
		return src
	}
	out := image.NewRGBA(image.Rect(0, 0, width, height))
	for j := range height {
		for i := range width {
			r, c := rows[pick(j, height, v.flipV)], columns[pick(i, width, v.flipH)]
			for k := range 3 {
				out.Pix[j*out.Stride+4*i+k] = mean(r, c, func(x, y int) uint8 { return rgba.Pix[y*rgba.Stride+4*x+k] })
			}
			out.Pix[j*out.Stride+4*i+3] = 255
		}
	}
	return out
}

// span is the pixels [from, to) of a side that one pixel of the answer covers.
type span struct{ from, to int }

// spans divides length pixels from start into n; growing repeats pixels.
func spans(start, length float64, n, limit int) []span {
	out := make([]span, n)
	for i := range out {
		from := int(start + length*float64(i)/float64(n))
		to := int(math.Ceil(start + length*float64(i+1)/float64(n) - 1e-9))
		from = min(max(from, 0), limit-1)
		out[i] = span{from, min(max(to, from+1), limit)}
		if length <= float64(n) {
			out[i].to = from + 1
		}
	}
	return out
}

// mean averages the pixels of a box.
func mean(rows, columns span, at func(x, y int) uint8) uint8 {
	sum, n := 0, 0
	for y := rows.from; y < rows.to; y++ {
		for x := columns.from; x < columns.to; x++ {
			sum += int(at(x, y))
			n++
		}
	}
	return uint8((sum + n/2) / n)
}
