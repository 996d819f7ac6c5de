package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pelago/node/admin"
	"pelago/node/ae"
	"pelago/node/reconcile"
)

// aeCommand lists and edits the AE registry.
type aeCommand struct {
	List   aeList   `cmd:"" default:"withargs" help:"List the registered AEs."`
	Add    aeAdd    `cmd:"" help:"Register an AE or change it."`
	Remove aeRemove `cmd:"" help:"Take an AE off the registry."`
}

type aeList struct{ target }

func (l *aeList) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []ae.AE{}
	if err := c.get(e.ctx, "/api/aes", &all); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	var rows [][]string
	for _, a := range all {
		rows = append(rows, []string{a.Title, strings.Join(a.Hosts, ","), fmt.Sprint(a.Port), fmt.Sprint(a.TLS), rights(a.Rights), a.Issuer, a.Alias})
	}
	return table(e.stdout, []string{"TITLE", "HOSTS", "PORT", "TLS", "RIGHTS", "ISSUER", "ALIAS"}, rows)
}

func rights(r ae.Rights) string {
	var names []string
	for _, right := range []struct {
		has  bool
		name string
	}{{r.Echo, "echo"}, {r.Store, "store"}, {r.Find, "find"}, {r.Retrieve, "retrieve"}} {
		if right.has {
			names = append(names, right.name)
		}
	}
	return strings.Join(names, ",")
}

type aeAdd struct {
	target
	Title       string        `arg:"" help:"Application entity title."`
	Hosts       []string      `arg:"" help:"Addresses, networks or names it calls from; the first that is no network is where it is called."`
	Port        uint16        `help:"Port it listens on; 0: it is never called."`
	TLS         bool          `name:"tls" help:"It is called, and must call, over DICOM TLS."`
	Certificate string        `help:"Common name that its client certificate must carry."`
	Rights      []string      `help:"What it may do." enum:"echo,store,find,retrieve" default:"echo,store,find,retrieve"`
	Issuer      string        `help:"Issuer of the Patient IDs it sends without one."`
	Charset     string        `help:"Character set of data sets that name none, such as ISO_IR 100."`
	Alias       string        `help:"Title, unique in the network, by which other sites name it as a Move Destination."`
	Idle        time.Duration `help:"Its associations are aborted after this long without a message."`
}

func (a *aeAdd) Run(e *env) error {
	c, err := a.node(e)
	if err != nil {
		return err
	}
	entry := ae.AE{
		Title: a.Title, Hosts: a.Hosts, Port: a.Port, TLS: a.TLS, Certificate: a.Certificate,
		Issuer: a.Issuer, Charset: a.Charset, Alias: a.Alias, Idle: a.Idle,
	}
	for _, right := range a.Rights {
		switch right {
		case "echo":
			entry.Rights.Echo = true
		case "store":
			entry.Rights.Store = true
		case "find":
			entry.Rights.Find = true
		case "retrieve":
			entry.Rights.Retrieve = true
		}
	}
	if err := c.call(e.ctx, http.MethodPut, "/api/aes/"+url.PathEscape(a.Title), entry, nil); err != nil {
		return err
	}
	if a.JSON {
		return printJSON(e.stdout, entry)
	}
	return nil
}

type aeRemove struct {
	target
	Title string `arg:"" help:"Application entity title."`
}

func (a *aeRemove) Run(e *env) error {
	c, err := a.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodDelete, "/api/aes/"+url.PathEscape(a.Title), nil, nil)
}

// echoCommand has the node ask an AE for C-ECHO.
type echoCommand struct {
	target
	Title string `arg:"" help:"Title of a registered AE."`
}

func (c *echoCommand) Run(e *env) error {
	n, err := c.node(e)
	if err != nil {
		return err
	}
	var took struct {
		Seconds float64 `json:"seconds"`
	}
	if err := n.call(e.ctx, http.MethodPost, "/api/aes/"+url.PathEscape(c.Title)+"/echo", nil, &took); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.stdout, took)
	}
	_, err = fmt.Fprintf(e.stdout, "%s answered in %.1f ms\n", c.Title, took.Seconds*1000)
	return err
}

