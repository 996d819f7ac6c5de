package catalog_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func openMem(t testing.TB, fs vfs.FS) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wordIndexer files studies by modality and by the words of their patients' names.
type wordIndexer struct{}

func (wordIndexer) Version() uint32 { return 3 }
func (wordIndexer) Terms(s catalog.StudyRow, add func(index byte, term string)) {
	for i := range s.Patients() {
		for word := range strings.FieldsFuncSeq(s.PatientText(i, dict.PatientName), func(r rune) bool { return r == '^' }) {
			add('w', word)
		}
	}
	for _, m := range s.Modalities() {
		add('m', m)
	}
}

func (wordIndexer) Words(s catalog.StudyRow, add func(index byte, word string)) {
	for _, m := range s.Modalities() {
		add('m', m)
	}
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

func apply(t tester, c *catalog.Catalog, commands ...catalog.Command) []error {
	t.Helper()
	results, err := c.Apply(c.Applied()+1, commands)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func verify(t tester, c *catalog.Catalog) {
	t.Helper()
	if err := c.Verify(context.Background(), func(err error) { t.Errorf("verify: %v", err) }); err != nil {
		t.Fatal(err)
	}
}

type values = map[dict.Tag]string

func fact(origin, study, series string, asOf, instances uint64, v values) *catalog.SeriesFact {
	f := &catalog.SeriesFact{
		Origin: origin, Site: "site-" + origin, AsOf: asOf, Study: study, Series: series, Issuer: "NORTH",
		Attributes: catalogtest.Dataset(v), Instances: instances, Bytes: instances * 1000, Classes: []string{"1.2.840.10008.5.1.4.1.1.2"}, Arrived: int64(asOf),
	}
	f.UIDHash[0] = byte(instances)
	return f
}

func TestStudyIsTheFoldOfItsSeries(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c,
		fact("a", "1.1", "1.1.1", 1, 3, values{dict.PatientID: "P1", dict.PatientName: "Doe^Jane", dict.StudyDate: "20240102", dict.Modality: "CT"}),
		fact("a", "1.1", "1.1.2", 2, 4, values{dict.PatientID: "P1", dict.StudyDescription: "Chest", dict.StudyDate: "20240103", dict.Modality: "SR"}))
	s, err := c.Study("1.1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Instances != 7 || s.Series != 2 || !slices.Equal(s.Modalities, []string{"CT", "SR"}) {
		t.Errorf("instances %d, series %d, modalities %v", s.Instances, s.Series, s.Modalities)
	}
	if got := s.Attributes.String(dict.StudyDate); got != "20240102" {
		t.Errorf("study date %q: the first announced must stand", got)
	}
	if got := s.Attributes.String(dict.StudyDescription); got != "Chest" {
		t.Errorf("study description %q: what only one series has must be there", got)
	}
	if got := s.Attributes.String(dict.IssuerOfPatientID); got != "NORTH" {
		t.Errorf("issuer %q", got)
	}
	verify(t, c)
}

func TestOriginsThatAgreeCountOnce(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	v := values{dict.PatientID: "P1", dict.Modality: "CT"}
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 5, v), fact("b", "1.1", "1.1.1", 9, 5, v))
	s, err := c.Study("1.1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Instances != 5 || s.Approximate {
		t.Errorf("%d instances, approximate %t; want 5, exact", s.Instances, s.Approximate)
	}
	apply(t, c, fact("b", "1.1", "1.1.1", 10, 8, v))
	if s, err = c.Study("1.1"); err != nil || s.Instances != 8 || !s.Approximate {
		t.Errorf("%d instances, approximate %t (%v); want the maximum, 8, approximate", s.Instances, s.Approximate, err)
	}
	if !slices.Equal(s.Sites, []string{"site-a", "site-b"}) {
		t.Errorf("sites %v", s.Sites)
	}
	apply(t, c, fact("b", "1.1", "1.1.1", 11, 0, v))
	if s, err = c.Study("1.1"); err != nil || s.Instances != 5 || s.Approximate {
		t.Errorf("after b holds nothing: %d instances, approximate %t (%v)", s.Instances, s.Approximate, err)
	}
	verify(t, c)
}

