package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/node/ae"
	"pelago/node/archive"
)

// routes are all of the API, with a request that each takes.
var routes = []struct {
	method, path, body string
	change             bool   // needs the rights of an administrator
	call               string // of the archive or registry
	code               int
	action, object     string // audited
}{
	{"GET", "/api/status", "", false, "status", 200, "", ""},
	{"GET", "/api/studies/1.2.3/protection", "", false, "protection 1.2.3", 200, "", ""},
	{"GET", "/api/aes", "", false, "list", 200, "", ""},
	{"PUT", "/api/aes/CT1", `{"title":"CT1","hosts":["10.0.0.1"]}`, true, "put CT1", 200, "ae-put", "CT1"},
	{"DELETE", "/api/aes/CT1", "", true, "remove CT1", 204, "ae-delete", "CT1"},
	{"POST", "/api/aes/CT%201/echo", "", true, "echo CT 1", 200, "ae-echo", "CT 1"},
	{"GET", "/api/links", "", false, "links", 200, "", ""},
	{"PUT", "/api/links", `{"one":"7^^^N","other":"9^^^S","reason":"merge"}`, true, "link|7^^^N|9^^^S|merge|admin", 204, "patient-link", "7^^^N 9^^^S"},
	{"DELETE", "/api/links", `{"one":"7^^^N","other":"9^^^S"}`, true, "unlink|7^^^N|9^^^S", 204, "patient-unlink", "7^^^N 9^^^S"},
	{"GET", "/api/issuers", "", false, "aliases", 200, "", ""},
	{"PUT", "/api/issuers", `{"local":"MRN","issuer":"1.2.3"}`, true, "alias|here|MRN|1.2.3", 200, "issuer-put", "here/MRN"},
	{"DELETE", "/api/issuers", `{"site":"there","local":"MRN"}`, true, "no alias|there|MRN", 204, "issuer-delete", "there/MRN"},
	{"GET", "/api/holds", "", false, "holds", 200, "", ""},
	{"PUT", "/api/holds", `{"study":"1.2","reason":"a court"}`, true, "hold|1.2||a court|admin", 204, "hold-put", "1.2"},
	{"PUT", "/api/holds", `{"patient":"7^^^N"}`, true, "hold||7^^^N||admin", 204, "hold-put", "7^^^N"},
	{"DELETE", "/api/holds", `{"patient":"7^^^N"}`, true, "lift||7^^^N", 204, "hold-lift", "7^^^N"},
	{"GET", "/api/conflicts", "", false, "reviews", 200, "", ""},
	{"GET", "/api/conflicts/between", "", false, "between", 200, "", ""},
	{"GET", "/api/conflicts/7", "", false, "compare", 200, "", ""},
	{"POST", "/api/conflicts/7", `{"decision":"accept"}`, true, "accept", 204, "conflict-decide", "instance 7 accept"},
	{"POST", "/api/conflicts/7", `{"decision":"discard"}`, true, "discard", 204, "conflict-decide", "instance 7 discard"},
	{"POST", "/api/delete", `{"study":"1.2"}`, true, "delete|1.2|||admin", 204, "delete", "study 1.2"},
	{"POST", "/api/delete", `{"study":"1.2","series":"1.2.3","instance":"1.2.3.4"}`, true, "delete|1.2|1.2.3|1.2.3.4|admin", 204, "delete", "instance 1.2.3.4"},
	{"POST", "/api/undelete", `{"study":"1.2","series":"1.2.3"}`, true, "restore|1.2|1.2.3||admin", 204, "undelete", "series 1.2.3"},
	{"POST", "/api/verify", "", true, "verify", 200, "verify", ""},
	{"POST", "/api/pack", "", true, "pack", 204, "pack", ""},
	{"POST", "/api/backup", `{"directory":"/backup"}`, true, "backup /backup", 200, "backup", "/backup"},
}

func TestEveryRouteAnswersAndEveryChangeIsAudited(t *testing.T) {
	for _, route := range routes {
		s := newSite(t, nil)
		r := s.admin(route.method, route.path, route.body)
		if r.StatusCode != route.code || !slices.Equal(s.calls, []string{route.call}) {
			t.Errorf("%s %s: %d, calls %q", route.method, route.path, r.StatusCode, s.calls)
		}
		e := s.lastEvent()
		if e.Action != route.action || e.Object != route.object || e.Err != nil {
			t.Errorf("%s %s: audited as %+v", route.method, route.path, e)
		}
		if route.change && (e.User != "admin" || e.Remote != "10.0.0.7") {
			t.Errorf("%s %s: audited as done by %+v", route.method, route.path, e)
		}
		if strings.HasPrefix(route.action, "delete") && e.Study != "1.2" {
			t.Errorf("%s %s: the study is audited as %q", route.method, route.path, e.Study)
		}
	}
}