// conflictsCommand works through the quarantine.
type conflictsCommand struct {
	List    conflictList    `cmd:"" default:"withargs" help:"List quarantined instances."`
	Between conflictBetween `cmd:"" help:"List series that hold other content at two nodes, under equal UIDs."`
	Compare conflictCompare `cmd:"" help:"Show how a quarantined instance differs from the canonical one."`
	Accept  conflictAccept  `cmd:"" help:"Make it canonical; the former one is quarantined in its place."`
	Discard conflictDiscard `cmd:"" help:"Let it go after the delete grace."`
}

type conflictList struct{ target }

func (l *conflictList) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []admin.Conflict{}
	for after := uint64(0); ; {
		var page []admin.Conflict
		if err := c.get(e.ctx, fmt.Sprintf("/api/conflicts?after=%d", after), &page); err != nil {
			return err
		}
		all = append(all, page...)
		if len(page) < admin.MaxConflicts {
			break
		}
		after = page[len(page)-1].Number
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	var rows [][]string
	for _, one := range all {
		against := "deleted"
		if one.Against != 0 {
			against = strconv.FormatUint(one.Against, 10)
		}
		rows = append(rows, []string{strconv.FormatUint(one.Number, 10), one.SOP, against, one.Sender, one.Arrived.Format(time.RFC3339)})
	}
	if err := table(e.stdout, []string{"NUMBER", "INSTANCE", "AGAINST", "SENDER", "ARRIVED"}, rows); err != nil {
		return err
	}
	between := []reconcile.Conflict{}
	if err := c.get(e.ctx, "/api/conflicts/between", &between); err != nil || len(between) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(e.stdout); err != nil {
		return err
	}
	return betweenTable(e, between)
}

type conflictBetween struct{ target }

func (l *conflictBetween) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []reconcile.Conflict{}
	if err := c.get(e.ctx, "/api/conflicts/between", &all); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	return betweenTable(e, all)
}

func betweenTable(e *env, all []reconcile.Conflict) error {
	var rows [][]string
	for _, c := range all {
		first := ""
		if len(c.Instances) > 0 {
			first = c.Instances[0].SOP
		}
		rows = append(rows, []string{c.Series, strconv.Itoa(c.Total), first, c.First.Site, c.Second.Site})
	}
	return table(e.stdout, []string{"SERIES", "DIFFERING", "SUCH AS", "FIRST AT", "THEN AT"}, rows)
}

type conflictCompare struct {
	target
	Number uint64 `arg:"" help:"Number from the list."`
}

func (l *conflictCompare) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	var d admin.Comparison
	if err := c.get(e.ctx, fmt.Sprintf("/api/conflicts/%d", l.Number), &d); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, d)
	}
	pixels := "the same"
	if d.Pixels {
		pixels = "different, or not comparable here"
	}
	_, err = fmt.Fprintf(e.stdout, "attributes that differ: %s\npixel data: %s\n", strings.Join(d.Attributes, " "), pixels)
	return err
}

type conflictAccept struct {
	target
	Number uint64 `arg:"" help:"Number from the list."`
}

func (l *conflictAccept) Run(e *env) error { return l.decide(e, l.Number, "accept") }

type conflictDiscard struct {
	target
	Number uint64 `arg:"" help:"Number from the list."`
}

func (l *conflictDiscard) Run(e *env) error { return l.decide(e, l.Number, "discard") }

func (t target) decide(e *env, number uint64, decision string) error {
	c, err := t.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodPost, fmt.Sprintf("/api/conflicts/%d", number), map[string]string{"decision": decision}, nil)
}

// deleteCommand and undeleteCommand write and take back tombstones.
type deleteCommand struct {
	target
	Study    string `arg:"" help:"Study Instance UID."`
	Series   string `help:"Only this series."`
	Instance string `help:"Only this instance; with --series."`
}

func (d *deleteCommand) Run(e *env) error {
	return d.tombstone(e, "/api/delete", d.Study, d.Series, d.Instance)
}

type undeleteCommand struct {
	target
	Study    string `arg:"" help:"Study Instance UID."`
	Series   string `help:"Only this series."`
	Instance string `help:"Only this instance; with --series."`
}

func (d *undeleteCommand) Run(e *env) error {
	return d.tombstone(e, "/api/undelete", d.Study, d.Series, d.Instance)
}

func (t target) tombstone(e *env, path, study, series, instance string) error {
	c, err := t.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodPost, path, map[string]string{"study": study, "series": series, "instance": instance}, nil)
}