func TestOlderFactChangesNothing(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	v := values{dict.PatientID: "P1"}
	apply(t, c, fact("a", "1.1", "1.1.1", 10, 5, v))
	apply(t, c, fact("a", "1.1", "1.1.1", 9, 4, v))
	if got := c.Totals().Instances; got != 5 {
		t.Errorf("%d instances, want 5", got)
	}
}

func TestStudyOfTwoPatientsIsFoundByBoth(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c,
		fact("a", "1.1", "1.1.1", 1, 1, values{dict.PatientID: "P1", dict.PatientName: "Doe^Jane"}),
		fact("a", "1.1", "1.1.2", 2, 1, values{dict.PatientID: "P2", dict.PatientName: "Roe^Rita"}))
	s, err := c.Study("1.1")
	if err != nil {
		t.Fatal(err)
	}
	want := []catalog.PatientKey{{Issuer: "NORTH", ID: "P1"}, {Issuer: "NORTH", ID: "P2"}}
	if !slices.Equal(s.Patients, want) {
		t.Errorf("patients %v, want %v", s.Patients, want)
	}
	if alone, err := c.PatientsOf("1.1"); err != nil || !slices.Equal(alone, want) {
		t.Errorf("patients alone %v, %v, want %v", alone, err, want)
	}
	if _, err := c.PatientsOf("1.2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("patients of an unknown study: %v", err)
	}
	v := c.View()
	defer v.Close()
	for _, p := range want {
		studies, err := v.Patient(p, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := studies.SeekGE(catalog.Order{}); !ok || err != nil {
			t.Errorf("%v finds nothing (%v)", p.ID, err)
		}
	}
	if got := c.Totals().Patients; got != 2 {
		t.Errorf("%d patients, want 2", got)
	}
	verify(t, c)
}

func TestTombstoneHidesAndRestoreBringsBack(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	v := values{dict.PatientID: "P1", dict.StudyDate: "20240102"}
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 3, v), fact("a", "1.1", "1.1.2", 2, 4, v))
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Tick: 1})
	if got := c.Totals(); got.Series != 1 || got.Instances != 4 {
		t.Errorf("after deleting a series: %+v", got)
	}
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 2, By: "op"})
	if _, err := c.Study("1.1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted study: %v", err)
	}
	if got := c.Totals(); got != (catalog.Totals{}) {
		t.Errorf("totals %+v, want none", got)
	}
	// A late arrival does not bring it back.
	apply(t, c, fact("a", "1.1", "1.1.3", 5, 1, v), fact("a", "1.1", "1.1.2", 6, 5, v))
	if _, err := c.Study("1.1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted study after a late arrival: %v", err)
	}
	verify(t, c)
	if got := apply(t, c, &catalog.RestoreFact{Study: "1.1", Series: "1.1.9", Tick: 3}); !fault.Is(got[0], fault.NotFound) {
		t.Errorf("restoring what is not deleted: %v", got[0])
	}
	if got := apply(t, c, &catalog.RestoreFact{Study: "1.1", Tick: 3}); got[0] != nil {
		t.Errorf("restore: %v", got[0])
	}
	s, err := c.Study("1.1")
	if err != nil || s.Series != 2 || s.Instances != 6 {
		t.Errorf("restored: %+v, %v; want the series that has no tombstone of its own, and the late one", s, err)
	}
	if f, ok := c.Deleted("1.1", "1.1.1", "1.1.1.1"); !ok || f.Series != "1.1.1" || f.Instance != "" {
		t.Errorf("tombstone of the series: %+v, %t", f, ok)
	}
	if got := apply(t, c, &catalog.RestoreFact{Study: "1.1", Series: "1.1.1", Tick: 2 + catalog.DeleteGraceSeconds}); !fault.Is(got[0], fault.Conflict) {
		t.Errorf("restore after the grace: %v", got[0])
	}
	verify(t, c)
}

