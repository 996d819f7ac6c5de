package stripe

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// A shard that is cut from a full copy is the one that would be stored.
func TestVirtualShardsAreTheStoredOnes(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1}, {K: 1, M: 2}, {K: 2, M: 2}, {K: 3, M: 2}, {K: 4}} {
		for _, size := range []int{7*seal.SegmentBytes + 1, 41 * seal.SegmentBytes} {
			s := newStripe(t, c, code, size, size-3000, 1)
			y, err := c.Copy(t.Context(), bytes.NewReader(s.ciphertext), s.head)
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			for i, stored := range s.shards {
				virtual, err := y.Shard(t.Context(), i)
				if err != nil || virtual.Index() != i || virtual.Head() != s.head {
					t.Fatalf("%v: shard %d: %v", s, i, err)
				}
				checkRanges(t, s, virtual)
				var out bytes.Buffer
				if err := virtual.Write(t.Context(), &out); err != nil || !bytes.Equal(out.Bytes(), stored) {
					t.Errorf("%v: shard %d written differs: %v", s, i, err)
				}
			}
			_, err = y.Shard(t.Context(), code.N())
			wantKind(t, "no such shard", err, fault.Invalid)
			_, err = y.Shard(t.Context(), -1)
			wantKind(t, "no such shard", err, fault.Invalid)
		}
	}
}

// A copy that is not the ciphertext stands for no shard.
func TestACopyMustVerify(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 3, M: 1}
	size := 6 * seal.SegmentBytes
	s := newStripe(t, c, code, size, size-100, 1)
	other := newStripe(t, c, code, size, size-100, 2)
	leaf := func(i int) []byte { return s.ciphertext[i*seal.LeafBytes : (i+1)*seal.LeafBytes] }
	for name, b := range map[string][]byte{
		"another pack":     other.ciphertext,
		"exchanged leaves": slices.Concat(leaf(0), leaf(1), leaf(3), leaf(2), leaf(4), leaf(5)),
		"cut":              s.ciphertext[:len(s.ciphertext)-1],
		"empty":            nil,
	} {
		_, err := c.Copy(t.Context(), bytes.NewReader(b), s.head)
		wantKind(t, name, err, fault.Corrupt)
	}
	for at := 0; at < len(s.ciphertext); at += 4999 {
		s.ciphertext[at] ^= 2
		_, err := c.Copy(t.Context(), bytes.NewReader(s.ciphertext), s.head)
		wantKind(t, "a flipped bit", err, fault.Corrupt)
		s.ciphertext[at] ^= 2
	}
	for name, change := range map[string]func(h *Head){
		"another pack's root":   func(h *Head) { h.Pack[0] ^= 1 },
		"another column's root": func(h *Head) { h.Roots = slices.Clone(h.Roots); h.Roots[1][0] ^= 1 },
		"another tail's root":   func(h *Head) { h.Tail[0] ^= 1 },
	} {
		head := *s.head
		change(&head)
		_, err := c.Copy(t.Context(), bytes.NewReader(s.ciphertext), &head)
		wantKind(t, name, err, fault.Corrupt)
	}
	parity := *s.head
	parity.Roots = slices.Clone(parity.Roots)
	parity.Roots[3][0] ^= 1
	y, err := c.Copy(t.Context(), bytes.NewReader(s.ciphertext), &parity)
	if err != nil {
		t.Fatal(err)
	}
	_, err = y.Shard(t.Context(), 3)
	wantKind(t, "parity of another root", err, fault.Corrupt)
	_, err = c.Copy(t.Context(), bytes.NewReader(s.ciphertext), &Head{})
	wantKind(t, "no head", err, fault.Invalid)
	// Rot that comes later is found when it is read.
	y, err = c.Copy(t.Context(), bytes.NewReader(s.ciphertext), s.head)
	if err != nil {
		t.Fatal(err)
	}
	first, err := y.Shard(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.ciphertext[5] ^= 1
	_, _, err = first.Range(0, 1)
	wantKind(t, "rot in the copy", err, fault.Corrupt)
	_, err = y.Shard(t.Context(), 3)
	wantKind(t, "rot in the copy, under parity", err, fault.Corrupt)
}

func TestColumnsOfACiphertext(t *testing.T) {
	c := NewCoder()
	s := newStripe(t, c, shard.Code{K: 3, M: 1}, 7*seal.SegmentBytes+9, 0, 1)
	for i := range 3 {
		r, err := Column(bytes.NewReader(s.ciphertext), s.head, i)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, s.body(i)) {
			t.Errorf("column %d: %v", i, err)
		}
	}
	for _, i := range []int{-1, 3, 4} {
		_, err := Column(bytes.NewReader(s.ciphertext), s.head, i)
		wantKind(t, "no column", err, fault.Invalid)
	}
	flat := newStripe(t, c, shard.Code{K: 1, M: 1}, 100, 0, 1)
	r, err := Column(bytes.NewReader(flat.ciphertext), flat.head, 1)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, flat.ciphertext) {
		t.Errorf("a repeated ciphertext: %v", err)
	}
}
