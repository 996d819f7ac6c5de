package stripe

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// stripe is one that was encoded, with all that its shards are made of.
type stripe struct {
	ciphertext []byte
	head       *Head
	g          shard.Geometry
	shards     [][]byte
}

func sealed(t testing.TB, plaintext int, seed byte) (ciphertext []byte, root [32]byte) {
	t.Helper()
	plain := make([]byte, plaintext)
	rand.NewChaCha8([32]byte{seed}).Read(plain)
	var key seal.Key
	key[0] = seed
	var out bytes.Buffer
	w := seal.NewWriter(&out, key)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	root, _, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), root
}

func plan(code shard.Code, plaintext, manifest int, root [32]byte) Head {
	return Head{
		Stripe: shard.Stripe{Pack: [16]byte{1, 2, 3}, Generation: 1}, Code: code,
		Size: seal.Size(int64(plaintext)), Plaintext: int64(plaintext), Manifest: int64(manifest),
		Key: [16]byte{7, 7}, Origin: "abcdefghijklmnopqrstuvwxyz234567", Pack: root,
	}
}

func newStripe(t testing.TB, c *Coder, code shard.Code, plaintext, manifest int, seed byte) *stripe {
	t.Helper()
	ciphertext, root := sealed(t, plaintext, seed)
	return encoded(t, c, ciphertext, plan(code, plaintext, manifest, root))
}

func encoded(t testing.TB, c *Coder, ciphertext []byte, head Head) *stripe {
	t.Helper()
	out := make([]bytes.Buffer, head.Code.N())
	to := make([]io.Writer, len(out))
	for i := range out {
		to[i] = &out[i]
	}
	full, err := c.Encode(t.Context(), bytes.NewReader(ciphertext), head, to)
	if err != nil {
		t.Fatalf("%v of %d: %v", head.Code, head.Size, err)
	}
	g, err := full.Geometry()
	if err != nil {
		t.Fatal(err)
	}
	s := &stripe{ciphertext: ciphertext, head: full, g: g}
	for i := range out {
		s.shards = append(s.shards, out[i].Bytes())
	}
	return s
}

func (s *stripe) String() string { return fmt.Sprintf("%v of %d", s.g.Code, s.g.Size) }

func (s *stripe) form(i int) form { return s.head.form(i) }

func (s *stripe) body(i int) []byte { return s.shards[i][s.form(i).body:s.form(i).tail] }

// leaves are some of a body's, as far as it has them.
func (s *stripe) leaves(i int, first, count int64) []byte {
	b := s.body(i)
	b = b[min(int64(len(b)), first*seal.LeafBytes):]
	return b[:min(int64(len(b)), count*seal.LeafBytes)]
}

// have are leaves of some shards.
func (s *stripe) have(indexes []int, first, count int64) map[int][]byte {
	out := make(map[int][]byte)
	for _, i := range indexes {
		out[i] = s.leaves(i, first, count)
	}
	return out
}

// lost lists the patterns in which 1 to m of n shards are lost: all of them, or
// some at random.
func lost(code shard.Code, all bool, random *rand.Rand) (patterns [][]int) {
	n := code.N()
	pick := func(mask int) {
		var pattern []int
		for i := range n {
			if mask>>i&1 == 1 {
				pattern = append(pattern, i)
			}
		}
		if len(pattern) >= 1 && len(pattern) <= code.M {
			patterns = append(patterns, pattern)
		}
	}
	if all {
		for mask := range 1 << n {
			pick(mask)
		}
		return patterns
	}
	for range 40 {
		mask := 0
		for _, i := range random.Perm(n)[:1+random.IntN(max(1, code.M))] {
			mask |= 1 << i
		}
		pick(mask)
	}
	return patterns
}

func without(n int, gone []int) (left []int) {
	for i := range n {
		keep := true
		for _, j := range gone {
			keep = keep && i != j
		}
		if keep {
			left = append(left, i)
		}
	}
	return left
}

// codes are all that networks get by default, those of their small packs, and
// others.
func codes() []shard.Code {
	seen := make(map[shard.Code]bool)
	var all []shard.Code
	add := func(c shard.Code) {
		if c.Check() == nil && !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	for sites := range 60 {
		c, _ := shard.Default(sites)
		add(c)
		add(c.For(1))
	}
	for k := 1; k <= 7; k++ {
		for m := range 6 {
			add(shard.Code{K: k, M: m})
		}
	}
	for _, c := range []shard.Code{{K: 1, M: 15}, {K: 2, M: 8}, {K: 2, M: 14}, {K: 3, M: 7}, {K: 4, M: 12}, {K: 8, M: 8}, {K: 12, M: 4}, {K: 15, M: 1}, {K: 16}} {
		add(c)
	}
	return all
}

// sizes are lengths of plaintext whose ciphertexts have leaves around the number
// at which columns get another row, the last leaf whole, short by a byte, and of one
// byte of plaintext.
func sizes(k int) (all []int) {
	for _, leaves := range []int{k, k + 1, 2*k - 1, 2 * k, 2*k + 1} {
		for _, short := range []int{0, 1, seal.SegmentBytes - 1} {
			if leaves >= k {
				all = append(all, leaves*seal.SegmentBytes-short)
			}
		}
	}
	return all
}

func accepts(b []byte) (head *Head, index int, err error) {
	return Receive(bytes.NewReader(b), io.Discard, 1<<40)
}

func openAndVerify(b []byte) error {
	s, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return s.Verify(context.Background())
}

func wantKind(t *testing.T, what string, err error, kinds ...fault.Kind) {
	t.Helper()
	for _, kind := range kinds {
		if fault.Is(err, kind) {
			return
		}
	}
	t.Errorf("%s: %v, want %v", what, err, kinds)
}
