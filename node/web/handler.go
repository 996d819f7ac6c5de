package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/query"
)

// Handler serves DICOMweb and WADO-URI over one archive.
type Handler struct {
	reads   archive.Reads
	writes  archive.Writes
	engine  query.Engine
	options Options
	limits  Limits
	log     *slog.Logger

	origins  origins
	mux      *http.ServeMux
	describe http.Handler // of the capabilities, for OPTIONS on any path
	buffers  *copyBuffers
	zips     *sync.Pool                  // of *gzip.Writer
	tables   *lru[numbered, *frameTable] // by local number
	pages    *lru[string, pieces]        // finished metadata documents by entity tag

	pixelMemory *pixelMemory
}

// New returns the handler of one node. A nil writes leaves STOW-RS out.
func New(reads archive.Reads, writes archive.Writes, engine query.Engine, options Options) (*Handler, error) {
	if options.Base == "" {
		options.Base = "/dicom-web"
	}
	if options.URI == "" {
		options.URI = "/wado"
	}
	options.Base = strings.TrimRight(options.Base, "/")
	for _, path := range []string{options.Base, options.URI} {
		if path != "" && !isPath(path) {
			return nil, fault.New(fault.Invalid, "web: %q is no path to serve", path)
		}
	}
	for _, origin := range options.Origins {
		if u, err := url.Parse(origin); origin != "*" && origin != "null" && (err != nil || u.Scheme == "" || u.Host == "" || strings.Trim(u.Path, "/") != "") {
			return nil, fault.New(fault.Invalid, "web: %q is no origin: scheme://host[:port] or *", origin)
		}
	}
	h := &Handler{
		reads: reads, writes: writes, engine: engine,
		options: options, limits: options.Limits.orDefaults(), log: options.Log,
		origins: newOrigins(options.Origins), mux: http.NewServeMux(), buffers: newCopyBuffers(), zips: newZips(),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.tables = newLRU[numbered, *frameTable](h.limits.FrameTables)
	h.pages = newLRU[string, pieces](h.limits.Documents)
	h.pixelMemory = newPixelMemory(h.limits.Decoded, h.limits.Wait)
	h.routes()
	return h, nil
}

// Patterns returns the patterns under which the handler is to be mounted.
func (h *Handler) Patterns() []string {
	return []string{h.options.Base + "/", h.options.Base, h.options.URI}
}

// routes fills the mux; DESIGN §9 and PS3.18 §10.
func (h *Handler) routes() {
	retrieves := newGate(h.limits.Retrieves, h.limits.Wait)
	searches := newGate(h.limits.Searches, h.limits.Wait)
	stores := newGate(h.limits.Stores, h.limits.Wait)

	const (
		study    = "/studies/{study}"
		series   = study + "/series/{series}"
		instance = series + "/instances/{instance}"
	)
	type route struct {
		method string
		paths  []string
		action Action
		gate   *gate
		serve  func(*call) error
	}
	levels := []string{study, series, instance}
	under := func(suffix string, paths ...string) []string {
		all := make([]string, len(paths))
		for i, p := range paths {
			all[i] = p + suffix
		}
		return all
	}
	all := []route{
		{"GET", []string{"/studies"}, ActionSearch, searches, (*call).searchStudies},
		{"GET", []string{"/series", study + "/series"}, ActionSearch, searches, (*call).searchSeries},
		{"GET", []string{"/instances", study + "/instances", series + "/instances"}, ActionSearch, searches, (*call).searchInstances},
		{"GET", levels, ActionRetrieve, retrieves, (*call).retrieve},
		{"GET", under("/metadata", levels...), ActionMetadata, retrieves, (*call).metadata},
		{"GET", []string{instance + "/frames/{frames}"}, ActionFrames, retrieves, (*call).frames},
		{"GET", []string{instance + "/pixeldata"}, ActionBulk, retrieves, (*call).pixelData},
		{"GET", []string{instance + "/bulkdata/{path...}"}, ActionBulk, retrieves, (*call).bulkData},
		{"GET", under("/rendered", append(levels, instance+"/frames/{frames}")...), ActionRendered, retrieves, (*call).rendered},
		{"GET", under("/thumbnail", append(levels, instance+"/frames/{frames}")...), ActionRendered, retrieves, (*call).thumbnail},
	}
	if h.writes != nil {
		all = append(all, route{"POST", []string{"/studies", study}, ActionStore, stores, (*call).store})
	}
	for _, rt := range all {
		for _, path := range rt.paths {
			h.mux.Handle(rt.method+" "+h.options.Base+path, h.endpoint(rt.action, rt.gate, rt.serve))
		}
	}
	h.mux.Handle("GET "+h.options.URI, h.endpoint(ActionRetrieve, retrieves, (*call).wadoURI))
	h.describe = h.endpoint(ActionOther, searches, (*call).capabilities)
	h.mux.Handle("GET "+h.options.Base+"/{$}", h.describe)
	h.mux.Handle("GET "+h.options.Base, h.describe)
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowed := h.origins.apply(w, r)
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		preflight(w, r, allowed)
		return
	}
	if r.Method == http.MethodOptions {
		h.describe.ServeHTTP(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// call is one request under way.
type call struct {
	*Handler
	w       *reply
	r       *http.Request
	missing int // instances of the selection that are known by number only
	event   Event
}

// endpoint turns a step that may fail into a handler: it logs in, waits for its
// turn, answers failures by the table, and tells audit and metrics.
func (h *Handler) endpoint(action Action, turn *gate, serve func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		c := &call{Handler: h, w: newReply(w, h.limits.Stall), r: r, event: Event{
			Action: action, Remote: r.RemoteAddr,
			Study: r.PathValue("study"), Series: r.PathValue("series"), Instance: r.PathValue("instance"),
		}}
		err := c.run(turn, serve)
		c.event.Kind = fault.KindOf(err)
		cut := c.fail(err)
		c.event.Status, c.event.Bytes, c.event.Duration = c.w.status, c.w.bytes, time.Since(began)
		if cut {
			c.event.Status = 0
		}
		if h.options.Audit != nil && action != ActionOther {
			h.options.Audit.Audit(r.Context(), c.event)
		}
		if h.options.Metric != nil {
			h.options.Metric.Observe(string(action), c.event.Status, c.event.Duration, c.event.Bytes)
		}
		if cut {
			panic(http.ErrAbortHandler)
		}
		if r.Body != http.NoBody {
			// The server reads what is left of a small body, so that the connection can
			// be used again, before it sends a short answer: not for longer than any
			// other stall, and with time left for the answer.
			now := time.Now()
			_ = c.w.control.SetReadDeadline(now.Add(h.limits.Stall))
			_ = c.w.control.SetWriteDeadline(now.Add(2 * h.limits.Stall))
		}
	})
}

// run checks who asks and for what, takes a turn and serves.
func (c *call) run(turn *gate, serve func(*call) error) error {
	if c.options.Login != nil {
		user, err := c.options.Login.Login(c.r)
		c.event.User = user
		if err != nil {
			return err
		}
	}
	for _, uid := range []string{c.event.Study, c.event.Series, c.event.Instance} {
		if uid != "" && !validUID(uid) {
			return fault.New(fault.Invalid, "a UID of the path has over 64 or unprintable characters")
		}
	}
	if err := turn.enter(c.r.Context()); err != nil {
		return err
	}
	defer turn.leave()
	if err := c.after(); err != nil {
		return err
	}
	return serve(c)
}

// validUID accepts what DESIGN §9 takes as a UID: up to 64 printable characters
// that are no wildcard or delimiter.
func validUID(uid string) bool {
	if uid == "" || len(uid) > 64 {
		return false
	}
	for i := range len(uid) {
		if c := uid[i]; c <= ' ' || c > '~' || c == '\\' || c == '*' || c == '?' {
			return false
		}
	}
	return true
}

// retryAfter is what a client is told to wait when the node cannot serve now.
const retryAfter = "5"

// fail answers a failure. It reports whether the connection must be cut because
// part of another answer is already out.
func (c *call) fail(err error) (cut bool) {
	if err == nil {
		return false
	}
	var gone *clientGone
	kind := fault.KindOf(err)
	level := slog.LevelInfo
	if kind == fault.Other || kind == fault.Corrupt {
		level = slog.LevelError
	}
	if !errors.As(err, &gone) {
		c.log.Log(c.r.Context(), level, "web request failed", "operation", string(c.event.Action),
			"kind", kind.String(), "remote", c.event.Remote, "error", err.Error(), "cut", c.w.status != 0)
	}
	if c.w.status != 0 {
		return true
	}
	status := statusOf(err, c.r.Method == http.MethodPost)
	var login interface{ Challenge() bool } // wrong credentials: to be asked for again
	if kind == fault.Denied && (c.r.Header.Get("Authorization") == "" || errors.As(err, &login) && login.Challenge()) {
		status = http.StatusUnauthorized
		c.w.Header().Set("WWW-Authenticate", `Basic realm="pelago", charset="UTF-8"`)
	}
	if closed := new(archive.Closed); status == http.StatusServiceUnavailable && !errors.As(err, &closed) {
		c.w.Header().Set("Retry-After", retryAfter)
	}
	c.plain(status, sentenceOf(err))
	return false
}

// plain answers a status with a line of text.
func (c *call) plain(status int, text string) {
	h := c.w.Header()
	for _, name := range []string{"Content-Encoding", "ETag", "Content-Location", "Last-Modified", "Accept-Ranges"} {
		h.Del(name)
	}
	body := text + "\n"
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write([]byte(body)) // the client may be gone; there is nothing left to tell it
	}
}

// root returns the absolute URL of the DICOMweb services as this client sees it.
func (c *call) root() string { return baseURL(c.r) + c.options.Base }

// warn adds a Warning header field (RFC 7234 §5.5, PS3.18 §8.3.4.4).
func (c *call) warn(format string, args ...any) {
	agent := c.options.AE
	if agent == "" {
		agent = "pelago"
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, fmt.Sprintf(format, args...))
	c.w.Header().Add("Warning", "299 "+strings.ReplaceAll(agent, " ", "_")+` "`+text+`"`)
}
