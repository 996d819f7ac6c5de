// Package pdu encodes and decodes the protocol data units of the DICOM upper
// layer (PS3.8 §9.3) and their user information items (PS3.8 Annex D, PS3.7
// Annex D.3.3). It is pure: bytes in, values out.
//
// P-DATA-TF is not decoded whole: its presentation data values may be as large
// as the receiver allows, so that [ParseDataHeader] and [AppendDataHeader] give
// only the heads and dimse/assoc streams what lies between.
//
// Decoding is bounded by the constants of limits.go, passes over item types
// that it does not know (PS3.8 §9.3.1), and refuses with fault.Invalid whatever
// cannot be delimited. Nothing is allocated by a claimed length: what is decoded is
// at most as large as a small multiple of the bytes that came.
package pdu
