// Package stripetest makes stripes for the tests of what stands on shard/stripe.
// Tests only.
package stripetest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Random makes a ciphertext of random bytes, the same for a seed, and what the head of
// its stripe says before it is encoded. Of head it takes the code, the length of the
// plaintext and whatever else is given: without, the pack is one of its own in its
// first generation, of some node, a tenth of it its manifest.
func Random(seed [32]byte, head stripe.Head) (stripe.Head, []byte) {
	ciphertext := make([]byte, seal.Size(head.Plaintext))
	random := rand.NewChaCha8(seed)
	_, _ = random.Read(ciphertext) // never fails
	if head.Stripe.Pack == [16]byte{} {
		_, _ = random.Read(head.Stripe.Pack[:])
	}
	head.Stripe.Generation = max(1, head.Stripe.Generation)
	head.Size = int64(len(ciphertext))
	if head.Manifest == 0 {
		head.Manifest = head.Plaintext - head.Plaintext/10
	}
	if head.Origin == "" {
		head.Origin = strings.Repeat("o", 32)
	}
	return head, ciphertext
}

// Encode makes the stripe of a ciphertext: its head, with all roots, and its shards by
// index, as they rest and travel.
func Encode(t testing.TB, c *stripe.Coder, ciphertext io.ReaderAt, head stripe.Head) (*stripe.Head, [][]byte) {
	t.Helper()
	buffers := make([]bytes.Buffer, head.Code.N())
	to := make([]io.Writer, len(buffers))
	for i := range to {
		to[i] = &buffers[i]
	}
	full, err := c.Encode(t.Context(), ciphertext, head, to)
	if err != nil {
		t.Fatal(err)
	}
	shards := make([][]byte, len(buffers))
	for i := range shards {
		shards[i] = buffers[i].Bytes()
	}
	return full, shards
}