func TestTombstoneBeforeArrivalHidesToo(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 1})
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 3, values{dict.PatientID: "P1"}))
	if got := c.Totals().Studies; got != 0 {
		t.Errorf("%d studies, want 0", got)
	}
	n := 0
	for f, err := range c.Tombstones(t.Context()) {
		if err != nil || f.Study != "1.1" {
			t.Errorf("tombstone %+v, %v", f, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d tombstones", n)
	}
}

func TestReservedSeriesAreInNoCount(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	f := fact("a", "2.25.1", "2.25.2", 1, 3, values{})
	f.Reserved = true
	apply(t, c, f)
	if got := c.Totals(); got != (catalog.Totals{}) {
		t.Errorf("totals %+v", got)
	}
	n := 0
	for x, err := range c.Series(t.Context(), "2.25.1") {
		if err != nil || !x.Reserved || x.Instances != 3 {
			t.Errorf("series %+v, %v", x, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d series, want the reserved one", n)
	}
	verify(t, c)
}

func TestStudiesWithoutPatientIDAreTheirOwnPatients(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 1, values{}), fact("a", "1.2", "1.2.1", 2, 1, values{}))
	if got := c.Totals().Patients; got != 2 {
		t.Errorf("%d patients, want 2", got)
	}
	// The same study's other series names the patient.
	apply(t, c, fact("a", "1.1", "1.1.2", 3, 1, values{dict.PatientID: "P1"}))
	s, err := c.Study("1.1")
	if err != nil || len(s.Patients) != 1 || s.Patients[0].ID != "P1" {
		t.Errorf("patients %v, %v", s.Patients, err)
	}
	verify(t, c)
}

func TestInvalidFactsAreResultsNotErrors(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	broken := fact("a", "1.1", "1.1.1", 1, 1, values{})
	broken.Attributes = []byte{8, 0, 0x20, 0, 'D', 'A', 200, 0, 'x'}
	unnamed := fact("a", "", "1.1.1", 1, 1, values{})
	for i, r := range apply(t, c, broken, unnamed, &catalog.TombstoneFact{Study: "1.1", Instance: "1"}, &catalog.RegistryFact{Kind: "ae"}) {
		if !fault.Is(r, fault.Invalid) {
			t.Errorf("command %d: %v, want invalid", i, r)
		}
	}
	if got := c.Totals(); got != (catalog.Totals{}) {
		t.Errorf("totals %+v", got)
	}
}

func TestRegistryHoldsTheRecordsOfOneKind(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c,
		&catalog.RegistryFact{Kind: "ae", Name: "S/B", Value: []byte("2")}, &catalog.RegistryFact{Kind: "ae", Name: "S/A", Value: []byte("1")},
		&catalog.RegistryFact{Kind: "aex", Name: "S/C", Value: []byte("3")}, &catalog.RegistryFact{Kind: "ae", Name: "S/D", Value: []byte("4")})
	apply(t, c, &catalog.RegistryFact{Kind: "ae", Name: "S/D"})
	got, err := c.Registry("ae")
	want := map[string][]byte{"S/A": []byte("1"), "S/B": []byte("2")}
	if err != nil || !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("registry %v, %v, want %v", got, err, want)
	}
}

