package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/admin/page"
	"pelago/node/ae"
	"pelago/node/archive"
	"pelago/node/reconcile"
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

// Event is something that an operator did, or was refused.
type Event struct {
	User   string // "" = nobody in particular
	Remote string // address
	Action string // such as ae-put, delete, read
	Object string // what it was done to: an AE, an instance's number, a directory, UIDs
	Study  string // Study Instance UID, where the object is in one
	Err    error  // nil: done
}

// Options are what the API answers from.
type Options struct {
	Guard      *Guard
	Archive    Archive
	Registry   Registry
	Patients   Patients
	Holds      Holds
	Between    func() ([]reconcile.Conflict, error) // conflicts between nodes
	Site       string                               // whose names of issuers are meant where a request names none
	Echo       func(ctx context.Context, title string) (time.Duration, error)
	Status     func(ctx context.Context) (*Status, error)
	Network    Network
	Protection func(ctx context.Context, study string) (*Protection, error)
	Backup     func(ctx context.Context, dir string, progress func(done, total uint64)) error
	Ready      func() error
	Metrics    http.Handler
	Profiles   http.Handler // nil: not served
	// Audit is told of every change that an operator makes or fails to make, and
	// of every request that is refused for want of rights. nil: nobody is.
	Audit func(Event)
	Log   *slog.Logger // nil: none
}

// maxBody bounds the body of an API request.
const maxBody = 1 << 20

// Handler serves /api/, /metrics, /healthz, /readyz and, at /, the operators' page.
func Handler(o Options) http.Handler {
	if o.Audit == nil {
		o.Audit = func(Event) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{o: o, origins: http.NewCrossOriginProtection()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { write(w, map[string]string{"status": "alive"}) })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /metrics", a.reads(func(w http.ResponseWriter, r *http.Request) error {
		a.o.Metrics.ServeHTTP(w, r)
		return nil
	}))
	for _, f := range page.Files() {
		mux.HandleFunc(f.Pattern, a.reads(func(w http.ResponseWriter, r *http.Request) error {
			f.Handler.ServeHTTP(w, r)
			return nil
		}))
	}
	mux.HandleFunc("GET /api/status", a.reads(a.status))
	mux.HandleFunc("GET /api/studies/{uid}/protection", a.reads(a.protection))
	mux.HandleFunc("GET /api/aes", a.reads(a.listAEs))
	mux.HandleFunc("PUT /api/aes/{title}", a.changes("ae-put", a.putAE))
	mux.HandleFunc("DELETE /api/aes/{title}", a.changes("ae-delete", a.deleteAE))
	mux.HandleFunc("POST /api/aes/{title}/echo", a.changes("ae-echo", a.echo))
	mux.HandleFunc("GET /api/links", a.reads(a.listLinks))
	mux.HandleFunc("PUT /api/links", a.changes("patient-link", a.link))
	mux.HandleFunc("DELETE /api/links", a.changes("patient-unlink", a.unlink))
	mux.HandleFunc("GET /api/issuers", a.reads(a.listAliases))
	mux.HandleFunc("PUT /api/issuers", a.changes("issuer-put", a.putAlias))
	mux.HandleFunc("DELETE /api/issuers", a.changes("issuer-delete", a.dropAlias))
	mux.HandleFunc("GET /api/holds", a.reads(a.listHolds))
	mux.HandleFunc("PUT /api/holds", a.changes("hold-put", a.putHold))
	mux.HandleFunc("DELETE /api/holds", a.changes("hold-lift", a.dropHold))
	mux.HandleFunc("GET /api/conflicts", a.reads(a.listConflicts))
	mux.HandleFunc("GET /api/conflicts/between", a.reads(a.listBetween))
	mux.HandleFunc("GET /api/conflicts/{number}", a.reads(a.compare))
	mux.HandleFunc("POST /api/conflicts/{number}", a.changes("conflict-decide", a.decide))
	mux.HandleFunc("GET /api/sites", a.reads(a.sites))
	mux.HandleFunc("POST /api/tokens", a.changes("token", a.token))
	mux.HandleFunc("POST /api/nodes/{node}/drain", a.changes("node-drain", a.drain))
	mux.HandleFunc("DELETE /api/nodes/{node}", a.changes("node-remove", a.remove))
	mux.HandleFunc("POST /api/lost", a.changes("node-lost", a.lose))
	mux.HandleFunc("GET /api/code", a.reads(a.code))
	mux.HandleFunc("PUT /api/code", a.changes("code-set", a.setCode))
	mux.HandleFunc("POST /api/delete", a.changes("delete", a.delete))
	mux.HandleFunc("POST /api/undelete", a.changes("undelete", a.undelete))
	mux.HandleFunc("POST /api/verify", a.changes("verify", a.verify))
	mux.HandleFunc("POST /api/pack", a.changes("pack", a.pack))
	mux.HandleFunc("POST /api/backup", a.changes("backup", a.backup))
	if o.Profiles != nil {
		mux.HandleFunc("GET /debug/pprof/", a.changes("profile", func(w http.ResponseWriter, r *http.Request, e *Event) error {
			e.Object = r.URL.Path
			a.o.Profiles.ServeHTTP(w, r)
			return nil
		}))
	}
	return mux
}

