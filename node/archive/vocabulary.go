package archive

import (
	"context"
	"fmt"
	"io"
	"iter"

	"pelago/dimse/dicom"
)

// Sender is who an instance came from, and what that implies.
type Sender struct {
	CallingAE string
	Remote    string // address
	User      string // web login, if any
	Issuer    string // default issuer of Patient ID; "" = the site's
	Charset   string // character set assumed where (0008,0005) is absent; "" = none
}

// Incoming is one instance to store.
type Incoming struct {
	Sender   Sender
	Syntax   string    // transfer syntax UID of Body
	Class    string    // Affected SOP Class UID of the command; "" = not stated
	Instance string    // Affected SOP Instance UID; "" = not stated
	Study    string    // STOW to a study: must agree; "" = any
	Body     io.Reader // the data set without group 0002, as it comes
}

// Outcome says what became of an arrival.
type Outcome uint8

const (
	New         Outcome = iota // stored
	Same                       // we had it, bit for bit or in canonical form; one copy
	Rendition                  // an encapsulated re-send that decodes to what we had; kept beside it
	Quarantined                // other content under a known UID, or deleted: kept, an operator decides
)

// Stored is the receipt of an arrival: durable when returned.
type Stored struct {
	Ref
	Outcome  Outcome
	Deleted  bool     // Quarantined because a tombstone covers it
	Patient  string   // Patient ID, for the audit trail only
	Warnings []string // for STOW's (0008,1196) and the log; no patient data
}

// Ref names a stored instance. Number is the local number at the node that
// stores it.
type Ref struct {
	Study, Series, SOP string
	Class              string
	Syntax             string
	Number             uint64
	Bytes              int64  // as stored
	Origin             string // id of the node that stores it; "" = this one
}

// Missing is in the tree of an error of [Reads.Select] about instances of a
// series that are known to be held by other nodes, and only by their number:
// none of those nodes tells now which they are. Its kind is fault.Unavailable.
type Missing struct {
	Study, Series string // "" where it is not known
	SOP           string // if just that one was asked for
	Instances     int    // at least one
}

// Error names no patient.
func (m *Missing) Error() string {
	return fmt.Sprintf("%d instances of series %s are held by nodes that do not answer", m.Instances, m.Series)
}

// Instance is an opened instance.
type Instance interface {
	Ref() Ref
	Header() *dicom.Header
	// Stored reads the data set as received (deflated if it came so).
	Stored() io.ReaderAt
	// Values reads it in the coordinates of Header: inflated if it came deflated.
	Values() (io.ReaderAt, error)
	Hash() [32]byte // BLAKE3 of Stored
	io.Closer
}

// Hint says what of a selection will be read, so that it may come together with
// what has to be asked of another node anyway. It changes no answer.
type Hint struct {
	Frame int  // from 1: this frame of the instance that is selected; 0: none
	Whole bool // all bytes of all that is selected, in the order of [Arrange]
	// Named are SOP Instance UIDs that are selected one after the other, without the
	// names of their series: who must be asked for them is asked once.
	Named []string
}

// Closed is in the tree of an error that says that a node, by its role or by an
// operator's word, does not take instances in or does not send any, whoever asks.
// The error's kind is fault.Unavailable.
type Closed struct {
	Why string // for clients to read: at most 64 characters, nothing of patients
}

// Error says why.
func (c *Closed) Error() string { return c.Why }

type hintKey struct{}

// WithHint returns a context whose selections, and what is opened of them, are for
// what the hint says.
func WithHint(ctx context.Context, h Hint) context.Context {
	return context.WithValue(ctx, hintKey{}, h)
}

// HintOf returns a context's hint.
func HintOf(ctx context.Context) Hint {
	h, _ := ctx.Value(hintKey{}).(Hint)
	return h
}

// Reads is what retrieval faces use of the archive. Implemented by *Archive for
// what is stored here, and by node/reach for all that the network has.
type Reads interface {
	// Select yields the instances of a study, a series or an instance (lower
	// UIDs empty widen), in ascending UID order; only canonical ones, none that a
	// tombstone covers. With study empty, series or instance UIDs alone are looked
	// up. fault.NotFound is the first yield when there are none. An error with
	// [Missing] in its tree stands for instances, and more may follow; any other
	// is the last yield. A [Hint] in ctx saves a round trip to another node.
	Select(ctx context.Context, study, series, instance string) iter.Seq2[Ref, error]
	// Open opens one; fault.NotFound, fault.Corrupt, fault.Unavailable.
	Open(ctx context.Context, ref Ref) (Instance, error)
	// Headers opens only the header record, which costs no pixel data read.
	Headers(ctx context.Context, ref Ref) (*dicom.Header, error)
	// Prefetch readies an instance that is to be opened soon. It is a hint. See [Ahead].
	Prefetch(ctx context.Context, ref Ref)
}

// Writes is what storing faces use of the archive. Implemented by *Archive.
type Writes interface {
	// Store takes one instance in and returns once it is durable.
	// fault.Invalid, Mismatch, Unsupported, Full; fault.Unavailable with a [Closed]
	// of a node that takes nothing in. The body is read to its end or left where the
	// failure was.
	Store(ctx context.Context, in Incoming) (Stored, error)
}