func TestEveryKindOfFailureHasItsCodeOnEveryRoute(t *testing.T) {
	want := map[fault.Kind]int{
		fault.Other: 500, fault.Invalid: 400, fault.Mismatch: 400, fault.Unsupported: 415, fault.Denied: 403,
		fault.NotFound: 404, fault.Conflict: 409, fault.Full: 507, fault.Unavailable: 503, fault.Corrupt: 500,
		fault.Canceled: 499, fault.Protocol: 400,
	}
	for _, kind := range fault.Kinds() {
		for _, route := range routes {
			s := newSite(t, nil)
			s.fail = fault.New(kind, "for the test")
			r := s.admin(route.method, route.path, route.body)
			name := fmt.Sprintf("%s %s, %v", route.method, route.path, kind)
			if strings.HasSuffix(route.path, "/verify") || strings.HasSuffix(route.path, "/backup") {
				// The head has gone by then: the last line tells.
				lines := s.lines(r)
				if last := lines[len(lines)-1]; r.StatusCode != 200 || !last.Done || last.Error != "for the test" {
					t.Errorf("%s: %d, %+v", name, r.StatusCode, lines)
				}
			} else if r.StatusCode != want[kind] || s.kind(r) != kind.String() {
				t.Errorf("%s: %d, want %d", name, r.StatusCode, want[kind])
			}
			if (r.Header.Get("Retry-After") != "") != (r.StatusCode == http.StatusServiceUnavailable) {
				t.Errorf("%s: Retry-After %q", name, r.Header.Get("Retry-After"))
			}
			if e := s.lastEvent(); route.change && !fault.Is(e.Err, kind) {
				t.Errorf("%s: audited as %+v", name, e)
			}
		}
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		code               int
	}{
		{"PUT", "/api/aes/CT1", `{"title":"CT2","hosts":["10.0.0.1"]}`, 400},
		{"PUT", "/api/aes/CT1", `{"title":"CT1","rihgts":{}}`, 400},
		{"PUT", "/api/aes/CT1", `{`, 400},
		{"PUT", "/api/aes/CT1", "", 400},
		{"PUT", "/api/aes/CT1", `{"title":"` + strings.Repeat("x", maxBody) + `"}`, 400},
		{"PUT", "/api/links", `{"one":"7","other":"9^^^S"}`, 400},
		{"PUT", "/api/holds", `{"patient":"7"}`, 400},
		{"PUT", "/api/links", `{"one":"7^^^N"}`, 400},
		{"DELETE", "/api/links", `{"one":"7^^^N","other":"9"}`, 400},
		{"PUT", "/api/issuers", `{"issuer":"1.2.3"}`, 400},
		{"DELETE", "/api/issuers", `{}`, 400},
		{"POST", "/api/conflicts/seven", `{"decision":"accept"}`, 400},
		{"POST", "/api/conflicts/-7", `{"decision":"accept"}`, 400},
		{"POST", "/api/conflicts/7", `{"decision":"perhaps"}`, 400},
		{"GET", "/api/conflicts/seven", "", 400},
		{"GET", "/api/conflicts?after=x", "", 400},
		{"POST", "/api/delete", `{}`, 400},
		{"POST", "/api/delete", `{"study":"1.2","instance":"1.2.3.4"}`, 400},
		{"POST", "/api/backup", `{"directory":"here"}`, 400},
		{"POST", "/api/backup", `{"directory":""}`, 400},
		{"GET", "/api/nothing", "", 404},
		{"DELETE", "/api/status", "", 405},
		{"GET", "/api/delete", "", 405},
	} {
		s := newSite(t, nil)
		if r := s.admin(test.method, test.path, test.body); r.StatusCode != test.code {
			t.Errorf("%s %s %.40s: %d, want %d", test.method, test.path, test.body, r.StatusCode, test.code)
		}
		if len(s.calls) != 0 {
			t.Errorf("%s %s %.40s: went through to %q", test.method, test.path, test.body, s.calls)
		}
	}
}

