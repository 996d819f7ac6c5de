package pack

import (
	"bytes"
	"errors"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
	"pelago/cluster/fault"
)

// Effort chooses a filter: Best for the normal path, Fast when staging backs up.
type Effort uint8

// The efforts.
const (
	Best  Effort = iota // every chunk's best filter, zstd default
	Fast                // samples of 16 bits without a choice, zstd fastest
	Store               // no compression: encapsulated pixel data, deflated data sets
)

const (
	// window is zstd's: no chunk is larger.
	window = ChunkBytes
	// An eighth of a chunk, from its middle and within these limits, decides its
	// filter.
	minProbe = 8 << 10
	maxProbe = 32 << 10
)

// coder is the memory to compress and decompress one chunk at a time.
type coder struct {
	good, fast *zstd.Encoder // made when first used
	decoder    *zstd.Decoder
	filterer   filterer
	huffman    huffman
	in         []byte // an instance's bytes, or a chunk's compressed ones
	planes     []byte
	out        []byte // compressed
	back       []byte // decompressed again
}

func newCoder() (*coder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return nil, err
	}
	return &coder{decoder: d}, nil
}

// encoder returns the one for an effort.
func (c *coder) encoder(effort Effort) *zstd.Encoder {
	slot, level := &c.good, zstd.SpeedDefault
	if effort == Fast {
		slot, level = &c.fast, zstd.SpeedFastest
	}
	if *slot == nil {
		*slot = newEncoder(level, window)
	}
	return *slot
}

// newEncoder returns an encoder for inputs of about size bytes; larger ones are
// found to repeat less.
func newEncoder(level zstd.EncoderLevel, size int) *zstd.Encoder {
	size = max(zstd.MinWindowSize, min(window, 1<<bits.Len(uint(size))))
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithWindowSize(size),
		zstd.WithSingleSegment(true), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		panic("pack: zstd options: " + err.Error()) // constants, all valid
	}
	return e
}

// compress returns data's compressed form, valid until the next call, and the
// filter it took. With Store, or where nothing is won, it is data itself.
func (c *coder) compress(data []byte, s *Samples, effort Effort) ([]byte, byte) {
	if effort == Store {
		return data, filterStored
	}
	filter := byte(filterBytes)
	if s != nil {
		filter = c.choose(data, *s, effort)
	}
	if sampled(filter) {
		c.compressSamples(data, *s, filter, effort)
	} else {
		c.out = c.encoder(effort).EncodeAll(data, c.out[:0])
	}
	if len(c.out) >= len(data) {
		return data, filterStored
	}
	return c.out, filter
}

// compressSamples compresses the planes of residuals: each on its own by Huffman
// codes, or, where colours and drawings repeat, all in one zstd frame.
func (c *coder) compressSamples(data []byte, s Samples, filter byte, effort Effort) {
	c.planes = grow(c.planes, len(data))
	c.filterer.split(c.planes, data, s, filter)
	c.compressPlanes(s, repeats(filter), effort)
}

func (c *coder) compressPlanes(s Samples, repeats bool, effort Effort) {
	c.out = c.out[:0]
	if repeats {
		c.out = c.encoder(effort).EncodeAll(c.planes, c.out)
		return
	}
	plane := len(c.planes) / s.Bytes / s.Stride
	for at := 0; at < len(c.planes); at += plane {
		c.out = c.huffman.appendPlane(c.out, c.planes[at:at+plane])
	}
}

