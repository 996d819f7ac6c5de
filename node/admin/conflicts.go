package admin

import (
	"net/http"
	"strconv"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
)

// Conflict is a quarantined instance in the API.
type Conflict struct {
	Number  uint64    `json:"number"`
	Study   string    `json:"study"`
	Series  string    `json:"series"`
	SOP     string    `json:"instance"`
	Bytes   int64     `json:"bytes"`
	Sender  string    `json:"sender"`
	Arrived time.Time `json:"arrived"`
	Against uint64    `json:"against,omitempty"` // the canonical version; absent: a tombstone
}

// listBetween lists the conflicts between nodes.
func (a *api) listBetween(w http.ResponseWriter, _ *http.Request) error {
	all, err := a.o.Between()
	if err != nil {
		return err
	}
	write(w, all)
	return nil
}

// MaxConflicts is the most that one list of conflicts holds. What follows is
// listed by naming the last number as ?after=.
const MaxConflicts = 1000

func (a *api) listConflicts(w http.ResponseWriter, r *http.Request) error {
	after := uint64(0)
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fault.New(fault.Invalid, "after: %q is no instance number", text)
		}
	}
	reviews, err := a.o.Archive.Reviews(after, MaxConflicts)
	if err != nil {
		return err
	}
	all := make([]Conflict, len(reviews))
	for i, r := range reviews {
		all[i] = Conflict{
			Number: r.Number, Study: r.Study, Series: r.Series, SOP: r.SOP, Bytes: r.Bytes,
			Sender: r.Sender, Arrived: time.UnixMicro(r.Arrived).UTC(),
		}
		if r.Against != nil {
			all[i].Against = r.Against.Number
		}
	}
	write(w, all)
	return nil
}

func number(r *http.Request) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is no instance number", r.PathValue("number"))
	}
	return n, nil
}

// Comparison is how a quarantined instance differs from the canonical one.
type Comparison struct {
	Canonical   uint64   `json:"canonical"`
	Quarantined uint64   `json:"quarantined"`
	Attributes  []string `json:"attributes"` // tags that differ, as (gggg,eeee)
	Pixels      bool     `json:"pixels"`     // pixel data differs or cannot be compared
}

func (a *api) compare(w http.ResponseWriter, r *http.Request) error {
	n, err := number(r)
	if err != nil {
		return err
	}
	d, err := a.o.Archive.Compare(r.Context(), n)
	if err != nil {
		return err
	}
	c := Comparison{Canonical: d.Canonical.Number, Quarantined: d.Quarantined.Number, Pixels: d.Pixels, Attributes: []string{}}
	for _, tag := range d.Attributes {
		c.Attributes = append(c.Attributes, tag.String())
	}
	write(w, c)
	return nil
}

func (a *api) decide(w http.ResponseWriter, r *http.Request, e *Event) error {
	e.Object = "instance " + r.PathValue("number")
	n, err := number(r)
	if err != nil {
		return err
	}
	var request struct {
		Decision string `json:"decision"`
	}
	if err := body(r, &request); err != nil {
		return err
	}
	decisions := map[string]archive.Decision{"accept": archive.Accept, "discard": archive.Discard}
	decision, ok := decisions[request.Decision]
	if !ok {
		return fault.New(fault.Invalid, "decision %q: accept or discard", request.Decision)
	}
	e.Object += " " + request.Decision
	if err := a.o.Archive.Decide(r.Context(), n, decision); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
