package assoc

import (
	"slices"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// propose returns the A-ASSOCIATE-RQ of a request, and the request as it goes
// out: its contexts numbered and with their roles.
func propose(request Request, config Config) (*pdu.Associate, *Request, error) {
	request.Contexts = slices.Clone(request.Contexts)
	if len(request.Contexts) > pdu.MaxContexts {
		return nil, nil, fault.New(fault.Invalid, "%d presentation contexts are more than %d", len(request.Contexts), pdu.MaxContexts)
	}
	unnumbered := !slices.ContainsFunc(request.Contexts, func(c Context) bool { return c.ID != 0 })
	if request.MaxInvoked == 0 && request.MaxPerformed == 0 {
		request.MaxInvoked, request.MaxPerformed = 1, 1
	}
	rq := &pdu.Associate{
		Version: pdu.Version, Called: request.Called, Calling: request.Calling,
		Application: pdu.ApplicationContext, User: config.user(),
	}
	seen := map[byte]bool{}
	for i := range request.Contexts {
		c := &request.Contexts[i]
		if unnumbered {
			c.ID = byte(2*i + 1)
		}
		if c.ID&1 == 0 || seen[c.ID] {
			return nil, nil, fault.New(fault.Invalid, "presentation context id %d is even or there twice", c.ID)
		}
		seen[c.ID] = true
		rq.Contexts = append(rq.Contexts, pdu.Context{ID: c.ID, Abstract: c.Abstract, Syntaxes: c.Syntaxes})
	}
	request.setProposedRoles()
	for _, r := range request.Roles {
		rq.User.Roles = append(rq.User.Roles, pdu.Role(r))
	}
	rq.User.Extended = extendedItems(request.Extended, nil)
	for _, c := range request.Common {
		rq.User.Common = append(rq.User.Common, pdu.CommonExtended(c))
	}
	if request.Identity != nil {
		identity := pdu.Identity(*request.Identity)
		rq.User.Identity = &identity
	}
	if request.MaxInvoked != 1 || request.MaxPerformed != 1 {
		rq.User.Window = &pdu.Window{Invoked: request.MaxInvoked, Performed: request.MaxPerformed}
	}
	return rq, &request, nil
}

// setProposedRoles gives each context the roles proposed for its class.
func (r *Request) setProposedRoles() {
	for i := range r.Contexts {
		c := &r.Contexts[i]
		c.SCU, c.SCP = true, false
		if role, ok := r.role(c.Abstract); ok {
			c.SCU, c.SCP = role.SCU, role.SCP
		}
	}
}

// role returns the role selection proposed for a class.
func (r *Request) role(class string) (Role, bool) {
	i := slices.IndexFunc(r.Roles, func(r Role) bool { return r.Class == class })
	if i < 0 {
		return Role{}, false
	}
	return r.Roles[i], true
}

// extendedItems returns the items of a map in ascending order of class: all of
// them, or those that the peer asked for.
func extendedItems(items map[string][]byte, asked map[string][]byte) []pdu.Extended {
	var list []pdu.Extended
	for class, information := range items {
		if _, ok := asked[class]; ok || asked == nil {
			list = append(list, pdu.Extended{Class: class, Information: information})
		}
	}
	slices.SortFunc(list, func(a, b pdu.Extended) int {
		if a.Class < b.Class {
			return -1
		}
		return 1
	})
	return list
}

// extendedMap is the inverse; nil for no items.
func extendedMap(items []pdu.Extended) map[string][]byte {
	if len(items) == 0 {
		return nil
	}
	m := make(map[string][]byte, len(items))
	for _, e := range items {
		m[e.Class] = e.Information
	}
	return m
}

// requestOf returns the request that an A-ASSOCIATE-RQ makes.
func requestOf(rq *pdu.Associate) *Request {
	r := &Request{
		Called: rq.Called, Calling: rq.Calling,
		Extended:   extendedMap(rq.User.Extended),
		MaxInvoked: 1, MaxPerformed: 1, MaxPDU: rq.User.MaxLength,
		UserInfo: UserInfo{rq.User.ImplementationClassUID, rq.User.ImplementationVersion},
	}
	for _, c := range rq.Contexts {
		r.Contexts = append(r.Contexts, Context{ID: c.ID, Abstract: c.Abstract, Syntaxes: c.Syntaxes})
	}
	for _, role := range rq.User.Roles {
		r.Roles = append(r.Roles, Role(role))
	}
	for _, c := range rq.User.Common {
		r.Common = append(r.Common, CommonExtended(c))
	}
	if rq.User.Identity != nil {
		identity := Identity(*rq.User.Identity)
		r.Identity = &identity
	}
	if w := rq.User.Window; w != nil {
		r.MaxInvoked, r.MaxPerformed = w.Invoked, w.Performed
	}
	r.setProposedRoles()
	return r
}

// answer returns the A-ASSOCIATE-AC of a decision and what is agreed by it. An
// error is a decision that the request does not allow.
func answer(rq *pdu.Associate, request *Request, d Decision, config Config) (*pdu.Associate, []Context, error) {
	ac := &pdu.Associate{
		Version: pdu.Version, Called: rq.Called, Calling: rq.Calling,
		Application: pdu.ApplicationContext, User: config.user(),
	}
	agreed := slices.Clone(request.Contexts)
	answered := map[string]bool{}
	for i := range agreed {
		c := &agreed[i]
		c.Result, c.Syntax = UserRejection, ""
		at := slices.IndexFunc(d.Contexts, func(o Context) bool { return o.ID == c.ID })
		if at >= 0 {
			c.Result = d.Contexts[at].Result
		}
		// PS3.8 §9.3.3.2: of a refused context one syntax is there, without meaning.
		syntaxes := c.Syntaxes[:min(len(c.Syntaxes), 1)]
		if c.Result == Acceptance {
			decided := d.Contexts[at]
			if !slices.Contains(c.Syntaxes, decided.Syntax) {
				return nil, nil, fault.New(fault.Other, "presentation context %d is accepted with a transfer syntax that was not proposed", c.ID)
			}
			c.Syntax, syntaxes = decided.Syntax, []string{decided.Syntax}
			if _, ok := request.role(c.Abstract); ok {
				c.SCU, c.SCP = c.SCU && decided.SCU, c.SCP && decided.SCP
				if !answered[c.Abstract] {
					answered[c.Abstract] = true
					ac.User.Roles = append(ac.User.Roles, pdu.Role{Class: c.Abstract, SCU: c.SCU, SCP: c.SCP})
				}
			}
		}
		ac.Contexts = append(ac.Contexts, pdu.Context{ID: c.ID, Result: c.Result, Syntaxes: syntaxes})
	}
	if request.Extended != nil {
		ac.User.Extended = extendedItems(d.Extended, request.Extended)
	}
	if w := rq.User.Window; w != nil {
		ac.User.Window = &pdu.Window{
			Invoked: narrower(w.Invoked, d.MaxInvoked), Performed: narrower(w.Performed, d.MaxPerformed),
		}
	}
	if request.Identity != nil && request.Identity.ResponseRequested {
		ac.User.IdentityResponse = d.IdentityResponse
	}
	return ac, agreed, nil
}

// narrower returns the number of operations agreed: no more than proposed, of
// which 0 is unlimited; 0 decided stands for one.
func narrower(proposed, decided uint16) uint16 {
	decided = max(decided, 1)
	if proposed == 0 {
		return decided
	}
	return min(proposed, decided)
}

// agree returns the contexts of a request as an A-ASSOCIATE-AC answers them.
func agree(request *Request, ac *pdu.Associate) []Context {
	agreed := slices.Clone(request.Contexts)
	for i := range agreed {
		c := &agreed[i]
		c.Result, c.Syntax = NoReason, "" // not answered
		at := slices.IndexFunc(ac.Contexts, func(o pdu.Context) bool { return o.ID == c.ID })
		if at < 0 {
			continue
		}
		if c.Result = ac.Contexts[at].Result; c.Result != Acceptance {
			continue
		}
		if s := ac.Contexts[at].Syntaxes; len(s) == 1 && slices.Contains(c.Syntaxes, s[0]) {
			c.Syntax = s[0]
		} else { // accepted, but with what was not proposed: nothing can be sent
			c.Result = TransferSyntaxUnsupported
		}
		proposed, ok := request.role(c.Abstract)
		role := slices.IndexFunc(ac.User.Roles, func(r pdu.Role) bool { return r.Class == c.Abstract })
		if !ok || role < 0 { // PS3.7 D.3.3.4: without an answer, the default roles
			c.SCU, c.SCP = true, false
			continue
		}
		c.SCU = proposed.SCU && ac.User.Roles[role].SCU
		c.SCP = proposed.SCP && ac.User.Roles[role].SCP
	}
	return agreed
}
