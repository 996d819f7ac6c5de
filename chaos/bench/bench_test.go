package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pelago/chaos/bench/peer"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

func TestMain(m *testing.M) {
	if was, err := peer.Helper(os.Args); was {
		exit(err)
	}
	os.Exit(m.Run())
}

// TestEveryRowMeasuresEverything runs each row with small inputs against the
// real peers: every line must come out with a figure, whatever it is.
func TestEveryRowMeasuresEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many servers")
	}
	for _, tool := range []string{"storescu", "getscu", "movescu", "storescp", "Orthanc", "gcc"} {
		dimsetest.Tool(t, tool)
	}
	_, err := os.Stat(peer.OrthancPlugin)
	dimsetest.Need(t, err == nil, "Orthanc's DICOMweb plugin is not installed")
	corpus := samples.Dir(t)
	binary := build(t)
	measureAll(t, aloneRows(), "-pelago", binary, "-samples", corpus)
}

// TestNetworkRowsMeasureEverything is the same for rows of the network. Those of five
// sites, which take most of a minute, are left out.
func TestNetworkRowsMeasureEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	small := map[string]bool{"query": true, "first-frame": true, "series": true, "backlog": true}
	rows := slices.DeleteFunc(networkRows(), func(r row) bool { return !small[r.name] })
	if len(rows) != len(small) {
		t.Fatalf("%d rows of %d", len(rows), len(small))
	}
	measureAll(t, rows, "-network", "-pelago", build(t))
}

// build builds the node.
func build(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "pelago")
	if out, err := exec.Command("go", "build", "-o", binary, "pelago/cmd/pelago").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// measureAll measures rows with small inputs.
func measureAll(t *testing.T, rows []row, args ...string) {
	t.Helper()
	// All at once, for most of the time servers are waited for; t.Parallel would
	// run no more than there are cores.
	type measured struct {
		row            row
		dir            string
		stdout, stderr bytes.Buffer
		err            error
	}
	var all []*measured
	var group sync.WaitGroup
	for _, r := range rows {
		m := &measured{row: r, dir: t.TempDir()}
		all = append(all, m)
		group.Go(func() {
			o, err := parse(append([]string{
				"-quick", "-rounds", "1", "-json", "-only", "^" + r.name + "$", "-dir", m.dir, "-out", filepath.Join(m.dir, "benchmarks.md"),
			}, args...), &m.stderr)
			if err == nil {
				err = run(t.Context(), o, &m.stdout, &m.stderr)
			}
			m.err = err
		})
	}
	group.Wait()
	for _, m := range all {
		t.Run(m.row.name, func(t *testing.T) {
			if m.err != nil {
				t.Fatalf("%v\n%s", m.err, m.stderr.String())
			}
			checkReport(t, m.row, m.stdout.Bytes(), filepath.Join(m.dir, "benchmarks.md"))
		})
	}
}

func checkReport(t *testing.T, r row, printed []byte, file string) {
	t.Helper()
	var got report
	if err := json.Unmarshal(printed, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 1 || got.Rows[0].Error != "" {
		t.Fatalf("report: %s", printed)
	}
	for _, l := range got.Rows[0].Lines {
		if l.Missing != "" || len(l.Outcomes) == 0 {
			t.Errorf("%s: not measured: %s", l.What, l.Missing)
		}
		for _, o := range l.Outcomes {
			if math.IsNaN(o.Median) || math.IsInf(o.Median, 0) || o.Median < 0 {
				t.Errorf("%s: %v", l.What, o.Median)
			}
		}
	}
	table, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.lines {
		if !strings.Contains(string(table), "| "+l.what+" |") {
			t.Errorf("the table lacks %q", l.what)
		}
	}
}

func TestRatiosAreTakenWithinRounds(t *testing.T) {
	s := &sheet{}
	for _, v := range []struct{ ours, theirs float64 }{{10, 5}, {100, 20}, {30, 10}} {
		s.add("m", "/s", pelago, v.ours)
		s.add("m", "/s", shipped, v.theirs)
	}
	for _, test := range []struct {
		name  string
		check check
		want  outcome
	}{
		{"rates: ours over theirs", check{atLeast, shipped, 3}, outcome{shipped, 3, 2, 5, 3, 3, true}},
		{"rates: short of the limit", check{atLeast, shipped, 3.5}, outcome{shipped, 3, 2, 5, 3.5, 3, false}},
		{"times: theirs over ours", check{faster, shipped, 0.5}, outcome{shipped, 1.0 / 3, 0.2, 0.5, 0.5, 3, false}},
		{"bounds: ours alone", check{most, "", 30}, outcome{"", 30, 10, 100, 30, 3, true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.check.judge(s.metric("m"))
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
	if _, err := (check{atLeast, nethttp, 1}).judge(s.metric("m")); err == nil {
		t.Error("a competitor that was not measured was judged")
	}
	if _, err := (check{most, "", 1}).judge(nil); err == nil {
		t.Error("a metric that was not measured was judged")
	}
}

func TestPercentiles(t *testing.T) {
	var hundred []float64
	for n := range 100 {
		hundred = append(hundred, float64(100-n))
	}
	for _, test := range []struct {
		values []float64
		p      float64
		want   float64
	}{
		{hundred, 99, 99}, {hundred, 50, 50.5}, {[]float64{3, 1, 2}, 50, 2}, {[]float64{7}, 99, 7},
	} {
		if got := percentile(test.values, test.p); got != test.want {
			t.Errorf("p%v of %d values: %v, want %v", test.p, len(test.values), got, test.want)
		}
	}
}

func TestFailedRowIsReportedNotHidden(t *testing.T) {
	var r report
	broken := row{name: "broken", lines: []line{{"something", "m", "≥ 2×", []check{{atLeast, shipped, 2}}}}}
	r.add(broken, &sheet{}, fmt.Errorf("no disk"), 0)
	if text := string(r.markdown()); !strings.Contains(text, "not measured: no disk | ") || !strings.Contains(text, "broken ended early: no disk") {
		t.Errorf("the report hides the failure:\n%s", text)
	}
}

func TestNewFiguresKeepWhatExplainsThem(t *testing.T) {
	page := filepath.Join(t.TempDir(), "benchmarks.md")
	first := &report{Command: "first"}
	if err := first.save(options{out: page}); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const words = explanation + "\nBy people.\n"
	if err := os.WriteFile(page, append(written, words...), 0o600); err != nil {
		t.Fatal(err)
	}
	second := &report{Command: "second"}
	for range 2 { // a report is saved after each row
		if err := second.save(options{out: page}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if want := string(second.markdown()) + words; err != nil || string(got) != want {
		t.Errorf("%v; got\n%s\nwant\n%s", err, got, want)
	}
}

func TestBucketTakesWhatStorescuSends(t *testing.T) {
	dimsetest.Tool(t, "storescu")
	b := &bench{size: quick}
	b.inputs.dir = t.TempDir()
	files, err := b.tiny(seedTiny, 4)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bucket")
	server, err := peer.Bucket{Syncing: true}.Start(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.StoreSCU(t.Context(), nil, files.paths...); err != nil {
		t.Error(err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(dir + ".bucket")
	if err != nil || info.Size() < files.bytes/2 {
		t.Errorf("the bucket holds %v (%v) of %d bytes sent", info, err, files.bytes)
	}
}
