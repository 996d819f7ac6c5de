package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"pelago/cluster/fault"
)

// ID names a pack: 128 random bits, never reused.
type ID [16]byte

// Entry is an instance's place in a pack.
type Entry struct {
	Record []byte   // the caller's instance record, opaque
	Bytes  int64    // of the data set
	Hash   [32]byte // BLAKE3 of the data set
	Chunks []Chunk
}

// Manifest lists what a pack holds; AppendBinary gives its durable form.
type Manifest struct {
	ID      ID
	Bytes   int64 // of the plaintext
	Entries []Entry
}

const (
	magic        = "PelPack\x01" // the last byte is the version
	lengthBytes  = 4
	checksum     = 32
	minManifest  = len(magic) + lengthBytes + checksum
	maxBody      = 256 << 20 // a 64 MiB pack of tiny instances with records of 3 KB stays below
	maxRecord    = 16 << 20
	maxEntries   = 1 << 20
	maxChunks    = 1 << 22 // of a pack: 4 TiB
	maxPackBytes = 1 << 50

	// smallBody is worth no large tables: there are many tiny packs.
	smallBody = 16 << 10

	// What an entry and a chunk take at most beside the record.
	entryOverhead = 160
	chunkOverhead = 16
	// What they take at least: a claimed count is checked against the bytes left.
	minEntry = 1 + 1 + 32 + 1 + 1 + 1
	minChunk = 3
)

// Flags of an entry.
const (
	hasSamples = 1 << iota
	isBigEndian
)

// AppendBinary appends the durable form (versioned, compressed, checksummed).
// fault.Invalid if it would exceed what ParseManifest takes.
func (m *Manifest) AppendBinary(b []byte) ([]byte, error) {
	body := m.appendBody(nil)
	if len(body) > maxBody || len(m.Entries) > maxEntries {
		return nil, fault.New(fault.Invalid, "pack: a manifest of %d entries in %d bytes", len(m.Entries), len(body))
	}
	start := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	level := zstd.SpeedDefault
	if len(body) < smallBody {
		level = zstd.SpeedFastest
	}
	b = newEncoder(level, len(body)).EncodeAll(body, b)
	sum := blake3.Sum256(b[start:])
	return append(b, sum[:]...), nil
}

func (m *Manifest) appendBody(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = binary.AppendUvarint(b, uint64(m.Bytes))
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for i := range m.Entries {
		b = m.Entries[i].append(b)
	}
	return b
}

func (e *Entry) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.Record)))
	b = append(b, e.Record...)
	b = binary.AppendUvarint(b, uint64(e.Bytes))
	b = append(b, e.Hash[:]...)
	b = e.samples().append(b)
	first := int64(0)
	if len(e.Chunks) > 0 {
		first = e.Chunks[0].Offset
	}
	b = binary.AppendUvarint(b, uint64(first))
	b = binary.AppendUvarint(b, uint64(len(e.Chunks)))
	for _, c := range e.Chunks {
		b = append(b, c.Filter)
		b = binary.AppendUvarint(b, uint64(c.Length))
		b = binary.AppendUvarint(b, uint64(c.Compressed))
	}
	return b
}

// samples are those of the entry's sampled chunks, which share them.
func (e *Entry) samples() Samples {
	for i := range e.Chunks {
		if sampled(e.Chunks[i].Filter) {
			return e.Chunks[i].Samples
		}
	}
	return Samples{}
}

func (s Samples) append(b []byte) []byte {
	if s == (Samples{}) {
		return append(b, 0)
	}
	flags := byte(hasSamples)
	if s.BigEndian {
		flags |= isBigEndian
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(s.Offset))
	b = binary.AppendUvarint(b, uint64(s.Length))
	b = binary.AppendUvarint(b, uint64(s.Width))
	return append(b, byte(s.Bytes), byte(s.Stride))
}

