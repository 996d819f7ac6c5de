package catalog

import (
	"crypto/rand"
	"slices"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
)

// The version that this code reads, and the least versions of a reader that
// understands it. A change that an older reader must not skip raises the version and
// has a least reader of its own.
const (
	entryVersion    = 4
	entryMinReader  = 2
	sealedMinReader = 3 // of a batch with keys or seals
	purgeMinReader  = 4 // of a decision that moves the clock, or purges
)

// EntryVersion is the newest version of entries that this program reads.
const EntryVersion = entryVersion

// MinReader is the least version that a program must read to go on applying after a
// decision with these commands: an older one stops there.
func MinReader(commands ...Command) uint32 { return minReaderOf(commands) }

// What signatures are over begins with a text of its own, so that none can be
// taken for another kind of message (see identity.Node.Sign).
const (
	batchContext    = "pelago catalogue batch v2\x00"
	decisionContext = "pelago catalogue decision v2\x00"
)

// Limits of an entry. What goes through the log is small.
const (
	// MaxBatchBytes bounds an encoded batch.
	MaxBatchBytes = 64 << 10
	// MaxBatchFacts bounds the facts of a batch, of all kinds together, MaxCommands
	// the commands of a decision and MaxConditions its conditions.
	MaxBatchFacts = 4096
	MaxCommands   = 4096
	MaxConditions = 256
	// maxDecisionBytes bounds an encoded decision, within what the log takes.
	maxDecisionBytes = 256 << 10
	nonceBytes       = 16
	hashPrefixBytes  = 8
)

// Signer is a node's signing key (Ed25519), as identity.Node has it.
type Signer interface {
	Sign(message []byte) []byte // 64 bytes
}

// Batch is what a node's journal says at once: facts of this node, whose Origin
// and Site (of a seal: By) are the batch's. They are applied, and have their results,
// in the order of the fields: a seal may name a key of the same batch.
type Batch struct {
	Node        string
	Site        string
	Incarnation uint64 // from 1; a new one when the numbering cannot go on
	Number      uint64 // dense, from 1 in each incarnation
	Facts       []*SeriesFact
	Keys        []*KeyFact
	Seals       []*SealFact
}

// Len is how many facts of all kinds there are.
func (b *Batch) Len() int { return len(b.Facts) + len(b.Keys) + len(b.Seals) }

// Condition is what a registry record must be for a decision to be taken.
type Condition struct {
	Kind, Name string
	ValueHash  [32]byte // BLAKE3 of the value; zeros: there must be no record
}

// If returns the condition that a registry record has a value; with an empty
// one, that there is none.
func If(kind, name string, value []byte) Condition {
	c := Condition{Kind: kind, Name: name}
	if len(value) > 0 {
		c.ValueHash = blake3.Sum256(value)
	}
	return c
}

// Decision is what a node asks the network to decide.
type Decision struct {
	Node       string
	Nonce      [nonceBytes]byte
	Conditions []Condition
	Commands   []Command
}

// Entry is a decoded entry: a batch or a decision.
type Entry struct {
	Batch    *Batch
	Decision *Decision

	body      []byte
	signature []byte
	after     []byte // of a batch: the first bytes of the previous one's hash
}

// EncodeBatch returns the entry of a batch that follows the one with the hash
// previous (zeros for the first of an incarnation), and its own hash. It is
// fault.Full when the batch is larger than MaxBatchBytes, and fault.Invalid when
// a fact is not the batch's node's, or names what cannot be.
func EncodeBatch(s Signer, b Batch, previous [32]byte) (entry []byte, hash [32]byte, err error) {
	pb, err := batchToProto(b, previous)
	if err != nil {
		return nil, hash, err
	}
	body, err := marshal(pb)
	if err != nil {
		return nil, hash, err
	}
	if len(body) > MaxBatchBytes {
		return nil, hash, fault.New(fault.Full, "catalog: a batch of %d bytes", len(body))
	}
	message := batchMessage(previous, body)
	entry, err = marshal(&catalogpb.Entry{
		Version: writtenVersion(b.minReader()), MinReader: b.minReader(),
		Body: &catalogpb.Entry_Batch{Batch: body}, Signature: s.Sign(message),
	})
	return entry, blake3.Sum256(message), err
}

// minReader is the least version of a reader that understands all facts.
func (b *Batch) minReader() uint32 {
	if len(b.Keys)+len(b.Seals) > 0 {
		return sealedMinReader
	}
	return entryMinReader
}

// batchMessage is what a batch's node signs, and what its hash is of.
func batchMessage(previous [32]byte, body []byte) []byte {
	return slices.Concat([]byte(batchContext), previous[:], body)
}

// EncodeDecision returns the entry of a decision of a node, under a nonce of its
// own: the same entry proposed twice is taken once. fault.Invalid when it is too
// large.
func EncodeDecision(s Signer, node string, conditions []Condition, commands []Command) ([]byte, error) {
	d := &catalogpb.Decision{Node: node, Nonce: make([]byte, nonceBytes)}
	rand.Read(d.Nonce)
	return encodeDecision(s, d, conditions, commands)
}

