package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pelago/cluster/fault"
)

// networkOf is the site's network.
type networkOf struct{ s *site }

func (n networkOf) Sites() ([]Site, error) { return []Site{}, n.s.call("sites") }

func (n networkOf) Token(context.Context, time.Duration) (string, time.Time, error) {
	return "token", time.Time{}, n.s.call("token")
}

func (n networkOf) Drain(_ context.Context, node string, drained bool) error {
	return n.s.call(fmt.Sprint("drain ", node, " ", drained))
}

func (n networkOf) Remove(_ context.Context, node, by string) error {
	return n.s.call("remove node " + node + " by " + by)
}

func (n networkOf) Lose(_ context.Context, node, site string, back bool, by string) ([]string, error) {
	return []string{"x1", "x2"}, n.s.call(fmt.Sprintf("lose %q %q %t by %s", node, site, back, by))
}

func (n networkOf) Code() Code { return Code{K: 3, M: 3, Survives: 2, Sites: 6} }

func (n networkOf) SetCode(_ context.Context, k, m, survives int, by string) error {
	return n.s.call(fmt.Sprintf("code %d+%d %d by %s", k, m, survives, by))
}

func (n networkOf) AutoCode(context.Context) error { return n.s.call("code by rule") }

func TestWhatOperatorsDoToTheLayout(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		code               int
		call, event        string
		object             string
	}{
		{"POST", "/api/lost", `{"node":"x1"}`, 200, `lose "x1" "" false by admin`, "node-lost", "x1"},
		{"POST", "/api/lost", `{"site":"Grace"}`, 200, `lose "" "Grace" false by admin`, "node-lost", "Grace"},
		{"POST", "/api/lost", `{"site":"Grace","back":true}`, 200, `lose "" "Grace" true by admin`, "node-back", "Grace"},
		{"POST", "/api/lost", `{}`, 400, "", "node-lost", ""},
		{"POST", "/api/lost", `{"site":"Grace","node":"x1"}`, 400, "", "node-lost", "x1Grace"},
		{"PUT", "/api/code", `{"k":2,"m":3,"survives":1}`, 204, "code 2+3 1 by admin", "code-set", "2+3 survives 1"},
		{"PUT", "/api/code", `{"auto":true}`, 204, "code by rule", "code-set", "auto"},
		{"PUT", "/api/code", `{"auto":true,"k":2}`, 400, "", "code-set", "auto"},
		{"PUT", "/api/code", `{"n":2}`, 400, "", "code-set", ""},
	} {
		s := newSite(t, nil)
		if r := s.admin(test.method, test.path, test.body); r.StatusCode != test.code {
			t.Errorf("%s %s: %d", test.path, test.body, r.StatusCode)
		}
		if (len(s.calls) == 0) != (test.call == "") || test.call != "" && !slices.Equal(s.calls, []string{test.call}) {
			t.Errorf("%s %s: calls %q", test.path, test.body, s.calls)
		}
		if e := s.lastEvent(); e.Action != test.event || e.Object != test.object || (e.Err == nil) != (test.code < 400) {
			t.Errorf("%s %s: audited as %+v", test.path, test.body, e)
		}
	}
}

func TestOnlyAdministratorsChangeTheLayout(t *testing.T) {
	s := newSite(t, map[string]string{"ann": hashOf(t, "x")})
	for path, method := range map[string]string{"/api/lost": "POST", "/api/code": "PUT"} {
		if r := s.do(method, path, `{"site":"Grace"}`); r.StatusCode != 401 || len(s.calls) != 0 || !fault.Is(s.lastEvent().Err, fault.Denied) {
			t.Errorf("%s: %d, %q, %+v", path, r.StatusCode, s.calls, s.lastEvent())
		}
	}
	var c Code
	if err := json.NewDecoder(s.admin("GET", "/api/code", "").Body).Decode(&c); err != nil || c != (Code{K: 3, M: 3, Survives: 2, Sites: 6}) {
		t.Errorf("%+v, %v", c, err)
	}
}
