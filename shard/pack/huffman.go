package pack

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/klauspost/compress/huff0"
)

// Planes of residuals hardly repeat: what there is to win is in how often each
// value occurs, and in the stretches of zeros of calm regions and high digits.
// So zeros are left out by groups and the rest is Huffman coded, which is several
// times as fast as searching for repetitions that are not there.

const (
	// blockBytes have a Huffman code of their own: enough to outweigh its
	// description, few enough to follow the image.
	blockBytes = 64 << 10
	// groupBytes are left out together when all are zero.
	groupBytes = 8

	planeDense  = 0 // a plane's bytes follow, in blocks
	planeSparse = 1 // which groups are there, then their bytes, in blocks

	blockRaw     = 0 // the bytes
	blockSame    = 1 // one byte, repeated
	blockHuffman = 2 // RFC 8878, 4.2.1 and four streams with a jump table
	blockHeader  = 3 // bytes: the kind in the low two bits, the length above
)

// huffman codes planes. Not for concurrent use.
type huffman struct {
	encode, decode huff0.Scratch
	mask           []byte
	groups         []byte
}

var errPlane = errors.New("malformed plane")

// appendPlane appends a plane's coded form to dst.
func (h *huffman) appendPlane(dst, plane []byte) []byte {
	count := (len(plane) + groupBytes - 1) / groupBytes
	// Leaving out a few groups would only cost time when reading.
	there := h.mark(plane)
	if there >= count-count/32 {
		return h.appendBlocks(append(dst, planeDense), plane)
	}
	h.gather(plane, there)
	return h.appendBlocks(h.appendBlocks(append(dst, planeSparse), h.mask), h.groups)
}

// mark sets the mask's bits, from the lowest of each byte, of a plane's groups
// that are not zero, and returns how many there are.
func (h *huffman) mark(plane []byte) int {
	h.mask = grow(h.mask, (len(plane)+8*groupBytes-1)/(8*groupBytes))
	there := 0
	for i := range h.mask {
		var last [8 * groupBytes]byte
		eight := &last
		if at := i * len(last); at+len(last) <= len(plane) {
			eight = (*[8 * groupBytes]byte)(plane[at:])
		} else {
			copy(last[:], plane[at:])
		}
		m := nonZero(eight, 0) | nonZero(eight, 1) | nonZero(eight, 2) | nonZero(eight, 3) |
			nonZero(eight, 4) | nonZero(eight, 5) | nonZero(eight, 6) | nonZero(eight, 7)
		h.mask[i] = byte(m)
		there += bits.OnesCount8(byte(m))
	}
	return there
}

// nonZero is the mask bit of a group; a branch would often be mispredicted.
func nonZero(eight *[8 * groupBytes]byte, j int) uint64 {
	g := binary.LittleEndian.Uint64(eight[groupBytes*j : groupBytes*j+groupBytes])
	return (g | -g) >> 63 << j
}

// gather collects the groups that are there; the last is filled up with zeros.
func (h *huffman) gather(plane []byte, there int) {
	h.groups = grow(h.groups, there*groupBytes)
	rest := h.groups
	for i, m := range h.mask {
		at := i * 8 * groupBytes
		for ; m != 0; m &= m - 1 {
			from := at + bits.TrailingZeros8(m)*groupBytes
			if from+groupBytes <= len(plane) {
				binary.LittleEndian.PutUint64(rest, binary.LittleEndian.Uint64(plane[from:]))
			} else {
				clear(rest[copy(rest, plane[from:]):])
			}
			rest = rest[groupBytes:]
		}
	}
}

// appendBlocks appends the coded forms of the blocks of b.
func (h *huffman) appendBlocks(dst, b []byte) []byte {
	for len(b) > 0 {
		block := b[:min(blockBytes, len(b))]
		b = b[len(block):]
		h.encode.Reuse = huff0.ReusePolicyNone
		out, _, err := huff0.Compress4X(block, &h.encode)
		kind := blockHuffman
		switch {
		case errors.Is(err, huff0.ErrUseRLE):
			kind, out = blockSame, block[:1]
		case err != nil: // not compressible
			kind, out = blockRaw, block
		}
		header := kind | len(out)<<2
		dst = append(dst, byte(header), byte(header>>8), byte(header>>16))
		dst = append(dst, out...)
	}
	return dst
}

