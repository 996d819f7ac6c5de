package pack

import "encoding/binary"

// Samples of 16 bits in little endian are nearly all there is in a hospital, so
// their rows are predicted right between the instance's bytes and the planes,
// each touched once. The shape of these loops is for the compiler: a row goes by
// in groups of sixteen samples behind array pointers, whose constant indexes need
// no bounds checks, taken from slices of constant capacity, which cost least.

// sixteen and digits16 are the samples from the i-th of a row and their digits.
func sixteen(row []byte, i int) *[32]byte    { return (*[32]byte)(row[2*i : 2*i+32 : 2*i+32]) }
func digits16(plane []byte, i int) *[16]byte { return (*[16]byte)(plane[i : i+16 : i+16]) }
func at(row []byte, i int) uint16            { return binary.LittleEndian.Uint16(row[2*i:]) }
func setAt(row []byte, i int, x uint16)      { binary.LittleEndian.PutUint16(row[2*i:], x) }

// get and put are one sample of a group.
func get(b *[32]byte, i int) uint16    { return binary.LittleEndian.Uint16(b[2*i : 2*i+2]) }
func put(b *[32]byte, i int, x uint16) { binary.LittleEndian.PutUint16(b[2*i:2*i+2], x) }

// residual16 joins the digits of a residual; digits parts them, whatever is above
// its 16 bits.
func residual16(lo, hi byte) uint16 { return uint16(int16(int8(lo))) + uint16(hi)<<8 }
func digits(r uint32) (lo, hi byte) { return byte(r), byte((r + 0x80) >> 8) }

// gradientSplit16 writes the digits of a row's residuals; above is the row before.
func gradientSplit16(lo, hi, row, above []byte) {
	n := len(lo)
	last := uint32(0) // the left neighbour's difference to the row above
	i := 0
	for ; i+16 <= n; i += 16 {
		l, h, x, b := digits16(lo, i), digits16(hi, i), sixteen(row, i), sixteen(above, i)
		d0 := uint32(get(x, 0)) - uint32(get(b, 0))
		l[0], h[0] = digits(d0 - last)
		d1 := uint32(get(x, 1)) - uint32(get(b, 1))
		l[1], h[1] = digits(d1 - d0)
		d2 := uint32(get(x, 2)) - uint32(get(b, 2))
		l[2], h[2] = digits(d2 - d1)
		d3 := uint32(get(x, 3)) - uint32(get(b, 3))
		l[3], h[3] = digits(d3 - d2)
		d4 := uint32(get(x, 4)) - uint32(get(b, 4))
		l[4], h[4] = digits(d4 - d3)
		d5 := uint32(get(x, 5)) - uint32(get(b, 5))
		l[5], h[5] = digits(d5 - d4)
		d6 := uint32(get(x, 6)) - uint32(get(b, 6))
		l[6], h[6] = digits(d6 - d5)
		d7 := uint32(get(x, 7)) - uint32(get(b, 7))
		l[7], h[7] = digits(d7 - d6)
		d8 := uint32(get(x, 8)) - uint32(get(b, 8))
		l[8], h[8] = digits(d8 - d7)
		d9 := uint32(get(x, 9)) - uint32(get(b, 9))
		l[9], h[9] = digits(d9 - d8)
		d10 := uint32(get(x, 10)) - uint32(get(b, 10))
		l[10], h[10] = digits(d10 - d9)
		d11 := uint32(get(x, 11)) - uint32(get(b, 11))
		l[11], h[11] = digits(d11 - d10)
		d12 := uint32(get(x, 12)) - uint32(get(b, 12))
		l[12], h[12] = digits(d12 - d11)
		d13 := uint32(get(x, 13)) - uint32(get(b, 13))
		l[13], h[13] = digits(d13 - d12)
		d14 := uint32(get(x, 14)) - uint32(get(b, 14))
		l[14], h[14] = digits(d14 - d13)
		d15 := uint32(get(x, 15)) - uint32(get(b, 15))
		l[15], h[15] = digits(d15 - d14)
		last = d15
	}
	for ; i < n; i++ {
		d := uint32(at(row, i)) - uint32(at(above, i))
		lo[i], hi[i] = digits(d - last)
		last = d
	}
}

