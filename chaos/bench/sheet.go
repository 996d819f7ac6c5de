package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// sheet collects what a row measured. Notes may come from several senders at
// once; samples come from one goroutine.
type sheet struct {
	metrics []*metric

	mu    sync.Mutex
	notes []string
}

// metric is one quantity, of several competitors, round by round.
type metric struct {
	name, unit string
	names      []string // competitors, in the order in which they came
	samples    map[string][]float64
}

// add records what a competitor reached in a round.
func (s *sheet) add(name, unit, competitor string, value float64) {
	m := s.metric(name)
	if m == nil {
		m = &metric{name: name, unit: unit, samples: map[string][]float64{}}
		s.metrics = append(s.metrics, m)
	}
	if _, known := m.samples[competitor]; !known {
		m.names = append(m.names, competitor)
	}
	m.samples[competitor] = append(m.samples[competitor], value)
}

func (s *sheet) metric(name string) *metric {
	for _, m := range s.metrics {
		if m.name == name {
			return m
		}
	}
	return nil
}

// note adds a remark to the row, once.
func (s *sheet) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// Competitors, as the tables name them.
const (
	pelago    = "Pelago"
	shipped   = "Orthanc"
	unstalled = "Orthanc without the stall"
	dropping  = "bit bucket"
	syncing   = "syncing bucket"
	nethttp   = "net/http"
)

// rule is how a check compares.
type rule uint8

const (
	atLeast rule = iota // ours over theirs: rates
	faster              // theirs over ours: times
	most                // ours alone: an upper bound
	least               // ours alone: a lower bound
)

// check is one condition of a line.
type check struct {
	rule   rule
	theirs string // competitor; "" for most and least
	limit  float64
}

// line is a line of the table.
type line struct {
	what   string
	metric string
	reach  string // as the requirement words it
	checks []check
}

// outcome is what became of a check.
type outcome struct {
	Against string  `json:"against,omitempty"`
	Median  float64 `json:"median"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	Limit   float64 `json:"limit"`
	Rounds  int     `json:"rounds"`
	Reached bool    `json:"reached"`
}

// judge computes a check over the rounds. It fails when something was not measured.
func (c check) judge(m *metric) (outcome, error) {
	if m == nil || len(m.samples[pelago]) == 0 {
		return outcome{}, fmt.Errorf("not measured")
	}
	ours := m.samples[pelago]
	var values []float64
	switch c.rule {
	case most, least:
		values = slices.Clone(ours)
	default:
		theirs := m.samples[c.theirs]
		for i := range min(len(ours), len(theirs)) {
			if c.rule == atLeast {
				values = append(values, ours[i]/theirs[i])
			} else {
				values = append(values, theirs[i]/ours[i])
			}
		}
	}
	if len(values) == 0 {
		return outcome{}, fmt.Errorf("%s was not measured", c.theirs)
	}
	o := outcome{
		Against: c.theirs, Median: median(values), Least: slices.Min(values), Most: slices.Max(values),
		Limit: c.limit, Rounds: len(values),
	}
	if c.rule == most {
		o.Reached = o.Median <= c.limit
	} else {
		o.Reached = o.Median >= c.limit
	}
	return o, nil
}

// median of a sample that is not empty.
func median(values []float64) float64 { return percentile(values, 50) }

// percentile by the nearest rank, the mean of the middle two for the median of
// an even number.
func percentile(values []float64, p float64) float64 {
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, cmp.Compare[float64])
	n := len(sorted)
	if p == 50 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[min(n-1, max(0, int(math.Ceil(p/100*float64(n)))-1))]
}

// absolute words the medians of all competitors.
func (m *metric) absolute() string {
	var parts []string
	for _, name := range m.names {
		parts = append(parts, fmt.Sprintf("%s %s %s", name, number(median(m.samples[name])), m.unit))
	}
	return strings.Join(parts, " · ")
}

// number prints three significant digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1 || a == 0:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
