package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
)

// object is what a deletion or its restoration names.
type object struct {
	Study    string `json:"study"`
	Series   string `json:"series"`
	Instance string `json:"instance"`
}

func (o object) String() string {
	switch {
	case o.Instance != "":
		return "instance " + o.Instance
	case o.Series != "":
		return "series " + o.Series
	}
	return "study " + o.Study
}

func (a *api) delete(w http.ResponseWriter, r *http.Request, e *Event) error {
	return a.tombstone(w, r, e, a.o.Archive.Delete)
}

func (a *api) undelete(w http.ResponseWriter, r *http.Request, e *Event) error {
	return a.tombstone(w, r, e, a.o.Archive.Restore)
}

func (a *api) tombstone(w http.ResponseWriter, r *http.Request, e *Event, do func(context.Context, string, string, string, string) error) error {
	var o object
	if err := body(r, &o); err != nil {
		return err
	}
	e.Study, e.Object = o.Study, o.String()
	if o.Study == "" || o.Instance != "" && o.Series == "" {
		return fault.New(fault.Invalid, "a study is needed, and a series for an instance")
	}
	if err := do(r.Context(), o.Study, o.Series, o.Instance, e.User); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Progress is a line of the stream that long requests answer with; the last
// has Done set.
type Progress struct {
	At     uint64          `json:"at"`
	Of     uint64          `json:"of"`
	Done   bool            `json:"done,omitempty"`
	Error  string          `json:"error,omitempty"`
	Report *archive.Report `json:"report,omitempty"`
}

// progressEvery is how often a long request says how far it is.
const progressEvery = 500 * time.Millisecond

// stream runs something long, of which there is one at a time, and answers with
// lines of Progress. The work ends when the client goes.
func stream(w http.ResponseWriter, only *sync.Mutex, run func(progress func(at, of uint64)) (*archive.Report, error)) error {
	if !only.TryLock() {
		return fault.New(fault.Conflict, "that is under way already")
	}
	defer only.Unlock()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	var last time.Time
	say := func(p Progress) {
		out.Encode(p) //nolint:errcheck // the work goes on to its end or the context's
		flush.Flush() //nolint:errcheck // likewise
		last = time.Now()
	}
	say(Progress{}) // so that the client knows it has begun
	report, err := run(func(at, of uint64) {
		if time.Since(last) >= progressEvery {
			say(Progress{At: at, Of: of})
		}
	})
	end := Progress{Done: true, Report: report}
	if err != nil {
		end.Error = err.Error()
		err = errors.Join(err, errAnswered)
	}
	say(end)
	return err
}

func (a *api) verify(w http.ResponseWriter, r *http.Request, _ *Event) error {
	return stream(w, &a.verifying, func(progress func(at, of uint64)) (*archive.Report, error) {
		return a.o.Archive.Verify(r.Context(), progress)
	})
}

func (a *api) pack(w http.ResponseWriter, r *http.Request, _ *Event) error {
	if err := a.o.Archive.Pack(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) backup(w http.ResponseWriter, r *http.Request, e *Event) error {
	var request struct {
		Directory string `json:"directory"`
	}
	if err := body(r, &request); err != nil {
		return err
	}
	e.Object = request.Directory
	if !strings.HasPrefix(request.Directory, "/") {
		return fault.New(fault.Invalid, "an absolute directory is needed")
	}
	return stream(w, &a.backingUp, func(progress func(at, of uint64)) (*archive.Report, error) {
		return nil, a.o.Backup(r.Context(), request.Directory, progress)
	})
}
