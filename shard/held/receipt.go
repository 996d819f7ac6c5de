package held

import (
	"crypto/ed25519"
	"encoding/binary"
	"slices"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	// receiptContext begins the signed message, so that none of another kind can be
	// taken for a receipt.
	receiptContext = "pelago shard receipt v1\x00"
	holderBytes    = 32 // of a node's id
	receiptHead    = len(receiptContext) + holderBytes + 4
	maxReceipt     = receiptHead + MaxBatch*entryBytes + ed25519.SignatureSize
)

// Signer is this node's identity; *identity.Node is one.
type Signer interface {
	ID() string
	Sign(message []byte) []byte
}

// Receipt says that a node holds shards: their bytes, which are those that their
// stripe's root stands for, were synced before it was signed. It proves who said
// so, not that the bytes are still there: that is asked again ([Client.Prove]).
type Receipt struct {
	Holder    string  // node id
	Entries   []Entry // ascending by name, without doubles
	Signature [ed25519.SignatureSize]byte
}

// signReceipt signs entries that are in order. The bytes of all of them are
// synced. Equal entries have equal receipts (RFC 8032).
func signReceipt(self Signer, entries []Entry) *Receipt {
	r := &Receipt{Holder: self.ID(), Entries: entries}
	copy(r.Signature[:], self.Sign(r.message(nil)))
	return r
}

// message appends what is signed.
func (r *Receipt) message(b []byte) []byte {
	b = append(append(b, receiptContext...), r.Holder...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Entries)))
	for _, e := range r.Entries {
		b = e.append(b)
	}
	return b
}

// Verify checks the signature with the holder's public key, as its member record
// has it: fault.Denied if the key is another node's, or did not sign this.
func (r *Receipt) Verify(public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize || identity.IDOf(public) != r.Holder {
		return fault.New(fault.Denied, "held: a receipt of node %s does not belong to the key", r.Holder)
	}
	if err := inOrder(r.Entries, entryName); err != nil {
		return err
	}
	if !ed25519.Verify(public, r.message(nil), r.Signature[:]) {
		return fault.New(fault.Denied, "held: a receipt that node %s did not sign", r.Holder)
	}
	return nil
}

// Covers reports whether the receipt is for a shard of that stripe root.
func (r *Receipt) Covers(e Entry) bool {
	i, ok := slices.BinarySearchFunc(r.Entries, e.Name, func(a Entry, n Name) int { return Compare(a.Name, n) })
	return ok && r.Entries[i].Root == e.Root
}

// AppendBinary appends the durable form (docs/formats/held.md).
func (r *Receipt) AppendBinary(b []byte) ([]byte, error) {
	if len(r.Holder) != holderBytes {
		return nil, fault.New(fault.Invalid, "held: a receipt of no node")
	}
	if err := inOrder(r.Entries, entryName); err != nil {
		return nil, err
	}
	return append(r.message(b), r.Signature[:]...), nil
}

// ParseReceipt reads the durable form: fault.Invalid for anything else. The
// signature is not checked.
func ParseReceipt(b []byte) (*Receipt, error) {
	if len(b) < receiptHead || string(b[:len(receiptContext)]) != receiptContext {
		return nil, fault.New(fault.Invalid, "held: not a receipt of this version")
	}
	r := &Receipt{Holder: string(b[len(receiptContext) : len(receiptContext)+holderBytes])}
	count := binary.BigEndian.Uint32(b[receiptHead-4:])
	b = b[receiptHead:]
	if count > MaxBatch || len(b) != int(count)*entryBytes+ed25519.SignatureSize {
		return nil, fault.New(fault.Invalid, "held: a receipt of %d shards in %d bytes", count, len(b))
	}
	r.Entries = make([]Entry, count)
	for i := range r.Entries {
		var err error
		if r.Entries[i], err = parseEntry(b); err != nil {
			return nil, err
		}
		b = b[entryBytes:]
	}
	copy(r.Signature[:], b)
	return r, inOrder(r.Entries, entryName)
}
