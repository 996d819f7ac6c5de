package held

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Paths of the peer service (docs/formats/peer.md, Held shards).
const (
	pathRoot     = "/held/"
	pathUpload   = pathRoot + "shards"
	pathReceipts = pathRoot + "receipts"
	pathProofs   = pathRoot + "proofs"
	pathList     = pathRoot + "list"
	pathShard    = pathRoot + "shard/" // pack / generation / index / leaves, tail or head
)

// Heads of the bodies that travel; the last byte is the version.
const (
	uploadMagic = "PelShUp\x01"
	askMagic    = "PelShAs\x01"
	landedMagic = "PelShLa\x01"
	proofsMagic = "PelShPr\x01"
	listMagic   = "PelShLi\x01"
	magicBytes  = len(uploadMagic)
)

// Limits of what travels.
const (
	// MaxRange is the longest range of a shard in a request: whole leaves below 16 MiB.
	MaxRange = 16 << 20 / seal.LeafBytes * seal.LeafBytes
	// runLeaves is how many leaves of a range have a proof of their own: 1 MiB, the
	// memory that an answer takes.
	runLeaves = 64
	// maxProof is the longest proof: of 2^36 leaves, two for each level.
	maxProof = 2 * 36
	// MaxChallenges is how many leaves are asked for in one audit: 4 MiB.
	MaxChallenges = 256
	// maxTail is the longest tail that is taken: manifests are bounded (store.md).
	maxTail = 1 << 30
	// listPage is how many shards an answer lists.
	listPage = 4096

	claimBytes     = entryBytes + 8
	challengeBytes = nameBytes + 8
	listedBytes    = entryBytes + 8 + 1
)

// Deadlines, by progress.
const (
	answerWithin = 15 * time.Second // to begin to answer
	stallAfter   = 15 * time.Second // without a byte moving
	// landWithin is how long an upload may take to become durable once its last byte
	// has come: syncs of a slow disk that others use.
	landWithin = 60 * time.Second
)

// appendClaims appends what an upload begins with.
func appendClaims(b []byte, claims []Claim) []byte {
	b = binary.BigEndian.AppendUint32(append(b, uploadMagic...), uint32(len(claims)))
	for _, c := range claims {
		b = binary.BigEndian.AppendUint64(c.Entry.append(b), uint64(c.Bytes))
	}
	return b
}

// readClaims reads it.
func readClaims(r io.Reader) ([]Claim, error) {
	return readList(r, uploadMagic, MaxBatch, claimBytes, func(b []byte) (Claim, error) {
		e, err := parseEntry(b)
		return Claim{e, int64(binary.BigEndian.Uint64(b[entryBytes:]))}, err
	})
}

func appendEntries(b []byte, entries []Entry) []byte {
	b = binary.BigEndian.AppendUint32(append(b, askMagic...), uint32(len(entries)))
	for _, e := range entries {
		b = e.append(b)
	}
	return b
}

func readEntries(r io.Reader) ([]Entry, error) {
	return readList(r, askMagic, MaxBatch, entryBytes, parseEntry)
}

// Challenge asks for a leaf of a shard.
type Challenge struct {
	Name
	Leaf int64
}

func appendChallenges(b []byte, all []Challenge) []byte {
	b = binary.BigEndian.AppendUint32(append(b, proofsMagic...), uint32(len(all)))
	for _, c := range all {
		b = binary.BigEndian.AppendUint64(c.Name.append(b), uint64(c.Leaf))
	}
	return b
}

func readChallenges(r io.Reader) ([]Challenge, error) {
	return readList(r, proofsMagic, MaxChallenges, challengeBytes, func(b []byte) (Challenge, error) {
		n, err := parseName(b)
		c := Challenge{n, int64(binary.BigEndian.Uint64(b[nameBytes:]))}
		if err == nil && c.Leaf < 0 {
			err = fault.New(fault.Invalid, "held: no leaf %d", c.Leaf)
		}
		return c, err
	})
}

