// Package pack is the format of a pack: the instances of one series that
// arrived in one burst, compressed without loss, in chunks of about 1 MiB, with
// a manifest (instance records, headers, offsets, frame tables). It is pure and
// parses no DICOM: whoever adds an instance tells how its samples lie.
package pack

import "io"

// ID names a pack: 128 random bits, never reused.
type ID [16]byte

// Samples tells the compressor how native pixel data lies in an instance.
// The zero value means none: everything is general bytes.
type Samples struct {
	Offset    int64 // first byte of the pixel data in the stored data set
	Length    int64 // its bytes
	Width     int   // samples per row and plane: columns (× samples when interleaved)
	Bytes     int   // per sample: 1, 2 or 4
	Stride    int   // samples between neighbours of one colour: 1, or 3 for colour-by-pixel
	BigEndian bool
}

// Effort chooses a filter: Best for the normal path, Fast when staging backs up.
type Effort uint8

const (
	Best  Effort = iota // MED prediction, byte shuffle, zstd default
	Fast                // left prediction, byte shuffle, zstd fastest
	Store               // no compression: encapsulated pixel data, deflated data sets
)

// Entry is an instance's place in a pack.
type Entry struct {
	Record []byte   // the caller's instance record, opaque
	Bytes  int64    // of the data set
	Hash   [32]byte // BLAKE3 of the data set
	Chunks []Chunk
}

// Chunk is a run of an instance, compressed on its own so that a range reads
// few bytes.
type Chunk struct {
	Offset     int64 // in the instance
	Length     int64 // in the instance
	At         int64 // in the pack's plaintext
	Compressed int64
	Filter     byte
	Samples    Samples // zero for general bytes
}

// Manifest lists what a pack holds; AppendBinary gives its durable form.
type Manifest struct {
	ID      ID
	Bytes   int64 // of the plaintext
	Entries []Entry
}

// AppendBinary appends the durable form (versioned, compressed, checksummed).
func (m *Manifest) AppendBinary(b []byte) ([]byte, error) { panic("pack") }

// ParseManifest restores a manifest; everything is bounded and checked.
func ParseManifest(b []byte) (*Manifest, error) { panic("pack") }

// Writer writes one pack's plaintext.
type Writer struct{}

// NewWriter begins a pack on w.
func NewWriter(w io.Writer, id ID) *Writer { panic("pack") }

// Add compresses one instance of the given size. hash is its BLAKE3; Add
// verifies while it reads and, for every chunk, that decompression restores the
// bytes; a difference is fault.Corrupt and the pack is void.
func (w *Writer) Add(r io.ReaderAt, size int64, hash [32]byte, samples Samples, effort Effort, record []byte) error {
	panic("pack")
}

// Bytes is the plaintext written so far.
func (w *Writer) Bytes() int64 { panic("pack") }

// Close ends the pack and returns its manifest.
func (w *Writer) Close() (*Manifest, error) { panic("pack") }

// Instance is a reader over one entry; pack yields plaintext. It keeps the
// last few chunks decompressed. Safe for concurrent use.
func Instance(plaintext io.ReaderAt, e *Entry) io.ReaderAt { panic("pack") }
