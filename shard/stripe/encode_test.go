package stripe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/reedsolomon"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// Parity is the library's own for its Cauchy matrix: our matrix, inversions and
// windows are compared with code that has none of them.
func TestParityIsTheLibrarys(t *testing.T) {
	c := NewCoder()
	for _, code := range codes() {
		if code.K == 1 || code.M == 0 {
			continue
		}
		s := newStripe(t, c, code, (3*code.K-1)*seal.SegmentBytes+1000, 0, 4)
		rows := make([][]byte, code.N())
		for i := range rows {
			rows[i] = make([]byte, s.g.Rows()*seal.LeafBytes)
			if i < code.K {
				copy(rows[i], s.body(i))
			}
		}
		library, err := reedsolomon.New(code.K, code.M, reedsolomon.WithCauchyMatrix())
		if err != nil {
			t.Fatal(err)
		}
		if err := library.Encode(rows); err != nil {
			t.Fatal(err)
		}
		for i := code.K; i < code.N(); i++ {
			if !bytes.Equal(rows[i], s.body(i)) {
				t.Errorf("%v: parity %d differs", s, i)
			}
		}
	}
}

// Whoever wants only some shards gets the same head, and the same bytes.
func TestShardsThatNobodyWantsAreNotWritten(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1, M: 2}, {K: 3, M: 2}} {
		size := 30*seal.SegmentBytes + 5
		s := newStripe(t, c, code, size, size-40_000, 1)
		for skip := range code.N() {
			out := make([]bytes.Buffer, code.N())
			to := make([]io.Writer, code.N())
			for i := range out {
				if i != skip {
					to[i] = &out[i]
				}
			}
			head, err := c.Encode(t.Context(), bytes.NewReader(s.ciphertext), plan(code, size, size-40_000, s.head.Pack), to)
			if err != nil || head.Root() != s.head.Root() {
				t.Fatalf("%v without shard %d: %v", s, skip, err)
			}
			for i := range out {
				if i != skip && !bytes.Equal(out[i].Bytes(), s.shards[i]) {
					t.Errorf("%v without shard %d: shard %d differs", s, skip, i)
				}
			}
		}
		head, err := c.Encode(t.Context(), bytes.NewReader(s.ciphertext), plan(code, size, size-40_000, [32]byte{}), make([]io.Writer, code.N()))
		if err != nil || head.Root() != s.head.Root() {
			t.Errorf("%v without writers and a root: %v", s, err)
		}
	}
}

// counted counts what is read of a source.
type counted struct {
	r              io.ReaderAt
	bytes, longest int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.bytes += int64(len(p))
	c.longest = max(c.longest, int64(len(p)))
	return c.r.ReadAt(p, off)
}

// zeros is a ciphertext of any length.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// A ciphertext is read once, but for its tail, and takes a window of memory and the
// hashes of its leaves, whatever its length.
func TestEncodeReadsOnceInWindows(t *testing.T) {
	const plaintext, tail = 96 << 20, 1 << 20
	code := shard.Code{K: 5, M: 4}
	to := make([]io.Writer, code.N())
	for i := range to {
		to[i] = io.Discard
	}
	source := &counted{r: zeros{}}
	head := plan(code, plaintext, plaintext-tail, [32]byte{})
	c := NewCoder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := c.Encode(t.Context(), source, head, to); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	_, length := head.TailRange()
	if source.bytes != head.Size+length {
		t.Errorf("%d bytes read of %d and a tail of %d", source.bytes, head.Size, length)
	}
	if source.longest > windowBytes {
		t.Errorf("%d bytes read at a time", source.longest)
	}
	// Some of the hashes' memory is taken several times over while lists grow.
	leaves := head.Size / seal.LeafBytes * int64(code.N()) / int64(code.K) * hashBytes
	if used := int64(after.TotalAlloc - before.TotalAlloc); used > 3*windowBytes+10*leaves {
		t.Errorf("%d bytes of memory taken for %d and %d of hashes", used, head.Size, leaves)
	}
}

