package stripe

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// A shard says what it is; what it holds comes with a proof that leads to its root.
func TestShardsDescribeThemselves(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1}, {K: 1, M: 2}, {K: 2, M: 1}, {K: 3, M: 3}, {K: 4}} {
		for _, size := range []int{5*seal.SegmentBytes + 1, 40*seal.SegmentBytes - 1} {
			for _, manifest := range []int{0, seal.SegmentBytes * 4, size - 1} {
				s := newStripe(t, c, code, size, manifest, 1)
				for i, b := range s.shards {
					checkShard(t, s, i, b)
				}
			}
		}
	}
}

func checkShard(t *testing.T, s *stripe, i int, b []byte) {
	t.Helper()
	length, err := s.head.Length(i)
	if err != nil || length != int64(len(b)) {
		t.Fatalf("%v: shard %d has %d bytes, not %d: %v", s, i, len(b), length, err)
	}
	var out bytes.Buffer
	follows := []byte("what follows")
	in := bytes.NewReader(slices.Concat(b, follows))
	head, index, err := Receive(iotest.HalfReader(in), &out, length)
	if err != nil || index != i || head.Root() != s.head.Root() || !bytes.Equal(out.Bytes(), b) || in.Len() != len(follows) {
		t.Fatalf("%v: received shard %d as %d of %d bytes, %d left: %v", s, i, index, out.Len(), in.Len(), err)
	}
	opened, err := Open(bytes.NewReader(b), length)
	if err != nil || opened.Index() != i || opened.Head().Root() != s.head.Root() {
		t.Fatalf("%v: shard %d: %v", s, i, err)
	}
	if err := opened.Verify(t.Context()); err != nil {
		t.Fatalf("%v: shard %d: %v", s, i, err)
	}
	checkRanges(t, s, opened)
	out.Reset()
	if err := opened.Write(t.Context(), &out); err != nil || !bytes.Equal(out.Bytes(), b) {
		t.Errorf("%v: shard %d written again differs: %v", s, i, err)
	}
}

func checkRanges(t *testing.T, s *stripe, opened *Shard) {
	t.Helper()
	i := opened.Index()
	all := leavesOf(s.g.ShardBytes(i))
	for first := range all {
		for _, count := range []int64{1, 2, all - first} {
			if first+count > all {
				continue
			}
			data, proof, err := opened.Range(first, count)
			if err != nil || !bytes.Equal(data, s.leaves(i, first, count)) {
				t.Fatalf("%v: leaves %d+%d of shard %d: %v", s, first, count, i, err)
			}
			if err := s.head.VerifyRange(i, first, data, proof); err != nil {
				t.Fatalf("%v: leaves %d+%d of shard %d: %v", s, first, count, i, err)
			}
			if other := (i + 1) % s.g.N(); s.head.Roots[other] != s.head.Roots[i] && s.head.VerifyRange(other, first, data, proof) == nil {
				t.Fatalf("%v: leaves %d+%d of shard %d pass for those of %d", s, first, count, i, other)
			}
		}
	}
	wantKind(t, "a range of no shard", s.head.VerifyRange(s.g.N(), 0, nil, nil), fault.Invalid)
	for _, r := range [][2]int64{{all, 1}, {0, all + 1}, {-1, 1}, {0, 0}, {1, 1 << 62}} {
		_, _, err := opened.Range(r[0], r[1])
		wantKind(t, "leaves that are not there", err, fault.Invalid)
	}
	offset, _ := s.head.TailRange()
	if tail := opened.Tail(); (tail != nil) != s.head.Carries(i) {
		t.Errorf("%v: shard %d has a tail: %v", s, i, tail != nil)
	} else if tail != nil {
		if b, err := io.ReadAll(tail); err != nil || !bytes.Equal(b, s.ciphertext[offset:]) {
			t.Errorf("%v: the tail in shard %d: %v", s, i, err)
		}
	}
}

// Of any m losses one tail is left: m+1 shards carry it.
func TestTailsSurviveAnyLoss(t *testing.T) {
	for _, code := range codes() {
		h := plan(code, 40*seal.SegmentBytes, 0, [32]byte{})
		carrying := 0
		for i := -1; i <= code.N(); i++ {
			if h.Carries(i) {
				carrying++
			}
		}
		if carrying != code.M+1 {
			t.Errorf("%v: %d shards carry the tail", code, carrying)
		}
	}
}