// appendListed appends a page of a list; more: others follow.
func appendListed(b []byte, page []Status, more bool) []byte {
	b = binary.BigEndian.AppendUint32(append(b, listMagic...), uint32(len(page)))
	for _, st := range page {
		b = binary.BigEndian.AppendUint64(st.Entry.append(b), uint64(st.Bytes))
		b = append(b, byte(st.State))
	}
	return append(b, bool1(more))
}

func readListed(r io.Reader) (page []Status, more bool, err error) {
	page, err = readList(r, listMagic, listPage, listedBytes, func(b []byte) (st Status, err error) {
		st.Entry, err = parseEntry(b)
		st.Bytes, st.State = int64(binary.BigEndian.Uint64(b[entryBytes:])), State(b[entryBytes+8])
		if err == nil && (st.Bytes < 0 || st.State != Held && st.State != Lost) {
			err = fault.New(fault.Invalid, "held: a listed shard of state %d and %d bytes", st.State, st.Bytes)
		}
		return st, err
	})
	if err != nil {
		return nil, false, err
	}
	var last [1]byte
	if _, err := io.ReadFull(r, last[:]); err != nil {
		return nil, false, errCut(err)
	}
	return page, last[0] == 1, atEnd(r)
}

func bool1(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// readList reads a magic, a number and so many parts of a fixed length.
func readList[E any](r io.Reader, magic string, most, each int, parse func([]byte) (E, error)) ([]E, error) {
	count, err := readHead(r, magic, most)
	if err != nil {
		return nil, err
	}
	var list []E
	b := make([]byte, each)
	for range count {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, errCut(err)
		}
		e, err := parse(b)
		if err != nil {
			return nil, err
		}
		list = append(list, e) // grows with what comes
	}
	return list, nil
}

func readHead(r io.Reader, magic string, most int) (count int, err error) {
	head := make([]byte, magicBytes+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, errCut(err)
	}
	if last := magicBytes - 1; string(head[:last]) != magic[:last] {
		return 0, fault.New(fault.Invalid, "held: not a message of this kind")
	} else if head[last] != magic[last] {
		return 0, fault.New(fault.Unsupported, "held: a message of version %d", head[last])
	}
	n := binary.BigEndian.Uint32(head[magicBytes:])
	if n > uint32(most) {
		return 0, fault.New(fault.Invalid, "held: a message of %d parts, at most %d", n, most)
	}
	return int(n), nil
}

// errCut is a message that ends early.
func errCut(err error) error {
	if fault.KindOf(err) == fault.Other {
		return fault.New(fault.Unavailable, "held: a message breaks off: %s", err.Error())
	}
	return err
}

// atEnd checks that nothing follows.
func atEnd(r io.Reader) error {
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return fault.New(fault.Invalid, "held: a message with bytes behind its end")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return errCut(err)
	}
}

// appendLanded appends the answer to an upload or a question.
func appendLanded(b []byte, l *Landed) ([]byte, error) {
	b = binary.BigEndian.AppendUint32(append(b, landedMagic...), uint32(len(l.Outcomes)))
	for _, o := range l.Outcomes {
		b = append(b, byte(o))
	}
	if l.Receipt == nil {
		return b, nil
	}
	return l.Receipt.AppendBinary(b)
}