func TestEncodeRefuses(t *testing.T) {
	c := NewCoder()
	code := shard.Code{K: 2, M: 1}
	ciphertext, root := sealed(t, 5*seal.SegmentBytes, 1)
	good := plan(code, 5*seal.SegmentBytes, 0, root)
	for name, change := range map[string]func(h *Head){
		"no generation":                 func(h *Head) { h.Stripe.Generation = 0 },
		"no code":                       func(h *Head) { h.Code.K = 0 },
		"a code of too many":            func(h *Head) { h.Code.M = 15 },
		"more columns than leaves":      func(h *Head) { h.Code = shard.Code{K: 6} },
		"no ciphertext's length":        func(h *Head) { h.Size = seal.LeafBytes + 3; h.Plaintext = 5 },
		"another plaintext's length":    func(h *Head) { h.Plaintext-- },
		"a manifest behind the end":     func(h *Head) { h.Manifest = h.Plaintext },
		"a manifest before all":         func(h *Head) { h.Manifest = -1 },
		"no origin":                     func(h *Head) { h.Origin = "" },
		"an origin of too many letters": func(h *Head) { h.Origin = string(make([]byte, 65)) },
		"an origin with a space":        func(h *Head) { h.Origin = "a b" },
		"other writers":                 func(h *Head) { h.Code.M = 2 },
	} {
		head := good
		change(&head)
		_, err := c.Encode(t.Context(), bytes.NewReader(ciphertext), head, make([]io.Writer, 3))
		wantKind(t, name, err, fault.Invalid)
	}
	head := good
	head.Pack[5] ^= 1
	_, err := c.Encode(t.Context(), bytes.NewReader(ciphertext), head, make([]io.Writer, 3))
	wantKind(t, "another root", err, fault.Corrupt)
	_, err = c.Encode(t.Context(), bytes.NewReader(ciphertext[:len(ciphertext)-1]), good, make([]io.Writer, 3))
	wantKind(t, "a ciphertext that ends", err, fault.Corrupt)
	_, err = c.Encode(t.Context(), failing{}, good, make([]io.Writer, 3))
	wantKind(t, "a source that fails", err, fault.Unavailable)
	_, err = c.Encode(t.Context(), bytes.NewReader(ciphertext), good, []io.Writer{nil, failing{}, nil})
	wantKind(t, "a writer that fails", err, fault.Full)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Encode(ended, bytes.NewReader(ciphertext), good, make([]io.Writer, 3))
	wantKind(t, "nobody waits", err, fault.Canceled)
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, fault.New(fault.Unavailable, "away") }
func (failing) Read([]byte) (int, error)          { return 0, fault.New(fault.Unavailable, "away") }
func (failing) Write([]byte) (int, error)         { return 0, fault.New(fault.Full, "full") }

// faulty is a kernel with a fault in it.
type faulty struct {
	reedsolomon.Encoder
	before, after func(shards [][]byte)
}

func (f *faulty) Encode(shards [][]byte) error {
	if f.before != nil {
		f.before(shards)
	}
	err := f.Encoder.Encode(shards)
	if f.after != nil {
		f.after(shards)
	}
	return err
}

// A bit that changes in memory is found wherever and whenever it does: Encode fails,
// or a shard that was changed after its hash is refused by who receives it; and what
// is accepted is right.
func TestAFlippedBitInMemoryIsFound(t *testing.T) {
	for _, code := range []shard.Code{{K: 2, M: 2}, {K: 3, M: 1}, {K: 2, M: 5}, {K: 5, M: 4}} {
		size := 3 * code.K * seal.SegmentBytes
		right := newStripe(t, NewCoder(), code, size, 0, 1)
		for buffer := range code.N() {
			for _, at := range []int{0, 1000, 3*seal.LeafBytes - 1} {
				flip := func(shards [][]byte) { shards[buffer%len(shards)][at] ^= 4 }
				for name, f := range map[string]faulty{
					"before encoding": {before: flip}, "after encoding": {after: flip},
				} {
					checkFault(t, right, name, kernelKey{code.K, bitsOf(indexes(0, code.K)), bitsOf(indexes(code.K, code.M))}, f)
				}
			}
		}
	}
}

