package assoc

import (
	"crypto/tls"
	"net"
	"time"
)

// Results of a presentation context (PS3.8 table 9-18).
const (
	Acceptance                byte = 0
	UserRejection             byte = 1
	NoReason                  byte = 2 // provider rejection
	AbstractSyntaxUnsupported byte = 3 // provider rejection
	TransferSyntaxUnsupported byte = 4 // provider rejection
)

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

// Request is an A-ASSOCIATE-RQ as the acceptor sees it or the requestor makes
// it. To [Accept]'s decide its contexts carry the roles proposed for their class.
// For [Dial], contexts whose ids are all zero are numbered 1, 3, 5…; MaxPDU, UserInfo,
// Remote and TLS are not used; a window of 0, 0 stands for 1, 1.
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
// roles filled in, or a rejection. A proposed context that is left out is refused.
// Roles count only where the requestor proposed some, and never exceed the
// proposal. A window of 0 stands for one operation at a time, and a wider one is cut to
// the proposal.
type Decision struct {
	Contexts         []Context
	Extended         map[string][]byte
	MaxInvoked       uint16
	MaxPerformed     uint16
	IdentityResponse []byte        // nil: none
	Idle             time.Duration // 0: Config.Idle
	Reject           *Reject
}
