package stripe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

const (
	magic   = "PelStrp"
	version = 1

	// fixedBytes are the fields of a plan before the origin's id.
	fixedBytes = 8 + 16 + 4 + 1 + 1 + 8 + 8 + 8 + 16 + 1
	// maxOrigin bounds the id of a node; those of cluster/identity have 32 bytes.
	maxOrigin = 64

	// MaxHeadBytes is the longest head in its canonical form.
	MaxHeadBytes = fixedBytes + maxOrigin + (2+shard.MaxShards)*hashBytes

	hashBytes = 32
	// rootContext separates stripe roots from all other hashes. Part of the format.
	rootContext = "pelago 2026-11 stripe root v1"
)

// A seal's segment is a shard's leaf.
var (
	_ [shard.LeafBytes - seal.LeafBytes]struct{}
	_ [seal.LeafBytes - shard.LeafBytes]struct{}
)

// Head is what all shards of a stripe have in common. The fields down to Origin,
// the plan, are known before the stripe is encoded, the hashes after. No field
// tells anything of a patient.
type Head struct {
	Stripe    shard.Stripe
	Code      shard.Code
	Size      int64    // of the ciphertext, in bytes
	Plaintext int64    // of the pack, in bytes
	Manifest  int64    // offset of the manifest in the plaintext, which it ends
	Key       [16]byte // id of the study key
	Origin    string   // id of the node that sealed the pack

	Pack  [32]byte   // root of the tree over the ciphertext
	Tail  [32]byte   // root of the tree over the tail
	Roots [][32]byte // roots of the trees over the shards' bodies, by index
}

// Geometry says where the ciphertext's bytes are in the shards; fault.Invalid for
// what no stripe has.
func (h *Head) Geometry() (shard.Geometry, error) { return shard.NewGeometry(h.Code, h.Size) }

// VerifyRange checks that data are leaves of the body of shard index, from first on,
// by the proof that [Shard.Range] gave with them: fault.Corrupt if they are not,
// fault.Invalid if they are not whole leaves. How many there are the caller knows.
func (h *Head) VerifyRange(index int, first int64, data []byte, proof [][32]byte) error {
	g, err := h.Geometry()
	if err != nil {
		return err
	}
	if index < 0 || index >= len(h.Roots) {
		return fault.New(fault.Invalid, "stripe: shard %d of %v", index, h.Code)
	}
	return seal.VerifyRange(h.Roots[index], g.ShardBytes(index), first, data, proof)
}

// Root is the stripe root: a hash of the canonical bytes of a complete head.
func (h *Head) Root() (root [32]byte) {
	hasher := blake3.NewDeriveKey(rootContext)
	hasher.Write(h.appendRoots(h.appendPlan(nil)))
	hasher.Sum(root[:0])
	return root
}

// TailRange is the range of the ciphertext that is the tail: the segments that
// hold the manifest, to the end.
func (h *Head) TailRange() (offset, length int64) {
	offset = h.Manifest / seal.SegmentBytes * seal.LeafBytes
	return offset, h.Size - offset
}

// Carries says whether the tail can be read from a shard alone: from m+1 of them,
// so that any m losses leave one.
func (h *Head) Carries(index int) bool {
	return index >= 0 && index < h.Code.N() && index <= h.Code.M
}

// tailBytes is the length of the tail's copy in a shard; a shard that is the whole
// ciphertext needs none.
func (h *Head) tailBytes(index int) int64 {
	if h.Code.K == 1 || !h.Carries(index) {
		return 0
	}
	_, length := h.TailRange()
	return length
}

// Length is how many bytes shard index has at rest and in transit: its body and
// what makes it describe itself. It is known before the stripe is encoded.
// fault.Invalid for what no stripe has.
func (h *Head) Length(index int) (int64, error) {
	if err := h.checkPlan(index); err != nil {
		return 0, fault.New(fault.Invalid, "stripe: %w", err)
	}
	return h.form(index).end, nil
}

var errNotComplete = errors.New("a head without its hashes")

// checkPlan checks what is known before encoding, and that there is a shard of this
// index.
func (h *Head) checkPlan(index int) error {
	if _, err := h.Geometry(); err != nil {
		return err
	}
	plain, err := seal.PlainSize(h.Size)
	switch {
	case err != nil:
		return err
	case h.Stripe.Generation == 0:
		return errors.New("a stripe of generation 0")
	case plain != h.Plaintext:
		return fmt.Errorf("%d bytes of ciphertext for %d of plaintext", h.Size, h.Plaintext)
	case h.Manifest < 0 || h.Manifest >= h.Plaintext:
		return fmt.Errorf("a manifest at %d of %d bytes", h.Manifest, h.Plaintext)
	case len(h.Origin) < 1 || len(h.Origin) > maxOrigin:
		return fmt.Errorf("an origin's id of %d bytes", len(h.Origin))
	case index < 0 || index >= h.Code.N():
		return fmt.Errorf("shard %d of %v", index, h.Code)
	}
	for _, c := range []byte(h.Origin) {
		if c <= ' ' || c > '~' {
			return errors.New("an origin's id that cannot be printed")
		}
	}
	return nil
}

