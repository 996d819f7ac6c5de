package admin

import (
	"context"
	"net/http"
	"time"

	"pelago/cluster/fault"
	"pelago/query/patients"
	"pelago/replication/catalog"
)

// Patients is what operators decide about patients' ids. *patients.Patients is one.
type Patients interface {
	Link(ctx context.Context, l patients.Link) error
	Unlink(ctx context.Context, one, other catalog.PatientKey) error
	Links() ([]patients.Link, error)
	PutAlias(ctx context.Context, a patients.Alias) error
	DropAlias(ctx context.Context, site, local string) error
	Aliases() ([]patients.Alias, error)
}

// Link is a link of two patients' ids, each as ID^^^ISSUER.
type Link struct {
	One    string    `json:"one"`
	Other  string    `json:"other"`
	By     string    `json:"by,omitempty"` // who made it; not to be given
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at,omitzero"` // when; not to be given
}

// ids reads a link's ids.
func (l Link) ids() (one, other catalog.PatientKey, err error) {
	if one, err = patients.ParseID(l.One); err == nil {
		other, err = patients.ParseID(l.Other)
	}
	return one, other, err
}

func (a *api) listLinks(w http.ResponseWriter, _ *http.Request) error {
	links, err := a.o.Patients.Links()
	if err != nil {
		return err
	}
	all := make([]Link, len(links))
	for i, l := range links {
		all[i] = Link{patients.FormatID(l.One), patients.FormatID(l.Other), l.By, l.Reason, l.At}
	}
	write(w, all)
	return nil
}

// readLink reads the link that a request is about.
func readLink(r *http.Request, e *Event) (l Link, one, other catalog.PatientKey, err error) {
	if err = body(r, &l); err != nil {
		return l, one, other, err
	}
	e.Object = l.One + " " + l.Other
	one, other, err = l.ids()
	return l, one, other, err
}

func (a *api) link(w http.ResponseWriter, r *http.Request, e *Event) error {
	l, one, other, err := readLink(r, e)
	if err != nil {
		return err
	}
	by := e.User
	if by == "" {
		by = "operator"
	}
	if err := a.o.Patients.Link(r.Context(), patients.Link{One: one, Other: other, By: by, Reason: l.Reason, At: time.Now().UTC()}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) unlink(w http.ResponseWriter, r *http.Request, e *Event) error {
	_, one, other, err := readLink(r, e)
	if err != nil {
		return err
	}
	if err := a.o.Patients.Unlink(r.Context(), one, other); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) listAliases(w http.ResponseWriter, _ *http.Request) error {
	all, err := a.o.Patients.Aliases()
	if err != nil {
		return err
	}
	write(w, all)
	return nil
}

// readAlias reads the alias that a request is about, of this site unless it says
// otherwise.
func (a *api) readAlias(r *http.Request, e *Event) (patients.Alias, error) {
	var alias patients.Alias
	if err := body(r, &alias); err != nil {
		return alias, err
	}
	if alias.Site == "" {
		alias.Site = a.o.Site
	}
	e.Object = alias.Site + "/" + alias.Local
	if alias.Local == "" {
		return alias, fault.New(fault.Invalid, "an alias without its local name")
	}
	return alias, nil
}

func (a *api) putAlias(w http.ResponseWriter, r *http.Request, e *Event) error {
	alias, err := a.readAlias(r, e)
	if err != nil {
		return err
	}
	if err := a.o.Patients.PutAlias(r.Context(), alias); err != nil {
		return err
	}
	write(w, alias)
	return nil
}

func (a *api) dropAlias(w http.ResponseWriter, r *http.Request, e *Event) error {
	alias, err := a.readAlias(r, e)
	if err != nil {
		return err
	}
	if err := a.o.Patients.DropAlias(r.Context(), alias.Site, alias.Local); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