// gradientJoin16 restores a row.
func gradientJoin16(row, above, lo, hi []byte) {
	n := len(lo)
	d := uint16(0)
	i := 0
	for ; i+16 <= n; i += 16 {
		l, h, x, b := digits16(lo, i), digits16(hi, i), sixteen(row, i), sixteen(above, i)
		if binary.LittleEndian.Uint64(h[:8])|binary.LittleEndian.Uint64(h[8:]) != 0 {
			d = gradientJoinBoth(x, b, l, h, d)
			continue
		}
		// Nearly always the lowest digits say all.
		d += uint16(int16(int8(l[0])))
		put(x, 0, get(b, 0)+d)
		d += uint16(int16(int8(l[1])))
		put(x, 1, get(b, 1)+d)
		d += uint16(int16(int8(l[2])))
		put(x, 2, get(b, 2)+d)
		d += uint16(int16(int8(l[3])))
		put(x, 3, get(b, 3)+d)
		d += uint16(int16(int8(l[4])))
		put(x, 4, get(b, 4)+d)
		d += uint16(int16(int8(l[5])))
		put(x, 5, get(b, 5)+d)
		d += uint16(int16(int8(l[6])))
		put(x, 6, get(b, 6)+d)
		d += uint16(int16(int8(l[7])))
		put(x, 7, get(b, 7)+d)
		d += uint16(int16(int8(l[8])))
		put(x, 8, get(b, 8)+d)
		d += uint16(int16(int8(l[9])))
		put(x, 9, get(b, 9)+d)
		d += uint16(int16(int8(l[10])))
		put(x, 10, get(b, 10)+d)
		d += uint16(int16(int8(l[11])))
		put(x, 11, get(b, 11)+d)
		d += uint16(int16(int8(l[12])))
		put(x, 12, get(b, 12)+d)
		d += uint16(int16(int8(l[13])))
		put(x, 13, get(b, 13)+d)
		d += uint16(int16(int8(l[14])))
		put(x, 14, get(b, 14)+d)
		d += uint16(int16(int8(l[15])))
		put(x, 15, get(b, 15)+d)
	}
	for ; i < n; i++ {
		d += residual16(lo[i], hi[i])
		setAt(row, i, at(above, i)+d)
	}
}

// gradientJoinBoth restores a group of residuals of two digits after d, and
// returns the last difference to the row above.
//
//go:noinline
func gradientJoinBoth(x, b *[32]byte, l, h *[16]byte, d uint16) uint16 {
	for k := range l {
		d += residual16(l[k], h[k])
		put(x, k, get(b, k)+d)
	}
	return d
}

// sample16 is how the median compares samples: signed ones are those whose top
// bit the filter turns, which is the same order.
type sample16 interface{ int16 | uint16 }

// med is median for samples of 16 bits: above clamped between the left neighbour
// and what the gradient makes of it. It waits least for a, which comes last.
func med(a, b, c int32) int32 {
	t := b - c
	down := t & (t >> 31)
	up := t - down
	return max(a+down, min(b, a+up))
}

// medSplit16 writes the digits of a row's residuals.
func medSplit16[T sample16](lo, hi, row, above []byte) {
	n := len(lo)
	a := int32(T(at(above, 0)))
	c := a
	i := 0
	for ; i+16 <= n; i += 16 {
		a, c = medSplitSixteen[T](digits16(lo, i), digits16(hi, i), sixteen(row, i), sixteen(above, i), a, c)
	}
	for ; i < n; i++ {
		x, b := at(row, i), int32(T(at(above, i)))
		lo[i], hi[i] = digits(uint32(x) - uint32(med(a, b, c)))
		a, c = int32(T(x)), b
	}
}

// medSplitSixteen is sixteen steps of medSplit16, apart so that everything has a
// register.
//
//go:noinline
func medSplitSixteen[T sample16](lo, hi *[16]byte, row, above *[32]byte, a, c int32) (_, _ int32) {
	for k := range lo {
		x, b := get(row, k), int32(T(get(above, k)))
		lo[k], hi[k] = digits(uint32(x) - uint32(med(a, b, c)))
		a, c = int32(T(x)), b
	}
	return a, c
}

