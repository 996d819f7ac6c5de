package main

import (
	"net/http"

	"pelago/cluster/call"
	"pelago/cluster/fault"
)

// The port takes every certificate of the network's authority whose node was not
// removed, also of nodes that this one has not heard of: who lags behind the log
// may have to hear of it from a node that is new. Peer calls that tell of patients
// look further, for a node that had the authority's key before it was removed can
// still make certificates, and no members.

// members lets through who the catalogue has as a member.
func (w *network) members(next http.Handler) http.Handler {
	return w.only(next, func(node string) bool { return w.registry.Belongs(node) })
}

// readers lets through who may read what is stored: members but witnesses.
func (w *network) readers(next http.Handler) http.Handler {
	return w.only(next, func(node string) bool {
		m, known := w.registry.Member(node)
		return known && !m.Witness && w.registry.Belongs(node)
	})
}

func (w *network) only(next http.Handler, may func(node string) bool) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		node, err := callerOf(r)
		if err == nil && !may(node) { // not now: it may have joined a moment ago
			err = fault.New(fault.Unavailable, "node %s may not ask this here, as far as is known", node)
		}
		if err != nil {
			call.Refuse(rw, err)
			return
		}
		next.ServeHTTP(rw, r)
	})
}
