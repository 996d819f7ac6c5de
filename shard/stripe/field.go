package stripe

import "slices"

// The field GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, and the matrix of
// the code, written down once more than the library has them: the matrix is part of
// the format and must not change with a version of it, and what vector instructions
// computed is compared with this. It is slow, and for single bytes.

// product is a times b.
func product(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a & 0x80
		a <<= 1
		if carry != 0 {
			a ^= 0x1d
		}
	}
	return p
}

// inverse is 1/a, which is a^254; a is not 0.
func inverse(a byte) byte {
	out := byte(1)
	for range 7 { // 254 is 7 bits of 1, and a 0
		a = product(a, a)
		out = product(out, a)
	}
	return out
}

// generatorRow is how shard index comes from the k columns: column index itself, or
// a row of Cauchy's matrix, every square part of which can be inverted, so that any
// k shards are enough.
func generatorRow(k, index int) []byte {
	row := make([]byte, k)
	if index < k {
		row[index] = 1
		return row
	}
	for column := range row {
		row[column] = inverse(byte(index ^ column))
	}
	return row
}

// solve returns how each wanted shard comes from k others: a row for each of want,
// a factor in it for each of from.
func solve(k int, from, want []int) [][]byte {
	columns := invert(k, from)
	rows := make([][]byte, len(want))
	for i, index := range want {
		rows[i] = make([]byte, k)
		for column, factor := range generatorRow(k, index) {
			for j := range rows[i] {
				rows[i][j] ^= product(factor, columns[column][j])
			}
		}
	}
	return rows
}

// invert returns how each column comes from the shards of these indexes, k of them
// and all different (Gauss and Jordan).
func invert(k int, from []int) [][]byte {
	rows := make([][]byte, k) // the shards' rows, and the unit matrix on their right
	for i, index := range from {
		rows[i] = append(generatorRow(k, index), make([]byte, k)...)
		rows[i][k+i] = 1
	}
	for column := range k {
		pivot := slices.IndexFunc(rows[column:], func(row []byte) bool { return row[column] != 0 })
		if pivot < 0 {
			panic("stripe: a shard twice among those that a column is made from")
		}
		rows[column], rows[column+pivot] = rows[column+pivot], rows[column]
		scale := inverse(rows[column][column])
		for j := range rows[column] {
			rows[column][j] = product(rows[column][j], scale)
		}
		for i, row := range rows {
			if factor := row[column]; i != column && factor != 0 {
				for j := range row {
					row[j] ^= product(factor, rows[column][j])
				}
			}
		}
	}
	for i := range rows {
		rows[i] = rows[i][k:]
	}
	return rows
}
