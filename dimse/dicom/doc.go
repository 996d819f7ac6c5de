// Package dicom reads and writes DICOM data sets (PS3.5) without ever losing
// a byte of them: what was received stays as it came, and elements are an index
// over it by offset. Everything is bounded by [Limits]; nothing is allocated by
// a length that a peer claims.
//
// # Reading
//
// [ReadHeader] pulls one data set from a stream and keeps all of it but the
// bulk values, which it cuts out and describes. What it keeps is indexed by the
// same grammar (grammar.go) that [ParseHeader] uses later on the stored form
// and [ParseDataset] on bytes in memory, so that an element means the same
// wherever it is met. A data set that cannot be delimited is refused; anything
// else that real files hold is read.
//
// # Writing
//
// [Dataset.Encode] writes what was built, [Header.Convert] and
// [Header.Canonical] rewrite what was received, in bounded memory.
//
// # Text
//
// [Charset] decodes and encodes by Specific Character Set (0008,0005), code
// extensions included. Values are decoded first and split on backslash second.
//
// # Concurrency
//
// Nothing here starts a goroutine. A [Header], [Dataset] or [Charset] that
// nobody changes may be read by many.
package dicom
