package scp

import (
	"context"
	"iter"
	"time"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/scu"
)

// Admitter decides who gets an association, and to what. It is called once the
// request has been read; request.Remote and request.TLS tell where from. An
// error refuses the association: with an *[assoc.Reject] in its tree exactly
// so; fault.Denied as "calling AE title not recognized", fault.Full and
// fault.Unavailable as temporary congestion, others without a reason
// (PS3.8 table 9-21).
type Admitter interface {
	Admit(ctx context.Context, request *assoc.Request) (*Session, error)
}

// Session is what one association may use. Providers that are nil are not
// offered: their contexts are refused.
//
// Providers are called from several goroutines of the association at once, with
// a ctx that ends when the association does. Errors they return turn into
// statuses by [dimse.StatusOf]: the kind decides, or a [dimse.StatusError] says
// it exactly.
type Session struct {
	Echo   Echoer
	Store  Storer
	Find   Finder
	Move   Mover
	Get    Getter
	Commit Committer

	// Committed takes the storage commitment results that a requestor in the
	// SCP role reports. nil: not offered.
	Committed func(ctx context.Context, result *dimse.CommitmentResult) error

	Options dimse.QueryOptions // what Find, Move and Get can do when asked to
	Window  uint16             // operations at once that are granted; 0: 8
	Idle    time.Duration      // 0: the server's

	IdentityResponse []byte // server response to user identity negotiation

	// Closed is called once, after the last provider call has returned; nil
	// after a release. It may be nil itself.
	Closed func(err error)
}

// Echoer answers C-ECHO.
type Echoer interface {
	Echo(ctx context.Context) error
}

// StoreRequest is one C-STORE.
type StoreRequest struct {
	Class     string // Affected SOP Class UID, that of the context
	Instance  string // Affected SOP Instance UID; "" when the command has none
	Syntax    string // transfer syntax of Data
	MessageID uint16
	Priority  uint16

	MoveOriginator        string // AE title; "" unless a C-MOVE caused this
	MoveOriginatorMessage uint16

	Data *assoc.Data // the data set as it arrives, valid until Store returns
}

// Storer takes an instance in. It returns nil once the instance is durable.
// It need not read the data to its end. For a warning such as B000 it returns
// a [dimse.StatusError] with that status.
type Storer interface {
	Store(ctx context.Context, request *StoreRequest) error
}

// FindRequest is one C-FIND.
type FindRequest struct {
	Root       dimse.Root
	Identifier *dicom.Dataset
	Options    dimse.QueryOptions // as negotiated
	Priority   uint16
}

// Matches is the answer to a C-FIND.
type Matches struct {
	// Datasets yields the identifiers to answer. An error ends the operation
	// with its status, after what was yielded before; fault.NotFound is a
	// success. It is ranged over once.
	Datasets iter.Seq2[*dicom.Dataset, error]
	// Partial reports that optional keys were not matched or that the answer may
	// be stale or incomplete, as far as is known by now: it is asked for each
	// pending response, which is then FF01 instead of FF00. nil: never.
	Partial func() bool
}

// Finder answers C-FIND. Its ctx ends when the peer cancels.
type Finder interface {
	Find(ctx context.Context, request *FindRequest) (*Matches, error)
}

// RetrieveRequest is one C-MOVE or C-GET.
type RetrieveRequest struct {
	Root        dimse.Root
	Identifier  *dicom.Dataset
	Options     dimse.QueryOptions // as negotiated
	Priority    uint16
	Destination string // Move Destination; "" for C-GET
	Calling     string // AE title of the requestor
	MessageID   uint16
}

// Retrieval is what a C-MOVE or C-GET is to send.
type Retrieval struct {
	// Total is the number of sub-operations, as far as known.
	Total int
	// Missing of them fail: instances that are known by their number only, and so
	// are not in the list of those that failed.
	Missing int
	// Instances yields them. An error that comes with an instance's UID counts
	// as one failed sub-operation; one without ends the retrieval, and what
	// Total says was still to come counts as failed. It is ranged over once; its
	// values may be opened at once, up to Parallel of them.
	Instances iter.Seq2[scu.Instance, error]
	// Connect opens the way to the Move Destination (C-MOVE only). When it fails
	// every sub-operation counts as failed, unless the error is
	// [dimse.DestinationUnknown].
	Connect func(ctx context.Context) (Destination, error)
	// Parallel is how many sub-operations may be on their way; 0: one. C-GET
	// keeps to the negotiated window too.
	Parallel int
	// Finished is called with what became of it before the final response is
	// sent. It may be nil.
	Finished func(Outcome)
}

// Outcome is how a retrieval ended.
type Outcome struct {
	Status                                command.Status
	Remaining, Completed, Failed, Warning int
}

// Destination stores at a Move Destination. *[scu.Sender] is one.
type Destination interface {
	Store(ctx context.Context, instance scu.Instance, from scu.Originator) (command.Status, error)
	Close(ctx context.Context) error
}

var _ Destination = (*scu.Sender)(nil)

// Mover answers C-MOVE: it resolves the destination
// ([dimse.DestinationUnknown]) and says what to send. Its ctx ends when the
// peer cancels.
type Mover interface {
	Move(ctx context.Context, request *RetrieveRequest) (*Retrieval, error)
}

// Getter answers C-GET, as [Mover].
type Getter interface {
	Get(ctx context.Context, request *RetrieveRequest) (*Retrieval, error)
}

// CommitRequest is one storage commitment request.
type CommitRequest struct {
	dimse.CommitmentRequest
	// Report sends the result on the association on which the request came. It
	// waits until the request was answered, so that Commit itself must not wait
	// for it. fault.Unavailable once the association has ended: the result must
	// then go over a new one.
	Report func(ctx context.Context, result *dimse.CommitmentResult) error
}

// Committer takes a storage commitment request. It returns nil once the request
// is durable; the result is reported later.
type Committer interface {
	Commit(ctx context.Context, request *CommitRequest) error
}

// drop reads what is left of a message's data set.
func drop(data *assoc.Data) error {
	if data == nil {
		return nil
	}
	return data.Discard()
}
