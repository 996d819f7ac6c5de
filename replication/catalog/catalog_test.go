package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func openMem(t testing.TB, fs vfs.FS) *catalog.Catalog {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.CountSlotsPage(c, 2); err != nil { // from then on, what is applied counts
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

func apply(t tester, c *catalog.Catalog, changes ...any) []error {
	t.Helper()
	results, err := catalogtest.Alone(c).Do(changes...)
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
	verifySlots(t, c)
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

func TestWhatIsAcceptedOverATombstoneCounts(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	v := values{dict.PatientID: "P1", dict.StudyDate: "20240102"}
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 3, v), fact("a", "1.1", "1.1.2", 2, 4, v))
	hash := [32]byte{1}
	accept := func(series string, uids ...string) error {
		t.Helper()
		a := catalog.Accepted{Study: "1.1", Series: series, Versions: map[string][32]byte{}}
		for _, uid := range uids {
			a.Versions[uid] = hash
		}
		return apply(t, c, &catalog.RegistryFact{Kind: catalog.KindAccepted, Name: catalog.AcceptedName("1.1", series), Value: a.Encode()})[0]
	}
	if err := accept("1.1.1", "1.1.1.1"); !fault.Is(err, fault.Conflict) {
		t.Errorf("accepting what is not deleted: %v", err)
	}
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 1})
	before := c.TombstonesChanged()
	if err := accept("1.1.1", "1.1.1.1"); err != nil || c.TombstonesChanged() == before {
		t.Errorf("accepting: %v", err)
	}
	if got := c.Totals(); got.Studies != 1 || got.Series != 1 {
		t.Errorf("after accepting: %+v", got)
	}
	for _, tt := range []struct {
		series, instance string
		hash             [32]byte
		hidden           bool
	}{{"1.1.1", "1.1.1.1", hash, false}, {"1.1.1", "1.1.1.1", [32]byte{2}, true}, {"1.1.1", "1.1.1.2", hash, true}, {"1.1.2", "1.1.1.1", hash, true}} {
		if got := c.Hidden("1.1", tt.series, tt.instance, tt.hash[:]); got != tt.hidden {
			t.Errorf("%+v: hidden %t", tt, got)
		}
	}
	verify(t, c)
	if err := apply(t, c, &catalog.RestoreFact{Study: "1.1", Tick: 2})[0]; !fault.Is(err, fault.Conflict) {
		t.Errorf("restoring: %v", err)
	}
	// Deleting it again takes the acceptance back, and begins the grace anew.
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 9})
	stone, _ := c.Deleted("1.1", "", "")
	if got := c.Totals(); got != (catalog.Totals{}) || stone.Tick != 9 || !c.Hidden("1.1", "1.1.1", "1.1.1.1", hash[:]) {
		t.Errorf("deleted again: %+v, %+v", got, stone)
	}
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 10})
	if stone, _ := c.Deleted("1.1", "", ""); stone.Tick != 9 {
		t.Errorf("a tombstone that changes nothing: %+v", stone)
	}
	if err := apply(t, c, &catalog.RestoreFact{Study: "1.1", Tick: 10})[0]; err != nil || c.Totals().Series != 2 {
		t.Errorf("restoring: %v, %+v", err, c.Totals())
	}
	// One of two that were accepted is deleted by itself.
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Tick: 11})
	if err := accept("1.1.1", "1.1.1.1", "1.1.1.2"); err != nil {
		t.Fatal(err)
	}
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Instance: "1.1.1.2", Tick: 12})
	if !c.Hidden("1.1", "1.1.1", "1.1.1.2", hash[:]) || c.Hidden("1.1", "1.1.1", "1.1.1.1", hash[:]) {
		t.Error("the wrong one is hidden")
	}
	for _, value := range [][]byte{{9}, {1}, catalog.Accepted{Study: "1.1", Series: "1.1.9", Versions: map[string][32]byte{"1": hash}}.Encode()} {
		err := apply(t, c, &catalog.RegistryFact{Kind: catalog.KindAccepted, Name: catalog.AcceptedName("1.1", "1.1.1"), Value: value})[0]
		if err == nil {
			t.Errorf("%v is taken", value)
		}
	}
	verify(t, c)
}