func TestHealthTellsAliveFromReady(t *testing.T) {
	s := newSite(t, map[string]string{"ann": hashOf(t, "x")}) // no login is needed for either
	for path, code := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if r := s.do("GET", path, ""); r.StatusCode != code {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	s.ready = fault.New(fault.Unavailable, "shutting down")
	if r := s.do("GET", "/readyz", ""); r.StatusCode != 503 {
		t.Errorf("ending: %d", r.StatusCode)
	}
	if r := s.do("GET", "/healthz", ""); r.StatusCode != 200 {
		t.Errorf("ending, yet alive: %d", r.StatusCode)
	}
}

func TestAnswersAreNotCachedNorSniffed(t *testing.T) {
	s := newSite(t, nil)
	for _, r := range []*http.Response{s.do("GET", "/api/status", ""), s.do("POST", "/api/pack", "")} {
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", r.Header)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"/api/aes", "/api/conflicts"} {
		b, err := io.ReadAll(s.do("GET", path, "").Body)
		if err != nil || strings.TrimSpace(string(b)) != "[]" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	s.aes = []ae.AE{{Title: "CT1"}}
	var all []ae.AE
	if err := json.NewDecoder(s.do("GET", "/api/aes", "").Body).Decode(&all); err != nil || len(all) != 1 || all[0].Title != "CT1" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestConflictsArePaged(t *testing.T) {
	s := newSite(t, nil)
	against := archive.Ref{Number: 1}
	for n := range MaxConflicts + 10 {
		s.reviews = append(s.reviews, archive.Review{Ref: archive.Ref{Number: uint64(n + 5), SOP: "1.2"}, Against: &against, Sender: "CT1"})
	}
	s.reviews[0].Against = nil
	var first, rest []Conflict
	if err := json.NewDecoder(s.do("GET", "/api/conflicts", "").Body).Decode(&first); err != nil || len(first) != MaxConflicts {
		t.Fatalf("%d, %v", len(first), err)
	}
	if first[0].Against != 0 || first[1].Against != 1 || first[0].Sender != "CT1" || first[0].Number != 5 {
		t.Errorf("%+v", first[:2])
	}
	last := first[len(first)-1].Number
	if err := json.NewDecoder(s.do("GET", fmt.Sprint("/api/conflicts?after=", last), "").Body).Decode(&rest); err != nil || len(rest) != 10 || rest[0].Number != last+1 {
		t.Errorf("%d, %v", len(rest), err)
	}
}

func TestLongWorkTellsHowFarItIs(t *testing.T) {
	s := newSite(t, nil)
	r := s.admin("POST", "/api/verify", "")
	lines := s.lines(r)
	if r.Header.Get("Content-Type") != "application/x-ndjson" || len(lines) < 2 {
		t.Fatalf("%v, %+v", r.Header, lines)
	}
	if last := lines[len(lines)-1]; !last.Done || last.Report == nil || last.Report.Instances != 2 || last.Error != "" {
		t.Errorf("ends with %+v", last)
	}
	for _, line := range lines[:len(lines)-1] {
		if line.Done {
			t.Errorf("done before the end: %+v", lines)
		}
	}
}

func TestOneVerificationAtATime(t *testing.T) {
	s := newSite(t, nil)
	s.hold, s.held = make(chan struct{}), make(chan struct{})
	done := make(chan int)
	go func() { done <- s.admin("POST", "/api/verify", "").StatusCode }()
	<-s.held
	if r := s.admin("POST", "/api/verify", ""); r.StatusCode != 409 {
		t.Errorf("a second one: %d", r.StatusCode)
	}
	close(s.hold)
	if code := <-done; code != 200 {
		t.Errorf("the first: %d", code)
	}
	s.hold = nil
	if r := s.admin("POST", "/api/verify", ""); r.StatusCode != 200 {
		t.Errorf("afterwards: %d", r.StatusCode)
	}
}

func TestProfilesAreForAdministratorsAndOnlyWhereTheyAreServed(t *testing.T) {
	s := newSite(t, nil)
	if r := s.do("GET", "/debug/pprof/heap", ""); r.StatusCode != 401 {
		t.Errorf("anonymous: %d", r.StatusCode)
	}
	if r := s.admin("GET", "/debug/pprof/heap", ""); r.StatusCode != 200 || s.lastEvent().Object != "/debug/pprof/heap" {
		t.Errorf("administrator: %d, audited as %+v", r.StatusCode, s.lastEvent())
	}
	bare := Handler(Options{Guard: s.guard, Ready: func() error { return nil }})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/debug/pprof/heap", nil)
	r.Header.Set("Authorization", "Bearer "+testToken)
	bare.ServeHTTP(w, r)
	if w.Code != 404 {
		t.Errorf("where they are not served: %d", w.Code)
	}
}
