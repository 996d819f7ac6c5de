package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/node/admin"
)

// lostCommand declares a node or a site lost.
type lostCommand struct {
	target
	What string `arg:"" name:"site|node" help:"The site's name; or the node's id, or the beginning of it."`
	Back bool   `help:"It is not lost, or no longer: what it holds counts again."`
}

func (l *lostCommand) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	var sites []admin.Site
	if err := c.get(e.ctx, "/api/sites", &sites); err != nil {
		return err
	}
	asked := admin.Loss{Site: l.What, Back: l.Back}
	if !slices.ContainsFunc(sites, func(s admin.Site) bool { return s.Name == l.What }) {
		asked.Site = ""
		if _, asked.Node, err = l.member(e, l.What); err != nil {
			return err
		}
	}
	nodes := []string{}
	if err := c.call(e.ctx, http.MethodPost, "/api/lost", asked, &nodes); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, nodes)
	}
	for _, node := range nodes {
		if _, err := fmt.Fprintln(e.stdout, node); err != nil {
			return err
		}
	}
	return nil
}

// codeCommand prints or sets the code.
type codeCommand struct {
	target
	Code     string `arg:"" optional:"" help:"K+M: data and parity shards of new stripes. auto: chosen by the number of sites."`
	Survives int    `help:"How many sites may be lost without losing anything; at most M. By default one fewer than M, at least 1."`
}

func (k *codeCommand) Run(e *env) error {
	asked, err := k.parse()
	if err != nil {
		return err
	}
	c, err := k.node(e)
	if err != nil {
		return err
	}
	if asked != nil {
		if err := c.call(e.ctx, http.MethodPut, "/api/code", asked, nil); err != nil {
			return err
		}
	}
	var now admin.Code
	if err := c.get(e.ctx, "/api/code", &now); err != nil {
		return err
	}
	if k.JSON {
		return printJSON(e.stdout, now)
	}
	return printCode(e.stdout, now)
}

// parse reads the arguments: nil, if nothing is to be set.
func (k *codeCommand) parse() (*admin.CodeChange, error) {
	wrong := fault.New(fault.Invalid, "%q is no code: auto, or K+M such as 3+3, with --survives from 1 to M", k.Code)
	switch k.Code {
	case "":
		if k.Survives != 0 {
			return nil, fault.New(fault.Invalid, "--survives goes with K+M")
		}
		return nil, nil
	case "auto":
		if k.Survives != 0 {
			return nil, wrong
		}
		return &admin.CodeChange{Auto: true}, nil
	}
	data, parity, ok := strings.Cut(k.Code, "+")
	d, err := strconv.ParseUint(data, 10, 8)
	m, err2 := strconv.ParseUint(parity, 10, 8)
	if !ok || err != nil || err2 != nil || k.Survives < 0 {
		return nil, wrong
	}
	return &admin.CodeChange{K: int(d), M: int(m), Survives: k.Survives}, nil
}

// printCode prints the code for people.
func printCode(w io.Writer, c admin.Code) error {
	_, err := fmt.Fprintf(w, "%s\nsites that hold shards: %d\nsites that may be lost: %d\n", codeText(c), c.Sites, c.Survives)
	return err
}

// codeText names a code, and who chose it.
func codeText(c admin.Code) string {
	switch {
	case c.K == 0:
		return "none: studies stay whole where they arrived"
	case c.By == "":
		return fmt.Sprintf("%d+%d, chosen by rule", c.K, c.M)
	}
	return fmt.Sprintf("%d+%d, set by %s", c.K, c.M, c.By)
}