func FuzzAccepted(f *testing.F) {
	f.Add(catalog.Accepted{Study: "1", Series: "2", Versions: map[string][32]byte{"3": {4}}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := catalog.DecodeAccepted(b)
		if err != nil || len(a.Versions) == 0 {
			return
		}
		again, err := catalog.DecodeAccepted(a.Encode())
		if err != nil || len(again.Versions) != len(a.Versions) || again.Study != a.Study || again.Series != a.Series {
			t.Fatalf("%+v becomes %+v, %v", a, again, err)
		}
	})
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
	if _, err := catalogtest.Alone(c).Do(broken); !fault.Is(err, fault.Invalid) {
		t.Errorf("attributes that cannot be told: %v, want invalid", err)
	}
	unnamed := fact("a", "", "1.1.1", 1, 1, values{})
	for i, r := range apply(t, c, unnamed, &catalog.TombstoneFact{Study: "1.1", Instance: "1"}, &catalog.RegistryFact{Kind: "ae"}) {
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
	var entries []replication.Entry
	a := catalogtest.Alone(c)
	a.Keep = func(e replication.Entry) { entries = append(entries, e) }
	if _, err := a.Do(fact("a", "1.1", "1.1.1", 1, 3, values{}), &catalog.TombstoneFact{Study: "1.2"}); err != nil {
		t.Fatal(err)
	}
	at := c.Position()
	at.Index, at.Term, at.MembersIndex = at.Index+5, 7, 3
	at.Members = []replication.Member{{ID: "a", Address: "host:1"}}
	if err := c.Apply(entries, at); err != nil {
		t.Fatal(err)
	}
	hash, index := c.StateHash()
	if err := c.Apply(entries, replication.Position{Index: at.Index}); err != nil {
		t.Errorf("second apply: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	if got := c.Position(); !reflect.DeepEqual(got, at) || c.Totals().Instances != 3 {
		t.Errorf("after reopening: %+v, %+v; want %+v", got, c.Totals(), at)
	}
	if h, i := c.StateHash(); h != hash || i != index || i != at.Index {
		t.Errorf("after reopening: hash %x of %d, was %x of %d", h, i, hash, index)
	}
	verify(t, c)
}

// randomChange draws a fact or a command over few names, so that they meet.
func randomChange(t *rapid.T) any {
	study := fmt.Sprintf("1.%d", rapid.IntRange(1, 4).Draw(t, "study"))
	series := fmt.Sprintf("%s.%d", study, rapid.IntRange(1, 3).Draw(t, "series"))
	pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	instance := fmt.Sprintf("%s.%d", series, rapid.IntRange(1, 2).Draw(t, "instance"))
	object := func() (string, string) {
		switch rapid.IntRange(0, 2).Draw(t, "level") {
		case 0:
			return "", ""
		case 1:
			return series, ""
		}
		return series, instance
	}
	switch rapid.IntRange(0, 14).Draw(t, "kind") {
	case 10, 11:
		return randomKey(t)
	case 12, 13, 14:
		return randomSeal(t)
	case 0:
		s, i := object()
		return &catalog.TombstoneFact{Study: study, Series: s, Instance: i, Tick: 1}
	case 1:
		s, i := object()
		return &catalog.RestoreFact{Study: study, Series: s, Instance: i, Tick: 2}
	case 2:
		accepted := acceptance(study, series, instance)
		if rapid.Bool().Draw(t, "taken back") {
			accepted.Value = nil
		}
		return accepted
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
		changes := rapid.SliceOfN(rapid.Custom(randomChange), 1, 25).Draw(rt, "changes")
		one, many := openMem(t, vfs.NewMem()), openMem(t, vfs.NewMem())
		defer one.Close()
		defer many.Close()
		var entries []replication.Entry
		a := catalogtest.Alone(one)
		a.Keep = func(e replication.Entry) { entries = append(entries, e) }
		if _, err := a.Do(changes...); err != nil {
			rt.Fatal(err)
		}
		for rest := entries; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "run")
			if err := many.Apply(rest[:n], replication.Position{Index: rest[n-1].Index, Term: 1}); err != nil {
				rt.Fatal(err)
			}
			rest = rest[n:]
		}
		verify(rt, one)
		verify(rt, many)
		if a, b := catalog.Dump(one), catalog.Dump(many); !slices.Equal(a, b) {
			rt.Fatalf("the grouping of entries shows:\n%v\n%v", a, b)
		}
	})
}

func TestNewIndexerVersionWritesPostingsAnew(t *testing.T) {
	fs := vfs.NewMem()
	c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog"})
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
		studies := map[uint64]uint64{}
		for i := range crash {
			apply(t, c, catalogtest.Make(seed, uint64(i)).Fact(uint64(i+1)))
			studies[c.Applied()] = uint64(i + 1)
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
		if c.Applied() < synced || c.Totals().Studies != studies[c.Applied()] {
			t.Fatalf("seed %d: applied %d, synced %d, totals %+v", seed, c.Applied(), synced, c.Totals())
		}
		verify(t, c)
		c.Close()
	}
}

