// Package assoc is the DICOM upper layer (PS3.8): associations over a
// connection, negotiated, bounded, and driven by a state machine that is a data
// table.
package assoc

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"time"
)

// Config holds an end's own settings.
type Config struct {
	MaxPDU   uint32        // longest PDU that we take; 0: 256 KiB is announced
	ARTIM    time.Duration // PS3.8 §9.1.5; 30 s
	Idle     time.Duration // without a PDU while established; 10 min
	Stall    time.Duration // without progress inside a PDU or a write; 60 s
	Log      *slog.Logger  // never patient data
	UserInfo UserInfo
}

// UserInfo is what an end says of itself.
type UserInfo struct{ ImplementationClassUID, ImplementationVersion string }

// Context is a presentation context: proposed, or agreed.
type Context struct {
	ID       byte
	Abstract string
	Syntaxes []string // proposed
	Result   byte     // PS3.8 table 9-18: 0 acceptance
	Syntax   string   // agreed, when Result is 0
	SCU, SCP bool     // roles of the requestor, after negotiation; default true, false
}

// Role is an SCP/SCU role selection item (PS3.7 D.3.3.4).
type Role struct {
	Class    string
	SCU, SCP bool
}

// CommonExtended is a SOP Class Common Extended Negotiation item (PS3.7 D.3.3.6).
type CommonExtended struct {
	Class, ServiceClass string
	Related             []string
}

// Identity is a user identity item (PS3.7 D.3.3.7). Secrets are never logged.
type Identity struct {
	Type              byte
	ResponseRequested bool
	Primary           []byte
	Secondary         []byte
}

// Request is an A-ASSOCIATE-RQ as the acceptor sees it or the requestor makes it.
type Request struct {
	Called, Calling string // trimmed
	Contexts        []Context
	Roles           []Role
	Extended        map[string][]byte // SOP class → service class application information
	Common          []CommonExtended
	Identity        *Identity
	MaxInvoked      uint16 // asynchronous operations window; 1,1 when absent
	MaxPerformed    uint16
	MaxPDU          uint32 // the peer's; 0 = unlimited
	UserInfo        UserInfo
	Remote          net.Addr
	TLS             *tls.ConnectionState
}

// Decision is what the acceptor answers: contexts with Result, Syntax and
// roles filled in, or a rejection.
type Decision struct {
	Contexts         []Context
	Extended         map[string][]byte
	MaxInvoked       uint16
	MaxPerformed     uint16
	IdentityResponse []byte        // nil: none
	Idle             time.Duration // 0: Config.Idle
	Reject           *Reject
}

// Reject is an A-ASSOCIATE-RJ (PS3.8 §9.3.4).
type Reject struct{ Result, Source, Reason byte }

// Error returns the rejection in words.
func (r *Reject) Error() string { panic("assoc: Reject.Error") }

// Aborted is the error of an association that ended by A-ABORT or A-P-ABORT.
type Aborted struct {
	Source, Reason byte
	Remote         bool // the peer sent it
}

// Error returns the abort in words.
func (a *Aborted) Error() string { panic("assoc: Aborted.Error") }

// Association is an established association. One goroutine may read while
// others send; sends are serialised message by message.
type Association struct{}

// Accept reads the request from conn, asks decide, answers, and returns the
// association; on rejection or any failure the connection is closed and the
// error tells why (*Reject, *Aborted, or fault.Invalid/Protocol).
func Accept(ctx context.Context, conn net.Conn, config Config, decide func(context.Context, *Request) Decision) (*Association, error) {
	panic("assoc: Accept")
}

// Dial requests an association over conn.
func Dial(ctx context.Context, conn net.Conn, config Config, request Request) (*Association, error) {
	panic("assoc: Dial")
}

// Request returns what was proposed.
func (a *Association) Request() *Request { panic("assoc") }

// Contexts returns the agreed and refused contexts in the order proposed.
func (a *Association) Contexts() []Context { panic("assoc") }

// Context returns an accepted context by id.
func (a *Association) Context(id byte) (Context, bool) { panic("assoc") }

// Extended returns the acceptor's extended negotiation answers.
func (a *Association) Extended() map[string][]byte { panic("assoc") }

// Window returns the negotiated asynchronous operations window as seen by the
// requestor: invoked, performed; 0 = unlimited.
func (a *Association) Window() (invoked, performed uint16) { panic("assoc") }

// Message is one DIMSE message: its command set and, when there is one, its
// data set as a stream that must be read to its end (or Discard-ed) before the
// next message is asked for.
type Message struct {
	ContextID byte
	Command   []byte // implicit little endian group 0000
	Data      *Data  // nil when the command has no data set
}

// Data streams a message's data set, fragment by fragment, as PDUs arrive.
type Data struct{}

// Read implements [io.Reader]; io.EOF after the last fragment. An association
// that ends inside a data set is io.ErrUnexpectedEOF wrapped with its cause.
func (d *Data) Read(p []byte) (int, error) { panic("assoc") }

// Next returns the next fragment without a copy, valid until the next call.
func (d *Data) Next() ([]byte, error) { panic("assoc") }

// Discard reads and drops what is left.
func (d *Data) Discard() error { panic("assoc") }

// Receive returns the next message. io.EOF: the peer released the association
// (the release reply has been sent).
func (a *Association) Receive(ctx context.Context) (*Message, error) { panic("assoc") }

// Send sends one message; data may be nil. PDUs fill the peer's maximum
// length and each goes out in one write; a small command and its data set share
// a PDU where they fit.
func (a *Association) Send(ctx context.Context, contextID byte, command []byte, data io.Reader) error {
	panic("assoc")
}

// Release performs an orderly release as requestor and closes the connection.
func (a *Association) Release(ctx context.Context) error { panic("assoc") }

// Abort sends A-ABORT (service user) and closes.
func (a *Association) Abort() error { panic("assoc") }

// Done is closed when the association has ended, whatever the reason.
func (a *Association) Done() <-chan struct{} { panic("assoc") }
