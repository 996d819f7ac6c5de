// Package dicomjson writes and reads the DICOM JSON Model (PS3.18 Annex F).
//
// Writing serves WADO-RS metadata and QIDO-RS answers, series of hundreds of
// instances at a time, and therefore appends bytes without reflection: see
// [AppendDataset], [Write] and, for an array of data sets, [Array]. Reading
// serves STOW-RS metadata: [Parse].
//
// # What is written
//
//   - UTF-8, with (0008,0005) as ISO_IR 192 where the data set has one; attributes
//     in tag order, one of each tag. Group 0002, group lengths and the trailing
//     padding (FFFC,FFFC) are left out: they belong to the encoding.
//   - Empty attributes have no Value; an empty one among several values is null.
//   - IS and DS are numbers, in the digits they came in; what is no number stays a
//     string, so that nothing of a broken value is lost. SV and UV beyond 2^53 are
//     strings, as JavaScript would round them. FL and FD that are no finite number
//     are the strings NaN, inf and -inf (PS3.18 F.2.3).
//   - Pixel data, values that a header has cut out, and values of bulk VRs or UN
//     over 1 KiB go by reference; other values of those VRs are InlineBinary.
//     Binary values are little endian whatever the transfer syntax
//     ([AppendLittleEndian]).
//   - An attribute of unknown or invalid VR is UN.
//
// # Bulk data paths
//
// A value that goes by reference is named by its path in the data set: its tag
// as eight hexadecimal digits, or for a value in a sequence the sequence's tag,
// the number of the item from 1, and so on: 00880200/1/7FE00010. [Resolve] finds
// it again.
//
// The package does no I/O of its own and keeps no state; everything read is
// bounded by [Limits].
package dicomjson
