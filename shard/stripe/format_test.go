package stripe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// The format, written down a second time from docs/formats/shard.md and seal.md:
// nothing here calls what it is compared with.

func referenceLeaves(b []byte) (leaves [][]byte) {
	for len(b) > 0 {
		n := min(16400, len(b))
		h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree leaf v1")
		h.Write(b[:n])
		leaves = append(leaves, h.Sum(nil))
		b = b[n:]
	}
	return leaves
}

func referenceRoot(b []byte) []byte {
	level := referenceLeaves(b)
	for len(level) > 1 {
		var up [][]byte
		for ; len(level) > 1; level = level[2:] {
			h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree node v1")
			h.Write(level[0])
			h.Write(level[1])
			up = append(up, h.Sum(nil))
		}
		level = append(up, level...)
	}
	h := blake3.NewDeriveKey("pelago 2026-11 ciphertext tree root v1")
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(level[0])
	return h.Sum(nil)
}

// Logarithms and powers to the base 2 in the field of the polynomial 11d.
func referenceField() (logarithm [256]int, power [255]byte) {
	x := 1
	for i := range power {
		power[i] = byte(x)
		logarithm[x] = i
		if x *= 2; x > 255 {
			x ^= 0x11d
		}
	}
	return logarithm, power
}

func referenceBodies(code shard.Code, ciphertext []byte) (bodies [][]byte) {
	k := code.K
	if k == 1 {
		for range code.N() {
			bodies = append(bodies, ciphertext)
		}
		return bodies
	}
	leaves := (len(ciphertext) + 16399) / 16400
	for i, first := 0, 0; i < k; i++ {
		count := leaves / k
		if i < leaves%k {
			count++
		}
		bodies = append(bodies, ciphertext[first*16400:min((first+count)*16400, len(ciphertext))])
		first += count
	}
	logarithm, power := referenceField()
	for i := k; i < code.N(); i++ {
		parity := make([]byte, len(bodies[0]))
		for column, b := range bodies[:k] {
			for at, c := range b {
				if c != 0 {
					parity[at] ^= power[(logarithm[c]+255-logarithm[i^column])%255]
				}
			}
		}
		bodies = append(bodies, parity)
	}
	return bodies
}

