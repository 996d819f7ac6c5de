package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/reedsolomon"

	"pelago/chaos/bench/peer"
	"pelago/shard"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// pipelineCodes are the default codes that cut packs, and the sites that have them.
var pipelineCodes = []int{5, 6, 9, 15, 25}

// shardPipeline seals and encodes a pack on one core, and its parts alone.
func shardPipeline(ctx context.Context, b *bench, s *sheet) error {
	s.note("a pack of %d MiB, of random bytes, in memory: seal.Writer, then Coder.Encode, which reads what was sealed, hashes it against its root, makes parity, hashes all shards, decodes and compares; shards go nowhere. The parts do the same work alone, over the same bytes, with the same libraries: AES-256-GCM by segments, BLAKE3 of the ciphertext, of the columns and of parity, one encoding, one decoding and comparing of as many columns as parity replaces; for the second line they repeat half a MiB that the cache holds, which is the least that they could take. Processor time of the process with GOMAXPROCS 1, its garbage collection included, %d turns each a round, another one first each time",
		b.cut.pack>>20, b.cut.turns)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := make(map[shard.Code][]float64)
	var codes []shard.Code
	for _, sites := range pipelineCodes {
		code, _ := shard.Default(sites)
		codes = append(codes, code)
	}
	for round := range b.rounds {
		worst, hot := math.Inf(1), math.Inf(1)
		for _, code := range codes {
			ratio, inCache, err := pipelineRound(ctx, code, b.cut.pack, b.cut.turns)
			if err != nil {
				return err
			}
			all[code] = append(all[code], ratio)
			worst, hot = min(worst, ratio), min(hot, inCache)
		}
		s.add("pipeline", "", pelago, worst)
		s.add("pipeline in cache", "", pelago, hot)
		b.say("  round %d: the worst %s, of parts in the cache %s", round+1, number(worst), number(hot))
	}
	var each []string
	for _, code := range codes {
		each = append(each, code.String()+" "+number(median(all[code])))
	}
	s.note("medians by code: %s", strings.Join(each, ", "))
	return nil
}

// pipelineRound is the rate of the whole over that of its parts one after the other: of
// parts that go through as much memory, and of parts that repeat what the cache holds,
// which is the least that they could take.
func pipelineRound(ctx context.Context, code shard.Code, pack, turns int) (ratio, inCache float64, err error) {
	window := 32 / code.K * code.K * seal.SegmentBytes // whole rows
	p, err := newSealParts(code, pack)
	if err != nil {
		return 0, 0, err
	}
	hot, err := newSealParts(code, window)
	if err != nil {
		return 0, 0, err
	}
	steps := []func() error{
		p.encrypt, p.hash, p.encode, p.verify,
		func() error { return hot.each(pack / window) },
		func() error { return p.whole(ctx) },
	}
	for _, i := range []int{0, 2, 3, 4, 5} { // pages and kernels that are not there yet
		if err := steps[i](); err != nil {
			return 0, 0, err
		}
	}
	took := make([]time.Duration, len(steps))
	for turn := range turns {
		for i := range steps {
			i = (i + turn) % len(steps)
			runtime.GC() // so that none pays for the one before
			before, err := peer.CPU(os.Getpid())
			if err == nil {
				err = steps[i]()
			}
			after, failed := peer.CPU(os.Getpid())
			if err = errors.Join(err, failed); err != nil {
				return 0, 0, err
			}
			took[i] += after - before
		}
	}
	parts := took[0] + took[1] + took[2] + took[3]
	whole := took[5].Seconds()
	return parts.Seconds() / whole, took[4].Seconds() * float64(pack) / float64(pack/window*window) / whole, nil
}

// sealParts are the steps of sealing, each to be measured alone over all of a pack.
type sealParts struct {
	code              shard.Code
	plain, ciphertext []byte
	shards            [][]byte // columns and parity, filled up to one length
	lost              [][]byte // room for what is decoded
	aead              cipher.AEAD
	rs                reedsolomon.Encoder
	coder             *stripe.Coder
	to                []io.Writer
}

func newSealParts(code shard.Code, plaintext int) (*sealParts, error) {
	p := &sealParts{code: code, plain: make([]byte, plaintext), coder: stripe.NewCoder()}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p.plain) // it never fails
	p.ciphertext = make([]byte, seal.Size(int64(plaintext)))
	g, err := shard.NewGeometry(code, int64(len(p.ciphertext)))
	if err != nil {
		return nil, err
	}
	for range code.N() {
		p.shards = append(p.shards, make([]byte, g.Rows()*seal.LeafBytes))
		p.to = append(p.to, io.Discard)
	}
	for range min(code.K, code.M) {
		p.lost = append(p.lost, make([]byte, g.Rows()*seal.LeafBytes))
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	if p.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	p.rs, err = reedsolomon.New(code.K, code.M, reedsolomon.WithCauchyMatrix(), reedsolomon.WithMaxGoroutines(1))
	return p, err
}

func (p *sealParts) encrypt() error {
	var nonce [12]byte
	for at, out := 0, p.ciphertext[:0]; at < len(p.plain); at += seal.SegmentBytes {
		out = p.aead.Seal(out, nonce[:], p.plain[at:min(at+seal.SegmentBytes, len(p.plain))], nil)
	}
	return nil
}

// hash is of the ciphertext when it is sealed, and of columns and parity when they
// are made.
func (p *sealParts) hash() error {
	h := seal.NewLeafHasher()
	h.Append(nil, p.ciphertext)
	for _, one := range p.shards {
		h.Append(nil, one)
	}
	return nil
}

// each runs the parts one after the other, each so many times.
func (p *sealParts) each(times int) error {
	for _, step := range []func() error{p.encrypt, p.hash, p.encode, p.verify} {
		for range times {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *sealParts) encode() error { return p.rs.Encode(p.shards) }

func (p *sealParts) verify() error {
	all := slices.Clone(p.shards)
	for i := range p.lost {
		all[i] = p.lost[i][:0]
	}
	if err := p.rs.ReconstructData(all); err != nil {
		return err
	}
	for i := range p.lost {
		if !bytes.Equal(all[i], p.shards[i]) {
			return errors.New("what was encoded does not decode")
		}
	}
	return nil
}

// whole is what a node does with a pack, but for compressing it, and for where its
// bytes go.
func (p *sealParts) whole(ctx context.Context) error {
	out := bytes.NewBuffer(p.ciphertext[:0])
	w := seal.NewWriter(out, seal.Key{1})
	if _, err := w.Write(p.plain); err != nil {
		return err
	}
	root, size, err := w.Close()
	if err != nil {
		return err
	}
	_, err = p.coder.Encode(ctx, bytes.NewReader(out.Bytes()), stripe.Head{
		Stripe: shard.Stripe{Pack: [16]byte{1}, Generation: 1}, Code: p.code, Size: size,
		Plaintext: int64(len(p.plain)), Manifest: int64(len(p.plain)) * 99 / 100, Key: [16]byte{1}, Origin: "origin", Pack: root,
	}, p.to)
	return err
}