func factsForGolden() []*catalog.SeriesFact {
	v := values{dict.PatientID: "P1", dict.PatientName: "Müller^Jürgen", dict.StudyDate: "20240229", dict.Modality: "CT"}
	first := fact("3f9a", "1.2.3", "1.2.3.4", 42, 7, v)
	first.Reserved = true
	other := fact("3f9a", "1.2.4", "1.9", 44, 1, values{dict.AccessionNumber: "A-1"})
	other.Arrived = 5
	return []*catalog.SeriesFact{first, fact("3f9a", "1.2.3", "1.2.3.51", 43, 2, v), other}
}

func keysForGolden() []*catalog.KeyFact {
	return []*catalog.KeyFact{keyOf("3f9a", "1.2.3", 7, 2), keyOf("3f9a", "1.2.4", 8, 1)}
}

func sealsForGolden() []*catalog.SealFact {
	grown := func(f *catalog.SealFact) {
		f.Stripe.Generation, f.Code, f.Root[0], f.Receipts, f.Withdrawn, f.Survives = 2, shard.Code{K: 2, M: 2}, 9, 0xF, 1, 2
		f.Revision, f.Base = 3, 2
		f.Layout, f.Virtual, f.Elsewhere = 300, catalog.NoShard, []catalog.Elsewhere{{Shard: 1, Node: "c0de"}, {Shard: 3, Node: "3f9a"}}
	}
	return []*catalog.SealFact{
		sealOf("3f9a", "1.2.3", "1.2.3.4", 1, 7), sealOf("3f9a", "1.2.3", "1.2.3.51", 2, 7), sealOf("3f9a", "1.2.3", "1.2.3.51", 3, 7),
		sealOf("3f9a", "1.2.4", "1.9", 4, 8), sealOf("3f9a", "1.2.3", "1.2.3.4", 1, 7, grown),
	}
}

func commandsForGolden() []catalog.Command {
	return []catalog.Command{
		&catalog.TombstoneFact{Study: "1.2.3", Series: "1.2.3.4", Instance: "1.2.3.4.5", Tick: 1700000000, By: "operator"},
		&catalog.RestoreFact{Study: "1.2.3", Series: "1.2.3.4", Tick: 1700000001, By: "operator"},
		&catalog.RegistryFact{Kind: "ae", Name: "NORTH/CT1", Value: []byte{1, 2, 3}},
	}
}

func TestEntriesAreGolden(t *testing.T) {
	batch, hash, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), catalog.Batch{
		Node: "3f9a", Site: "site-3f9a", Incarnation: 2, Number: 3, Facts: factsForGolden(),
	}, [32]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	sealed, sealedHash, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), catalog.Batch{
		Node: "3f9a", Site: "site-3f9a", Incarnation: 2, Number: 4, Facts: factsForGolden()[:1], Keys: keysForGolden(), Seals: sealsForGolden(),
	}, hash)
	if err != nil {
		t.Fatal(err)
	}
	decision, err := catalog.EncodeDecisionUnder([16]byte{9}, catalogtest.SignerOf("3f9a"), "3f9a",
		[]catalog.Condition{catalog.If("ae", "NORTH/CT1", nil), catalog.If("ae", "NORTH/CT2", []byte{4})}, commandsForGolden())
	if err != nil {
		t.Fatal(err)
	}
	goldenText(t, "entries.hex", fmt.Sprintf("%x\n%x\n%x\n%x\n%x\n", batch, hash, sealed, sealedHash, decision))
	if e, err := catalog.DecodeEntry(sealed); err != nil {
		t.Error(err)
	} else if again, _, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), *e.Batch, hash); err != nil || !bytes.Equal(again, sealed) {
		t.Errorf("decoding and encoding a batch with seals again gives other bytes (%v)", err)
	}
	if e, err := catalog.DecodeEntry(batch); err != nil {
		t.Error(err)
	} else if again, _, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), *e.Batch, [32]byte{1, 2, 3}); err != nil || !bytes.Equal(again, batch) {
		t.Errorf("decoding and encoding a batch again gives other bytes (%v)", err)
	}
	e, err := catalog.DecodeEntry(decision)
	if err != nil {
		t.Fatal(err)
	}
	again, err := catalog.EncodeDecisionUnder(e.Decision.Nonce, catalogtest.SignerOf("3f9a"), "3f9a", e.Decision.Conditions, e.Decision.Commands)
	if err != nil || !bytes.Equal(again, decision) {
		t.Errorf("decoding and encoding a decision again gives other bytes (%v)", err)
	}
}

