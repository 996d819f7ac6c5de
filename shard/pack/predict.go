package pack

// Prediction turns samples into residuals: what a sample differs from a guess
// made of its neighbours, modulo 2^bits, so that it is exact for signed and
// unsigned alike.
//
// The neighbours are a, to the left; b, above; c, above to the left. Left of a
// row stands its b; above the first row of a chunk stand zeros.
//
// Two guesses: a+b-c, which continues the gradient and costs two additions, for
// it is the left neighbour's difference to the row above carried on; and MED, the
// median of a, b and a+b-c, better at edges and among noise.

// median is the MED predictor of JPEG-LS (ISO/IEC 14495-1, A.4.1).
func median(a, b, c int64) int64 {
	lo, hi := min(a, b), max(a, b)
	return max(lo, min(hi, a+b-c))
}

func medResidual[T sample](out, cur, prev []T) {
	n := len(cur)
	prev, out = prev[:n], out[:n]
	a := int64(prev[0])
	c := a
	for i, x := range cur {
		b := int64(prev[i])
		out[i] = x - T(median(a, b, c))
		a, c = int64(x), b
	}
}

func medRestore[T sample](cur, prev, residual []T) {
	n := len(cur)
	prev, residual = prev[:n], residual[:n]
	a := int64(prev[0])
	c := a
	for i := range cur {
		b := int64(prev[i])
		x := T(median(a, b, c)) + residual[i]
		cur[i] = x
		a, c = int64(x), b
	}
}

func gradientResidual[T sample](out, cur, prev []T) {
	n := len(cur)
	prev, out = prev[:n], out[:n]
	last := T(0) // the left neighbour's difference to the row above
	for i, x := range cur {
		d := x - prev[i]
		out[i] = d - last
		last = d
	}
}

func gradientRestore[T sample](cur, prev, residual []T) {
	n := len(cur)
	prev, residual = prev[:n], residual[:n]
	d := T(0)
	for i := range cur {
		d += residual[i]
		cur[i] = prev[i] + d
	}
}

// digitBias has the top bit of every digit but the highest: with it added, the
// bytes of a residual are its digits plus 128.
func digitBias(bytes int) uint32 { return 0x808080 & (1<<(8*bytes-1) - 1) }

// writeDigit writes the j-th digit of residuals: of a balanced number to the base
// 256, whose digits are -128 to 127. Small residuals of both signs so have a
// lowest digit that says all and zeros above.
func writeDigit[T sample](out []byte, residual []T, j int, bias uint32) {
	out = out[:len(residual)]
	for i, r := range residual {
		out[i] = byte(((uint32(r) + bias) ^ bias) >> (8 * j))
	}
}

// addDigit puts the j-th digit into residuals.
func addDigit[T sample](residual []T, in []byte, j int) {
	in = in[:len(residual)]
	for i, d := range in {
		residual[i] += T(uint32(int32(int8(d))) << (8 * j))
	}
}
