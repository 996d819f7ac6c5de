package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/node/ae"
	"pelago/node/archive"
)

// Archive is what operators do to the archive. *archive.Archive is one.
type Archive interface {
	Delete(ctx context.Context, study, series, instance, by string) error
	Restore(ctx context.Context, study, series, instance, by string) error
	Reviews(after uint64, limit int) ([]archive.Review, error)
	Compare(ctx context.Context, number uint64) (*archive.Difference, error)
	Decide(ctx context.Context, number uint64, decision archive.Decision) error
	Verify(ctx context.Context, progress func(done, total uint64)) (*archive.Report, error)
	Pack(ctx context.Context) error
}

// Registry is the AE registry. *ae.Registry is one.
type Registry interface {
	List() ([]ae.AE, error)
	Put(ctx context.Context, entry ae.AE) error
	Delete(ctx context.Context, title string) error
}

// Options are what the API answers from.
type Options struct {
	Guard      *Guard
	Archive    Archive
	Registry   Registry
	Echo       func(ctx context.Context, title string) (time.Duration, error)
	Status     func(ctx context.Context) (*Status, error)
	Protection func(ctx context.Context, study string) (*Protection, error)
	Backup     func(ctx context.Context, dir string, progress func(done, total uint64)) error
	Ready      func() error
	Metrics    http.Handler
	Profiles   http.Handler // nil: not served
	// Audit is told of every change that an operator makes or fails to make.
	Audit func(user, remote, action, object string, err error)
	Log   *slog.Logger
}

// maxBody bounds the body of an API request.
const maxBody = 1 << 20

// Handler serves /api/, /metrics, /healthz and /readyz.
func Handler(o Options) http.Handler {
	a := &api{o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { write(w, map[string]string{"status": "alive"}) })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /metrics", a.reads(func(w http.ResponseWriter, r *http.Request) error {
		a.o.Metrics.ServeHTTP(w, r)
		return nil
	}))
	mux.HandleFunc("GET /api/status", a.reads(a.status))
	mux.HandleFunc("GET /api/studies/{uid}/protection", a.reads(a.protection))
	mux.HandleFunc("GET /api/aes", a.reads(a.listAEs))
	mux.HandleFunc("PUT /api/aes/{title}", a.changes("ae-put", "title", a.putAE))
	mux.HandleFunc("DELETE /api/aes/{title}", a.changes("ae-delete", "title", a.deleteAE))
	mux.HandleFunc("POST /api/aes/{title}/echo", a.changes("ae-echo", "title", a.echo))
	mux.HandleFunc("GET /api/conflicts", a.reads(a.listConflicts))
	mux.HandleFunc("GET /api/conflicts/{number}", a.reads(a.compare))
	mux.HandleFunc("POST /api/conflicts/{number}", a.changes("conflict-decide", "number", a.decide))
	mux.HandleFunc("POST /api/delete", a.changes("delete", "", a.delete))
	mux.HandleFunc("POST /api/undelete", a.changes("undelete", "", a.undelete))
	mux.HandleFunc("POST /api/verify", a.changes("verify", "", a.verify))
	mux.HandleFunc("POST /api/pack", a.changes("pack", "", a.pack))
	mux.HandleFunc("POST /api/backup", a.changes("backup", "", a.backup))
	if o.Profiles != nil {
		mux.HandleFunc("GET /debug/pprof/", a.changes("profile", "", func(w http.ResponseWriter, r *http.Request, _ string) error {
			a.o.Profiles.ServeHTTP(w, r)
			return nil
		}))
	}
	return mux
}

type api struct{ o Options }

// problem is the body of a failed request.
type problem struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
}