// residuals16 puts residuals where their samples will be.
func residuals16(row, lo, hi []byte) {
	n := len(lo)
	i := 0
	for ; i+16 <= n; i += 16 {
		l, h, x := digits16(lo, i), digits16(hi, i), sixteen(row, i)
		put(x, 0, residual16(l[0], h[0]))
		put(x, 1, residual16(l[1], h[1]))
		put(x, 2, residual16(l[2], h[2]))
		put(x, 3, residual16(l[3], h[3]))
		put(x, 4, residual16(l[4], h[4]))
		put(x, 5, residual16(l[5], h[5]))
		put(x, 6, residual16(l[6], h[6]))
		put(x, 7, residual16(l[7], h[7]))
		put(x, 8, residual16(l[8], h[8]))
		put(x, 9, residual16(l[9], h[9]))
		put(x, 10, residual16(l[10], h[10]))
		put(x, 11, residual16(l[11], h[11]))
		put(x, 12, residual16(l[12], h[12]))
		put(x, 13, residual16(l[13], h[13]))
		put(x, 14, residual16(l[14], h[14]))
		put(x, 15, residual16(l[15], h[15]))
	}
	for ; i < n; i++ {
		setAt(row, i, residual16(lo[i], hi[i]))
	}
}

// medJoin16 turns a row of residuals into samples.
func medJoin16[T sample16](row, above []byte) {
	a := int32(T(at(above, 0)))
	c := a
	for i := range len(row) / 2 {
		b := int32(T(at(above, i)))
		x := uint16(med(a, b, c)) + at(row, i)
		setAt(row, i, x)
		a, c = int32(T(x)), b
	}
}

// medJoinSixteen is sixteen steps of medJoinPair16, apart so that everything has a
// register.
//
//go:noinline
func medJoinSixteen[T sample16](first, second, above *[32]byte, a, aa, c, s int32) (_, _, _, _ int32) {
	_, _, _ = *first, *second, *above // not nil
	for k := 0; k < 16; k += 2 {
		// Two at a time take turns in the registers.
		b := int32(T(get(above, k)))
		y := uint16(med(s, a, aa)) + get(second, k)
		x := uint16(med(a, b, c)) + get(first, k)
		put(first, k, x)
		put(second, k, y)
		aa, s = int32(T(x)), int32(T(y))

		c = int32(T(get(above, k+1)))
		y = uint16(med(s, aa, a)) + get(second, k+1)
		x = uint16(med(aa, c, b)) + get(first, k+1)
		put(first, k+1, x)
		put(second, k+1, y)
		a, s = int32(T(x)), int32(T(y))
	}
	return a, aa, c, s
}

// medJoinPair16 turns two rows of residuals into samples, the second one sample
// behind the first: a sample waits for its left neighbour, so one row alone
// leaves the processor idle.
func medJoinPair16[T sample16](row1, row2, above []byte) {
	n := len(row1) / 2
	b0 := at(above, 0)
	x0 := b0 + at(row1, 0)
	setAt(row1, 0, x0)
	c := int32(T(b0)) // above, left
	a := int32(T(x0)) // first row, left
	aa := a           // and left of it
	s := a            // second row, two to the left
	i := 1
	for ; i+16 <= n; i += 16 {
		a, aa, c, s = medJoinSixteen[T](sixteen(row1, i), sixteen(row2, i-1), sixteen(above, i), a, aa, c, s)
	}
	for ; i < n; i++ {
		b := int32(T(at(above, i)))
		y := uint16(med(s, a, aa)) + at(row2, i-1)
		x := uint16(med(a, b, c)) + at(row1, i)
		setAt(row1, i, x)
		setAt(row2, i-1, y)
		aa, a, c, s = a, int32(T(x)), b, int32(T(y))
	}
	setAt(row2, n-1, uint16(med(s, a, aa))+at(row2, n-1))
}