// One flipped bit, anywhere, and a shard is refused, on its way and at rest.
func TestOneFlippedBitIsRefused(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1, M: 1}, {K: 2, M: 2}} {
		size := 3*seal.SegmentBytes - 200
		s := newStripe(t, c, code, size, size-5000, 1)
		for i, b := range s.shards {
			f := s.form(i)
			for at := range int64(len(b)) {
				inBytes := at >= f.body+2 && at < f.leaves-2 && at != f.tail-1 && at != f.tail
				if inBytes && at%97 != 0 || raceEnabled && at%53 != 0 {
					continue
				}
				for bit := range 8 {
					if inBytes && bit != int(at/97%8) {
						continue
					}
					b[at] ^= 1 << bit
					_, _, err := accepts(b)
					wantKind(t, "received with a flipped bit", err, fault.Corrupt, fault.Unsupported)
					wantKind(t, "opened with a flipped bit", openAndVerify(b), fault.Corrupt, fault.Unsupported)
					b[at] ^= 1 << bit
				}
				if t.Failed() {
					t.Fatalf("%v: shard %d at %d", s, i, at)
				}
			}
		}
	}
}

// A shard that ends early or goes on is refused at every length.
func TestOtherLengthsAreRefused(t *testing.T) {
	c := NewCoder()
	size := 2*seal.SegmentBytes + 5
	s := newStripe(t, c, shard.Code{K: 2, M: 1}, size, size-10, 1)
	b := s.shards[1]
	f := s.form(1)
	for _, n := range []int64{0, 1, 7, 8, fixedBytes, f.body - 1, f.body, f.body + 1, f.tail - 1, f.tail, f.tail + 1, f.leaves, f.leaves + 5, f.roots, f.roots + 40, f.end - checkBytes, f.end - 1} {
		_, _, err := Receive(bytes.NewReader(b[:n]), io.Discard, 1<<30)
		wantKind(t, "received, cut", err, fault.Corrupt)
		wantKind(t, "opened, cut", openAndVerify(b[:n]), fault.Corrupt)
	}
	wantKind(t, "a byte too many", openAndVerify(append(bytes.Clone(b), 0)), fault.Corrupt)
	_, err := Open(bytes.NewReader(b[:len(b)-1]), int64(len(b)))
	wantKind(t, "a file that is shorter than it is said to be", err, fault.Corrupt)
	out := &bytes.Buffer{}
	_, _, err = Receive(bytes.NewReader(b), out, int64(len(b))-1)
	wantKind(t, "over the limit", err, fault.Full)
	if out.Len() != 0 {
		t.Errorf("over the limit, and %d bytes were written", out.Len())
	}
	_, _, err = Receive(failing{}, io.Discard, 1<<30)
	wantKind(t, "a sender that goes away", err, fault.Unavailable)
	for _, n := range []int64{0, f.body, f.tail, f.leaves, f.roots} {
		_, _, err = Receive(bytes.NewReader(b), &shortWriter{n}, 1<<30)
		wantKind(t, "a full disk", err, fault.Full)
	}
}

// shortWriter takes so many bytes.
type shortWriter struct{ left int64 }

func (s *shortWriter) Write(b []byte) (int, error) {
	if s.left -= int64(len(b)); s.left < 0 {
		return 0, fault.New(fault.Full, "full")
	}
	return len(b), nil
}

// assemble puts a shard together of parts, with checksums that are right.
func assemble(head *Head, index int, body, tail, leaves []byte) []byte {
	b := head.appendLead(nil, index)
	b = slices.Concat(b, body, tail)
	hashes := head.appendRoots(bytes.Clone(leaves))
	return binary.BigEndian.AppendUint32(append(b, hashes...), crc32.Checksum(hashes, castagnoli()))
}

