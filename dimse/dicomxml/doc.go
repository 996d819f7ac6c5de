// Package dicomxml writes and reads the Native DICOM Model (PS3.19 A.1), the XML
// form of a data set that QIDO-RS, WADO-RS metadata and STOW-RS offer beside
// JSON. What is written, what goes by reference, and how a reference names its
// value are as in [pelago/dimse/dicomjson], whose options, limits and bulk data
// paths it shares; paths name private attributes by the tag in the data set.
//
// One document holds one data set: several travel as parts of a multipart body.
//
// # Where XML is narrower than DICOM
//
//   - Characters that XML 1.0 cannot hold, not even as references (controls other
//     than tab, line feed and carriage return, U+FFFE, U+FFFF), become U+FFFD.
//     A carriage return is a reference, as parsers would make a line feed of it.
//   - A private attribute has 00 for its block in the tag and names its creator
//     (PS3.19 A.1.5). Where two blocks of a group have the same creator, or a block
//     has none, the tag stays whole.
//
// The package does no I/O of its own and keeps no state; everything read is
// bounded by [dicomjson.Limits]. Document type declarations are refused.
package dicomxml
