package pack

// Prediction turns samples into residuals: what a sample differs from a guess
// made of its neighbours, modulo 2^bits, so that it is exact for signed and
// unsigned alike. A residual is folded (0, -1, 1, -2 … become 0, 1, 2, 3 …) so
// that small ones of both signs have zero high bytes.
//
// The neighbours are a, to the left; b, above; c, above to the left. Left of a
// row stands its b; above the first row of a chunk stand zeros.

// median is the MED predictor of JPEG-LS (ISO/IEC 14495-1, A.4.1): the median of
// a, b and a+b-c. median32 serves samples of up to 16 bits.
func median(a, b, c int64) int64 {
	lo, hi := min(a, b), max(a, b)
	return max(lo, min(hi, a+b-c))
}

func median32(a, b, c int32) int32 {
	lo, hi := min(a, b), max(a, b)
	return max(lo, min(hi, a+b-c))
}

func fold16(r uint16) uint16   { return r<<1 ^ uint16(int16(r)>>15) }
func unfold16(z uint16) uint16 { return z>>1 ^ -(z & 1) }

// foldAny and unfoldAny do the same for any width of bits.
func foldAny[T sample](r T, bits int) T { return r<<1 ^ -(r >> (bits - 1)) }

func unfoldAny[T sample](z T) T { return z>>1 ^ -(z & 1) }

// medResidual16 writes the low and high bytes of a row's folded residuals.
func medResidual16(lo, hi []byte, cur, prev []uint16) {
	n := len(cur)
	prev, lo, hi = prev[:n], lo[:n], hi[:n]
	a := int32(prev[0])
	c := a
	for i, x := range cur {
		b := int32(prev[i])
		z := fold16(x - uint16(median32(a, b, c)))
		lo[i], hi[i] = byte(z), byte(z>>8)
		a, c = int32(x), b
	}
}

// medRestore16 restores a row.
func medRestore16(cur, prev []uint16, lo, hi []byte) {
	n := len(cur)
	prev, lo, hi = prev[:n], lo[:n], hi[:n]
	a := int32(prev[0])
	c := a
	for i := range cur {
		b := int32(prev[i])
		x := uint16(median32(a, b, c)) + unfold16(uint16(lo[i])|uint16(hi[i])<<8)
		cur[i] = x
		a, c = int32(x), b
	}
}

// medRestorePair16 restores two rows at a time, the second one sample behind the
// first: a sample depends on its left neighbour, so one row alone leaves the
// processor waiting.
func medRestorePair16(first, second, prev []uint16, lo, hi []byte) {
	n := len(first)
	second, prev = second[:n], prev[:n]
	lo1, hi1, lo2, hi2 := lo[:n], hi[:n], lo[n:2*n], hi[n:2*n]
	c := int32(prev[0])
	x := prev[0] + unfold16(uint16(lo1[0])|uint16(hi1[0])<<8)
	first[0] = x
	a := int32(x) // first[i-1]
	aa := a       // first[i-2]
	s := a        // second[i-2]
	for i := 1; i < n; i++ {
		b := int32(prev[i])
		p := median32(a, b, c)
		q := median32(s, a, aa)
		y := uint16(q) + unfold16(uint16(lo2[i-1])|uint16(hi2[i-1])<<8)
		x := uint16(p) + unfold16(uint16(lo1[i])|uint16(hi1[i])<<8)
		first[i], second[i-1] = x, y
		aa, a, c, s = a, int32(x), b, int32(y)
	}
	second[n-1] = uint16(median32(s, a, aa)) + unfold16(uint16(lo2[n-1])|uint16(hi2[n-1])<<8)
}

// medResidual and medRestore are the same for any width, in whole samples.
func medResidual[T sample](out, cur, prev []T, bits int) {
	n := len(cur)
	prev, out = prev[:n], out[:n]
	a := int64(prev[0])
	c := a
	for i, x := range cur {
		b := int64(prev[i])
		out[i] = foldAny(x-T(median(a, b, c)), bits)
		a, c = int64(x), b
	}
}

func medRestore[T sample](cur, prev, folded []T) {
	n := len(cur)
	prev, folded = prev[:n], folded[:n]
	a := int64(prev[0])
	c := a
	for i := range cur {
		b := int64(prev[i])
		x := T(median(a, b, c)) + unfoldAny(folded[i])
		cur[i] = x
		a, c = int64(x), b
	}
}

// leftResidual16 and leftRestore16 predict a sample by its left neighbour alone.
func leftResidual16(lo, hi []byte, cur, prev []uint16) {
	n := len(cur)
	lo, hi = lo[:n], hi[:n]
	a := prev[0]
	for i, x := range cur {
		z := fold16(x - a)
		lo[i], hi[i] = byte(z), byte(z>>8)
		a = x
	}
}

func leftRestore16(cur, prev []uint16, lo, hi []byte) {
	n := len(cur)
	lo, hi = lo[:n], hi[:n]
	a := prev[0]
	for i := range cur {
		a += unfold16(uint16(lo[i]) | uint16(hi[i])<<8)
		cur[i] = a
	}
}

func leftResidual[T sample](out, cur, prev []T, bits int) {
	out = out[:len(cur)]
	a := prev[0]
	for i, x := range cur {
		out[i] = foldAny(x-a, bits)
		a = x
	}
}

func leftRestore[T sample](cur, prev, folded []T) {
	folded = folded[:len(cur)]
	a := prev[0]
	for i := range cur {
		a += unfoldAny(folded[i])
		cur[i] = a
	}
}
