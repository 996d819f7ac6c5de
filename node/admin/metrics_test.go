package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
)

func TestMetricsTellOfFacesWorkAndTasks(t *testing.T) {
	m := NewMetrics()
	m.DIMSE().Observe("C-STORE", 0xA700, time.Second, 7)
	m.Web().Observe("search", 200, time.Millisecond, -1)
	m.ObserveWork("pack_table", 3*time.Second, nil)
	m.ObserveWork("purge", time.Second, fault.New(fault.Full, "no room"))
	m.Gauge("test_gauge", "For the test.", func() float64 { return 4 })
	m.Counter("test_counter_total", "For the test.", func() float64 { return 5 })
	m.Tasks(func() []work.Status {
		return []work.Status{{Name: "pack", State: work.Running}, {Name: "purge", State: work.Backoff, Restarts: 2}}
	})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`pelago_request_seconds_count{face="dimse",operation="C-STORE",status="a700"} 1`,
		`pelago_request_bytes_total{face="dimse",operation="C-STORE"} 7`,
		`pelago_request_seconds_count{face="web",operation="search",status="200"} 1`,
		`pelago_request_bytes_total{face="web",operation="search"} 0`,
		`pelago_work_seconds_count{outcome="done",work="pack_table"} 1`,
		`pelago_work_seconds_count{outcome="full",work="purge"} 1`,
		`pelago_task_running{task="pack"} 1`, `pelago_task_running{task="purge"} 0`,
		`pelago_task_restarts_total{task="purge"} 2`,
		"test_gauge 4", "test_counter_total 5", "go_goroutines",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s", want)
		}
	}
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCallsToOtherNodesAreCounted(t *testing.T) {
	m := NewMetrics()
	code := 200
	client := m.Calls(trip(func(*http.Request) (*http.Response, error) {
		if code == 0 {
			return nil, fault.New(fault.Unavailable, "away")
		}
		return &http.Response{StatusCode: code, Body: http.NoBody}, nil
	}))
	for _, call := range []struct {
		path string
		code int
	}{{"/archive/open", 200}, {"/archive/pack/7", 206}, {"/raft/index", 0}, {"/archive/open", 503}} {
		code = call.code
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://node"+call.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := client.RoundTrip(r); (err != nil) != (code == 0) || answer != nil && answer.StatusCode != code {
			t.Errorf("%s: %v, %v", call.path, answer, err)
		}
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`pelago_peer_calls_total{outcome="answered",service="archive"} 2`, `pelago_peer_calls_total{outcome="refused",service="archive"} 1`,
		`pelago_peer_calls_total{outcome="lost",service="raft"} 1`, `pelago_peer_calls_total{outcome="answered",service="query"} 0`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestTasksInTheStatus(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := TasksOf([]work.Status{
		{Name: "pack", State: work.Running, Done: 3, Total: 7},
		{Name: "purge", State: work.Backoff, Restarts: 2, LastError: "no room", LastErrorAt: at, LastRun: at},
	})
	want := []Task{
		{Name: "pack", State: "running", Done: 3, Total: 7},
		{Name: "purge", State: "backoff", Restarts: 2, Error: "no room", ErrorAt: "2026-01-02T03:04:05Z", LastRun: "2026-01-02T03:04:05Z"},
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}
