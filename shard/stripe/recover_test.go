package stripe

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// Any m shards may be lost: every one of them comes back from the others, byte for
// byte, under every code, and at lengths where columns and leaves become short.
func TestEveryLossIsRecovered(t *testing.T) {
	c := NewCoder()
	random := rand.New(rand.NewPCG(1, 2))
	for _, code := range codes() {
		for at, size := range sizes(code.K) {
			if raceEnabled && at%4 != 0 {
				continue
			}
			s := newStripe(t, c, code, size, size-1, byte(at))
			checkColumns(t, s)
			// All patterns at every length of small codes, at some of larger ones.
			all := code.N() <= 6 || code.N() <= 10 && at%7 == 4
			for _, gone := range lost(code, all, random) {
				left := without(code.N(), gone)
				for _, want := range gone {
					leaves := leavesOf(s.g.ShardBytes(want))
					first := random.Int64N(leaves)
					checkRecovered(t, c, s, want, 0, leaves, left)
					checkRecovered(t, c, s, want, first, 1+random.Int64N(leaves-first), left)
				}
			}
		}
	}
}

// checkColumns compares the data shards with the ciphertext.
func checkColumns(t *testing.T, s *stripe) {
	t.Helper()
	for i := range s.g.N() {
		offset, length := int64(0), s.g.Size
		if s.g.K > 1 {
			if i >= s.g.K {
				continue
			}
			offset, length = s.g.Column(i)
		}
		if !bytes.Equal(s.body(i), s.ciphertext[offset:offset+length]) {
			t.Fatalf("%v: shard %d is not its column", s, i)
		}
	}
}

func checkRecovered(t *testing.T, c *Coder, s *stripe, want int, first, count int64, from []int) {
	t.Helper()
	got, err := c.Recover(s.g, want, first, count, s.have(from, first, count))
	if err != nil {
		t.Fatalf("%v: leaves %d+%d of shard %d from %v: %v", s, first, count, want, from, err)
	}
	if !bytes.Equal(got, s.leaves(want, first, count)) {
		t.Fatalf("%v: leaves %d+%d of shard %d from %v differ", s, first, count, want, from)
	}
}

// Every range of every shard comes from every set of exactly k others.
func TestEveryRangeFromEverySubset(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 2, M: 2}, {K: 3, M: 2}, {K: 2, M: 3}} {
		for _, size := range []int{(3*code.K-1)*seal.SegmentBytes + 5, 3 * code.K * seal.SegmentBytes} {
			s := newStripe(t, c, code, size, 0, 1)
			for mask := range 1 << code.N() {
				if bitCount(mask) != code.K {
					continue
				}
				from := make([]int, 0, code.K)
				for i := range code.N() {
					if mask>>i&1 == 1 {
						from = append(from, i)
					}
				}
				for _, want := range without(code.N(), from) {
					all := leavesOf(s.g.ShardBytes(want))
					for first := range all {
						for count := int64(1); count <= all-first; count++ {
							checkRecovered(t, c, s, want, first, count, from)
						}
					}
				}
			}
		}
	}
}

func bitCount(mask int) (n int) {
	for ; mask != 0; mask &= mask - 1 {
		n++
	}
	return n
}

// A column that has no bytes in a range is known to be zeros: nobody is asked.
func TestAColumnThatEndedNeedsNoHolder(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 4, M: 2}
	s := newStripe(t, c, code, 5*seal.SegmentBytes, 0, 1) // columns of 2, 1, 1, 1 leaves
	got, err := c.Recover(s.g, 0, 1, 1, s.have([]int{5}, 1, 1))
	if err != nil || !bytes.Equal(got, s.leaves(0, 1, 1)) {
		t.Fatalf("the last row from one parity shard: %v", err)
	}
	got, err = c.Recover(s.g, 4, 1, 1, s.have([]int{0}, 1, 1))
	if err != nil || !bytes.Equal(got, s.leaves(4, 1, 1)) {
		t.Fatalf("parity of the last row from the one column that has it: %v", err)
	}
}

