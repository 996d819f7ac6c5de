package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pelago/node/ae"
	"pelago/node/archive"
	"pelago/node/purge"
	"pelago/node/reconcile"
	"pelago/query/patients"
	"pelago/replication/catalog"
)

// site is everything that the API answers from.
type site struct {
	t       *testing.T
	handler http.Handler
	guard   *Guard

	mu      sync.Mutex
	events  []Event
	calls   []string // of the archive and the registry
	fail    error    // what they all answer
	reviews []archive.Review
	aes     []ae.AE
	ready   error
	hold    chan struct{} // Verify waits for it
	held    chan struct{} // and says that it does
}

const testToken = "THETOKEN"

func newSite(t *testing.T, users map[string]string, hosts ...string) *site {
	t.Helper()
	guard, err := NewGuard(users, testToken, hosts)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, guard: guard}
	ok := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	}
	s.handler = Handler(Options{
		Guard: guard, Archive: s, Registry: registryOf{s}, Network: networkOf{s}, Patients: s, Holds: holds{s}, Site: "here",
		Between: func() ([]reconcile.Conflict, error) { return []reconcile.Conflict{}, s.call("between") },
		Echo: func(_ context.Context, title string) (time.Duration, error) {
			return 1500 * time.Millisecond, s.call("echo " + title)
		},
		Status: func(context.Context) (*Status, error) {
			return &Status{Site: "here", Tasks: []Task{}}, s.call("status")
		},
		Protection: func(_ context.Context, uid string) (*Protection, error) {
			return &Protection{State: "local"}, s.call("protection " + uid)
		},
		Backup: func(_ context.Context, dir string, progress func(done, total uint64)) error {
			progress(1, 2)
			return s.call("backup " + dir)
		},
		Ready:   func() error { return s.ready },
		Metrics: ok("metrics"), Profiles: ok("profiles"),
		Audit: func(e Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		},
	})
	return s
}

func (s *site) call(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
	return s.fail
}

func (s *site) Delete(_ context.Context, study, series, instance, by string) error {
	return s.call(strings.Join([]string{"delete", study, series, instance, by}, "|"))
}

func (s *site) Restore(_ context.Context, study, series, instance, by string) error {
	return s.call(strings.Join([]string{"restore", study, series, instance, by}, "|"))
}

func (s *site) Reviews(after uint64, limit int) ([]archive.Review, error) {
	var page []archive.Review
	for _, r := range s.reviews {
		if r.Number > after && len(page) < limit {
			page = append(page, r)
		}
	}
	return page, s.call("reviews")
}

func (s *site) Compare(_ context.Context, number uint64) (*archive.Difference, error) {
	return &archive.Difference{Canonical: archive.Ref{Number: 1}, Quarantined: archive.Ref{Number: number}}, s.call("compare")
}

func (s *site) Decide(_ context.Context, number uint64, d archive.Decision) error {
	return s.call(map[archive.Decision]string{archive.Accept: "accept", archive.Discard: "discard"}[d])
}

func (s *site) Verify(ctx context.Context, progress func(done, total uint64)) (*archive.Report, error) {
	if s.hold != nil {
		s.held <- struct{}{}
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	progress(1, 2)
	return &archive.Report{Instances: 2}, s.call("verify")
}

func (s *site) Pack(context.Context) error { return s.call("pack") }

// registryOf is the site's AE registry.
type registryOf struct{ s *site }

func (r registryOf) List() ([]ae.AE, error) { return r.s.aes, r.s.call("list") }
func (r registryOf) Put(_ context.Context, entry ae.AE) error {
	return r.s.call("put " + entry.Title)
}
func (r registryOf) Delete(_ context.Context, title string) error { return r.s.call("remove " + title) }

// do asks with headers in pairs.
func (s *site) do(method, path, body string, header ...string) *http.Response {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	r.RemoteAddr = "10.0.0.7:4711"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

// admin asks with the node's token.
func (s *site) admin(method, path, body string) *http.Response {
	s.t.Helper()
	return s.do(method, path, body, "Authorization", "Bearer "+testToken)
}

// kind reads the kind of a failed answer.
func (s *site) kind(r *http.Response) string {
	s.t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p problem
	if err := json.Unmarshal(b, &p); err != nil || p.Error == "" {
		s.t.Errorf("a failure that does not say why: %d %q", r.StatusCode, b)
	}
	return p.Kind
}

func (s *site) lastEvent() Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 {
		return Event{}
	}
	return s.events[len(s.events)-1]
}

// lines reads a stream of progress.
func (s *site) lines(r *http.Response) []Progress {
	s.t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var all []Progress
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var p Progress
		if err := d.Decode(&p); err != nil {
			s.t.Fatalf("%q: %v", b, err)
		}
		all = append(all, p)
	}
	return all
}

func (s *site) Link(_ context.Context, l patients.Link) error {
	return s.call(strings.Join([]string{"link", patients.FormatID(l.One), patients.FormatID(l.Other), l.Reason, l.By}, "|"))
}

func (s *site) Unlink(_ context.Context, one, other catalog.PatientKey) error {
	return s.call(strings.Join([]string{"unlink", patients.FormatID(one), patients.FormatID(other)}, "|"))
}

func (s *site) Links() ([]patients.Link, error) {
	return []patients.Link{{One: catalog.PatientKey{Issuer: "N", ID: "7"}, Other: catalog.PatientKey{Issuer: "S", ID: "9"}}}, s.call("links")
}

func (s *site) PutAlias(_ context.Context, a patients.Alias) error {
	return s.call(strings.Join([]string{"alias", a.Site, a.Local, a.Issuer}, "|"))
}

func (s *site) DropAlias(_ context.Context, site, local string) error {
	return s.call(strings.Join([]string{"no alias", site, local}, "|"))
}

// holds is the site as what keeps things from being purged.
type holds struct{ *site }

func (h holds) text(x purge.Hold) string {
	patient := ""
	if x.Patient != nil {
		patient = patients.FormatID(*x.Patient)
	}
	return x.Study + "|" + patient
}

func (h holds) Put(_ context.Context, x purge.Hold) error {
	return h.call("hold|" + h.text(x) + "|" + x.Reason + "|" + x.By)
}

func (h holds) Drop(_ context.Context, x purge.Hold) error { return h.call("lift|" + h.text(x)) }

func (h holds) List() ([]purge.Hold, error) { return nil, h.call("holds") }

func (s *site) Aliases() ([]patients.Alias, error) { return []patients.Alias{}, s.call("aliases") }
