package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pelago/cluster/fault"
	"pelago/node/work"
)

// Metrics are the node's own measurements in a registry of their own.
type Metrics struct {
	registry *prometheus.Registry
	took     *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	work     *prometheus.HistogramVec
	calls    *prometheus.CounterVec
}

// NewMetrics returns an empty registry with the process's own figures.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pelago_request_seconds", Help: "Time that requests took, by face, operation and status.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 60, 600},
		}, []string{"face", "operation", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pelago_request_bytes_total", Help: "Bytes of data sets and bodies moved, by face and operation.",
		}, []string{"face", "operation"}),
	}
	m.work = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pelago_work_seconds", Help: "Time that pieces of background work took, by what and how they ended.",
		Buckets: []float64{.01, .1, 1, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600},
	}, []string{"work", "outcome"})
	m.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pelago_peer_calls_total", Help: "Calls that were made to other nodes, by service and outcome.",
	}, []string{"service", "outcome"})
	m.registry.MustRegister(m.took, m.bytes, m.work, m.calls,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Gauge adds a figure that is read when asked for.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Counter adds a figure that only grows and is read when asked for.
func (m *Metrics) Counter(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Face observes the requests of one face.
type Face struct {
	m    *Metrics
	name string
	hex  bool // statuses are DIMSE's
}

// DIMSE observes DIMSE operations; statuses are in hexadecimal.
func (m *Metrics) DIMSE() Face { return Face{m, "dimse", true} }

// Web observes web requests.
func (m *Metrics) Web() Face { return Face{m, "web", false} }

// Observe reports one finished request.
func (f Face) Observe(operation string, status int, took time.Duration, bytes int64) {
	text := strconv.Itoa(status)
	if f.hex {
		text = strconv.FormatUint(uint64(status), 16)
		for len(text) < 4 {
			text = "0" + text
		}
	}
	f.m.took.WithLabelValues(f.name, operation, text).Observe(took.Seconds())
	f.m.bytes.WithLabelValues(f.name, operation).Add(float64(max(bytes, 0)))
}

// ObserveWork reports one finished piece of background work.
func (m *Metrics) ObserveWork(name string, took time.Duration, err error) {
	outcome := "done"
	if err != nil {
		outcome = fault.KindOf(err).String()
	}
	m.work.WithLabelValues(name, outcome).Observe(took.Seconds())
}

// Calls counts the calls to other nodes that go through a round tripper, by the
// first part of their path, which is one of few.
func (m *Metrics) Calls(next http.RoundTripper) http.RoundTripper {
	m.calls.WithLabelValues("query", "answered") // so that it is 0 before the first
	return countedCalls{m, next}
}

type countedCalls struct {
	m    *Metrics
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c countedCalls) RoundTrip(r *http.Request) (*http.Response, error) {
	service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	answer, err := c.next.RoundTrip(r)
	outcome := "answered"
	switch {
	case err != nil:
		outcome = "lost"
	case answer.StatusCode/100 != 2:
		outcome = "refused"
	}
	c.m.calls.WithLabelValues(service, outcome).Inc()
	return answer, err
}

// CloseIdleConnections closes those of what is below, where it has any.
func (c countedCalls) CloseIdleConnections() {
	if closer, ok := c.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// Tasks adds what background tasks do, read when asked for. It is called once.
func (m *Metrics) Tasks(read func() []work.Status) { m.registry.MustRegister(taskCollector{read}) }

// taskCollector turns the statuses of tasks into figures.
type taskCollector struct{ read func() []work.Status }

var (
	taskRunning  = prometheus.NewDesc("pelago_task_running", "1 while the background task runs, 0 while it waits or has ended.", []string{"task"}, nil)
	taskRestarts = prometheus.NewDesc("pelago_task_restarts_total", "Times that the background task was run again after a failure.", []string{"task"}, nil)
)

// Describe implements [prometheus.Collector].
func (c taskCollector) Describe(to chan<- *prometheus.Desc) {
	to <- taskRunning
	to <- taskRestarts
}

// Collect implements [prometheus.Collector].
func (c taskCollector) Collect(to chan<- prometheus.Metric) {
	for _, s := range c.read() {
		running := 0.0
		if s.State == work.Running {
			running = 1
		}
		to <- prometheus.MustNewConstMetric(taskRunning, prometheus.GaugeValue, running, s.Name)
		to <- prometheus.MustNewConstMetric(taskRestarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
	}
}

// Handler serves the registry to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
