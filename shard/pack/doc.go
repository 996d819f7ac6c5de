// Package pack is the format of a pack: the instances of one series that arrived
// in one burst, compressed without loss, in chunks of about 1 MiB, with a
// manifest (instance records, headers, offsets, frame tables). It stands between
// staging, where the bytes wait, and shard/seal, which encrypts what it writes.
//
// It parses no DICOM: whoever adds an instance tells by [Samples] how its native
// pixel data lies. Those chunks are whole rows: samples are predicted from their
// neighbours (filter.go, predict.go; predict16.go for nearly all there is, and
// predict16_amd64.s for reading it), the residuals split into planes of equal
// significance, which are Huffman coded (huffman.go) or, where they repeat,
// compressed by zstd. Everything else is general bytes. What does not shrink is
// kept as it is.
//
// Invariants:
//   - Every chunk was decompressed and compared before it counts, every instance
//     was hashed while it was read: a manifest is only returned for packs that
//     restore their instances bit for bit.
//   - A chunk depends on nothing but its own bytes and its manifest line, so a
//     range read touches the chunks of the range only.
//   - Memory is bounded by chunks, never by instances or by a claimed length.
//
// A [Codec] is the shared part: pooled compressors and a bounded cache of
// decompressed chunks. It and the readers are safe for concurrent use; a
// [Writer] is for one goroutine. Nothing here has a clock, a disk or a goroutine
// of its own. The bytes are specified in docs/formats/pack.md.
package pack
