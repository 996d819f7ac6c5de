// Package shard is the vocabulary of how packs are spread over sites (DESIGN §7):
// codes, stripes, and which bytes of a pack's ciphertext are in which shard. It
// is pure, and its sub-packages are the steps.
//
// # Columns
//
// A stripe is a pack's ciphertext under a systematic code of k data and m parity
// shards. Its leaves ([LeafBytes], a sealed segment each) are cut into k runs that
// follow each other, the columns, none longer by more than one leaf than another.
// Data shard i is column i; so a frame lies in one shard, or at a border in two.
// Leaf j of a parity shard is made from leaf j of every column, where zeros stand
// for what a column lacks; no shard stores such zeros but a parity shard, which
// is as long as the longest column.
//
// What a stripe is made of never changes under its name: another code for the
// same pack is another generation.
package shard
