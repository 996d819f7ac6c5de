package pack

import "golang.org/x/sys/cpu"

// edge is how many bytes beside what it is given medJoinEight reads.
const edge = 16

// medJoinEights restores as many rows as it can, eight at a time, and returns how
// many bytes of dst they are. above has edge bytes before the row and behind it;
// hi has a byte more than the rows' digits, or is not used up.
//
// A sample waits for its left neighbour, but not for the rows below: a row is
// restored one sample behind the one above it, eight in the words of a register.
func medJoinEights(dst, lo, hi, above []byte, width int, turn uint16) int {
	if !cpu.X86.HasAVX2 || width%8 != 0 || width < 16 {
		return 0
	}
	size := 2 * width
	done := 0
	for ; done+8*size <= len(dst) && done/2+8*width < len(hi); done += 8 * size {
		if done > 0 {
			above = dst[done-size-edge : done+edge]
		}
		rows := dst[done : done+8*size]
		low, high := lo[done/2:done/2+8*width+1], hi[done/2:done/2+8*width+1]
		_ = above[edge+size+edge-1]
		var tail [128]byte
		medJoinEight(&rows[0], &low[0], &high[0], &above[edge], &tail, width, turn)
		for k := 1; k < 8; k++ {
			copy(rows[(k+1)*size-2*k:(k+1)*size], tail[16*k:])
		}
	}
	return done
}

// medJoinEight restores eight rows of width samples, a multiple of 8 from 16 on,
// but for the last k of row k, which are in tail, 16 bytes a row. turn is put on
// all samples. It reads one byte behind the digits, 14 before above and 16 behind.
//
//go:noescape
func medJoinEight(dst, lo, hi, above *byte, tail *[128]byte, width int, turn uint16)