// The tail's padding is never stored, never taken from anyone, and must be zeros.
func TestShortLeavesAreExact(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 3, M: 2}
	size := 5*seal.SegmentBytes + 100 // columns of 2, 2, 2 leaves, the last of 116 bytes
	s := newStripe(t, c, code, size, 0, 1)
	from := []int{0, 1, 3}
	got, err := c.Recover(s.g, 2, 1, 1, s.have(from, 1, 1))
	if err != nil || len(got) != 116 || !bytes.Equal(got, s.leaves(2, 1, 1)) {
		t.Fatalf("a short leaf: %d bytes, %v", len(got), err)
	}
	stray := s.have([]int{0, 2, 3}, 1, 1)
	stray[2] = append(bytes.Clone(stray[2]), 0)
	_, err = c.Recover(s.g, 1, 1, 1, stray)
	wantKind(t, "a byte behind the end of a column", err, fault.Invalid)
	stray[2] = stray[2][:len(stray[2])-2]
	_, err = c.Recover(s.g, 1, 1, 1, stray)
	wantKind(t, "a column that ends too early", err, fault.Invalid)

	other := newStripe(t, c, code, size, 0, 9)
	mixed := s.have(from, 1, 1)
	mixed[3] = other.leaves(3, 1, 1)
	_, err = c.Recover(s.g, 2, 1, 1, mixed)
	wantKind(t, "parity of another stripe", err, fault.Corrupt)
	mixed = s.have(from, 1, 1)
	mixed[0] = bytes.Clone(mixed[0])
	mixed[0][seal.LeafBytes-1] ^= 1
	_, err = c.Recover(s.g, 2, 1, 1, mixed)
	wantKind(t, "a bit of another column, where this one has ended", err, fault.Corrupt)
}

func TestRecoverRefuses(t *testing.T) {
	c := NewCoder()
	s := newStripe(t, c, shard.Code{K: 3, M: 2}, 6*seal.SegmentBytes, 0, 1)
	good := s.have([]int{0, 1, 3, 4}, 0, 2)
	for _, test := range []struct {
		name         string
		g            shard.Geometry
		want         int
		first, count int64
		have         map[int][]byte
		kind         fault.Kind
	}{
		{"two of three", s.g, 2, 0, 2, s.have([]int{0, 3}, 0, 2), fault.Unavailable},
		{"the wanted one among three", s.g, 2, 0, 2, s.have([]int{0, 2, 3}, 0, 2), fault.Unavailable},
		{"nothing", s.g, 2, 0, 2, nil, fault.Unavailable},
		{"no such shard", s.g, 5, 0, 2, good, fault.Invalid},
		{"a shard before the first", s.g, -1, 0, 2, good, fault.Invalid},
		{"no leaves", s.g, 2, 0, 0, good, fault.Invalid},
		{"leaves behind the end", s.g, 2, 1, 2, good, fault.Invalid},
		{"very many leaves", s.g, 2, 1, 1 << 62, good, fault.Invalid},
		{"leaves before the beginning", s.g, 2, -1, 2, good, fault.Invalid},
		{"bytes of a shard that is not there", s.g, 2, 0, 2, map[int][]byte{7: good[0]}, fault.Invalid},
		{"half a leaf", s.g, 2, 0, 2, map[int][]byte{0: good[0], 1: good[1], 3: good[3][:100]}, fault.Invalid},
		{"no code", shard.Geometry{Size: 5}, 0, 0, 1, good, fault.Invalid},
	} {
		_, err := c.Recover(test.g, test.want, test.first, test.count, test.have)
		wantKind(t, test.name, err, test.kind)
	}
}