// readPlane fills plane from its coded form at the start of in and returns what
// follows.
func (h *huffman) readPlane(plane, in []byte) ([]byte, error) {
	if len(in) == 0 {
		return nil, errPlane
	}
	form, in := in[0], in[1:]
	switch form {
	case planeDense:
		return h.readBlocks(plane, in)
	case planeSparse:
	default:
		return nil, errPlane
	}
	count := (len(plane) + groupBytes - 1) / groupBytes
	h.mask = grow(h.mask, (count+7)/8)
	in, err := h.readBlocks(h.mask, in)
	if err != nil {
		return nil, err
	}
	there := 0
	for _, m := range h.mask {
		there += bits.OnesCount8(m)
	}
	if count%8 != 0 && h.mask[count/8]>>(count%8) != 0 {
		return nil, errPlane // groups behind the end
	}
	h.groups = grow(h.groups, (there+1)*groupBytes) // fill reads one more
	if in, err = h.readBlocks(h.groups[:there*groupBytes], in); err != nil {
		return nil, err
	}
	h.fill(plane)
	return in, nil
}

// fill is the reverse of gather; groups holds one more than it takes.
func (h *huffman) fill(plane []byte) {
	whole := len(plane) / (8 * groupBytes)
	n := expand(plane[:whole*8*groupBytes], h.mask[:whole], h.groups)
	if whole == len(h.mask) {
		return
	}
	rest := plane[whole*8*groupBytes:]
	clear(rest)
	for m := h.mask[whole]; m != 0; m &= m - 1 {
		copy(rest[bits.TrailingZeros8(m)*groupBytes:], h.groups[n:n+groupBytes])
		n += groupBytes
	}
}

// expandPlain is expand of any machine. Where zeros lie is as hard to foresee as
// the image, so there is no branch on a single group: the next one is read in any
// case, and taken by its bit.
func expandPlain(plane, mask, groups []byte) int {
	at := 0 // of the next group
	for i, m := range mask {
		eight := (*[8 * groupBytes]byte)(plane[i*8*groupBytes:])
		switch m {
		case 0:
			*eight = [8 * groupBytes]byte{}
			continue
		case 0xff:
			*eight = [8 * groupBytes]byte(groups[at:])
			at += len(eight)
			continue
		}
		for j := range 8 {
			there := uint64(m>>j) & 1
			binary.LittleEndian.PutUint64(eight[groupBytes*j:], binary.LittleEndian.Uint64(groups[at:])&-there)
			at += groupBytes * int(there)
		}
	}
	return at
}

// readBlocks fills dst from blocks at the start of in and returns what follows.
func (h *huffman) readBlocks(dst, in []byte) ([]byte, error) {
	for len(dst) > 0 {
		block := dst[:min(blockBytes, len(dst)):min(blockBytes, len(dst))]
		dst = dst[len(block):]
		if len(in) < blockHeader {
			return nil, errPlane
		}
		header := int(in[0]) | int(in[1])<<8 | int(in[2])<<16
		size := header >> 2
		in = in[blockHeader:]
		if size > len(in) {
			return nil, errPlane
		}
		coded := in[:size]
		in = in[size:]
		switch kind := header & 3; {
		case kind == blockRaw && size == len(block):
			copy(block, coded)
		case kind == blockSame && size == 1:
			for i := range block {
				block[i] = coded[0]
			}
		case kind == blockHuffman:
			if err := h.readHuffman(block, coded); err != nil {
				return nil, err
			}
		default:
			return nil, errPlane
		}
	}
	return in, nil
}

func (h *huffman) readHuffman(block, coded []byte) error {
	_, coded, err := huff0.ReadTable(coded, &h.decode)
	if err != nil {
		return err
	}
	out, err := h.decode.Decoder().Decompress4X(block[:0], coded)
	if err != nil {
		return err
	}
	if len(out) != len(block) {
		return errPlane
	}
	return nil
}