func reference(h Head, ciphertext []byte) (head []byte, shards [][]byte) {
	bodies := referenceBodies(h.Code, ciphertext)
	tail := ciphertext[h.Manifest/16384*16400:]
	lead := append([]byte("PelStrp\x01"), h.Stripe.Pack[:]...)
	lead = binary.BigEndian.AppendUint32(lead, h.Stripe.Generation)
	lead = append(lead, byte(h.Code.K), byte(h.Code.M))
	for _, n := range []int64{h.Size, h.Plaintext, h.Manifest} {
		lead = binary.BigEndian.AppendUint64(lead, uint64(n))
	}
	lead = append(lead, h.Key[:]...)
	lead = append(append(lead, byte(len(h.Origin))), h.Origin...)
	roots := append(referenceRoot(ciphertext), referenceRoot(tail)...)
	for _, b := range bodies {
		roots = append(roots, referenceRoot(b)...)
	}
	check := func(b []byte) []byte {
		return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	for i, body := range bodies {
		one := append(bytes.Clone(lead), byte(i))
		one = append(one, check(one)...)
		one = append(one, body...)
		if i <= h.Code.M && h.Code.K > 1 {
			one = append(one, tail...)
		}
		hashes := append(bytes.Join(referenceLeaves(body), nil), roots...)
		shards = append(shards, append(append(one, hashes...), check(hashes)...))
	}
	return append(lead, roots...), shards
}

func TestShardsAreAsSpecified(t *testing.T) {
	c := NewCoder()
	for _, code := range []shard.Code{{K: 1}, {K: 1, M: 2}, {K: 2, M: 2}, {K: 3, M: 3}, {K: 5, M: 4}, {K: 4}, {K: 2, M: 6}} {
		for _, size := range []int{5 * seal.SegmentBytes, 11*seal.SegmentBytes + 3} {
			s := newStripe(t, c, code, size, size-20_000, 1)
			head, shards := reference(*s.head, s.ciphertext)
			got, err := s.head.AppendBinary(nil)
			if err != nil || !bytes.Equal(got, head) {
				t.Errorf("%v: the head differs from the specification: %v", s, err)
			}
			h := blake3.NewDeriveKey("pelago 2026-11 stripe root v1")
			h.Write(head)
			if root := s.head.Root(); !bytes.Equal(h.Sum(nil), root[:]) {
				t.Errorf("%v: the root differs from the specification", s)
			}
			for i := range shards {
				if !bytes.Equal(shards[i], s.shards[i]) {
					t.Errorf("%v: shard %d differs from the specification", s, i)
				}
			}
		}
	}
}

// golden is the stripe of testdata/golden.txt.
func golden() (Head, []byte) {
	plain := bytes.Repeat([]byte("pelago"), 7000) // three segments
	var key seal.Key
	var out bytes.Buffer
	w := seal.NewWriter(&out, key)
	w.Write(plain)
	root, size, _ := w.Close()
	return Head{
		Stripe: shard.Stripe{Pack: [16]byte{0: 0xaa, 15: 1}, Generation: 2}, Code: shard.Code{K: 2, M: 2},
		Size: size, Plaintext: int64(len(plain)), Manifest: 35_000, Key: [16]byte{0: 0xbb}, Origin: "origin", Pack: root,
	}, out.Bytes()
}

// Golden bytes: what a released version wrote must be read for ever.
func TestGolden(t *testing.T) {
	head, ciphertext := golden()
	s := encoded(t, NewCoder(), ciphertext, head)
	canonical, err := s.head.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	root := s.head.Root()
	checkGolden(t, "head", canonical)
	checkGolden(t, "root", root[:])
	for i, name := range []string{"shard0", "shard1", "shard2", "shard3"} {
		f, b := s.form(i), s.shards[i]
		sum := sha256.Sum256(b)
		checkGolden(t, name+".lead", b[:f.body])
		checkGolden(t, name+".trailer", b[f.leaves:])
		checkGolden(t, name+".sha256", sum[:])
	}
	checkGolden(t, "parity", s.body(2)[:64])

	// A whole shard, of the code 1+1.
	small := plan(shard.Code{K: 1, M: 1}, 10, 4, [32]byte{})
	var out bytes.Buffer
	if _, err := NewCoder().Encode(t.Context(), bytes.NewReader([]byte("pelago pelago pelago p.....")[:26]), small, []io.Writer{nil, &out}); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "small", out.Bytes())
	b := goldenLine(t, "small")
	h, index, err := accepts(b)
	if err != nil || index != 1 || h.Stripe != small.Stripe {
		t.Errorf("the golden shard is not received: %v", err)
	}
	if err := openAndVerify(b); err != nil {
		t.Errorf("the golden shard does not open: %v", err)
	}
}

func checkGolden(t *testing.T, name string, have []byte) {
	t.Helper()
	if want := goldenLine(t, name); !bytes.Equal(have, want) {
		t.Errorf("%s %x\nis not golden", name, have)
	}
}

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
	t.Errorf("golden.txt has no %s", name)
	return nil
}