// Parts of other shards of the right lengths do not make one: of another index,
// generation or pack, with every checksum right. A whole shard of another stripe is
// one, and says which; its root differs.
func TestPartsOfOtherShardsAreRefused(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 2, M: 2}
	size := 4 * seal.SegmentBytes
	s := newStripe(t, c, code, size, size-100, 1)
	pack := newStripe(t, c, code, size, size-100, 2)
	later := *s.head
	later.Stripe.Generation++
	parts := func(s *stripe, i int) (body, tail, leaves []byte) {
		f, b := s.form(i), s.shards[i]
		return b[f.body:f.tail], b[f.tail:f.leaves], b[f.leaves:f.roots]
	}
	body, tail, leaves := parts(s, 2)
	if !bytes.Equal(assemble(s.head, 2, body, tail, leaves), s.shards[2]) {
		t.Fatal("a shard that was put together of its own parts differs")
	}
	otherBody, otherTail, otherLeaves := parts(pack, 2)
	indexBody, _, indexLeaves := parts(s, 1)
	for name, b := range map[string][]byte{
		"another pack's body":               assemble(s.head, 2, otherBody, tail, leaves),
		"another pack's body and leaves":    assemble(s.head, 2, otherBody, tail, otherLeaves),
		"another pack's tail":               assemble(s.head, 2, body, otherTail, leaves),
		"another pack's leaves":             assemble(s.head, 2, body, tail, otherLeaves),
		"another pack's roots":              assemble(pack.head, 2, body, tail, leaves),
		"another index's body and leaves":   assemble(s.head, 2, indexBody, tail, indexLeaves),
		"under another index":               assemble(s.head, 1, body, tail, leaves),
		"a tail where there is none":        assemble(s.head, 3, body, tail, leaves),
		"no tail where there is one":        assemble(s.head, 2, body, nil, leaves),
		"body exchanged with parity's tail": assemble(s.head, 3, indexBody, nil, indexLeaves),
	} {
		_, _, err := accepts(b)
		wantKind(t, name+", received", err, fault.Corrupt)
		wantKind(t, name+", opened", openAndVerify(b), fault.Corrupt)
	}
	for name, b := range map[string][]byte{"another pack": pack.shards[2], "another generation": assemble(&later, 2, body, tail, leaves)} {
		head, index, err := accepts(b)
		if err != nil || index != 2 || head.Root() == s.head.Root() {
			t.Errorf("%s: index %d, the same root: %v", name, index, err)
		}
	}
	flat := newStripe(t, c, shard.Code{K: 1, M: 1}, size, size-100, 1)
	mixed := *flat.head
	mixed.Tail[3] ^= 1 // that no tree of a tail is compared with but the body's
	body, _, leaves = parts(flat, 1)
	_, _, err := accepts(assemble(&mixed, 1, body, nil, leaves))
	wantKind(t, "a ciphertext with another tail's root", err, fault.Corrupt)
	wantKind(t, "a ciphertext with another tail's root, opened", openAndVerify(assemble(&mixed, 1, body, nil, leaves)), fault.Corrupt)
}

// Rot that came after Open is found when it is read.
func TestRotIsFoundWhenItIsRead(t *testing.T) {
	c := NewCoder()
	size := 6 * seal.SegmentBytes
	s := newStripe(t, c, shard.Code{K: 2, M: 1}, size, size-10, 1)
	b := s.shards[0]
	opened, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	f := s.form(0)
	b[f.body+seal.LeafBytes+7] ^= 1
	_, _, err = opened.Range(0, 2)
	wantKind(t, "a range with a rotten leaf", err, fault.Corrupt)
	if _, _, err = opened.Range(2, 1); err != nil {
		t.Errorf("a range without: %v", err)
	}
	var out bytes.Buffer
	wantKind(t, "written", opened.Write(t.Context(), &out), fault.Corrupt)
	if out.Len() > int(f.body) {
		t.Errorf("%d bytes of a rotten batch were written", out.Len()-int(f.body))
	}
	b[f.body+seal.LeafBytes+7] ^= 1
	b[f.tail] ^= 1
	wantKind(t, "a rotten tail", opened.Verify(t.Context()), fault.Corrupt)
	short, err := Open(failingAfter{bytes.NewReader(s.shards[1]), s.form(1).body}, int64(len(s.shards[1])))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = short.Range(0, 1)
	wantKind(t, "a disk that does not answer", err, fault.Unavailable)
}

// failingAfter answers reads at the beginning and behind the body only.
type failingAfter struct {
	io.ReaderAt
	body int64
}

func (f failingAfter) ReadAt(p []byte, off int64) (int, error) {
	if off == f.body {
		return 0, fault.New(fault.Unavailable, "away")
	}
	return f.ReaderAt.ReadAt(p, off)
}
