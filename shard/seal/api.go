// Package seal turns a pack's plaintext into the bytes that rest and travel:
// AES-256-GCM in segments of 16 KiB under a key of its own, and a hash tree
// over them (DESIGN §7, Keys and Integrity). It is pure.
package seal

import "io"

const (
	// SegmentBytes is the plaintext of a segment; Overhead what each grows by.
	SegmentBytes = 16 << 10
	Overhead     = 16
)

// Key is a 256-bit secret.
type Key [32]byte

// PackKey derives a pack's key: HKDF-SHA-256(study key, pack id).
func PackKey(study Key, pack [16]byte) Key { panic("seal") }

// Wrap seals a study key under an epoch key, bound to its key id; Unwrap opens.
func Wrap(epoch Key, id [16]byte, study Key) ([]byte, error)     { panic("seal") }
func Unwrap(epoch Key, id [16]byte, wrapped []byte) (Key, error) { panic("seal") }

// Size is the ciphertext's length for a plaintext's.
func Size(plaintext int64) int64 { panic("seal") }

// Writer encrypts to w segment by segment and hashes what it writes.
type Writer struct{}

// NewWriter begins a ciphertext.
func NewWriter(w io.Writer, key Key) *Writer { panic("seal") }

// Write takes plaintext.
func (w *Writer) Write(p []byte) (int, error) { panic("seal") }

// Close writes the last segment and returns the hash tree's root over the
// ciphertext and its length.
func (w *Writer) Close() (root [32]byte, size int64, err error) { panic("seal") }

// Reader returns the plaintext of a ciphertext of size bytes; every segment is
// authenticated before a byte of it leaves (fault.Corrupt). Safe for
// concurrent use; range reads decrypt only the segments they touch.
func Reader(ciphertext io.ReaderAt, size int64, key Key) io.ReaderAt { panic("seal") }
