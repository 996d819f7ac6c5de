package admin

import (
	"context"
	"net/http"
	"time"

	"pelago/node/purge"
	"pelago/query/patients"
)

// Holds is what operators keep from being purged. purge.Holds is one.
type Holds interface {
	Put(ctx context.Context, h purge.Hold) error
	Drop(ctx context.Context, h purge.Hold) error
	List() ([]purge.Hold, error)
}

// Hold keeps a study, or a patient's studies, from being purged.
type Hold struct {
	Study   string    `json:"study,omitempty"`   // Study Instance UID; or
	Patient string    `json:"patient,omitempty"` // ID^^^ISSUER
	By      string    `json:"by,omitempty"`      // who set it; not to be given
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at,omitzero"` // when; not to be given
}

func (a *api) listHolds(w http.ResponseWriter, _ *http.Request) error {
	holds, err := a.o.Holds.List()
	if err != nil {
		return err
	}
	all := make([]Hold, len(holds))
	for i, h := range holds {
		all[i] = Hold{Study: h.Study, By: h.By, Reason: h.Reason, At: h.At}
		if h.Patient != nil {
			all[i].Patient = patients.FormatID(*h.Patient)
		}
	}
	write(w, all)
	return nil
}

// readHold reads the hold that a request is about.
func readHold(r *http.Request, e *Event) (purge.Hold, error) {
	var h Hold
	if err := body(r, &h); err != nil {
		return purge.Hold{}, err
	}
	e.Object, e.Study = h.Study+h.Patient, h.Study
	hold := purge.Hold{Study: h.Study, Reason: h.Reason, By: e.User, At: time.Now().UTC()}
	if hold.By == "" {
		hold.By = "operator"
	}
	if h.Patient != "" {
		id, err := patients.ParseID(h.Patient)
		if err != nil {
			return hold, err
		}
		hold.Patient = &id
	}
	return hold, nil
}

func (a *api) putHold(w http.ResponseWriter, r *http.Request, e *Event) error {
	h, err := readHold(r, e)
	if err != nil {
		return err
	}
	if err := a.o.Holds.Put(r.Context(), h); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) dropHold(w http.ResponseWriter, r *http.Request, e *Event) error {
	h, err := readHold(r, e)
	if err != nil {
		return err
	}
	if err := a.o.Holds.Drop(r.Context(), h); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
