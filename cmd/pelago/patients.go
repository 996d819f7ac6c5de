package main

import (
	"net/http"
	"time"

	"pelago/node/admin"
	"pelago/query/patients"
)

// linkCommand and its like decide about patients' ids.
type linkCommand struct {
	target
	One    string `arg:"" help:"A patient's id and its issuer: ID^^^ISSUER."`
	Other  string `arg:"" help:"Another id of the same person."`
	Reason string `help:"Why they are the same, for those who read the list."`
}

func (l *linkCommand) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodPut, "/api/links", admin.Link{One: l.One, Other: l.Other, Reason: l.Reason}, nil)
}

type unlinkCommand struct {
	target
	One   string `arg:"" help:"A patient's id and its issuer: ID^^^ISSUER."`
	Other string `arg:"" help:"The id that it is linked with."`
}

func (l *unlinkCommand) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodDelete, "/api/links", admin.Link{One: l.One, Other: l.Other}, nil)
}

type linksCommand struct{ target }

func (l *linksCommand) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []admin.Link{}
	if err := c.get(e.ctx, "/api/links", &all); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	var rows [][]string
	for _, one := range all {
		rows = append(rows, []string{one.One, one.Other, one.By, one.At.Format(time.RFC3339), one.Reason})
	}
	return table(e.stdout, []string{"ONE", "OTHER", "BY", "AT", "REASON"}, rows)
}

// issuerCommand lists and edits what sites call issuers of Patient IDs.
type issuerCommand struct {
	List   issuerList   `cmd:"" default:"withargs" help:"List the local names of issuers."`
	Add    issuerAdd    `cmd:"" help:"Say which issuer a local name stands for, or change it."`
	Remove issuerRemove `cmd:"" help:"Take a local name off the list."`
}

type issuerList struct{ target }

func (l *issuerList) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []patients.Alias{}
	if err := c.get(e.ctx, "/api/issuers", &all); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	var rows [][]string
	for _, a := range all {
		rows = append(rows, []string{a.Site, a.Local, a.Issuer})
	}
	return table(e.stdout, []string{"SITE", "LOCAL", "ISSUER"}, rows)
}

type issuerAdd struct {
	target
	Local  string `arg:"" help:"Issuer of Patient ID (0010,0021) as senders of the site have it."`
	Issuer string `arg:"" help:"What it stands for everywhere, such as an OID."`
	Site   string `help:"Of this site, instead of the node's."`
}

func (i *issuerAdd) Run(e *env) error {
	c, err := i.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodPut, "/api/issuers", patients.Alias{Site: i.Site, Local: i.Local, Issuer: i.Issuer}, nil)
}

type issuerRemove struct {
	target
	Local string `arg:"" help:"The local name."`
	Site  string `help:"Of this site, instead of the node's."`
}

func (i *issuerRemove) Run(e *env) error {
	c, err := i.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodDelete, "/api/issuers", patients.Alias{Site: i.Site, Local: i.Local}, nil)
}