// codes is the table of this face: the same as the web face's (DESIGN §9).
var codes = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.Mismatch: http.StatusBadRequest, fault.Protocol: http.StatusBadRequest,
	fault.Unsupported: http.StatusUnsupportedMediaType, fault.Denied: http.StatusUnauthorized,
	fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict,
	fault.Full: http.StatusInsufficientStorage, fault.Unavailable: http.StatusServiceUnavailable,
	fault.Corrupt: http.StatusInternalServerError, fault.Other: http.StatusInternalServerError,
	fault.Canceled: 499, // as nginx names a client that went away
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	kind := fault.KindOf(err)
	code := codes[kind]
	if kind == fault.Denied {
		if r.Header.Get("Authorization") != "" {
			code = http.StatusForbidden
		} else {
			w.Header().Set("WWW-Authenticate", `Basic realm="Pelago"`)
		}
	}
	if code >= 500 && a.o.Log != nil {
		a.o.Log.Error("request failed", "path", r.Pattern, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(problem{Error: err.Error(), Kind: kind.String()}) //nolint:errcheck // the client has gone
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has gone
}

// reads wraps what anyone who may read may ask.
func (a *api) reads(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := a.o.Guard.Login(r)
		if err == nil {
			err = f(w, r)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	}
}

// changes wraps what only administrators may do; it is audited.
func (a *api) changes(action, object string, f func(http.ResponseWriter, *http.Request, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		user, err := a.o.Guard.Administer(r)
		if err == nil {
			err = f(w, r, user)
		}
		name := ""
		if object != "" {
			name = r.PathValue(object)
		}
		if a.o.Audit != nil {
			a.o.Audit(user, r.RemoteAddr, action, name, err)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	}
}

// body reads a JSON request; unknown fields are errors.
func body(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.New(fault.Invalid, "request body: %w", err)
	}
	return nil
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	if err := a.o.Ready(); err != nil {
		a.fail(w, r, fault.New(fault.Unavailable, "not ready: %w", err))
		return
	}
	write(w, map[string]string{"status": "ready"})
}

func (a *api) status(w http.ResponseWriter, r *http.Request) error {
	s, err := a.o.Status(r.Context())
	if err == nil {
		write(w, s)
	}
	return err
}

func (a *api) protection(w http.ResponseWriter, r *http.Request) error {
	p, err := a.o.Protection(r.Context(), r.PathValue("uid"))
	if err == nil {
		write(w, p)
	}
	return err
}

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

func (a *api) putAE(w http.ResponseWriter, r *http.Request, _ string) error {
	var entry ae.AE
	if err := body(r, &entry); err != nil {
		return err
	}
	if entry.Title != r.PathValue("title") {
		return fault.New(fault.Mismatch, "the body names another AE than the path")
	}
	if err := a.o.Registry.Put(r.Context(), entry); err != nil {
		return err
	}
	write(w, entry)
	return nil
}

func (a *api) deleteAE(w http.ResponseWriter, r *http.Request, _ string) error {
	if err := a.o.Registry.Delete(r.Context(), r.PathValue("title")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) echo(w http.ResponseWriter, r *http.Request, _ string) error {
	took, err := a.o.Echo(r.Context(), r.PathValue("title"))
	if err == nil {
		write(w, map[string]float64{"seconds": took.Seconds()})
	}
	return err
}

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

func (a *api) decide(w http.ResponseWriter, r *http.Request, _ string) error {
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
	if err := a.o.Archive.Decide(r.Context(), n, decision); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// object is what a deletion or its restoration names.
type object struct {
	Study    string `json:"study"`
	Series   string `json:"series"`
	Instance string `json:"instance"`
}

func (a *api) delete(w http.ResponseWriter, r *http.Request, user string) error {
	return a.tombstone(w, r, user, a.o.Archive.Delete)
}

func (a *api) undelete(w http.ResponseWriter, r *http.Request, user string) error {
	return a.tombstone(w, r, user, a.o.Archive.Restore)
}

func (a *api) tombstone(w http.ResponseWriter, r *http.Request, user string, do func(context.Context, string, string, string, string) error) error {
	var o object
	if err := body(r, &o); err != nil {
		return err
	}
	if o.Study == "" || o.Instance != "" && o.Series == "" {
		return fault.New(fault.Invalid, "a study is needed, and a series for an instance")
	}
	if err := do(r.Context(), o.Study, o.Series, o.Instance, user); err != nil {
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

// stream runs something long and answers with lines of Progress.
func stream(w http.ResponseWriter, run func(progress func(at, of uint64)) (*archive.Report, error)) error {
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
	report, err := run(func(at, of uint64) {
		if time.Since(last) >= progressEvery {
			say(Progress{At: at, Of: of})
		}
	})
	end := Progress{Done: true, Report: report}
	if err != nil {
		end.Error = err.Error()
	}
	say(end)
	return nil
}

func (a *api) verify(w http.ResponseWriter, r *http.Request, _ string) error {
	return stream(w, func(progress func(at, of uint64)) (*archive.Report, error) {
		return a.o.Archive.Verify(r.Context(), progress)
	})
}

func (a *api) pack(w http.ResponseWriter, r *http.Request, _ string) error {
	if err := a.o.Archive.Pack(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) backup(w http.ResponseWriter, r *http.Request, _ string) error {
	var request struct {
		Directory string `json:"directory"`
	}
	if err := body(r, &request); err != nil {
		return err
	}
	if !strings.HasPrefix(request.Directory, "/") {
		return fault.New(fault.Invalid, "an absolute directory is needed")
	}
	return stream(w, func(progress func(at, of uint64)) (*archive.Report, error) {
		return nil, a.o.Backup(r.Context(), request.Directory, progress)
	})
}