// The field's arithmetic against tables, and any k shards against the unit matrix.
func TestFieldAndMatrix(t *testing.T) {
	logarithm, power := referenceField()
	for a := range 256 {
		for b := range 256 {
			want := byte(0)
			if a != 0 && b != 0 {
				want = power[(logarithm[a]+logarithm[b])%255]
			}
			if got := product(byte(a), byte(b)); got != want {
				t.Fatalf("%d times %d is %d, not %d", a, b, got, want)
			}
		}
		if a != 0 && product(byte(a), inverse(byte(a))) != 1 {
			t.Fatalf("1/%d is wrong", a)
		}
	}
	// Every k of 16: solve must give back what a shard is made of (and invert must
	// not meet a matrix that has no inverse).
	for k := 2; k <= 15; k++ {
		for mask := range 1 << 16 {
			if bitCount(mask) != k || k > 3 && k < 13 && mask%61 != 0 {
				continue
			}
			from := indexesOf(uint16(mask))
			for i, row := range solve(k, from, from) {
				for j, factor := range row {
					if want := i == j; want != (factor == 1) || !want && factor != 0 {
						t.Fatalf("%d columns from %v: shard %d comes from itself as %v", k, from, from[i], row)
					}
				}
			}
		}
	}
}

// Whatever differs between two stripes changes the root.
func TestTheRootIsOfEveryField(t *testing.T) {
	head, ciphertext := golden()
	s := encoded(t, NewCoder(), ciphertext, head)
	seen := map[[32]byte]string{s.head.Root(): "unchanged"}
	for name, change := range map[string]func(h *Head){
		"pack": func(h *Head) { h.Stripe.Pack[3]++ }, "generation": func(h *Head) { h.Stripe.Generation++ },
		"k and m": func(h *Head) { h.Code = shard.Code{K: 3, M: 1} }, "sizes": func(h *Head) { h.Size, h.Plaintext = h.Size-1, h.Plaintext-1 },
		"manifest": func(h *Head) { h.Manifest++ }, "key": func(h *Head) { h.Key[1]++ }, "origin": func(h *Head) { h.Origin += "x" },
		"pack's root": func(h *Head) { h.Pack[0]++ }, "tail's root": func(h *Head) { h.Tail[0]++ }, "a shard's root": func(h *Head) { h.Roots[2][0]++ },
	} {
		b, err := s.head.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHead(b)
		if err != nil {
			t.Fatal(err)
		}
		change(h)
		if was, ok := seen[h.Root()]; ok {
			t.Errorf("%s has the root of %s", name, was)
		}
		seen[h.Root()] = name
		if b, err = h.AppendBinary(nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := ParseHead(b); err != nil || again.Root() != h.Root() {
			t.Errorf("%s: read back: %v", name, err)
		}
	}
}

func TestHeadsThatAreNone(t *testing.T) {
	head, ciphertext := golden()
	s := encoded(t, NewCoder(), ciphertext, head)
	good, err := s.head.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	set := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a few bytes": good[:5], "no magic": set(0, 'x'), "cut in the plan": good[:40], "cut in the origin": good[:73],
		"cut in the hashes": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "generation 0": set(24, 0, 0, 0, 0),
		"no columns": set(28, 0, 2), "many shards": set(28, 200, 200), "another code": set(28, 1, 3), "other sizes": set(37, 1), "a negative size": set(30, 0xff),
		"a manifest behind the end": set(46, 1), "a long origin": set(70, 200), "no origin": set(70, 0), "an origin with a line feed": set(71, '\n'),
	} {
		_, err := ParseHead(b)
		wantKind(t, name, err, fault.Corrupt)
	}
	_, err = ParseHead(set(7, 2))
	wantKind(t, "a newer version", err, fault.Unsupported)
	flat := plan(shard.Code{K: 1, M: 1}, 5, 0, [32]byte{1})
	flat.Roots = [][32]byte{{1}, {2}}
	_, err = flat.AppendBinary(nil)
	wantKind(t, "a repeated ciphertext with two roots", err, fault.Invalid)
	_, err = (&head).AppendBinary(nil)
	wantKind(t, "a head without hashes", err, fault.Invalid)
	_, err = (&Head{}).Length(0)
	wantKind(t, "the length of no shard", err, fault.Invalid)
	_, err = head.Length(4)
	wantKind(t, "the length of a shard that is not there", err, fault.Invalid)
}
