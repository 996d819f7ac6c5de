package member

import (
	"bytes"
	"encoding/json"
	"net/http"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
)

// The peer calls of this package.
const (
	pathMembers  = "/node/members"  // GET: the members, for a node that has just joined
	pathOffice   = "/node/office"   // POST: a request of the join protocol, for a node that may sign
	pathStanding = "/node/standing" // GET: nothing; who gets an answer is taken in
	pathAddress  = "/node/address"  // POST: the address where the asker is reached now
)

// maxMembersBody bounds the list of members, as [identity.WriteFile]'s readers do
// what is kept of it; maxOfficeBody a request of the join protocol.
const (
	maxMembersBody = 768 << 10
	maxOfficeBody  = 16 << 10
)

// Handler answers the peer calls under /node/.
func (o *Office) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathMembers, o.serveMembers)
	mux.HandleFunc("POST "+pathOffice, o.serveOffice)
	mux.HandleFunc("POST "+pathAddress, o.serveAddress)
	mux.HandleFunc("GET "+pathStanding, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

// serveMembers lists the members that this node knows, itself and the asker
// included, who was let in a moment ago.
func (o *Office) serveMembers(w http.ResponseWriter, _ *http.Request) {
	v, err := o.o.Registry.read()
	if err != nil {
		call.Refuse(w, err)
		return
	}
	hints := make([]Hint, 0, len(v.members))
	for node, m := range v.members {
		_, revoked := v.revoked[node]
		hints = append(hints, Hint{Node: node, Site: m.Site, Address: m.Address, Revoked: revoked})
	}
	b, err := json.Marshal(hints)
	if err != nil || len(hints) > maxHints || len(b) > maxMembersBody {
		call.Refuse(w, fault.New(fault.Full, "member: a list of %d members", len(hints)))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // an asker that is gone asks again
}

// serveAddress records where a node says it is. It says so itself: the connection
// is its own.
func (o *Office) serveAddress(w http.ResponseWriter, r *http.Request) {
	from, err := port.PeerOf(*r.TLS)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	address, err := call.Read(r.Body, authority.MaxAddress)
	if err == nil {
		err = authority.Place{Address: string(address)}.Check()
	}
	if err == nil {
		err = o.move(r.Context(), from.Node, string(address))
	}
	if err != nil {
		call.Refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveOffice answers a request that another node carried here. It goes no further:
// who was asked in vain is asked by nobody else.
func (o *Office) serveOffice(w http.ResponseWriter, r *http.Request) {
	from, err := port.PeerOf(*r.TLS)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	registrar, err := o.registrar()
	if err == nil && registrar == nil {
		err = fault.New(fault.Unavailable, "member: this node may not sign")
	}
	if err != nil {
		call.Refuse(w, err)
		return
	}
	var answer bytes.Buffer
	if err := authority.Answer(r.Context(), http.MaxBytesReader(w, r.Body, maxOfficeBody), &answer, registrar); err != nil {
		o.o.Log.Warn("a node was not let in", "carried_by", from.Node, "error", err, "kind", fault.KindOf(err).String())
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(answer.Bytes()) // as above
}
