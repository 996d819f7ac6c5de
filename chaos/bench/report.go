package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// report is the outcome of a run.
type report struct {
	Command string    `json:"command"`
	Network bool      `json:"network,omitempty"`
	Shards  bool      `json:"shards,omitempty"`
	Quick   bool      `json:"quick,omitempty"`
	Busy    bool      `json:"busy,omitempty"` // others used the machine too
	Began   time.Time `json:"began"`
	Machine machine   `json:"machine"`
	Rows    []result  `json:"rows"`
}

// result is a row as measured.
type result struct {
	Name    string         `json:"name"`
	Seconds float64        `json:"seconds"`
	Error   string         `json:"error,omitempty"`
	Lines   []lineResult   `json:"lines,omitempty"`
	Metrics []metricResult `json:"metrics,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
}

type lineResult struct {
	What     string    `json:"what"`
	Reach    string    `json:"reach"`
	Outcomes []outcome `json:"outcomes,omitempty"`
	Absolute string    `json:"absolute,omitempty"`
	Unit     string    `json:"unit,omitempty"`
	Reached  bool      `json:"reached"`
	Missing  string    `json:"missing,omitempty"` // why it was not measured
}

type metricResult struct {
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Samples map[string][]float64 `json:"samples"`
}

// add judges a row's lines.
func (r *report) add(row row, s *sheet, failure error, took time.Duration) {
	out := result{Name: row.name, Seconds: took.Seconds(), Notes: s.notes}
	if failure != nil {
		out.Error = failure.Error()
	}
	for _, l := range row.lines {
		out.Lines = append(out.Lines, judge(l, s.metric(l.metric), failure))
	}
	for _, m := range s.metrics {
		out.Metrics = append(out.Metrics, metricResult{m.name, m.unit, m.samples})
	}
	r.Rows = append(r.Rows, out)
}

func judge(l line, m *metric, failure error) lineResult {
	out := lineResult{What: l.what, Reach: l.reach, Reached: true}
	for _, c := range l.checks {
		o, err := c.judge(m)
		if err != nil {
			out.Reached, out.Missing = false, err.Error()
			if failure != nil {
				out.Missing = failure.Error()
			}
			continue
		}
		out.Outcomes = append(out.Outcomes, o)
		out.Reached = out.Reached && o.Reached
	}
	if m != nil {
		out.Absolute, out.Unit = m.absolute(), m.unit
	}
	return out
}

// explanation is the heading of what people wrote below the figures.
const explanation = "\n## How to read this page\n"

// save writes the file that was asked for, if any. What people wrote below the
// figures of an earlier run stays.
func (r *report) save(o options) error {
	if o.out == "" {
		return nil
	}
	page := r.markdown()
	before, err := os.ReadFile(o.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if at := bytes.Index(before, []byte(explanation)); at >= 0 {
		page = append(page, before[at:]...)
	}
	return os.WriteFile(o.out, page, 0o644)
}

// write prints the report.
func (r *report) write(o options, stdout io.Writer) error {
	if o.json {
		return printJSON(stdout, r)
	}
	_, err := stdout.Write(r.markdown())
	return err
}

// markdown is docs/benchmarks.md, docs/benchmarks-network.md or docs/benchmarks-shards.md.
func (r *report) markdown() []byte {
	var b bytes.Buffer
	title, preface := "Benchmarks", prefaceAlone
	switch {
	case r.Network:
		title, preface = "Benchmarks of the network", prefaceNetwork
	case r.Shards:
		title, preface = "Benchmarks of shards", prefaceShards
	}
	fmt.Fprintf(&b, "# %s\n\nWritten by `%s` on %s.\n", title, r.Command, r.Began.Format("2006-01-02"))
	if r.Quick {
		b.WriteString("\n**A smoke test with small inputs: no figure below means anything.**\n")
	}
	if r.Busy {
		b.WriteString("\n**The machine had other work meanwhile**: what counts bytes, requests and slots holds, what counts time is worse than it would be.\n")
	}
	b.WriteString(preface)
	r.Machine.markdown(&b)
	b.WriteString("\n## Figures\n\n| what | to reach | measured: median (least–most of the rounds) | medians | reached |\n|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		for _, l := range row.Lines {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", l.What, l.Reach, l.measured(), l.Absolute, l.verdict())
		}
	}
	r.remarks(&b)
	return b.Bytes()
}

const prefaceNetwork = `
Every figure is a ratio, or stands beside the limit that it is held to, within one run on one machine. All nodes are processes of their own
and talk to each other through a relay that delays, narrows and cuts what lies between their sites (` + "`chaos/world`" + `), which runs in the
measuring process. Clients talk to a node's own ports, as in the same building. All of them, nodes, relay and clients, share the cores below;
clients that read series and frames stand for other machines, which would have cores of their own: they count what they get, and leave it in the kernel.

## Machine

`

const prefaceShards = `
Every figure is a ratio, or stands beside the limit that it is held to, within one run on one machine; limits that are computed (a round trip and
bytes ÷ bandwidth, an optimum, what a code costs) are computed from that run's own links and bytes. Sites are linked by a relay that delays, narrows and
cuts what lies between them (` + "`chaos/world`" + `), which runs in the measuring process. Rows of the pipeline and of layouts run in that process alone;
rows that read shards have their holders in it too, each with its own store on disk, port and certificate; all others are of nodes that are processes of
their own. All of them share the cores below.

## Machine

`

const prefaceAlone = `
Every figure is a ratio, or stands beside its peer, within one run on one machine. All competitors are processes of their own
and take turns in each round, each on an empty directory and after the disk was synced. Senders and receivers are unmodified dcmtk
tools unless a row says otherwise. "Without the stall": Orthanc with a preloaded library that sets no-delay and quick
acknowledgement on its sockets (` + "`chaos/bench/peer/shim`" + `). The bit bucket is our own ` + "`dimse/scp`" + ` that drops what it receives; the syncing
bucket appends it to one file and syncs the file's data before each response.

## Machine

`

func (l lineResult) measured() string {
	var parts []string
	for _, o := range l.Outcomes {
		text := fmt.Sprintf("%s (%s–%s)", number(o.Median), number(o.Least), number(o.Most))
		if o.Against != "" {
			text = fmt.Sprintf("%s× %s (%s–%s)", number(o.Median), o.Against, number(o.Least), number(o.Most))
		} else if l.Unit != "" {
			text += " " + l.Unit
		}
		parts = append(parts, text)
	}
	if l.Missing != "" {
		parts = append(parts, "not measured: "+strings.ReplaceAll(strings.Join(strings.Fields(l.Missing), " "), "|", "\\|"))
	}
	return strings.Join(parts, "; ")
}

func (l lineResult) verdict() string {
	switch {
	case l.Reached:
		return "yes"
	case l.Missing != "" && len(l.Outcomes) == 0:
		return "–"
	default:
		return "**no**"
	}
}

// remarks lists what must be said of the rows.
func (r *report) remarks(b *bytes.Buffer) {
	b.WriteString("\n## Remarks\n\n")
	for _, row := range r.Rows {
		for _, note := range row.Notes {
			fmt.Fprintf(b, "- %s: %s.\n", row.Name, note)
		}
		if row.Error != "" {
			fmt.Fprintf(b, "- %s ended early: %s\n", row.Name, strings.Join(strings.Fields(row.Error), " "))
		}
	}
}