// A lost shard is written anew exactly as it was, from any k bodies and a tail.
func TestRebuiltShardsAreTheSame(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1, M: 2}, {K: 2, M: 2}, {K: 5, M: 4}} {
		size := 40*seal.SegmentBytes + 7
		s := newStripe(t, c, code, size, size-20_000, 3)
		for want := range code.N() {
			from := without(code.N(), []int{want})[code.N()-1-code.K:]
			bodies := make(map[int]io.ReaderAt)
			for _, i := range from {
				bodies[i] = bytes.NewReader(s.body(i))
			}
			body, err := c.Body(s.g, want, bodies)
			if err != nil {
				t.Fatal(err)
			}
			offset, length := s.head.TailRange()
			tail := io.NewSectionReader(bytes.NewReader(s.ciphertext), offset, length)
			var out bytes.Buffer
			if err := Rebuild(t.Context(), &out, s.head, want, body, tail); err != nil || !bytes.Equal(out.Bytes(), s.shards[want]) {
				t.Fatalf("%v: shard %d from %v: %v", s, want, from, err)
			}
			checkReaderAt(t, body, s.body(want))
		}
	}
}

func checkReaderAt(t *testing.T, r io.ReaderAt, want []byte) {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		off := random.IntN(len(want) + 2)
		p := make([]byte, random.IntN(len(want)+10))
		n, err := r.ReadAt(p, int64(off))
		expect := max(0, min(len(p), len(want)-off))
		if n != expect || err != nil && err != io.EOF || err == nil && n < len(p) || !bytes.Equal(p[:n], want[min(off, len(want)):][:n]) {
			t.Fatalf("ReadAt(%d, %d) of %d = %d, %v", len(p), off, len(want), n, err)
		}
	}
}

// Repair never writes what is not the shard: neither from rotten bytes nor from a
// mixture of generations.
func TestRebuildRefusesWhatIsNotTheShard(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 2, M: 2}
	size := 6*seal.SegmentBytes + 9
	s := newStripe(t, c, code, size, size-10, 1)
	other := newStripe(t, c, code, size, size-10, 2)
	offset, length := s.head.TailRange()
	tail := func(s *stripe) io.ReaderAt {
		return io.NewSectionReader(bytes.NewReader(s.ciphertext), offset, length)
	}
	rotten := bytes.Clone(s.body(1))
	rotten[seal.LeafBytes+3] ^= 1
	for _, test := range []struct {
		name string
		from map[int]io.ReaderAt
		tail io.ReaderAt
		kind fault.Kind
	}{
		{"a flipped bit", map[int]io.ReaderAt{1: bytes.NewReader(rotten), 3: bytes.NewReader(s.body(3))}, tail(s), fault.Corrupt},
		{"two stripes", map[int]io.ReaderAt{1: bytes.NewReader(s.body(1)), 3: bytes.NewReader(other.body(3))}, tail(s), fault.Corrupt},
		{"another stripe", map[int]io.ReaderAt{1: bytes.NewReader(other.body(1)), 3: bytes.NewReader(other.body(3))}, tail(s), fault.Corrupt},
		{"another tail", map[int]io.ReaderAt{1: bytes.NewReader(s.body(1)), 3: bytes.NewReader(s.body(3))}, tail(other), fault.Corrupt},
		{"a body that ends", map[int]io.ReaderAt{1: bytes.NewReader(s.body(1)[:100]), 3: bytes.NewReader(s.body(3))}, tail(s), fault.Corrupt},
	} {
		body, err := c.Body(s.g, 0, test.from)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, test.name, Rebuild(t.Context(), io.Discard, s.head, 0, body, test.tail), test.kind)
	}
	_, err := c.Body(s.g, 0, map[int]io.ReaderAt{1: bytes.NewReader(s.body(1))})
	wantKind(t, "one of two", err, fault.Unavailable)
	_, err = c.Body(s.g, 4, nil)
	wantKind(t, "no such shard", err, fault.Invalid)
	wantKind(t, "no such shard", Rebuild(t.Context(), io.Discard, s.head, 4, nil, nil), fault.Invalid)
	wantKind(t, "a head without hashes", Rebuild(t.Context(), io.Discard, &Head{}, 0, nil, nil), fault.Invalid)
}