func TestAppliedIndexIsNotAppliedTwice(t *testing.T) {
	fs := vfs.NewMem()
	c := openMem(t, fs)
	f := fact("a", "1.1", "1.1.1", 1, 3, values{})
	if _, err := c.Apply(7, []catalog.Command{f}); err != nil {
		t.Fatal(err)
	}
	if results, err := c.Apply(7, []catalog.Command{&catalog.TombstoneFact{Study: "1.1"}}); results != nil || err != nil {
		t.Errorf("second apply: %v, %v", results, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	if c.Applied() != 7 || c.Totals().Instances != 3 {
		t.Errorf("after reopening: applied %d, %+v", c.Applied(), c.Totals())
	}
}

// randomCommand draws a command over few names, so that they meet.
func randomCommand(t *rapid.T) catalog.Command {
	study := fmt.Sprintf("1.%d", rapid.IntRange(1, 4).Draw(t, "study"))
	series := fmt.Sprintf("%s.%d", study, rapid.IntRange(1, 3).Draw(t, "series"))
	pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		if rapid.Bool().Draw(t, "whole study") {
			series = ""
		}
		return &catalog.TombstoneFact{Study: study, Series: series, Tick: 1}
	case 1:
		if rapid.Bool().Draw(t, "whole study") {
			series = ""
		}
		return &catalog.RestoreFact{Study: study, Series: series, Tick: 2}
	}
	v := values{}
	drawn := values{
		dict.PatientID:        pick("id", "", "P1", "P2"),
		dict.PatientName:      pick("name", "", "Doe^Jane", "DOE^JANE^^", "Roe^Rita"),
		dict.StudyDate:        pick("date", "", "20240101", "20230505", "bogus"),
		dict.StudyDescription: pick("description", "", "Chest", "Head"),
		dict.AccessionNumber:  pick("accession", "", "A1", "A2"),
		dict.Modality:         pick("modality", "", "CT", "MR"),
	}
	for tag, value := range drawn {
		if value != "" {
			v[tag] = value
		}
	}
	f := fact(pick("origin", "a", "b"), study, series, rapid.Uint64Range(1, 50).Draw(t, "as of"), rapid.Uint64Range(0, 3).Draw(t, "instances"), v)
	f.Reserved = rapid.IntRange(0, 19).Draw(t, "reserved") == 0
	return f
}

// Whatever comes in whatever grouping, the records are the same, and hang together.
func TestAnyHistoryLeavesWholeRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		commands := rapid.SliceOfN(rapid.Custom(randomCommand), 1, 25).Draw(rt, "commands")
		one, many := openMem(t, vfs.NewMem()), openMem(t, vfs.NewMem())
		defer one.Close()
		defer many.Close()
		apply(rt, one, commands...)
		for rest := commands; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			apply(rt, many, rest[:n]...)
			rest = rest[n:]
		}
		verify(rt, one)
		verify(rt, many)
		if a, b := catalog.Dump(one), catalog.Dump(many); !slices.Equal(a, b) {
			rt.Fatalf("the grouping of commands shows:\n%v\n%v", a, b)
		}
	})
}

func TestNewIndexerVersionWritesPostingsAnew(t *testing.T) {
	fs := vfs.NewMem()
	c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog"})
	if err != nil {
		t.Fatal(err)
	}
	if err := catalogtest.Load(c, 1, 1500); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	verify(t, c)
	v := c.View()
	defer v.Close()
	if words, ok, err := v.Words('m', "C", 100); err != nil || !ok || !slices.Equal(words, []string{"CR", "CT"}) {
		t.Errorf("words %v, %t, %v", words, ok, err)
	}
	if terms, ok, err := v.Terms('m', 100, func(string) bool { return true }); err != nil || !ok || len(terms) < 8 {
		t.Errorf("modalities %v, %t, %v", terms, ok, err)
	}
}

func TestCrashLeavesAPrefixOfWhatWasApplied(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		c := openMem(t, fs)
		synced, crash := uint64(0), 1+r.IntN(30)
		for i := range crash {
			apply(t, c, catalogtest.Make(seed, uint64(i)).Fact(uint64(i+1)))
			if r.IntN(5) == 0 {
				if err := c.Sync(); err != nil {
					t.Fatal(err)
				}
				synced = c.Applied()
			}
		}
		copied := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
		c.Close()
		c = openMem(t, copied)
		if c.Applied() < synced || c.Applied() > uint64(crash) || c.Totals().Studies != c.Applied() {
			t.Fatalf("seed %d: applied %d of %d, synced %d, totals %+v", seed, c.Applied(), crash, synced, c.Totals())
		}
		verify(t, c)
		c.Close()
	}
}

