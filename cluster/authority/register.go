package authority

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"pelago/cluster/identity"
)

// Candidate is a node that has proven its key and wants to become a member.
type Candidate struct {
	Name    Name
	Public  ed25519.PublicKey
	Sealing [identity.SealingBytes]byte // what is sealed to it later
	Proof   [identity.ProofBytes]byte   // of the sealing key, for whoever seals
	Place   Place
}

// Register is the network's memory of tokens and members. Each call is a decision
// of the network: it is agreed on and durable when it returns nil. Errors are a
// [Refusal]'s, or say that nothing could be decided (fault.Unavailable).
type Register interface {
	// Open makes a ticket good until it expires. TooMany when there is no room.
	Open(ctx context.Context, t Ticket) error
	// Admit spends the ticket of a token and makes the candidate a member, both in
	// one step. Again for the same node of the same site it succeeds, so that a lost
	// answer costs no token. UnknownToken, UsedToken, ExpiredToken; Revoked for a node that was
	// removed, whatever token it brings; OtherSite for a member that moves.
	Admit(ctx context.Context, ticket [ed25519.PublicKeySize]byte, c Candidate) error
	// Standing is nil for a member, Revoked for who is none (any more).
	Standing(ctx context.Context, n Name) error
}

// maxTickets bounds the tickets in memory: more than any operator opens in a
// week, 100 KB.
const maxTickets = 1024

// Ledger is a [Register] in the memory of one process: of a network that has no
// catalogue, or of a test. Its zero value is empty and ready.
type Ledger struct {
	mu      sync.Mutex
	tickets map[[ed25519.PublicKeySize]byte]entry
	members map[string]Name
	removed map[string]bool
}

type entry struct {
	expires time.Time
	node    string // that joined by it
}

// Open keeps a ticket. Those that have expired for a day make room.
func (l *Ledger) Open(_ context.Context, t Ticket) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for key, e := range l.tickets {
		if now.After(e.expires.Add(Tolerance)) { // until then an answer says why it is not good
			delete(l.tickets, key)
		}
	}
	if len(l.tickets) >= maxTickets {
		return TooMany.Err()
	}
	if l.tickets == nil {
		l.tickets = map[[ed25519.PublicKeySize]byte]entry{}
	}
	l.tickets[t.Key] = entry{expires: t.Expires}
	return nil
}

// Admit spends a ticket.
func (l *Ledger) Admit(_ context.Context, ticket [ed25519.PublicKeySize]byte, c Candidate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.tickets[ticket]
	switch {
	case l.removed[c.Name.Node]:
		return Revoked.Err()
	case !ok:
		return UnknownToken.Err()
	case l.members[c.Name.Node] != Name{} && l.members[c.Name.Node] != c.Name:
		return OtherSite.Err()
	case e.node != "" && l.members[e.node] == c.Name:
		return nil
	case e.node != "":
		return UsedToken.Err()
	case !time.Now().Before(e.expires):
		return ExpiredToken.Err()
	}
	e.node = c.Name.Node
	l.tickets[ticket] = e
	l.addLocked(c.Name)
	return nil
}

// Add makes a node a member without a token, as the founder is.
func (l *Ledger) Add(n Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(n)
}

func (l *Ledger) addLocked(n Name) {
	if l.members == nil {
		l.members = map[string]Name{}
	}
	l.members[n.Node] = n
}

// Standing tells members from others.
func (l *Ledger) Standing(_ context.Context, n Name) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed[n.Node] || l.members[n.Node] != n {
		return Revoked.Err()
	}
	return nil
}

// Remove revokes a node, for good.
func (l *Ledger) Remove(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed == nil {
		l.removed = map[string]bool{}
	}
	l.removed[node] = true
	delete(l.members, node)
}

// Revoked reports whether a node was removed: what cluster/port asks.
func (l *Ledger) Revoked(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removed[node]
}
