package stripe

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"pelago/shard"
	"pelago/shard/seal"
)

// seeds are short: what is changed in them is not lost among bytes of a body. The
// second column of two leaves has a few bytes, and a copy of the tail.
func seeds(f *testing.F) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1}, {K: 1, M: 1}, {K: 1, M: 15}, {K: 2, M: 1}} {
		size := 3 + (code.K-1)*seal.SegmentBytes
		s := newStripe(f, c, code, size, size-1, 1)
		f.Add(s.shards[code.K-1])
		f.Add(s.shards[code.K-1][:s.form(code.K-1).leaves+10])
	}
	huge := newStripe(f, c, shard.Code{K: 1, M: 1}, 3, 0, 1).shards[1] // claims 2^55 bytes
	binary.BigEndian.PutUint64(huge[30:], uint64(seal.Size(1<<55)))
	binary.BigEndian.PutUint64(huge[38:], 1<<55)
	f.Add(huge)
}

// mend makes a lead's checksum right, so that what is behind it is reached.
func mend(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) > fixedBytes {
		if end := fixedBytes + originBytes(b) + 1; len(b) >= end+checkBytes {
			binary.BigEndian.PutUint32(b[end:], crc32.Checksum(b[:end], castagnoli()))
		}
	}
	return b
}

// What is received is a shard: it is as it came, and opens.
func FuzzReceive(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = mend(b)
		var out bytes.Buffer
		head, index, err := Receive(bytes.NewReader(b), &out, 1<<50)
		if err != nil {
			return
		}
		length, err := head.Length(index)
		if err != nil || !bytes.Equal(out.Bytes(), b[:length]) {
			t.Fatalf("received other bytes: %v", err)
		}
		if err := openAndVerify(out.Bytes()); err != nil {
			t.Fatalf("received, and does not open: %v", err)
		}
	})
}

// What opens and verifies is received too, and its ranges never go beyond it.
func FuzzOpen(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = mend(b)
		s, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		data, proof, err := s.Range(0, 1)
		if err == nil {
			if err := s.Head().VerifyRange(s.Index(), 0, data, proof); err != nil {
				t.Fatalf("a range that does not verify: %v", err)
			}
		}
		if tail := s.Tail(); tail != nil {
			if n, err := io.Copy(io.Discard, tail); err != nil || n != tail.Size() {
				t.Fatalf("a tail of %d bytes: %v", n, err)
			}
		}
		_, _, received := accepts(b)
		if verified := s.Verify(t.Context()); (verified == nil) != (received == nil) {
			t.Fatalf("verified %v, received %v", verified, received)
		}
	})
}

// A head has one form.
func FuzzParseHead(f *testing.F) {
	head, ciphertext := golden()
	s := encoded(f, NewCoder(), ciphertext, head)
	b, err := s.head.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:90])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHead(b)
		if err != nil {
			return
		}
		again, err := h.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a head with two forms: %v", err)
		}
		for i := range h.Code.N() {
			if _, err := h.Length(i); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Leaves of any lengths, of any geometry: no panic, and what comes out has the
// length that it should have.
func FuzzRecover(f *testing.F) {
	f.Add(uint8(2), uint8(2), int64(50_000), 3, int64(0), int64(1), []byte{1, 2, 3}, uint16(3))
	f.Add(uint8(5), uint8(4), int64(1<<50), 8, int64(1<<40), int64(1), []byte{}, uint16(0xffff))
	c := NewCoder()
	f.Fuzz(func(t *testing.T, k, m uint8, size int64, want int, first, count int64, b []byte, who uint16) {
		g := shard.Geometry{Code: shard.Code{K: int(k), M: int(m)}, Size: size}
		if g.Check() != nil || size < 1 || size > 1<<56 || count > 3 || first < 0 || g.Leaves() < int64(g.K) {
			return
		}
		have := make(map[int][]byte)
		for _, i := range indexesOf(who) {
			if i < g.N() && count > 0 {
				have[i] = make([]byte, rangeBytes(g, i, first, count))
				copy(have[i], b)
			}
		}
		if len(b)%7 == 1 {
			have[0] = b
		}
		got, err := c.Recover(g, want, first, count, have)
		if err == nil && int64(len(got)) != rangeBytes(g, want, first, count) {
			t.Fatalf("%d bytes of leaves %d+%d of shard %d", len(got), first, count, want)
		}
	})
}