type api struct {
	o       Options
	origins *http.CrossOriginProtection

	verifying, backingUp sync.Mutex // one at a time of what re-reads everything
}

// problem is the body of a failed request.
type problem struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
}

// codes is the table of this face: the same as the web face's (DESIGN §9), but
// that a conflict is one.
var codes = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.Mismatch: http.StatusBadRequest, fault.Protocol: http.StatusBadRequest,
	fault.Unsupported: http.StatusUnsupportedMediaType, fault.Denied: http.StatusForbidden,
	fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict,
	fault.Full: http.StatusInsufficientStorage, fault.Unavailable: http.StatusServiceUnavailable,
	fault.Corrupt: http.StatusInternalServerError, fault.Other: http.StatusInternalServerError,
	fault.Canceled: 499, // as nginx names a client that went away
}

// retryAfter is when an answer of 503 may be tried again.
const retryAfter = "5"

// errAnswered is in the tree of an error that the client was told in its answer.
var errAnswered = errors.New("answered")

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	kind := fault.KindOf(err)
	if codes[kind] >= http.StatusInternalServerError {
		a.o.Log.Error("request failed", "path", r.Pattern, "error", err, "kind", kind.String())
	}
	if errors.Is(err, errAnswered) {
		return
	}
	code := codes[kind]
	var c interface{ Challenge() bool }
	if kind == fault.Denied && errors.As(err, &c) && c.Challenge() {
		code = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="pelago", charset="UTF-8"`)
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	head(w)
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(problem{Error: err.Error(), Kind: kind.String()}) //nolint:errcheck // the client has gone
}

// head sets the headers of every JSON answer.
func head(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

func write(w http.ResponseWriter, v any) {
	head(w)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has gone
}

// reads wraps what anyone who may read may ask. Refusals are audited.
func (a *api) reads(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, err := a.o.Guard.Login(r)
		if fault.Is(err, fault.Denied) {
			a.o.Audit(Event{User: user, Remote: remote(r), Action: "read", Object: r.URL.Path, Err: err})
		}
		if err == nil {
			err = f(w, r)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	}
}

// changes wraps what only administrators may do; it is audited.
func (a *api) changes(action string, f func(http.ResponseWriter, *http.Request, *Event) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		e := Event{Remote: remote(r), Action: action}
		e.User, e.Err = a.o.Guard.Administer(r)
		if e.Err == nil {
			e.Err = a.sameOrigin(r)
		}
		if e.Err == nil {
			e.Err = f(w, r, &e)
		} else {
			e.Object = r.URL.Path
		}
		a.o.Audit(e)
		if e.Err != nil {
			a.fail(w, r, e.Err)
		}
	}
}

// sameOrigin refuses what a page of another origin makes somebody's browser
// ask, with the password that the browser remembers.
func (a *api) sameOrigin(r *http.Request) error {
	if err := a.origins.Check(r); err != nil {
		return fault.New(fault.Denied, "%w", err)
	}
	return nil
}

func remote(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
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