// A kernel that decodes from wrong bytes, or whose result changes, is found as well.
func TestAFaultWhileProvingIsFound(t *testing.T) {
	code := shard.Code{K: 3, M: 2}
	right := newStripe(t, NewCoder(), code, 3*code.K*seal.SegmentBytes, 0, 1)
	key := kernelKey{3, bitsOf([]int{2, 3, 4}), bitsOf([]int{0, 1})} // of the first window
	for buffer := range code.K + 2 {
		flip := func(shards [][]byte) { shards[buffer][77] ^= 4 }
		checkFault(t, right, "before proving", key, faulty{before: flip})
		checkFault(t, right, "after proving", key, faulty{after: flip})
	}
}

func checkFault(t *testing.T, right *stripe, name string, key kernelKey, f faulty) {
	t.Helper()
	c := NewCoder()
	from, want := indexesOf(key.from), indexesOf(key.want)
	kernel, err := c.kernel(key.k, from, want)
	if err != nil {
		t.Fatal(err)
	}
	f.Encoder = kernel
	met := false
	before := f.before
	f.before = func(shards [][]byte) {
		met = true
		if before != nil {
			before(shards)
		}
	}
	c.kernels[key] = &f
	out := make([]bytes.Buffer, right.g.N())
	to := make([]io.Writer, len(out))
	for i := range out {
		to[i] = &out[i]
	}
	_, err = c.Encode(t.Context(), bytes.NewReader(right.ciphertext), plan(right.g.Code, int(right.head.Plaintext), 0, right.head.Pack), to)
	if !met {
		t.Fatalf("%v, %s: the kernel was not used", right, name)
	}
	if err != nil {
		if !errors.Is(err, ErrMiscoded) && !fault.Is(err, fault.Corrupt) {
			t.Errorf("%v, %s: %v", right, name, err)
		}
		return
	}
	refused := 0
	for i := range out {
		switch _, _, err := accepts(out[i].Bytes()); {
		case err != nil:
			refused++
		case !bytes.Equal(out[i].Bytes(), right.shards[i]):
			t.Errorf("%v, %s: a wrong shard %d is accepted", right, name, i)
		}
	}
	if refused > 1 {
		t.Errorf("%v, %s: one bit made %d shards void, and nobody noticed", right, name, refused)
	}
}

func indexesOf(bits uint16) (all []int) {
	for i := range 16 {
		if bits>>i&1 == 1 {
			all = append(all, i)
		}
	}
	return all
}

// otherMatrix encodes and decodes, in agreement with itself, by another matrix.
type otherMatrix struct {
	reedsolomon.Encoder // of another matrix
	from, want          []int
}

func (o *otherMatrix) Encode(shards [][]byte) error {
	all := make([][]byte, o.Encoder.(reedsolomon.Extensions).TotalShards())
	for j, i := range o.from {
		all[i] = shards[j]
	}
	for j, i := range o.want {
		all[i] = shards[len(o.from)+j][:0]
	}
	return o.Encoder.Reconstruct(all)
}

// A fault that encoding and decoding have in common proves itself right; a slower
// computation does not agree.
func TestAConsistentFaultIsFound(t *testing.T) {
	code := shard.Code{K: 3, M: 2}
	size := 3 * code.K * seal.SegmentBytes
	ciphertext, root := sealed(t, size, 1)
	other, err := reedsolomon.New(code.K, code.M) // Vandermonde's
	if err != nil {
		t.Fatal(err)
	}
	c := NewCoder()
	c.kernels[kernelKey{3, bitsOf([]int{0, 1, 2}), bitsOf([]int{3, 4})}] = &otherMatrix{other, []int{0, 1, 2}, []int{3, 4}}
	c.kernels[kernelKey{3, bitsOf([]int{2, 3, 4}), bitsOf([]int{0, 1})}] = &otherMatrix{other, []int{2, 3, 4}, []int{0, 1}}
	_, err = c.Encode(t.Context(), bytes.NewReader(ciphertext), plan(code, size, 0, root), make([]io.Writer, code.N()))
	if !errors.Is(err, ErrMiscoded) {
		t.Errorf("parity by another matrix: %v", err)
	}
}

func TestKernelsAreBounded(t *testing.T) {
	c := NewCoder()
	for mask := range 1 << 16 {
		if from := indexesOf(uint16(mask)); len(from) == 8 && mask&1 == 0 {
			if _, err := c.kernel(8, from, []int{0}); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.kernels) > maxKernels {
			t.Fatalf("%d kernels are kept", len(c.kernels))
		}
	}
}
