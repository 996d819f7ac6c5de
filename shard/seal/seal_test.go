package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/zeebo/blake3"
	"pelago/cluster/fault"
)

var sizes = []int{0, 1, 15, SegmentBytes - 1, SegmentBytes, SegmentBytes + 1, 2 * SegmentBytes, 5*SegmentBytes + 77,
	batch*SegmentBytes - 1, batch * SegmentBytes, 3*batch*SegmentBytes + 1}

func testKey(b byte) (k Key) {
	for i := range k {
		k[i] = b + byte(i)
	}
	return k
}

func plaintext(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	p := make([]byte, n)
	r.Read(p)
	return p
}

func encrypt(t testing.TB, key Key, plain []byte, step int) (cipherText []byte, root [32]byte) {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, key)
	for rest := plain; len(rest) > 0; {
		n := min(step, len(rest))
		if m, err := w.Write(rest[:n]); m != n || err != nil {
			t.Fatalf("Write = %d, %v", m, err)
		}
		rest = rest[n:]
	}
	root, size, err := w.Close()
	if err != nil || size != int64(out.Len()) || size != Size(int64(len(plain))) {
		t.Fatalf("Close: size %d, wrote %d, Size %d, %v", size, out.Len(), Size(int64(len(plain))), err)
	}
	return out.Bytes(), root
}

// The format, written down a second time from docs/formats/seal.md.
func reference(study Key, pack [16]byte, plain []byte) []byte {
	key, _ := hkdf.Key(sha256.New, study[:], nil, "pelago pack key v1\x00"+string(pack[:]), 32)
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCM(block)
	var out []byte
	for i := uint64(0); ; i++ {
		n := min(16384, len(plain))
		nonce := make([]byte, 12)
		binary.BigEndian.PutUint64(nonce[3:], i)
		last := n == len(plain)
		if last {
			nonce[11] = 1
		}
		out = gcm.Seal(out, nonce, plain[:n], nil)
		if plain = plain[n:]; last {
			return out
		}
	}
}

