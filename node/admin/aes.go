package admin

import (
	"net/http"

	"pelago/cluster/fault"
	"pelago/node/ae"
)

func (a *api) listAEs(w http.ResponseWriter, _ *http.Request) error {
	all, err := a.o.Registry.List()
	if all == nil {
		all = []ae.AE{}
	}
	if err == nil {
		write(w, all)
	}
	return err
}

func (a *api) putAE(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = r.PathValue("title")
	var entry ae.AE
	if err := body(r, &entry); err != nil {
		return err
	}
	if entry.Title != e.Object {
		return fault.New(fault.Mismatch, "the body names another AE than the path")
	}
	if err := a.o.Registry.Put(r.Context(), entry); err != nil {
		return err
	}
	write(w, entry)
	return nil
}

func (a *api) deleteAE(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = r.PathValue("title")
	if err := a.o.Registry.Delete(r.Context(), e.Object); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) echo(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = r.PathValue("title")
	took, err := a.o.Echo(r.Context(), e.Object)
	if err == nil {
		write(w, map[string]float64{"seconds": took.Seconds()})
	}
	return err
}
