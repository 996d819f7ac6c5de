// Package codec decodes frames of pixel data to plain samples: little endian,
// colour by pixel, one sample after the other in Bits Allocated bits. It covers
// the encodings that need nothing but Go: uncompressed, RLE Lossless
// (PS3.5 Annex G) and JPEG Lossless (ISO/IEC 10918-1, process 14). It is pure;
// frames come from outside, so every size is checked against the image's own
// attributes before anything is allocated.
package codec
