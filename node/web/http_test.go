package web

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"pelago/cluster/fault"
)

func TestEveryKindHasAStatus(t *testing.T) {
	want := map[fault.Kind][2]int{ // answering, taking in
		fault.Other: {500, 500}, fault.Invalid: {400, 400}, fault.Mismatch: {400, 400},
		fault.Unsupported: {406, 415}, fault.Denied: {403, 403}, fault.NotFound: {404, 404},
		fault.Conflict: {409, 409}, fault.Full: {507, 507}, fault.Unavailable: {503, 503},
		fault.Corrupt: {500, 500}, fault.Canceled: {499, 499}, fault.Protocol: {400, 400},
	}
	for _, kind := range fault.Kinds() {
		err := fmt.Errorf("wrapped: %w", fault.New(kind, "text"))
		for i, sending := range []bool{false, true} {
			if got := statusOf(err, sending); got != want[kind][i] {
				t.Errorf("%v, sending %t: %d, want %d", kind, sending, got, want[kind][i])
			}
		}
		if _, ok := statusTable[kind]; !ok {
			t.Errorf("%v is not in the table of statuses", kind)
		}
		if reason := failureTable[kind]; reason == 0 {
			t.Errorf("%v has no failure reason", kind)
		}
	}
	if got := statusOf(errors.New("plain"), false); got != 500 {
		t.Errorf("an error without a kind: %d", got)
	}
}

func TestBaseURL(t *testing.T) {
	for _, test := range []struct {
		name, host string
		tls        bool
		header     map[string]string
		want       string
	}{
		{"host alone", "pacs.example:8080", false, nil, "http://pacs.example:8080"},
		{"TLS", "pacs.example", true, nil, "https://pacs.example"},
		{"Forwarded", "10.0.0.1:8080", false, map[string]string{"Forwarded": `for=1.2.3.4; proto=https; host="pacs.example:8443", for=5.6.7.8;host=inner`}, "https://pacs.example:8443"},
		{"X-Forwarded", "10.0.0.1", false, map[string]string{"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "pacs.example", "X-Forwarded-Port": "8443"}, "https://pacs.example:8443"},
		{"the default port is not written", "10.0.0.1", false, map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pacs.example", "X-Forwarded-Port": "443"}, "https://pacs.example"},
		{"prefix", "pacs.example", false, map[string]string{"X-Forwarded-Prefix": "/imaging/"}, "http://pacs.example/imaging"},
		{"IPv6", "[::1]:8080", false, nil, "http://[::1]:8080"},
		{"values that are none", "pacs.example", false, map[string]string{"Forwarded": `proto=javascript;host="a/b"`, "X-Forwarded-Host": "<script>", "X-Forwarded-Prefix": "//evil"}, "http://pacs.example"},
		{"no usable host", "a b", false, nil, "http://localhost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = test.host
			if test.tls {
				r.TLS = &tls.ConnectionState{}
			}
			for k, v := range test.header {
				r.Header.Set(k, v)
			}
			if got := baseURL(r); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestCORS(t *testing.T) {
	do := func(t *testing.T, allowed []string, method string, header map[string]string) *http.Response {
		h, err := New(nil, nil, nil, Options{Origins: allowed})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(method, "/dicom-web/studies", nil)
		for k, v := range header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	ask := map[string]string{"Origin": "https://viewer.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept, x-own"}

	t.Run("a named origin may call, with credentials", func(t *testing.T) {
		res := do(t, []string{"https://viewer.example/"}, "OPTIONS", ask)
		h := res.Header
		if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://viewer.example" || h.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("%d %v", res.StatusCode, h)
		}
		if got := h.Get("Access-Control-Allow-Headers"); got != corsHeaders+", x-own" {
			t.Errorf("headers %q", got)
		}
		for _, name := range []string{"ETag", "Warning", "Content-Location"} {
			if !containsFold(h.Get("Access-Control-Expose-Headers"), name) {
				t.Errorf("%s is not exposed", name)
			}
		}
	})
	t.Run("any origin, without credentials", func(t *testing.T) {
		h := do(t, []string{"*"}, "OPTIONS", ask).Header
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%v", h)
		}
	})
	t.Run("other origins may not", func(t *testing.T) {
		for _, allowed := range [][]string{nil, {"https://other.example"}} {
			h := do(t, allowed, "OPTIONS", ask).Header
			if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Methods") != "" {
				t.Errorf("%v: %v", allowed, h)
			}
		}
	})
	t.Run("OPTIONS without a preflight is the capabilities", func(t *testing.T) {
		res := do(t, nil, "OPTIONS", map[string]string{"Accept": "application/json"})
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
		res = do(t, nil, "OPTIONS", nil)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/vnd.sun.wadl+xml" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("an origin must be one", func(t *testing.T) {
		for _, bad := range []string{"viewer.example", "https://viewer.example/path", "https://"} {
			if _, err := New(nil, nil, nil, Options{Origins: []string{bad}}); !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}
