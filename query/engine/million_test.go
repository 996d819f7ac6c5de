package engine_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// BenchmarkMillion measures the shapes of query that clients send, each with
// ever other values, to the 100th match. PELAGO_BENCH_STUDIES says of how many
// synthetic studies (it is skipped without), PELAGO_BENCH_DIR where to keep the
// catalogue for the next run:
//
//	PELAGO_BENCH_STUDIES=1000000 PELAGO_BENCH_DIR=/var/tmp/million go test -run xxx -bench Million -benchtime 1000x ./query/engine
func BenchmarkMillion(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("PELAGO_BENCH_STUDIES"))
	if err != nil {
		b.Skip("PELAGO_BENCH_STUDIES is not set")
	}
	c := million(b, n)
	defer c.Close()
	e := engine.New(engine.Options{Catalog: c, Instances: &archive{}, Issuer: "NORTH"})
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			times := make([]time.Duration, 0, b.N)
			matches := 0
			before := cpuTime()
			for b.Loop() {
				q := query.Query{Level: query.Study, Limit: 100, Return: ohif}
				shape.fill(&q, catalogtest.Make(benchSeed, r.Uint64N(uint64(n))), r, n)
				began := time.Now()
				answer, err := e.Find(context.Background(), q)
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range answer.Matches {
					if err != nil {
						b.Fatal(err)
					}
					matches++
				}
				times = append(times, time.Since(began))
			}
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs")
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(matches)/float64(b.N), "matches")
		})
	}
	b.Log(resident())
}

const benchSeed = 1

// ohif is what OHIF asks back of a list of studies.
var ohif = []dict.Tag{dict.StudyDescription, dict.ModalitiesInStudy, dict.ReferringPhysicianName, dict.PatientSex, dict.NumberOfStudyRelatedInstances}

// shapes are the queries of docs/benchmarks.md, and what OHIF sends besides.
var shapes = []struct {
	name string
	fill func(q *query.Query, s catalogtest.Study, r *rand.Rand, n int)
}{
	{"patient-id", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.PatientID, s.PatientID})
	}},
	{"accession", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.AccessionNumber, s.Accession})
	}},
	{"name-prefix", func(q *query.Query, s catalogtest.Study, r *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.PatientName, s.Name[:min(3+r.IntN(5), len(s.Name))] + "*"})
	}},
	{"name-infix-ANNA", func(q *query.Query, _ catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.PatientName, "*ANNA*"})
	}},
	{"name-infix", func(q *query.Query, s catalogtest.Study, r *rand.Rand, _ int) {
		family, given, _ := strings.Cut(s.Name, "^")
		part := []string{family, given}[r.IntN(2)]
		q.Keys = dataset(attribute{dict.PatientName, "*" + part[:min(len(part), 4)] + "*"})
	}},
	{"name-two-parts", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		family, given, _ := strings.Cut(s.Name, "^")
		q.Keys = dataset(attribute{dict.PatientName, family[:2] + "*^" + given + "*"})
	}},
	{"fuzzy-name", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys, q.Fuzzy = dataset(attribute{dict.PatientName, s.Name}), true
	}},
	{"fuzzy-family", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		family, _, _ := strings.Cut(s.Name, "^")
		q.Keys, q.Fuzzy = dataset(attribute{dict.PatientName, family}), true
	}},
	{"one-month", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.StudyDate, s.Date[:6] + "01-" + s.Date[:6] + "31"})
		if s.Date[4:6] == "02" {
			q.Keys = dataset(attribute{dict.StudyDate, s.Date[:6] + "01-" + s.Date[:6] + "28"})
		} else if strings.Contains("04 06 09 11", s.Date[4:6]) {
			q.Keys = dataset(attribute{dict.StudyDate, s.Date[:6] + "01-" + s.Date[:6] + "30"})
		}
	}},
	{"modality-date", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.ModalitiesInStudy, s.Modality}, attribute{dict.StudyDate, s.Date})
	}},
	{"50-uids", func(q *query.Query, _ catalogtest.Study, r *rand.Rand, n int) {
		uids := make([]string, 50)
		for i := range uids {
			uids[i] = catalogtest.Make(benchSeed, r.Uint64N(uint64(n))).UID
		}
		q.Keys = dataset(attribute{dict.StudyInstanceUID, strings.Join(uids, `\`)})
	}},
	{"no-key", func(q *query.Query, _ catalogtest.Study, _ *rand.Rand, _ int) { q.Keys = dataset() }},
	{"id-infix", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.PatientID, "*" + s.PatientID + "*"})
	}},
	{"id-prefix-4", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.PatientID, s.PatientID[:4] + "*"})
	}},
	{"accession-infix", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys = dataset(attribute{dict.AccessionNumber, "*" + s.Accession[2:8] + "*"})
	}},
	{"description-infix", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Keys, q.FoldText = dataset(attribute{dict.StudyDescription, "*" + strings.ToLower(s.Description[3:6]) + "*"}), true
	}},
	{"patient-level-name", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Level, q.Keys = query.Patient, dataset(attribute{dict.PatientName, s.Name[:min(4, len(s.Name))] + "*"}, attribute{dict.NumberOfPatientRelatedStudies, ""})
	}},
	{"series-of-study", func(q *query.Query, s catalogtest.Study, _ *rand.Rand, _ int) {
		q.Level, q.Keys = query.Series, dataset(attribute{dict.StudyInstanceUID, s.UID}, attribute{dict.SeriesDescription, ""})
	}},
}

// million opens the catalogue of n synthetic studies, loading it if it is not there.
func million(b *testing.B, n int) *catalog.Catalog {
	b.Helper()
	dir := os.Getenv("PELAGO_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	open := func() *catalog.Catalog {
		began := time.Now()
		c, err := catalog.Open(catalog.Options{FS: vfs.Default, Dir: filepath.Join(dir, "catalog"), Indexer: plan.Indexer{}})
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("opened in %v", time.Since(began))
		return c
	}
	c := open()
	if c.Totals().Studies < uint64(n) {
		began := time.Now()
		if err := catalogtest.Load(c, benchSeed, n); err != nil {
			b.Fatal(err)
		}
		b.Logf("loaded %d studies in %v; %s", n, time.Since(began), resident())
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		c = open()
	}
	totals := c.Totals()
	b.Logf("%+v; %d bytes a series on disk", totals, c.Bytes()/totals.Series)
	return c
}

// cpuTime is the processor time of the process: where others share the
// machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident tells the memory of the process.
func resident() string {
	runtime.GC()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "resident memory unknown"
	}
	var out []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}
