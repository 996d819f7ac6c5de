// Package seal turns a pack's plaintext into the bytes that rest and travel,
// and back: AES-256-GCM in segments of 16 KiB under a key that serves one pack
// only, and a hash tree over the ciphertext whose root a seal can carry and
// whose nodes prove any range (DESIGN §7, Keys and Integrity). It stands between
// shard/pack, which makes the plaintext, and whatever keeps or sends bytes.
//
// Invariants:
//   - A nonce is the segment's number and a last-segment flag, so it never
//     repeats under one key; a key comes from a pack id that is never reused
//     ([PackKey]) and a [Writer] takes it for one ciphertext. Segments can
//     therefore neither be reordered, dropped, repeated nor cut off unnoticed.
//   - No plaintext leaves [Reader] before its segment is authenticated.
//   - The tree is over ciphertext: whoever holds no key can check and prove it.
//
// Everything is pure: no clock, no disk, no goroutine. A [Writer] serves one
// goroutine, a [Reader] any number. The bytes are specified in
// docs/formats/seal.md.
package seal