func referenceRoot(b []byte) (root [32]byte) {
	var level [][]byte
	for rest := b; len(rest) > 0; {
		n := min(16400, len(rest))
		h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree leaf v1")
		h.Write(rest[:n])
		level = append(level, h.Sum(nil))
		rest = rest[n:]
	}
	for len(level) > 1 { // pairing level by level gives RFC 6962's shape
		var up [][]byte
		for i := 0; i+1 < len(level); i += 2 {
			h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree node v1")
			h.Write(level[i])
			h.Write(level[i+1])
			up = append(up, h.Sum(nil))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		level = up
	}
	h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree root v1")
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(level[0])
	h.Sum(root[:0])
	return root
}

func TestCiphertextIsAsSpecified(t *testing.T) {
	study, pack := testKey(3), [16]byte{9, 8, 7}
	for _, n := range sizes {
		plain := plaintext(n)
		got, root := encrypt(t, PackKey(study, pack), plain, 1+n/3)
		if !bytes.Equal(got, reference(study, pack, plain)) {
			t.Errorf("%d bytes: ciphertext differs from the specification", n)
		}
		if root != referenceRoot(got) {
			t.Errorf("%d bytes: root differs from the specification", n)
		}
		if back, err := PlainSize(int64(len(got))); err != nil || back != int64(n) {
			t.Errorf("PlainSize(%d) = %d, %v", len(got), back, err)
		}
	}
}

// Golden bytes: what a released version wrote must open for ever.
func TestGolden(t *testing.T) {
	study, pack := testKey(0), [16]byte{15: 1}
	plain := bytes.Repeat([]byte("pelago"), 6000) // three segments
	got, root := encrypt(t, PackKey(study, pack), plain, len(plain))
	sum := sha256.Sum256(got)
	wrapped := goldenLine(t, "wrapped")
	for name, have := range map[string][]byte{
		"packkey": keyBytesOf(PackKey(study, pack)), "head": got[:48], "sha256": sum[:], "root": root[:],
	} {
		if want := goldenLine(t, name); !bytes.Equal(have, want) {
			t.Errorf("%s = %x, golden %x", name, have, want)
		}
	}
	if k, err := Unwrap(testKey(100), [16]byte{1, 2, 3}, wrapped); err != nil || k != study {
		t.Errorf("the golden wrapped key does not open: %v", err)
	}
}

func keyBytesOf(k Key) []byte { return k[:] }

func goldenLine(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			b, err := hex.DecodeString(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("golden.txt has no %s", name)
	return nil
}

func TestReaderReturnsEveryRange(t *testing.T) {
	key := testKey(1)
	for _, n := range sizes {
		plain := plaintext(n)
		sealed, _ := encrypt(t, key, plain, 1000)
		r := Reader(bytes.NewReader(sealed), int64(len(sealed)), key)
		if n < 100 {
			err := iotest.TestReader(io.NewSectionReader(r, 0, int64(n)), plain)
			if err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		random := rand.New(rand.NewPCG(1, uint64(n)))
		for range 60 {
			off := random.IntN(n + 2)
			p := make([]byte, random.IntN(n+20))
			got, err := r.ReadAt(p, int64(off))
			want := max(0, min(len(p), n-off))
			if got != want || (want > 0 && !bytes.Equal(p[:got], plain[off:off+got])) {
				t.Fatalf("%d bytes: ReadAt(%d, %d) = %d, %v", n, len(p), off, got, err)
			}
			if (err == io.EOF) != (got < len(p)) || (err != nil && err != io.EOF) {
				t.Fatalf("%d bytes: ReadAt(%d, %d) = %d, %v", n, len(p), off, got, err)
			}
		}
	}
}

func TestReaderIsSafeForConcurrentUse(t *testing.T) {
	key, plain := testKey(1), plaintext(40*SegmentBytes+5)
	sealed, _ := encrypt(t, key, plain, len(plain))
	r := Reader(bytes.NewReader(sealed), int64(len(sealed)), key)
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(g)))
			for range 50 {
				off := random.IntN(len(plain))
				p := make([]byte, random.IntN(len(plain)-off)+1)
				if _, err := r.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, plain[off:off+len(p)]) {
					t.Errorf("ReadAt(%d, %d): %v", len(p), off, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestDamageIsCorruptAndNothingLeaves(t *testing.T) {
	key, plain := testKey(1), plaintext(3*SegmentBytes+100)
	sealed, _ := encrypt(t, key, plain, len(plain))
	segment := func(i int) []byte { return sealed[i*sealedBytes : min((i+1)*sealedBytes, len(sealed))] }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	flip := func(at int) []byte {
		b := bytes.Clone(sealed)
		b[at] ^= 0x10
		return b
	}
	cases := map[string]struct {
		b   []byte
		key Key
	}{
		"a bit in the first segment": {flip(5), key},
		"a bit in a tag":             {flip(sealedBytes - 1), key},
		"another key":                {sealed, testKey(2)},
		"segments exchanged":         {join(segment(1), segment(0), segment(2), segment(3)), key},
		"a segment repeated":         {join(segment(0), segment(0), segment(2), segment(3)), key},
		"the last segment cut off":   {join(segment(0), segment(1), segment(2)), key},
		"the first segment cut off":  {join(segment(1), segment(2), segment(3)), key},
		"an impossible length":       {sealed[:len(sealed)-105], key},
		"the last segment shortened": {sealed[:len(sealed)-1], key},
		"a segment after the last":   {join(sealed, make([]byte, sealedBytes-116), segment(3)), key},
		"nothing at all":             {nil, key},
		"less than a tag":            {sealed[:7], key},
	}
	for name, c := range cases {
		r := Reader(bytes.NewReader(c.b), int64(len(c.b)), c.key)
		p := make([]byte, len(plain)+sealedBytes)
		n, err := r.ReadAt(p, 0)
		if !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v, want corrupt", name, err)
		}
		if !bytes.Equal(p[:n], plain[:n]) || !bytes.Equal(p[n:], make([]byte, len(p)-n)) {
			t.Errorf("%s: bytes left that were not authenticated", name)
		}
	}
	r := Reader(bytes.NewReader(sealed[:len(sealed)-50]), int64(len(sealed)), key)
	if _, err := r.ReadAt(make([]byte, len(plain)), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a ciphertext shorter than told: %v, want corrupt", err)
	}
	if _, err := r.ReadAt(make([]byte, 10), -1); !fault.Is(err, fault.Invalid) {
		t.Errorf("negative offset: %v", err)
	}
}

func TestFailingStorageKeepsItsKind(t *testing.T) {
	key := testKey(1)
	r := Reader(failing{}, Size(100), key)
	if _, err := r.ReadAt(make([]byte, 10), 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("read: %v, want not found", err)
	}
	// As an answer of another node that breaks off has it.
	cut := fault.New(fault.Unavailable, "breaks off: %w", io.ErrUnexpectedEOF)
	if _, err := Reader(cutOff{cut}, Size(100), key).ReadAt(make([]byte, 10), 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("read of what breaks off: %v, want unavailable", err)
	}
	if _, err := Reader(cutOff{io.EOF}, Size(100), key).ReadAt(make([]byte, 10), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("read of what is too short: %v, want corrupt", err)
	}
	w := NewWriter(failing{}, key)
	if _, err := w.Write(make([]byte, 2<<20)); !fault.Is(err, fault.Full) {
		t.Errorf("write: %v, want full", err)
	}
	if _, _, err := w.Close(); !fault.Is(err, fault.Full) {
		t.Errorf("close after a failed write: %v, want full", err)
	}
	w = NewWriter(io.Discard, key)
	if _, _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("a closed writer takes more")
	}
	if _, _, err := w.Close(); err == nil {
		t.Error("a closed writer closes again: its key would seal two last segments")
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, fault.New(fault.NotFound, "gone") }
func (failing) Write([]byte) (int, error)         { return 0, fault.New(fault.Full, "full") }

type cutOff struct{ err error }

func (c cutOff) ReadAt([]byte, int64) (int, error) { return 0, c.err }

func TestWrapOpensOnlyUnderItsEpochAndID(t *testing.T) {
	epoch, id, study := testKey(7), [16]byte{1}, testKey(50)
	wrapped, err := Wrap(epoch, id, study)
	if err != nil || len(wrapped) != WrappedBytes {
		t.Fatalf("Wrap: %d bytes, %v", len(wrapped), err)
	}
	if again, _ := Wrap(epoch, id, study); bytes.Equal(again, wrapped) {
		t.Error("two wraps are equal: the nonce repeats")
	}
	if got, err := Unwrap(epoch, id, wrapped); err != nil || got != study {
		t.Fatalf("Unwrap: %v", err)
	}
	for i := 1; i < len(wrapped); i++ {
		b := bytes.Clone(wrapped)
		b[i] ^= 1
		if _, err := Unwrap(epoch, id, b); !fault.Is(err, fault.Corrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if _, err := Unwrap(epoch, [16]byte{2}, wrapped); !fault.Is(err, fault.Corrupt) {
		t.Errorf("another id: %v", err)
	}
	if _, err := Unwrap(testKey(8), id, wrapped); !fault.Is(err, fault.Corrupt) {
		t.Errorf("another epoch: %v", err)
	}
	if _, err := Unwrap(epoch, id, wrapped[:20]); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut: %v", err)
	}
	newer := append([]byte{2}, wrapped[1:]...)
	if _, err := Unwrap(epoch, id, newer); !fault.Is(err, fault.Unsupported) {
		t.Errorf("newer version: %v", err)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	k := testKey(65)
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k)} {
		if strings.Contains(s, "65") || strings.Contains(s, "ABC") {
			t.Errorf("printed as %q", s)
		}
	}
}

func TestProofsOfEveryRange(t *testing.T) {
	for _, leaves := range []int{1, 2, 3, 4, 5, 7, 8, 13} {
		b := plaintext(leaves*LeafBytes - 33)
		tree, err := ReadTree(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if tree.Root() != referenceRoot(b) {
			t.Fatalf("%d leaves: root differs from the specification", leaves)
		}
		for first := range leaves {
			for count := 1; first+count <= leaves; count++ {
				checkProof(t, tree, b, first, count)
			}
		}
		if _, err := tree.Proof(int64(leaves), 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("a proof beyond the tree: %v", err)
		}
	}
}

func checkProof(t *testing.T, tree *Tree, b []byte, first, count int) {
	t.Helper()
	proof, err := tree.Proof(int64(first), int64(count))
	if err != nil {
		t.Fatal(err)
	}
	data := b[first*LeafBytes : min((first+count)*LeafBytes, len(b))]
	size := int64(len(b))
	if err := VerifyRange(tree.Root(), size, int64(first), data, proof); err != nil {
		t.Fatalf("%d+%d: %v", first, count, err)
	}
	bad := bytes.Clone(data)
	bad[len(bad)/2] ^= 1
	wrong := map[string]error{
		"changed data":   VerifyRange(tree.Root(), size, int64(first), bad, proof),
		"another root":   VerifyRange([32]byte{1}, size, int64(first), data, proof),
		"longer proof":   VerifyRange(tree.Root(), size, int64(first), data, append(proof[:len(proof):len(proof)], [32]byte{})),
		"another length": VerifyRange(tree.Root(), size+1, int64(first), data, proof),
	}
	if len(proof) > 0 {
		wrong["shorter proof"] = VerifyRange(tree.Root(), size, int64(first), data, proof[:len(proof)-1])
	}
	for name, err := range wrong {
		if err == nil {
			t.Errorf("%d+%d, %s: verified", first, count, name)
		}
	}
}

// A tree of stored leaves is the tree of the bytes, and only of as many.
func TestATreeOfStoredLeaves(t *testing.T) {
	for _, leaves := range []int{1, 2, 3, 6, 7, 9} {
		b := plaintext(leaves*LeafBytes - 5)
		size := int64(len(b))
		read, err := ReadTree(bytes.NewReader(b), size)
		if err != nil {
			t.Fatal(err)
		}
		h := NewLeafHasher()
		hashes := h.Append(h.Append(nil, b[:leaves/2*LeafBytes]), b[leaves/2*LeafBytes:])
		if !slices.Equal(hashes, read.Leaves()) {
			t.Errorf("%d leaves: hashes differ", leaves)
		}
		tree, err := NewTree(hashes, size)
		if err != nil || tree.Root() != read.Root() {
			t.Errorf("%d leaves: the root differs: %v", leaves, err)
		}
		for _, other := range []int64{0, -1, size + 6, size - LeafBytes, 1 << 60} {
			if _, err := NewTree(hashes, other); !fault.Is(err, fault.Invalid) {
				t.Errorf("%d leaves of %d bytes: %v", leaves, other, err)
			}
		}
	}
}

func TestVerifyRoot(t *testing.T) {
	sealed, root := encrypt(t, testKey(1), plaintext(100_000), 9999)
	if err := VerifyRoot(bytes.NewReader(sealed), int64(len(sealed)), root); err != nil {
		t.Fatal(err)
	}
	sealed[70_000] ^= 1
	if err := VerifyRoot(bytes.NewReader(sealed), int64(len(sealed)), root); !fault.Is(err, fault.Corrupt) {
		t.Errorf("changed: %v", err)
	}
	if err := VerifyRoot(bytes.NewReader(sealed[:5]), int64(len(sealed)), root); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut: %v", err)
	}
	if _, err := ReadTree(bytes.NewReader(nil), 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("no bytes: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	key := testKey(1)
	sealed, _ := encrypt(f, key, plaintext(SegmentBytes+3), 100)
	f.Add(sealed, int64(len(sealed)), int64(0), 40)
	f.Add(sealed[:20], int64(1<<40), int64(1<<39), 1<<16)
	f.Add([]byte{}, int64(-1), int64(5), 1)
	f.Fuzz(func(t *testing.T, b []byte, size, off int64, length int) {
		p := make([]byte, min(max(length, 0), 1<<20))
		n, err := Reader(bytes.NewReader(b), size, key).ReadAt(p, off)
		if n < len(p) && err == nil {
			t.Fatal("a short read without an error")
		}
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) && !fault.Is(err, fault.Corrupt) {
			t.Fatal("truncation without its kind")
		}
	})
}

func FuzzVerifyRange(f *testing.F) {
	b := plaintext(5*LeafBytes - 9)
	tree, _ := ReadTree(bytes.NewReader(b), int64(len(b)))
	proof, _ := tree.Proof(1, 2)
	f.Add(int64(len(b)), int64(1), b[LeafBytes:3*LeafBytes], bytes.Join([][]byte{proof[0][:], proof[1][:]}, nil))
	f.Add(int64(1<<55), int64(1<<40), []byte{1}, []byte{})
	f.Fuzz(func(t *testing.T, size, first int64, data, hashes []byte) {
		var proof [][32]byte
		for ; len(hashes) >= 32; hashes = hashes[32:] {
			proof = append(proof, [32]byte(hashes))
		}
		if VerifyRange(tree.Root(), size, first, data, proof) == nil {
			at := first * LeafBytes
			if size != int64(len(b)) || !bytes.Equal(data, b[at:at+int64(len(data))]) {
				t.Fatal("verified bytes that are not the string's")
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	plain := plaintext(8 << 20)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		w := NewWriter(io.Discard, testKey(1))
		w.Write(plain)
		w.Close()
	}
}

func BenchmarkReader(b *testing.B) {
	key, plain := testKey(1), plaintext(8<<20)
	sealed, _ := encrypt(b, key, plain, len(plain))
	r := Reader(bytes.NewReader(sealed), int64(len(sealed)), key)
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.ReadAt(p, 3<<20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadTree(b *testing.B) {
	data := plaintext(8 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ReadTree(bytes.NewReader(data), int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
}