// check checks a complete head.
func (h *Head) check() error {
	if err := h.checkPlan(0); err != nil {
		return err
	}
	if len(h.Roots) != h.Code.N() {
		return errNotComplete
	}
	if h.Code.K == 1 { // every shard is the pack
		for _, root := range h.Roots {
			if root != h.Pack {
				return errors.New("a repeated ciphertext with several roots")
			}
		}
	}
	return nil
}

// AppendBinary appends the head's canonical bytes: every head has one form, and is
// named by its hash. fault.Invalid for a head that is not complete.
func (h *Head) AppendBinary(b []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return b, fault.New(fault.Invalid, "stripe: %w", err)
	}
	return h.appendRoots(h.appendPlan(b)), nil
}

func (h *Head) appendPlan(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, version)
	b = append(b, h.Stripe.Pack[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Stripe.Generation)
	b = append(b, byte(h.Code.K), byte(h.Code.M))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Plaintext))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Manifest))
	b = append(b, h.Key[:]...)
	b = append(b, byte(len(h.Origin)))
	return append(b, h.Origin...)
}

func (h *Head) appendRoots(b []byte) []byte {
	b = append(b, h.Pack[:]...)
	b = append(b, h.Tail[:]...)
	for _, root := range h.Roots {
		b = append(b, root[:]...)
	}
	return b
}

// ParseHead reads canonical bytes; fault.Unsupported for a version that it does not
// know, fault.Corrupt for what is no head.
func ParseHead(b []byte) (*Head, error) {
	h, rest, err := parsePlan(b)
	if err != nil {
		return nil, err
	}
	if err := h.checkPlan(0); err != nil {
		return nil, fault.New(fault.Corrupt, "stripe: %w", err)
	}
	if err := h.parseRoots(rest); err != nil {
		return nil, err
	}
	return h, nil
}

// checkVersion looks at the first 8 bytes of a plan.
func checkVersion(b []byte) error {
	switch {
	case string(b[:7]) != magic:
		return fault.New(fault.Corrupt, "stripe: neither a head nor a shard")
	case b[7] != version:
		return fault.New(fault.Unsupported, "stripe: version %d", b[7])
	}
	return nil
}

// originBytes is how long the origin's id is that follows the fixed fields.
func originBytes(fixed []byte) int { return int(fixed[fixedBytes-1]) }

// parsePlan reads a plan, and checks no more than its lengths.
func parsePlan(b []byte) (h *Head, rest []byte, err error) {
	if len(b) < 8 {
		return nil, nil, fault.New(fault.Corrupt, "stripe: a head of %d bytes", len(b))
	}
	if err := checkVersion(b); err != nil {
		return nil, nil, err
	}
	if len(b) < fixedBytes || len(b) < fixedBytes+originBytes(b) {
		return nil, nil, fault.New(fault.Corrupt, "stripe: a head of %d bytes", len(b))
	}
	h = &Head{
		Stripe: shard.Stripe{Pack: [16]byte(b[8:]), Generation: binary.BigEndian.Uint32(b[24:])},
		Code:   shard.Code{K: int(b[28]), M: int(b[29])},
		Size:   int64(binary.BigEndian.Uint64(b[30:])), Plaintext: int64(binary.BigEndian.Uint64(b[38:])),
		Manifest: int64(binary.BigEndian.Uint64(b[46:])), Key: [16]byte(b[54:]),
	}
	end := fixedBytes + originBytes(b)
	h.Origin = string(b[fixedBytes:end])
	return h, b[end:], nil
}

// parseRoots reads the hashes of a head whose plan was checked, and checks all.
func (h *Head) parseRoots(b []byte) error {
	if len(b) != h.rootsBytes() {
		return fault.New(fault.Corrupt, "stripe: %d bytes of hashes for a stripe of %v", len(b), h.Code)
	}
	all := slices.Collect(hashesIn(b))
	h.Pack, h.Tail, h.Roots = all[0], all[1], all[2:]
	if err := h.check(); err != nil {
		return fault.New(fault.Corrupt, "stripe: %w", err)
	}
	return nil
}

func (h *Head) rootsBytes() int { return (2 + h.Code.N()) * hashBytes }

// hashesIn cuts bytes into hashes.
func hashesIn(b []byte) func(yield func([32]byte) bool) {
	return func(yield func([32]byte) bool) {
		for one := range slices.Chunk(b, hashBytes) {
			if len(one) < hashBytes || !yield([32]byte(one)) {
				return
			}
		}
	}
}