func commandsForGolden() []catalog.Command {
	f := fact("3f9a", "1.2.3", "1.2.3.4", 42, 7, values{dict.PatientID: "P1", dict.PatientName: "Müller^Jürgen", dict.Modality: "CT"})
	f.Reserved = true
	return []catalog.Command{
		f,
		&catalog.TombstoneFact{Study: "1.2.3", Series: "1.2.3.4", Instance: "1.2.3.4.5", Tick: 1700000000, By: "operator"},
		&catalog.RestoreFact{Study: "1.2.3", Series: "1.2.3.4", Tick: 1700000001, By: "operator"},
		&catalog.RegistryFact{Kind: "ae", Name: "NORTH/CT1", Value: []byte{1, 2, 3}},
	}
}

func TestEncodedCommandsAreGolden(t *testing.T) {
	b, err := catalog.EncodeEntry(commandsForGolden())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "entry.hex", b)
	back, err := catalog.DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := catalog.EncodeEntry(back)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("decoding and encoding again gives other bytes (%v)", err)
	}
}

func TestRowsAreGolden(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c, commandsForGolden()[1:]...)
	apply(t, c,
		fact("3f9a", "1.2.3", "1.2.3.4", 42, 7, values{dict.PatientID: "P1", dict.PatientName: "Müller^Jürgen", dict.StudyDate: "20240229", dict.StudyTime: "235959.5", dict.Modality: "CT"}),
		fact("3f9a", "1.2.3", "1.2.3.5", 43, 1, values{dict.PatientID: "P2", dict.AccessionNumber: "A-1", dict.Modality: "SR"}))
	var b bytes.Buffer
	for _, row := range catalog.Dump(c) {
		fmt.Fprintln(&b, row)
	}
	goldenText(t, "rows.txt", b.String())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	goldenText(t, name, hex.EncodeToString(got)+"\n")
}

func goldenText(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: the durable form has changed:\n%s", name, got)
	}
}

func TestNewerEntriesStopTheReader(t *testing.T) {
	for name, b := range map[string][]byte{
		"newer reader":    {0x08, 2, 0x10, 2},
		"unknown command": {0x08, 1, 0x10, 1, 0x1A, 3, 0xF2, 0x3F, 0},
	} {
		if _, err := catalog.DecodeEntry(b); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v, want unsupported", name, err)
		}
	}
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	if _, err := c.Apply(1, []catalog.Command{nil}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("applying an unknown command: %v", err)
	}
	if c.Applied() != 0 {
		t.Error("the index moved over an unknown command")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	b, err := catalog.EncodeEntry(commandsForGolden())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x08, 1, 0x10, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		commands, err := catalog.DecodeEntry(b)
		if err != nil {
			return
		}
		c := openMem(t, vfs.NewMem())
		defer c.Close()
		if _, err := c.Apply(1, commands); err != nil {
			t.Errorf("apply: %v", err)
		}
		verify(t, c)
	})
}

func TestHoldersAreTheOriginsThatHoldSomething(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	v := values{dict.PatientID: "P1", dict.Modality: "CT"}
	apply(t, c,
		fact("a", "1.1", "1.1.1", 1, 5, v), fact("b", "1.1", "1.1.1", 9, 4, v), fact("a", "1.1", "1.1.2", 2, 1, v),
		fact("a", "1.2", "1.2.1", 3, 1, v), fact("a", "1.2", "1.2.2", 3, 1, v),
		&catalog.TombstoneFact{Study: "1.2", Series: "1.2.2"})
	apply(t, c, fact("b", "1.1", "1.1.1", 10, 0, v))
	for _, q := range []struct {
		study, series string
		want          []string
	}{
		{"1.1", "", []string{"1.1.1 a 5", "1.1.2 a 1"}},
		{"", "1.1.2", []string{"1.1.2 a 1"}},
		{"1.2", "", []string{"1.2.1 a 1"}},
		{"1.2", "1.2.2", nil},
		{"1.9", "", nil},
		{"", "1.9", nil},
	} {
		view := c.View()
		holders, err := view.Holders(q.study, q.series)
		if err := errors.Join(err, view.Close()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range holders {
			got = append(got, fmt.Sprintf("%s %s %d", h.Series, h.Node, h.Instances))
		}
		if !slices.Equal(got, q.want) {
			t.Errorf("%s %s: %v, want %v", q.study, q.series, got, q.want)
		}
	}
}