// ParseManifest restores a manifest; everything is bounded and checked.
// fault.Corrupt for bytes that no AppendBinary made, fault.Unsupported for a
// newer version. It keeps nothing of b.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) < minManifest || string(b[:len(magic)-1]) != magic[:len(magic)-1] {
		return nil, fault.New(fault.Corrupt, "pack: not a manifest")
	}
	if b[len(magic)-1] != magic[len(magic)-1] {
		return nil, fault.New(fault.Unsupported, "pack: manifest of version %d", b[len(magic)-1])
	}
	end := len(b) - checksum
	if blake3.Sum256(b[:end]) != [32]byte(b[end:]) {
		return nil, fault.New(fault.Corrupt, "pack: a manifest does not match its checksum")
	}
	body, err := inflateBody(b[len(magic)+lengthBytes:end], binary.BigEndian.Uint32(b[len(magic):]))
	if err != nil {
		return nil, fault.New(fault.Corrupt, "pack: manifest: %w", err)
	}
	p := parser{b: body}
	m := p.manifest()
	if p.err == nil && len(p.b) > 0 {
		p.fail("bytes after the end")
	}
	if p.err != nil {
		return nil, fault.New(fault.Corrupt, "pack: manifest: %w", p.err)
	}
	return m, nil
}

// inflateBody decompresses as a stream, so that memory follows the bytes that
// are really there.
func inflateBody(compressed []byte, length uint32) ([]byte, error) {
	if length > maxBody {
		return nil, errLength
	}
	d, err := zstd.NewReader(bytes.NewReader(compressed), zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxBody), zstd.WithDecoderMaxMemory(maxBody))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	body, err := io.ReadAll(io.LimitReader(d, int64(length)+1))
	if err != nil {
		return nil, err
	}
	if len(body) != int(length) {
		return nil, errLength
	}
	return body, nil
}

// parser reads a manifest's body. After a failure it yields zeros.
type parser struct {
	b      []byte
	err    error
	chunks int
	at     int64 // in the pack's plaintext
}

func (p *parser) fail(text string) {
	if p.err == nil {
		p.err = errors.New(text)
	}
	p.b = nil
}

// number reads a uvarint of at most limit.
func (p *parser) number(limit int64) int64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || v > uint64(limit) {
		p.fail("number out of range")
		return 0
	}
	p.b = p.b[n:]
	return int64(v)
}

// take returns the next n bytes.
func (p *parser) take(n int64) []byte {
	if n > int64(len(p.b)) {
		p.fail("cut off")
		return nil
	}
	b := p.b[:n:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) manifest() *Manifest {
	m := &Manifest{}
	copy(m.ID[:], p.take(int64(len(m.ID))))
	m.Bytes = p.number(maxPackBytes)
	count := p.number(maxEntries)
	if count > int64(len(p.b)/minEntry) {
		p.fail("more entries than bytes")
		return m
	}
	m.Entries = make([]Entry, 0, count)
	for range count {
		if m.Entries = append(m.Entries, p.entry()); p.err != nil {
			return m
		}
	}
	if p.at != m.Bytes {
		p.fail("chunks and pack differ in length")
	}
	return m
}

func (p *parser) entry() Entry {
	var e Entry
	e.Record = p.take(p.number(maxRecord))
	e.Bytes = p.number(maxPackBytes)
	copy(e.Hash[:], p.take(int64(len(e.Hash))))
	s := p.samples(e.Bytes)
	offset := p.number(e.Bytes)
	count := p.number(maxChunks - int64(p.chunks))
	if count > int64(len(p.b)/minChunk) {
		p.fail("more chunks than bytes")
		return e
	}
	p.chunks += int(count)
	e.Chunks = make([]Chunk, 0, count)
	for range count {
		c := Chunk{Offset: offset, At: p.at, Filter: p.byte(), Length: p.number(ChunkBytes), Compressed: p.number(ChunkBytes)}
		if sampled(c.Filter) {
			c.Samples = s
		}
		if p.err == nil && c.check() != nil {
			p.fail("impossible chunk")
		}
		if p.err != nil {
			return e
		}
		offset, p.at = offset+c.Length, p.at+c.Compressed
		e.Chunks = append(e.Chunks, c)
	}
	if offset > e.Bytes {
		p.fail("chunks exceed their instance")
	}
	return e
}

func (p *parser) samples(size int64) Samples {
	flags := p.byte()
	if flags == 0 {
		return Samples{}
	}
	s := Samples{Offset: p.number(size), Length: p.number(size), Width: int(p.number(maxRowBytes)),
		Bytes: int(p.byte()), Stride: int(p.byte()), BigEndian: flags&isBigEndian != 0}
	if flags&hasSamples == 0 || flags&^(hasSamples|isBigEndian) != 0 || !s.usable(size) {
		p.fail("impossible samples")
	}
	return s
}
