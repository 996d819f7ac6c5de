package admin

import (
	"io"
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