func TestRowsAreGolden(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	if _, err := catalogtest.Alone(c).Decide(t.Context(), nil, commandsForGolden()...); err != nil {
		t.Fatal(err)
	}
	apply(t, c,
		fact("3f9a", "1.2.3", "1.2.3.4", 42, 7, values{dict.PatientID: "P1", dict.PatientName: "Müller^Jürgen", dict.StudyDate: "20240229", dict.StudyTime: "235959.5", dict.Modality: "CT"}),
		fact("3f9a", "1.2.3", "1.2.3.5", 43, 1, values{dict.PatientID: "P2", dict.AccessionNumber: "A-1", dict.Modality: "SR"}))
	for _, f := range keysForGolden() {
		apply(t, c, f)
	}
	for i, f := range sealsForGolden() {
		if err := apply(t, c, f)[0]; err != nil {
			t.Fatalf("seal %d: %v", i, err)
		}
	}
	var b bytes.Buffer
	for _, row := range catalog.Dump(c) {
		fmt.Fprintln(&b, row)
	}
	goldenText(t, "rows.txt", b.String())
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
	decision := func(command ...byte) []byte { // of node n, with a command as given
		body := append([]byte{0x0A, 1, 'n', 0x12, 16}, make([]byte, 16)...)
		body = append(append(body, 0x22, byte(len(command))), command...)
		return append([]byte{0x08, 2, 0x10, 2, 0x22, byte(len(body))}, body...)
	}
	for name, b := range map[string][]byte{
		"newer reader":    {0x08, 5, 0x10, 5},
		"unknown body":    {0x08, 2, 0x10, 2, 0xF2, 0x3F, 1, 0},
		"unknown command": decision(0xF2, 0x3F, 0),
	} {
		c := openMem(t, vfs.NewMem())
		before := catalog.Dump(c)
		err := c.Apply([]replication.Entry{{Index: 1, Data: b}}, replication.Position{Index: 1})
		if !fault.Is(err, fault.Unsupported) || c.Applied() != 0 || !slices.Equal(catalog.Dump(c), before) {
			t.Errorf("%s: %v, at %d; want unsupported, and nothing applied", name, err, c.Applied())
		}
		c.Close()
	}
}

func FuzzApply(f *testing.F) {
	batch, _, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), catalog.Batch{
		Node: "3f9a", Site: "site-3f9a", Incarnation: 1, Number: 1, Facts: factsForGolden(),
	}, [32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	decision, err := catalog.EncodeDecision(catalogtest.SignerOf("3f9a"), "3f9a", nil, append(commandsForGolden(), catalogtest.Member("3f9a", "s")))
	if err != nil {
		f.Fatal(err)
	}
	sealed, _, err := catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), catalog.Batch{
		Node: "3f9a", Site: "site-3f9a", Incarnation: 1, Number: 1, Keys: keysForGolden(), Seals: sealsForGolden(),
	}, [32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(batch, true)
	f.Add(sealed, true)
	f.Add(decision, true)
	f.Add([]byte{0x08, 2, 0x10, 2}, false)
	f.Fuzz(func(t *testing.T, b []byte, signed bool) {
		c := openMem(t, vfs.NewMem())
		defer c.Close()
		if signed {
			apply(t, c, fact("3f9a", "1.2.3", "1.2.3.4", 1, 1, values{}))
			if e, err := catalog.DecodeEntry(b); err == nil && e.Batch != nil {
				// Nobody else could have the signature: sign what was made up.
				e.Batch.Node, e.Batch.Incarnation, e.Batch.Number = "3f9a", 1, 2
				for _, f := range e.Batch.Facts {
					f.Origin = "3f9a"
				}
				for _, f := range e.Batch.Keys {
					f.Origin = "3f9a"
				}
				for _, f := range e.Batch.Seals {
					f.By = "3f9a"
				}
				at, _, err := c.Cursor("3f9a")
				if err != nil {
					t.Fatal(err)
				}
				if b, _, err = catalog.EncodeBatch(catalogtest.SignerOf("3f9a"), *e.Batch, at.Hash); err != nil {
					t.Skip()
				}
			}
		}
		at := c.Applied() + 1
		err := c.Apply([]replication.Entry{{Index: at, Data: b}}, replication.Position{Index: at})
		if err != nil && !fault.Is(err, fault.Unsupported) {
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
