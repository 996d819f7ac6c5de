package web

import (
	"context"
	"slices"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/query"
)

func TestARequestThatNamesNodesWaitsForWhatTheyHaveStored(t *testing.T) {
	var waited []string
	known := func(_ context.Context, node string) error {
		switch node {
		case "away":
			return fault.New(fault.Unavailable, "it does not answer")
		case "":
			return fault.New(fault.Invalid, "no such node")
		}
		waited = append(waited, node)
		return nil
	}
	s := newSite(t, Options{Node: "here", After: known})
	s.engine.answer = func(query.Query) (*query.Answer, error) { return &query.Answer{Matches: matches(nil)}, nil }
	for _, tt := range []struct {
		after  []string
		status int
		waited string
	}{
		{nil, 200, ""},
		{[]string{"there"}, 200, "there"},
		{[]string{"there, here"}, 200, "there here"},
		{[]string{"there", "here"}, 200, "there here"},
		{[]string{"there,away,here"}, 503, "there"},
		{[]string{"there,,here"}, 400, "there"},
		{[]string{strings.Repeat("x,", 8) + "x"}, 400, ""},
	} {
		waited = nil
		var header []string
		for _, value := range tt.after {
			header = append(header, "Pelago-After", value)
		}
		res := s.get("/dicom-web/studies", "", header...)
		s.body(res, tt.status)
		if got := strings.Join(waited, " "); got != tt.waited {
			t.Errorf("%q: waited for %q, want %q", tt.after, got, tt.waited)
		}
		if tt.status == 503 && res.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
}

func TestWhoHasStoredIsToldWhere(t *testing.T) {
	s := newSite(t, Options{Node: "here"})
	res := s.stowParts("/dicom-web/studies", part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")))
	s.body(res, 200)
	if got := res.Header.Values("Pelago-Written"); !slices.Equal(got, []string{"here"}) {
		t.Errorf("stored at %q", got)
	}
	res = s.stowParts("/dicom-web/studies", []byte("no DICOM"))
	s.body(res, 409)
	if got := res.Header.Values("Pelago-Written"); got != nil {
		t.Errorf("nothing was stored, at %q", got)
	}
}
