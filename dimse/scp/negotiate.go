package scp

import (
	"strings"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
)

// Results of a presentation context (PS3.8 table 9-18).
const (
	accepted            = 0
	noReason            = 2
	abstractUnsupported = 3
	syntaxUnsupported   = 4
)

// defaultWindow is the asynchronous operations window that is granted unless
// the session says otherwise.
const defaultWindow = 8

// storageNegotiation is the answer to extended negotiation of a storage class
// (PS3.4 table B.3-2): level 2 (full), digital signature level 3 (every byte is
// kept), no coercion of elements.
var storageNegotiation = [...]byte{2, 0, 3, 0, 0, 0}

// Negotiate answers the contexts, roles, extended negotiation and window of an
// association request for a session. It is pure.
//
// One transfer syntax is accepted per context: the first of the requestor's
// that can be taken; for a storage context on which instances are sent back
// (C-GET) explicit little endian if it is offered, since most stored instances
// can be converted to it. On such an association the requestor may have one
// operation outstanding.
func Negotiate(r *assoc.Request, s *Session) assoc.Decision {
	n := negotiation{request: r, session: s, declared: declaredStorage(r), roles: map[string]assoc.Role{}}
	for _, role := range r.Roles {
		n.roles[role.Class] = role
	}
	n.gets = n.proposesGet()

	d := assoc.Decision{
		Contexts:         make([]assoc.Context, len(r.Contexts)),
		MaxInvoked:       grant(r.MaxInvoked, s.Window),
		MaxPerformed:     grant(r.MaxPerformed, s.Window),
		IdentityResponse: s.IdentityResponse,
		Idle:             s.Idle,
	}
	taken, sendsBack := map[string]bool{}, false
	for i, c := range r.Contexts {
		d.Contexts[i] = n.context(c)
		if d.Contexts[i].Result == accepted {
			taken[c.Abstract] = true
			sendsBack = sendsBack || d.Contexts[i].SCP && n.storage(c.Abstract)
		}
	}
	if sendsBack {
		// Two ends that stream data sets to each other over one connection, and
		// each read only once their own is out, would wait for ever.
		d.MaxInvoked = 1
	}
	for class, info := range r.Extended {
		if answer := n.extended(class, info); taken[class] && answer != nil {
			if d.Extended == nil {
				d.Extended = map[string][]byte{}
			}
			d.Extended[class] = answer
		}
	}
	return d
}

// grant returns the smaller of what is asked for and what is given; 0 asks for
// no limit (PS3.7 D.3.3.3.1).
func grant(asked, given uint16) uint16 {
	if given == 0 {
		given = defaultWindow
	}
	if asked == 0 {
		return given
	}
	return min(asked, given)
}

// declaredStorage returns the classes that the requestor declares to be of the
// Storage Service Class (PS3.7 D.3.3.6).
func declaredStorage(r *assoc.Request) map[string]bool {
	declared := map[string]bool{}
	for _, c := range r.Common {
		if c.ServiceClass == dimse.StorageService {
			declared[c.Class] = true
		}
	}
	return declared
}

// negotiation is one request being answered.
type negotiation struct {
	request  *assoc.Request
	session  *Session
	declared map[string]bool // storage classes by common extended negotiation
	roles    map[string]assoc.Role
	gets     bool // C-GET is proposed and offered
}

func (n *negotiation) proposesGet() bool {
	if n.session.Get == nil {
		return false
	}
	for _, c := range n.request.Contexts {
		if _, o, ok := dimse.QueryClass(c.Abstract); ok && o == dimse.Get {
			return true
		}
	}
	return false
}

// storage reports whether a context for the class counts as storage.
func (n *negotiation) storage(class string) bool {
	return n.declared[class] || dict.IsStorageClass(class)
}

// asked returns the roles that the requestor proposes for a class; without a
// proposal it is SCU only.
func (n *negotiation) asked(class string) assoc.Role {
	if role, ok := n.roles[class]; ok {
		return role
	}
	return assoc.Role{Class: class, SCU: true}
}

