package group

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
)

// released answers a node whose log is lost.
type released struct {
	// Leader is whom to ask instead; then there is nothing else.
	Leader string `json:"leader,omitempty"`
	// Index is one up to which everything is applied at the leader and this node has no vote.
	Index uint64 `json:"index,omitempty"`
	Term  uint64 `json:"term,omitempty"` // the leader's
}

// Release implements consensus.Peers: it asks one member after the other, and whom
// they take for the leader next.
func (g *Group) Release(ctx context.Context) (replication.Position, error) {
	var errs []error
	asked := map[string]bool{}
	next := g.sources(nil)
	for len(next) > 0 {
		node := next[0]
		next = next[1:]
		if asked[node] || node == g.o.ID {
			continue
		}
		if err := ctx.Err(); err != nil {
			return replication.Position{}, fault.New(fault.KindOf(err), "group: release: %w", err)
		}
		asked[node] = true
		a, err := g.releaseAt(ctx, node)
		switch {
		case err != nil:
			errs = append(errs, err)
		case a.Leader != "":
			next = append([]string{a.Leader}, next...)
		default:
			return replication.Position{Index: a.Index, Term: a.Term}, nil
		}
	}
	return replication.Position{}, fault.New(fault.Unavailable, "group: release: %w", errors.Join(append(errs, errNobody)...))
}

func (g *Group) releaseAt(ctx context.Context, node string) (released, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Answer)
	defer cancel()
	generation := consensus.GenerationOf(g.o.Catalogue.Position().Term)
	path := "/raft/release?" + url.Values{"generation": {strconv.FormatUint(generation, 10)}}.Encode()
	response, err := g.o.Peers.Do(ctx, node, http.MethodPost, path, nil)
	if err != nil {
		return released{}, err
	}
	var a released
	if err := readAnswer(response, &a); err != nil {
		return released{}, err
	}
	if (a.Leader == "") != (a.Term > 0) {
		return released{}, fault.New(fault.Protocol, "group: a peer's release in term %d", a.Term)
	}
	return a, nil
}

// serveRelease takes the vote of who asks: nobody asks for another, whom the
// certificate names.
func (g *Group) serveRelease(w http.ResponseWriter, r *http.Request) {
	a, err := g.release(r)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	writeAnswer(w, a)
}

func (g *Group) release(r *http.Request) (released, error) {
	from, err := callerOf(r)
	if err != nil {
		return released{}, err
	}
	theirs, err := strconv.ParseUint(r.URL.Query().Get("generation"), 10, 32)
	if err != nil {
		return released{}, fault.New(fault.Invalid, "group: a call without a generation")
	}
	// Of an older generation it copies this one.
	if ours, known := g.node.Generation(); !known || ours < theirs {
		return released{}, fault.New(fault.Unavailable, "group: generation %d, and not %d", ours, theirs)
	}
	if err := g.Fenced(); err != nil {
		return released{}, fault.New(fault.Unavailable, "%w", err)
	}
	switch leader := g.Leader(); leader {
	case g.o.ID:
	case "", from:
		return released{}, fault.New(fault.Unavailable, "group: no leader is known: nothing is decided without a majority of the voters")
	default:
		return released{Leader: leader}, nil
	}
	g.mu.Lock()
	if !slices.Contains(g.unwell, from) { // else it may be given a vote anew before it is back
		g.unwell = append(g.unwell, from)
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), g.settings.Answer)
	defer cancel()
	at, err := g.node.Release(ctx, from)
	if err != nil {
		return released{}, err
	}
	return released{Index: at.Index, Term: at.Term}, nil
}
