package admin

import (
	"context"
	"fmt"
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
	// Lose declares a node or all of a site lost, or with back no longer so, and
	// returns the nodes.
	Lose(ctx context.Context, node, site string, back bool, by string) ([]string, error)
	// Code is how new stripes are made. SetCode sets it; a survives of 0 is chosen.
	// AutoCode has it chosen by rule again.
	Code() Code
	SetCode(ctx context.Context, k, m, survives int, by string) error
	AutoCode(ctx context.Context) error
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

// Loss is the body of POST /api/lost: a node by its id, or a site by its name.
type Loss struct {
	Node string `json:"node,omitempty"`
	Site string `json:"site,omitempty"`
	Back bool   `json:"back,omitempty"` // they are no longer lost
}

// lose declares nodes lost, or not; it answers with their ids.
func (a *api) lose(w http.ResponseWriter, r *http.Request, e *Event) error {
	var asked Loss
	if err := body(r, &asked); err != nil {
		return err
	}
	e.Object = asked.Node + asked.Site
	if asked.Back {
		e.Action = "node-back"
	}
	if (asked.Node == "") == (asked.Site == "") {
		return fault.New(fault.Invalid, "request body: either a node or a site")
	}
	nodes, err := a.o.Network.Lose(r.Context(), asked.Node, asked.Site, asked.Back, e.User)
	if err == nil {
		write(w, nodes)
	}
	return err
}

// CodeChange is the body of PUT /api/code.
type CodeChange struct {
	Auto     bool `json:"auto,omitempty"` // chosen by rule; else:
	K        int  `json:"k,omitempty"`
	M        int  `json:"m,omitempty"`
	Survives int  `json:"survives,omitempty"` // 0: one fewer than m, at least 1
}

func (a *api) code(w http.ResponseWriter, _ *http.Request) error {
	write(w, a.o.Network.Code())
	return nil
}

func (a *api) setCode(w http.ResponseWriter, r *http.Request, e *Event) error {
	var asked CodeChange
	if err := body(r, &asked); err != nil {
		return err
	}
	if asked.Auto {
		e.Object = "auto"
		if asked != (CodeChange{Auto: true}) {
			return fault.New(fault.Invalid, "request body: a code is chosen by rule, or it is given")
		}
		if err := a.o.Network.AutoCode(r.Context()); err != nil {
			return err
		}
	} else {
		e.Object = fmt.Sprintf("%d+%d survives %d", asked.K, asked.M, asked.Survives)
		if err := a.o.Network.SetCode(r.Context(), asked.K, asked.M, asked.Survives, e.User); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