func encodeDecision(s Signer, d *catalogpb.Decision, conditions []Condition, commands []Command) ([]byte, error) {
	if len(commands) == 0 || len(commands) > MaxCommands || len(conditions) > MaxConditions {
		return nil, fault.New(fault.Invalid, "catalog: a decision of %d commands under %d conditions", len(commands), len(conditions))
	}
	for _, c := range conditions {
		pb := &catalogpb.Condition{Kind: c.Kind, Name: c.Name}
		if c.ValueHash != [32]byte{} {
			pb.ValueHash = c.ValueHash[:]
		}
		d.Conditions = append(d.Conditions, pb)
	}
	for _, c := range commands {
		pb, err := commandToProto(c)
		if err != nil {
			return nil, err
		}
		d.Commands = append(d.Commands, pb)
	}
	body, err := marshal(d)
	if err != nil {
		return nil, err
	}
	if len(body) > maxDecisionBytes {
		return nil, fault.New(fault.Invalid, "catalog: a decision of %d bytes", len(body))
	}
	return marshal(&catalogpb.Entry{
		Version: writtenVersion(minReaderOf(commands)), MinReader: minReaderOf(commands),
		Body: &catalogpb.Entry_Decision{Decision: body}, Signature: s.Sign(decisionMessage(body)),
	})
}

// writtenVersion is that of an entry for such readers: one that version 3 understands is
// written as that one writes it.
func writtenVersion(least uint32) uint32 { return max(sealedMinReader, least) }

// minReaderOf is the least version of a reader that understands all commands.
func minReaderOf(commands []Command) uint32 {
	for _, c := range commands {
		switch c.(type) {
		case *TickFact, *SeenFact, *PurgeFact, *ForgetFact:
			return purgeMinReader
		}
	}
	return entryMinReader
}

func decisionMessage(body []byte) []byte { return append([]byte(decisionContext), body...) }

func marshal(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fault.New(fault.Invalid, "catalog: encode entry: %w", err)
	}
	return b, nil
}

// DecodeEntry reads an entry; whether its signature is good, only the catalogue
// can tell. An entry for a newer reader, and one of an unknown type, are
// fault.Unsupported: who applies stops and never skips. Anything else that cannot
// be read is fault.Invalid.
func DecodeEntry(b []byte) (*Entry, error) {
	if len(b) > 2*maxDecisionBytes {
		return nil, fault.New(fault.Invalid, "catalog: an entry of %d bytes", len(b))
	}
	var pb catalogpb.Entry
	if err := proto.Unmarshal(b, &pb); err != nil {
		return nil, fault.New(fault.Invalid, "catalog: an entry cannot be read: %w", err)
	}
	if pb.MinReader > entryVersion {
		return nil, fault.New(fault.Unsupported, "catalog: an entry needs version %d of pelago's catalogue, this is %d", pb.MinReader, entryVersion)
	}
	if pb.Version < entryMinReader {
		return nil, fault.New(fault.Invalid, "catalog: an entry of version %d", pb.Version)
	}
	e := &Entry{signature: pb.Signature}
	switch body := pb.Body.(type) {
	case *catalogpb.Entry_Batch:
		if err := e.decodeBatch(body.Batch); err != nil {
			return e, err
		}
		if least := e.Batch.minReader(); pb.MinReader < least {
			return nil, fault.New(fault.Invalid, "catalog: a batch for readers of version %d has facts of version %d, which they would skip", pb.MinReader, least)
		}
		return e, nil
	case *catalogpb.Entry_Decision:
		if err := e.decodeDecision(body.Decision); err != nil {
			return e, err
		}
		if least := minReaderOf(e.Decision.Commands); pb.MinReader < least {
			return nil, fault.New(fault.Invalid, "catalog: a decision for readers of version %d has commands of version %d", pb.MinReader, least)
		}
		return e, nil
	}
	if len(pb.ProtoReflect().GetUnknown()) > 0 {
		return nil, fault.New(fault.Unsupported, "catalog: an entry of unknown type: a newer version wrote it")
	}
	return nil, fault.New(fault.Invalid, "catalog: an empty entry")
}

func (e *Entry) decodeBatch(body []byte) error {
	if len(body) > MaxBatchBytes {
		return fault.New(fault.Invalid, "catalog: a batch of %d bytes", len(body))
	}
	var pb catalogpb.Batch
	if err := proto.Unmarshal(body, &pb); err != nil {
		return fault.New(fault.Invalid, "catalog: a batch cannot be read: %w", err)
	}
	b, err := batchFromProto(&pb)
	e.Batch, e.body, e.after = b, body, pb.After
	return err
}

func (e *Entry) decodeDecision(body []byte) error {
	if len(body) > maxDecisionBytes {
		return fault.New(fault.Invalid, "catalog: a decision of %d bytes", len(body))
	}
	var pb catalogpb.Decision
	if err := proto.Unmarshal(body, &pb); err != nil {
		return fault.New(fault.Invalid, "catalog: a decision cannot be read: %w", err)
	}
	if !isName(pb.Node) || len(pb.Nonce) != nonceBytes ||
		len(pb.Commands) == 0 || len(pb.Commands) > MaxCommands || len(pb.Conditions) > MaxConditions {
		return fault.New(fault.Invalid, "catalog: a decision of %d commands under %d conditions is none", len(pb.Commands), len(pb.Conditions))
	}
	d := &Decision{Node: pb.Node, Nonce: [nonceBytes]byte(pb.Nonce)}
	for _, c := range pb.Conditions {
		if len(c.GetValueHash()) != 0 && len(c.ValueHash) != 32 {
			return fault.New(fault.Invalid, "catalog: a condition with a hash of %d bytes", len(c.ValueHash))
		}
		condition := Condition{Kind: c.GetKind(), Name: c.GetName()}
		copy(condition.ValueHash[:], c.GetValueHash())
		d.Conditions = append(d.Conditions, condition)
	}
	for _, c := range pb.Commands {
		command, err := commandFromProto(c)
		if err != nil {
			return err
		}
		d.Commands = append(d.Commands, command)
	}
	e.Decision, e.body = d, body
	return nil
}