// choose picks a chunk's filter by trying them on a few rows of its middle. Each
// but the first, the fastest to read, must win something.
func (c *coder) choose(data []byte, s Samples, effort Effort) byte {
	if effort == Fast && s.direct() {
		return filterGradient
	}
	row := s.rowBytes()
	count := max(1, min(len(data), max(minProbe, min(maxProbe, len(data)/8)))/row)
	at := (len(data)/row - count) / 2 * row
	probe := data[at : at+count*row]

	filter := byte(filterGradient)
	c.compressSamples(probe, s, filter, Fast)
	least := len(c.out)

	med := byte(filterMED)
	if crossesZero(probe, s) {
		med = filterMEDSigned
	}
	c.compressSamples(probe, s, med, Fast)
	if len(c.out) < least-least/64 {
		filter, least = med, len(c.out)
	}

	c.compressPlanes(s, true, Fast)
	if len(c.out) < least-least/32 {
		filter, least = med+(filterMEDRepeats-filterMED), len(c.out)
	}
	c.out = c.encoder(Fast).EncodeAll(probe, c.out[:0])
	if len(c.out) < least-least/8 {
		filter = filterBytes
	}
	return filter
}

// crossesZero reports whether samples look like signed numbers around zero:
// prediction then works better with the top bit turned.
func crossesZero(data []byte, s Samples) bool {
	high := s.Bytes - 1 // the byte with the sign
	if s.BigEndian {
		high = 0
	}
	var quarters [4]int
	for i := high; i < len(data); i += s.Bytes {
		quarters[data[i]>>6]++
	}
	some := len(data) / s.Bytes / 64
	return s.Bytes > 1 && quarters[3] > some && quarters[0] > some && quarters[1]+quarters[2] < some
}

// errLength is a chunk that decompresses to another length than told.
var errLength = errors.New("wrong length")

// decompress restores a chunk into dst, of the chunk's length.
func (c *coder) decompress(dst, compressed []byte, filter byte, s *Samples) error {
	switch {
	case filter == filterStored:
		if copy(dst, compressed) != len(dst) || len(compressed) != len(dst) {
			return errLength
		}
		return nil
	case filter == filterBytes:
		return c.inflate(dst, compressed)
	}
	c.planes = grow(c.planes, len(dst)+1)[:len(dst)] // with room for medJoinEights
	if err := c.decompressPlanes(compressed, filter, *s); err != nil {
		return err
	}
	c.filterer.join(dst, c.planes, *s, filter)
	return nil
}

func (c *coder) decompressPlanes(compressed []byte, filter byte, s Samples) error {
	if repeats(filter) {
		return c.inflate(c.planes, compressed)
	}
	plane := len(c.planes) / s.Bytes / s.Stride
	for at := 0; at < len(c.planes); at += plane {
		var err error
		if compressed, err = c.huffman.readPlane(c.planes[at:at+plane], compressed); err != nil {
			return err
		}
	}
	if len(compressed) > 0 {
		return errLength
	}
	return nil
}

func (c *coder) inflate(dst, compressed []byte) error {
	out, err := c.decoder.DecodeAll(compressed, dst[:0:len(dst)])
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return errLength
	}
	return nil
}

// verify proves that a compressed chunk restores data.
func (c *coder) verify(data, compressed []byte, filter byte, s *Samples) error {
	if filter == filterStored {
		return nil
	}
	c.back = grow(c.back, len(data))
	if err := c.decompress(c.back, compressed, filter, s); err != nil {
		return fault.New(fault.Corrupt, "pack: a chunk does not decompress: %w", err)
	}
	if !bytes.Equal(c.back, data) {
		return fault.New(fault.Corrupt, "pack: a chunk decompresses to other bytes")
	}
	return nil
}

// read restores a checked chunk into data, of its length.
func (c *coder) read(data []byte, plaintext io.ReaderAt, chunk *Chunk) error {
	c.in = grow(c.in, int(chunk.Compressed))
	if err := readFull(plaintext, c.in, chunk.At); err != nil {
		return err
	}
	if err := c.decompress(data, c.in, chunk.Filter, &chunk.Samples); err != nil {
		return fault.New(fault.Corrupt, "pack: chunk at %d: %w", chunk.At, err)
	}
	return nil
}

// grow returns a slice of n bytes, b's memory if it suffices.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// readFull reads all of p; an end before it means bytes are lost.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if fault.KindOf(err) != fault.Other {
			return err
		}
		return fault.New(fault.Corrupt, "pack: bytes end at %d: %w", off+int64(n), io.ErrUnexpectedEOF)
	}
	return err
}