// context answers one context: its result, syntax and roles.
func (n *negotiation) context(c assoc.Context) assoc.Context {
	answer := c
	answer.SCU, answer.SCP, answer.Syntax = true, false, ""
	scu, scp := n.offered(c.Abstract)
	if !scu && !scp {
		answer.Result = abstractUnsupported
		return answer
	}
	asked := n.asked(c.Abstract)
	answer.SCU, answer.SCP = asked.SCU && scu, asked.SCP && scp
	if !answer.SCU && !answer.SCP {
		answer.Result = noReason
		answer.SCU = true
		return answer
	}
	answer.Syntax = n.syntax(c, answer.SCP)
	if answer.Syntax == "" {
		answer.Result = syntaxUnsupported
		return answer
	}
	answer.Result = accepted
	return answer
}

// offered returns the roles that the requestor may have for a class.
func (n *negotiation) offered(class string) (scu, scp bool) {
	s := n.session
	if _, o, ok := dimse.QueryClass(class); ok {
		switch o {
		case dimse.Find:
			return s.Find != nil, false
		case dimse.Move:
			return s.Move != nil, false
		default:
			return s.Get != nil, false
		}
	}
	switch {
	case class == dimse.Verification:
		return s.Echo != nil, false
	case class == dimse.StorageCommitment:
		return s.Commit != nil, s.Committed != nil
	case n.storage(class):
		return s.Store != nil, n.gets
	}
	return false, false
}

// syntax returns the transfer syntax to accept, or "".
func (n *negotiation) syntax(c assoc.Context, sendsBack bool) string {
	if !n.storage(c.Abstract) {
		return first(c.Syntaxes, identifierSyntax)
	}
	if sendsBack {
		explicit := func(syntax string) bool { return syntax == dict.ExplicitLittleEndian }
		if syntax := first(c.Syntaxes, explicit); syntax != "" {
			return syntax
		}
	}
	return first(c.Syntaxes, storageSyntax)
}

func first(syntaxes []string, ok func(string) bool) string {
	for _, s := range syntaxes {
		if ok(s) {
			return s
		}
	}
	return ""
}

// identifierSyntax reports whether identifiers can be read and written in it.
func identifierSyntax(uid string) bool {
	switch uid {
	case dict.ImplicitLittleEndian, dict.ExplicitLittleEndian, dict.ExplicitBigEndian:
		return true
	}
	return false
}

// dicomRoot is the root of the UIDs that DICOM itself registers.
const dicomRoot = "1.2.840.10008."

// storageSyntax reports whether instances in it are kept: every registered one
// that carries its pixels, and private ones.
func storageSyntax(uid string) bool {
	if s, known := dict.Syntax(uid); known {
		return !s.Refused
	}
	return uid != "" && len(uid) <= 64 && !strings.HasPrefix(uid, dicomRoot)
}

// extended answers one SOP Class Extended Negotiation item; nil: no answer.
func (n *negotiation) extended(class string, info []byte) []byte {
	if _, o, ok := dimse.QueryClass(class); ok {
		answer := n.session.Options.And(dimse.ParseQueryOptions(o, info)).Bytes(o)
		return answer[:min(len(answer), max(len(info), 1))]
	}
	if n.storage(class) {
		answer := storageNegotiation
		return answer[:]
	}
	return nil
}

// stores reports whether a request proposes to store: it then may use the
// share of associations that is reserved for that.
func stores(r *assoc.Request) bool {
	n := negotiation{request: r, session: &Session{}, declared: declaredStorage(r), roles: map[string]assoc.Role{}}
	for _, role := range r.Roles {
		n.roles[role.Class] = role
	}
	for _, c := range r.Contexts {
		if n.storage(c.Abstract) && n.asked(c.Abstract).SCU {
			return true
		}
	}
	return false
}
