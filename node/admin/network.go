package admin

import (
	"context"
	"net/http"
	"time"

	"pelago/cluster/fault"
)

// Network is what operators do to the network.
type Network interface {
	// Sites lists all sites with their nodes, by name and id.
	Sites() ([]Site, error)
	// Token opens a join token; a lifetime of 0 is an hour.
	Token(ctx context.Context, lifetime time.Duration) (text string, expires time.Time, err error)
	// Drain makes a node take nothing new in, or again.
	Drain(ctx context.Context, node string, drained bool) error
	// Remove revokes a node for good.
	Remove(ctx context.Context, node, by string) error
}

// Token is the answer of POST /api/tokens.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Address string    `json:"address"` // of this node's port, for --join
}

func (a *api) sites(w http.ResponseWriter, _ *http.Request) error {
	all, err := a.o.Network.Sites()
	if err == nil {
		write(w, all)
	}
	return err
}

// token opens a join token. Who has it can make a node a member: it goes into the
// answer and nowhere else.
func (a *api) token(w http.ResponseWriter, r *http.Request, e *Event) error {
	var asked struct {
		Seconds int64 `json:"ttl_seconds"`
	}
	if err := body(r, &asked); err != nil {
		return err
	}
	if limit := int64(365 * 24 * 3600); asked.Seconds < 0 || asked.Seconds > limit { // before it is multiplied
		return fault.New(fault.Invalid, "ttl_seconds: 0 to %d", limit)
	}
	all, err := a.o.Network.Sites() // before there is a token that nobody gets
	if err != nil {
		return err
	}
	text, expires, err := a.o.Network.Token(r.Context(), time.Duration(asked.Seconds)*time.Second)
	if err != nil {
		return err
	}
	e.Object = "until " + expires.UTC().Format(time.RFC3339)
	answer := Token{Token: text, Expires: expires.UTC().Truncate(time.Second)}
	for _, s := range all {
		for _, n := range s.Nodes {
			if n.Self {
				answer.Address = n.Address
			}
		}
	}
	write(w, answer)
	return nil
}

func (a *api) drain(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = r.PathValue("node")
	var asked struct {
		Drained bool `json:"drained"`
	}
	if err := body(r, &asked); err != nil {
		return err
	}
	if !asked.Drained {
		e.Action = "node-undrain"
	}
	if err := a.o.Network.Drain(r.Context(), e.Object, asked.Drained); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) remove(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = r.PathValue("node")
	if err := a.o.Network.Remove(r.Context(), e.Object, e.User); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