// parseLanded reads an answer about entries, and checks that the receipt is for
// those that it says are here, no more and no less. Who signed it is not checked.
func parseLanded(b []byte, entries []Entry) (*Landed, error) {
	if len(b) < magicBytes+4 || string(b[:magicBytes-1]) != landedMagic[:magicBytes-1] {
		return nil, fault.New(fault.Invalid, "held: not an answer about shards")
	}
	if v := b[magicBytes-1]; v != landedMagic[magicBytes-1] {
		return nil, fault.New(fault.Unsupported, "held: an answer of version %d", v)
	}
	count := int64(binary.BigEndian.Uint32(b[magicBytes:]))
	b = b[magicBytes+4:]
	if count != int64(len(entries)) || int64(len(b)) < count {
		return nil, fault.New(fault.Invalid, "held: an answer about %d shards where %d were meant", count, len(entries))
	}
	l := &Landed{Outcomes: make([]Outcome, count)}
	var here []Entry
	for i, e := range entries {
		if l.Outcomes[i] = Outcome(b[i]); b[i] == 0 || l.Outcomes[i] >= outcomes {
			return nil, fault.New(fault.Invalid, "held: an outcome %d", b[i])
		}
		if l.Outcomes[i].Here() {
			here = append(here, e)
		}
	}
	b = b[count:]
	if len(b) == 0 && len(here) == 0 {
		return l, nil
	}
	var err error
	if l.Receipt, err = ParseReceipt(b); err != nil {
		return nil, err
	}
	if len(l.Receipt.Entries) != len(here) {
		return nil, fault.New(fault.Invalid, "held: a receipt for %d shards where %d are said to be held", len(l.Receipt.Entries), len(here))
	}
	for i, e := range here {
		if l.Receipt.Entries[i] != e {
			return nil, fault.New(fault.Invalid, "held: a receipt for another shard than %v", e.Name)
		}
	}
	return l, nil
}

// appendProof appends a proof: its length, its hashes.
func appendProof(b []byte, proof [][32]byte) []byte {
	b = append(b, byte(len(proof)))
	for _, h := range proof {
		b = append(b, h[:]...)
	}
	return b
}

func readProof(r io.Reader) ([][32]byte, error) {
	var count [1]byte
	if _, err := io.ReadFull(r, count[:]); err != nil {
		return nil, errCut(err)
	}
	if count[0] > maxProof {
		return nil, fault.New(fault.Invalid, "held: a proof of %d hashes", count[0])
	}
	proof := make([][32]byte, count[0])
	for i := range proof {
		if _, err := io.ReadFull(r, proof[i][:]); err != nil {
			return nil, errCut(err)
		}
	}
	return proof, nil
}

// pathOf is the path of something of a shard.
func pathOf(n Name, what string) string {
	return fmt.Sprintf("%s%s/%d/%d/%s", pathShard, hex.EncodeToString(n.Pack[:]), n.Generation, n.Index, what)
}

// nameIn reads a shard's name from the parts of a path.
func nameIn(pack, generation, index string) (n Name, err error) {
	g, err1 := strconv.ParseUint(generation, 10, 32)
	i, err2 := strconv.ParseUint(index, 10, 8)
	if len(pack) != 2*len(n.Pack) || err1 != nil || err2 != nil {
		return n, fault.New(fault.Invalid, "held: not a shard's name")
	}
	if _, err := hex.Decode(n.Pack[:], []byte(pack)); err != nil {
		return n, fault.New(fault.Invalid, "held: not a pack's id")
	}
	n.Generation, n.Index = uint32(g), int(i)
	return n, n.check()
}

// leavesIn reads a range of leaves from a query, of a body of so many bytes.
func leavesIn(query url.Values, body int64) (first, count int64, err error) {
	first, err1 := strconv.ParseInt(query.Get("first"), 10, 64)
	count, err2 := strconv.ParseInt(query.Get("count"), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, fault.New(fault.Invalid, "held: not a range of leaves")
	}
	return first, count, checkLeaves(first, count, body)
}

// checkLeaves refuses a range that a body of so many bytes does not have, or that
// is too long for one request.
func checkLeaves(first, count, body int64) error {
	leaves := (body + seal.LeafBytes - 1) / seal.LeafBytes
	if first < 0 || count < 1 || count > MaxRange/seal.LeafBytes || first >= leaves || count > leaves-first {
		return fault.New(fault.Invalid, "held: leaves %d+%d of %d, at most %d at once", first, count, leaves, MaxRange/seal.LeafBytes)
	}
	return nil
}

// bodyOf is how long the body of a shard is.
func bodyOf(head *stripe.Head, index int) (int64, error) {
	g, err := head.Geometry()
	if err != nil {
		return 0, err
	}
	if index < 0 || index >= g.N() || len(head.Roots) != g.N() {
		return 0, fault.New(fault.Invalid, "held: no shard %d of %v", index, head.Stripe)
	}
	return g.ShardBytes(index), nil
}
