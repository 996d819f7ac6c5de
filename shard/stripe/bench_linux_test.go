package stripe

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/reedsolomon"
	"golang.org/x/sys/unix"

	"pelago/shard"
	"pelago/shard/seal"
)

// spent is the processor time of this thread: the figures are of one core, and not
// of what else runs on it.
func spent(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parts are the steps of sealing, each measured alone over all of a pack.
type parts struct {
	code              shard.Code
	plain, ciphertext []byte
	shards            [][]byte // columns and parity, filled up to one length
	aead              cipher.AEAD
	rs                reedsolomon.Encoder
	lost              [][]byte // room for what is decoded
}

func newParts(b *testing.B, code shard.Code, plaintext int) *parts {
	p := &parts{code: code, plain: make([]byte, plaintext)}
	rand.NewChaCha8([32]byte{1}).Read(p.plain)
	p.ciphertext = make([]byte, seal.Size(int64(plaintext)))
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	if p.aead, err = cipher.NewGCM(block); err != nil {
		b.Fatal(err)
	}
	if p.rs, err = reedsolomon.New(code.K, code.M, reedsolomon.WithCauchyMatrix(), reedsolomon.WithMaxGoroutines(1)); err != nil {
		b.Fatal(err)
	}
	g, err := shard.NewGeometry(code, int64(len(p.ciphertext)))
	if err != nil {
		b.Fatal(err)
	}
	for range code.N() {
		p.shards = append(p.shards, make([]byte, g.Rows()*seal.LeafBytes))
	}
	for range min(code.K, code.M) {
		p.lost = append(p.lost, make([]byte, g.Rows()*seal.LeafBytes))
	}
	return p
}

func (p *parts) encrypt() {
	var nonce [12]byte
	for at, out := 0, p.ciphertext[:0]; at < len(p.plain); at += seal.SegmentBytes {
		out = p.aead.Seal(out, nonce[:], p.plain[at:min(at+seal.SegmentBytes, len(p.plain))], nil)
	}
}

// hash is the tree at sealing, and those of the columns and of parity.
func (p *parts) hash() {
	h := seal.NewLeafHasher()
	h.Append(nil, p.ciphertext)
	for _, b := range p.shards {
		h.Append(nil, b)
	}
}

func (p *parts) encode(b *testing.B) {
	if err := p.rs.Encode(p.shards); err != nil {
		b.Fatal(err)
	}
}

func (p *parts) verify(b *testing.B) {
	all := slices.Clone(p.shards)
	for i := range p.lost {
		all[i] = p.lost[i][:0]
	}
	if err := p.rs.ReconstructData(all); err != nil {
		b.Fatal(err)
	}
	for i := range p.lost {
		if !bytes.Equal(all[i], p.shards[i]) {
			b.Fatal("decoded wrong")
		}
	}
}

// all are the parts one after the other, each so many times.
func (p *parts) all(b *testing.B, times int) {
	for _, step := range []func(){p.encrypt, p.hash, func() { p.encode(b) }, func() { p.verify(b) }} {
		for range times {
			step()
		}
	}
}

// whole seals and encodes: what a node does with a pack, but for compressing it, and
// for where its bytes go.
func (p *parts) whole(b *testing.B, c *Coder, to []io.Writer) {
	out := bytes.NewBuffer(p.ciphertext[:0])
	w := seal.NewWriter(out, seal.Key{1})
	if _, err := w.Write(p.plain); err != nil {
		b.Fatal(err)
	}
	root, _, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	head := plan(p.code, len(p.plain), len(p.plain)-200_000, root)
	if _, err := c.Encode(b.Context(), bytes.NewReader(out.Bytes()), head, to); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSeal measures encrypt + hash + encode + verify on one core, as a whole and
// its parts alone, in the same rounds. "ratio" is the time of the parts over that of
// the whole, which reads, copies and writes besides. The parts go through as many
// bytes, from memory as the whole does; for "ratio-hot" they repeat a window that the
// cache holds, which is the least they could take.
func BenchmarkSeal(b *testing.B) {
	const pack = 64 << 20
	for _, code := range []shard.Code{{K: 2, M: 2}, {K: 3, M: 3}, {K: 5, M: 4}, {K: 8, M: 4}, {K: 10, M: 4}} {
		b.Run(code.String(), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			window := 32 / code.K * code.K * seal.SegmentBytes // whole rows
			p, hot, c := newParts(b, code, pack), newParts(b, code, window), NewCoder()
			to := make([]io.Writer, code.N())
			for i := range to {
				to[i] = io.Discard
			}
			steps := []func(){
				p.encrypt, p.hash, func() { p.encode(b) }, func() { p.verify(b) },
				func() { hot.all(b, pack/window) }, func() { p.whole(b, c, to) },
			}
			took := make([]time.Duration, len(steps))
			for _, step := range steps { // pages and kernels that are not there yet
				step()
			}
			rounds := 0
			for b.Loop() {
				for i, step := range steps {
					before := spent(b)
					step()
					took[i] += spent(b) - before
				}
				rounds++
			}
			whole := float64(took[5])
			b.ReportMetric(float64(took[0]+took[1]+took[2]+took[3])/whole, "ratio")
			took[4] = time.Duration(float64(took[4]) * pack / float64(pack/window*window))
			b.ReportMetric(float64(took[4])/whole, "ratio-hot")
			for i, name := range []string{"encrypt", "hash", "encode", "verify", "hot", "whole"} {
				b.ReportMetric(float64(rounds)*pack/1e6/took[i].Seconds(), name+"-MB/s")
			}
		})
	}
}

// BenchmarkEncode is of ciphertexts that are there.
func BenchmarkEncode(b *testing.B) {
	for _, test := range []struct {
		code      shard.Code
		plaintext int
	}{{shard.Code{K: 1, M: 2}, 20 << 10}, {shard.Code{K: 1, M: 2}, 64 << 20}, {shard.Code{K: 2, M: 2}, 64 << 20}, {shard.Code{K: 5, M: 4}, 64 << 20}} {
		b.Run(fmt.Sprintf("%v/%dKB", test.code, test.plaintext>>10), func(b *testing.B) {
			ciphertext, root := sealedZeros(b, test.plaintext)
			to := make([]io.Writer, test.code.N())
			for i := range to {
				to[i] = io.Discard
			}
			c, head := NewCoder(), plan(test.code, test.plaintext, test.plaintext-2000, root)
			b.SetBytes(int64(test.plaintext))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Encode(b.Context(), bytes.NewReader(ciphertext), head, to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func sealedZeros(b *testing.B, plaintext int) (ciphertext []byte, root [32]byte) {
	var out bytes.Buffer
	w := seal.NewWriter(&out, seal.Key{})
	w.Write(make([]byte, plaintext))
	root, _, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes(), root
}

// BenchmarkReceive is what a holder spends on a shard, but for keeping it;
// BenchmarkOpen what it spends until it can answer.
func BenchmarkReceive(b *testing.B) {
	for _, s := range benchStripes(b) {
		b.Run(s.String(), func(b *testing.B) {
			b.SetBytes(int64(len(s.shards[0])))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Receive(bytes.NewReader(s.shards[0]), io.Discard, 1<<30); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, s := range benchStripes(b) {
		b.Run(s.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(bytes.NewReader(s.shards[0]), int64(len(s.shards[0]))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchStripes(b *testing.B) []*stripe {
	c := NewCoder()
	return []*stripe{
		newStripe(b, c, shard.Code{K: 1, M: 2}, 20<<10, 18<<10, 1),
		newStripe(b, c, shard.Code{K: 5, M: 4}, 64<<20, 63<<20, 1),
	}
}

// BenchmarkRecover is of the leaves that a CT slice takes.
func BenchmarkRecover(b *testing.B) {
	size := 64 << 20
	c := NewCoder()
	s := newStripe(b, c, shard.Code{K: 5, M: 4}, size, size-200_000, 1)
	have := s.have([]int{1, 2, 4, 5, 7}, 100, 17)
	b.SetBytes(17 * seal.LeafBytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Recover(s.g, 0, 100, 17, have); err != nil {
			b.Fatal(err)
		}
	}
}
