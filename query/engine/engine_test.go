package engine_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
	"pelago/query/match"
	"pelago/replication/catalog"
)

const ctClass, srClass = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"

// find runs a query to its end.
func find(t tester, a *archive, q query.Query) []*dicom.Dataset {
	t.Helper()
	answer, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a, Issuer: "NORTH"}).Find(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	var all []*dicom.Dataset
	for ds, err := range answer.Matches {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ds)
	}
	return all
}

// names returns what tells the objects of a level apart.
func names(l query.Level, answers []*dicom.Dataset) []string {
	var list []string
	for _, ds := range answers {
		name := ds.String(dict.IssuerOfPatientID) + "/" + ds.String(dict.PatientID)
		if l == query.Patient && name == "/" {
			name = "?" + ds.String(dict.StudyInstanceUID)
		}
		switch l {
		case query.Study:
			name = ds.String(dict.StudyInstanceUID)
		case query.Series:
			name = ds.String(dict.SeriesInstanceUID)
		case query.Image:
			name = ds.String(dict.SeriesInstanceUID) + "/" + ds.String(dict.SOPInstanceUID)
		}
		list = append(list, name)
	}
	return list
}

var (
	people = []string{"SMITH^JOHN", "Smith^Anna", "smyth^johanna^m", "O'Brien^Seán", "MÜLLER^Jürgen", "Mueller^Susanna", "Yamada^Tarou=山田^太郎=やまだ^たろう", "LI^WEI", "Van den Berg^Ann-Marie", "X", "SMITH", "", "Smith  ^Peter", "SMITH^^^Dr"}
	dates  = []string{"20240115", "20240131", "20240201", "20231231", "2024.01.20", "", "202401", "bogus"}
	clocks = []string{"", "093000", "12", "235959.123456", "0000"}
	texts  = []string{"", "CT CHEST", "ct chest with contrast", "MR Head", "Thorax*", "Kopf é"}
	ids    = []string{"P1", "P12", "12345678", "0012345", "HOSP-77", "A", ""}
)

// randomArchive draws a small archive in which everything meets.
func randomArchive(t *rapid.T, tb testing.TB) *archive {
	a := newArchive(tb)
	draw := func(name string, from []string) string { return rapid.SampledFrom(from).Draw(t, name) }
	for s := range rapid.IntRange(8, 16).Draw(t, "studies") {
		study := fmt.Sprintf("1.2.%d", 100+s)
		id, name, date, clock := draw("id", ids), draw("person", people), draw("date", dates), draw("clock", clocks)
		issuer := draw("issuer", []string{"NORTH", "NORTH", "SOUTH"})
		for x := range rapid.IntRange(1, 3).Draw(t, "series") {
			if rapid.IntRange(0, 7).Draw(t, "other patient") == 0 {
				id, name = draw("id", ids), draw("person", people)
			}
			series := fmt.Sprintf("%s.%d", study, 9-x)
			modality, description := draw("modality", []string{"CT", "MR", "SR", ""}), draw("text", texts)
			for i := range rapid.IntRange(1, 3).Draw(t, "instances") {
				ds := dataset(
					attribute{dict.SOPClassUID, draw("class", []string{ctClass, srClass})},
					attribute{dict.SOPInstanceUID, fmt.Sprintf("%s.%d", series, 5-i)},
					attribute{dict.StudyInstanceUID, study}, attribute{dict.SeriesInstanceUID, series},
					attribute{dict.PatientID, id}, attribute{dict.PatientName, name},
					attribute{dict.StudyDate, date}, attribute{dict.StudyTime, clock},
					attribute{dict.AccessionNumber, draw("accession", ids)}, attribute{dict.StudyDescription, description},
					attribute{dict.ReferringPhysicianName, draw("person", people)}, attribute{dict.StudyID, draw("id", ids)},
					attribute{dict.Modality, modality}, attribute{dict.InstitutionName, draw("text", texts)},
					attribute{dict.InstanceNumber, fmt.Sprint(i + 1)}, attribute{dict.ImageComments, draw("text", texts)},
				)
				ds.SetUint(dict.Rows, dict.US, uint64(rapid.SampledFrom([]int{64, 512}).Draw(t, "rows")))
				if private := draw("private", []string{"", "alpha", "beta"}); private != "" {
					ds.Set(0x00110012, dict.LO, "ACME")
					ds.Set(0x00111201, dict.LO, private)
				}
				if code := draw("code", []string{"", "T-1", "T-2"}); code != "" {
					ds.SetSequence(dict.AnatomicRegionSequence, dataset(attribute{dict.CodeValue, code}, attribute{dict.CodeMeaning, "Région"}))
				}
				if rapid.Bool().Draw(t, "latin") {
					ds, _ = ds.Recode([]string{"ISO_IR 100"})
				}
				a.store(t, issuer, ds)
			}
		}
	}
	return a
}

// randomQuery draws a query over the same values.
func randomQuery(t *rapid.T) query.Query {
	q := query.Query{
		Level: query.Level(rapid.IntRange(0, 3).Draw(t, "level")), Keys: dicom.NewDataset(),
		Fuzzy: rapid.Bool().Draw(t, "fuzzy"), CombinedDateTime: rapid.Bool().Draw(t, "combined"), FoldText: rapid.Bool().Draw(t, "fold"),
		Return: []dict.Tag{dict.StudyInstanceUID, dict.PatientID, dict.IssuerOfPatientID},
	}
	draw := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	pattern := func(from []string) string {
		v := []rune(rapid.SampledFrom(from).Draw(t, "value"))
		if len(v) == 0 {
			return "*"
		}
		lo := rapid.IntRange(0, len(v)-1).Draw(t, "from")
		hi := rapid.IntRange(lo+1, len(v)).Draw(t, "to")
		switch rapid.IntRange(0, 5).Draw(t, "pattern") {
		case 0:
			return string(v)
		case 1:
			return string(v[:hi]) + "*"
		case 2:
			return "*" + string(v[lo:])
		case 3:
			return "*" + string(v[lo:hi]) + "*"
		case 4:
			return string(v[:lo]) + "?" + string(v[lo+1:])
		}
		return strings.ToLower(string(v[:lo])) + "*" + string(v[hi-1:])
	}
	for range rapid.IntRange(1, 2).Draw(t, "keys") {
		switch rapid.IntRange(0, 19).Draw(t, "key") {
		case 0, 1, 2:
			q.Keys.Set(dict.PatientName, dict.PN, pattern(people))
		case 3:
			q.Keys.Set(dict.PatientID, dict.LO, pattern(ids))
		case 4:
			q.Keys.Set(dict.PatientID, dict.LO, draw("id", ids...))
			q.Keys.Set(dict.IssuerOfPatientID, dict.LO, draw("issuer", "NORTH", "SOUTH", "*", "*TH"))
		case 5, 6:
			q.Keys.Set(dict.StudyDate, dict.DA, draw("range", "20240115", "20240101-20240131", "-20240131", "20240201-"))
		case 7:
			q.Keys.Set(dict.StudyTime, dict.TM, draw("range", "080000-120000", "-10", "23-"))
		case 8:
			q.Keys.Set(dict.AccessionNumber, dict.SH, pattern(ids))
		case 9:
			q.Keys.Set(dict.StudyInstanceUID, dict.UI, draw("uid", "1.2.100", "1.2.101\\1.2.103\\9.9", "9.9"))
		case 10:
			q.Keys.Set(dict.SeriesInstanceUID, dict.UI, draw("uid", "1.2.100.9", "1.2.101.8\\1.2.102.9"))
		case 11:
			q.Keys.Set(dict.SOPInstanceUID, dict.UI, draw("uid", "1.2.100.9.5", "1.2.101.9.4\\1.2.102.9.5", "9"))
		case 12:
			q.Keys.Set(dict.ModalitiesInStudy, dict.CS, draw("modality", "CT", "MR\\SR", "C*"))
		case 13:
			q.Keys.Set(dict.Modality, dict.CS, draw("modality", "CT", "MR", "?R"))
		case 14:
			q.Keys.Set(rapid.SampledFrom([]dict.Tag{dict.StudyDescription, dict.InstitutionName, dict.ImageComments}).Draw(t, "text"), dict.LO, pattern(texts))
		case 15:
			q.Keys.Set(dict.ReferringPhysicianName, dict.PN, pattern(people))
		case 16:
			q.Keys.Set(0x00110010, dict.LO, "ACME")
			q.Keys.Set(0x00111001, dict.LO, draw("private", "alpha", "be*"))
		case 17:
			q.Keys.SetSequence(dict.AnatomicRegionSequence, dataset(attribute{dict.CodeValue, draw("code", "T-1", "T-2", "T*")}))
		case 18:
			q.Keys.SetUint(dict.Rows, dict.US, 512)
		case 19:
			q.Keys.Set(rapid.SampledFrom([]dict.Tag{
				dict.NumberOfStudyRelatedInstances, dict.NumberOfPatientRelatedStudies, dict.NumberOfSeriesRelatedInstances, dict.InstanceNumber,
			}).Draw(t, "number"), dict.IS, "2")
		}
	}
	return q
}

// leaf is an instance under one of the patients of its study, as one data set.
type leaf struct {
	data        *dicom.Dataset
	order       catalog.Order
	patient     int
	key         catalog.PatientKey
	series, sop string
}

// leaves returns every instance of an archive under every patient of its study,
// with what records say of study and series.
func leaves(t tester, a *archive) []leaf {
	v := a.catalog.View()
	defer v.Close()
	var list []leaf
	for _, x := range a.instances {
		orders, err := v.StudyOrders(x.Study)
		if err != nil || len(orders) != 1 {
			t.Fatal(orders, err)
		}
		row, ok, err := v.Study(orders[0])
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		for p := range row.Patients() {
			list = append(list, leaf{composite(t, v, row, p, x), orders[0], p, row.Patient(p), x.Series, x.SOP})
		}
	}
	return list
}

// bruteForce answers by matching every leaf.
func bruteForce(t tester, all []leaf, q query.Query) []string {
	m, err := match.Compile(q.Keys, match.Options{Fuzzy: q.Fuzzy, CombinedDateTime: q.CombinedDateTime, FoldText: q.FoldText})
	if err != nil {
		t.Fatal(err)
	}
	var found []leaf
	for _, l := range all {
		if ofIssuer(q, l.key) && m.Match(l.data, nil) {
			found = append(found, l)
		}
	}
	slices.SortStableFunc(found, func(a, b leaf) int {
		patient := 0
		if q.Level == query.Patient {
			patient = cmp.Compare(a.patient, b.patient)
		}
		return cmp.Or(slices.Compare(a.order[:], b.order[:]), patient, cmp.Compare(a.series, b.series), cmp.Compare(a.sop, b.sop))
	})
	var list []string
	for _, f := range found {
		if name := names(q.Level, []*dicom.Dataset{f.data})[0]; !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

func ofIssuer(q query.Query, p catalog.PatientKey) bool {
	if id := q.Keys.String(dict.PatientID); strings.Trim(id, "*") == "" || q.Keys.String(dict.IssuerOfPatientID) != "" {
		return true
	}
	return p.Issuer == "NORTH" || p.ID == ""
}

// composite is an instance with what the catalogue says of its study and series.
func composite(t tester, v *catalog.View, row catalog.StudyRow, p int, x stored) *dicom.Dataset {
	ds, _ := x.header.Dataset.Recode([]string{"ISO_IR 192"})
	for _, tags := range [][]dict.Tag{catalog.PatientTags, catalog.StudyTags, catalog.SeriesTags} {
		for _, tag := range tags {
			ds.Remove(tag)
		}
	}
	for _, e := range row.Dataset(p).Elements {
		ds.Put(e)
	}
	for s, err := range v.Series(row) {
		if err != nil {
			t.Fatal(err)
		}
		if s.UID() == x.Series {
			for _, e := range s.Dataset().Elements {
				ds.Put(e)
			}
		}
	}
	key, studies := row.Patient(p), 0
	all, err := v.All()
	if err != nil {
		t.Fatal(err)
	}
	for at, ok, err := all.SeekGE(catalog.Order{}); ok && err == nil; at, ok, err = all.SeekGE(at.Next()) {
		other, _, err := v.Study(at)
		if err != nil {
			t.Fatal(err)
		}
		for i := range other.Patients() {
			if other.Patient(i) == key && (key.ID != "" || other.UID() == row.UID()) {
				studies++
				break
			}
		}
	}
	ds.Set(dict.NumberOfPatientRelatedStudies, dict.IS, fmt.Sprint(studies))
	return ds
}

func TestEngineAnswersAsMatchingEverythingWould(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := randomArchive(rt, t)
		all := leaves(rt, a)
		for range 8 {
			q := randomQuery(rt)
			want := bruteForce(rt, all, q)
			if got := names(q.Level, find(rt, a, q)); !slices.Equal(got, want) {
				rt.Fatalf("level %v, keys %s\n got %v\nwant %v", q.Level, keysText(q.Keys), got, want)
			}
			q.Offset = rapid.IntRange(0, 3).Draw(rt, "offset")
			q.Limit = rapid.IntRange(1, 3).Draw(rt, "limit")
			page := want[min(q.Offset, len(want)):min(q.Offset+q.Limit, len(want))]
			if got := names(q.Level, find(rt, a, q)); !slices.Equal(got, page) {
				rt.Fatalf("page %d+%d of level %v, keys %s\n got %v\nwant %v", q.Offset, q.Limit, q.Level, keysText(q.Keys), got, page)
			}
		}
	})
}

func keysText(ds *dicom.Dataset) string {
	var b strings.Builder
	for _, e := range ds.Elements {
		fmt.Fprintf(&b, "%v=%q ", e.Tag, ds.Strings(e.Tag))
	}
	return b.String()
}

// twoStudies is an archive of one patient with a CT and an SR study.
func twoStudies(t testing.TB) *archive {
	a := newArchive(t)
	for i, date := range []string{"20240101", "20240202"} {
		study := fmt.Sprintf("1.%d", i+1)
		ds := dataset(
			attribute{dict.SOPClassUID, []string{ctClass, srClass}[i]}, attribute{dict.SOPInstanceUID, study + ".1.1"},
			attribute{dict.StudyInstanceUID, study}, attribute{dict.SeriesInstanceUID, study + ".1"},
			attribute{dict.PatientID, "P1"}, attribute{dict.PatientName, "Müller^Anna"}, attribute{dict.StudyDate, date},
			attribute{dict.Modality, []string{"CT", "SR"}[i]}, attribute{dict.InstanceNumber, "7"}, attribute{dict.ImageComments, "très bien"},
		)
		ds.SetUint(dict.Rows, dict.US, 512)
		ds.Set(0x00110012, dict.LO, "ACME")
		ds.Set(0x00111201, dict.LO, "alpha")
		ds.SetSequence(dict.AnatomicRegionSequence, dataset(attribute{dict.CodeValue, "T-1"}, attribute{dict.CodeMeaning, "Tête"}))
		latin, _ := ds.Recode([]string{"ISO_IR 100"})
		a.store(t, "NORTH", latin)
	}
	return a
}

func TestCountsAreComputed(t *testing.T) {
	a := twoStudies(t)
	got := find(t, a, query.Query{Level: query.Patient, Keys: dataset(
		attribute{dict.PatientID, "P1"}, attribute{dict.NumberOfPatientRelatedStudies, ""},
		attribute{dict.NumberOfPatientRelatedSeries, ""}, attribute{dict.NumberOfPatientRelatedInstances, ""})})
	if len(got) != 1 {
		t.Fatalf("%d patients, want 1", len(got))
	}
	for _, tag := range catalog.PatientCounts {
		if n := got[0].String(tag); n != "2" {
			t.Errorf("%v is %q, want 2", tag, n)
		}
	}
	got = find(t, a, query.Query{Level: query.Series, Keys: dataset(attribute{dict.StudyInstanceUID, "1.1"}), Return: slices.Concat(catalog.StudyCounts, catalog.SeriesCounts)})
	if len(got) != 1 {
		t.Fatalf("%d series, want 1", len(got))
	}
	for tag, want := range map[dict.Tag]string{
		dict.NumberOfStudyRelatedSeries: "1", dict.NumberOfStudyRelatedInstances: "1", dict.NumberOfSeriesRelatedInstances: "1",
		dict.ModalitiesInStudy: "CT", dict.SOPClassesInStudy: ctClass,
	} {
		if n := got[0].String(tag); n != want {
			t.Errorf("%v is %q, want %q", tag, n, want)
		}
	}
}

func TestAvailabilityIsThatOfTheLevelAndTheLeastOfItsInstances(t *testing.T) {
	a := newArchive(t)
	for _, i := range []struct{ id, study, series, sop string }{
		{"P1", "1.1", "1.1.1", "1.1.1.1"}, {"P1", "1.1", "1.1.1", "1.1.1.2"}, {"P1", "1.1", "1.1.2", "1.1.2.1"},
		{"P1", "1.2", "1.2.1", "1.2.1.1"}, {"P2", "1.3", "1.3.1", "1.3.1.1"}, {"", "1.4", "1.4.1", "1.4.1.1"},
	} {
		a.store(t, "NORTH", dataset(attribute{dict.PatientID, i.id}, attribute{dict.SOPClassUID, ctClass},
			attribute{dict.StudyInstanceUID, i.study}, attribute{dict.SeriesInstanceUID, i.series}, attribute{dict.SOPInstanceUID, i.sop}))
	}
	ask := func(l query.Level, key string) map[string]string {
		found := find(t, a, query.Query{Level: l, Relational: true, Return: []dict.Tag{dict.PatientID, dict.StudyInstanceUID},
			Keys: dataset(attribute{dict.InstanceAvailability, key})})
		got := map[string]string{}
		for i, name := range names(l, found) {
			got[name] = found[i].String(dict.InstanceAvailability)
		}
		return got
	}
	levels := []query.Level{query.Patient, query.Study, query.Series, query.Image}
	for _, l := range levels {
		for name, value := range ask(l, "") {
			if value != "ONLINE" {
				t.Errorf("%v %s is %q although nothing is lost", l, name, value)
			}
		}
	}
	a.lost = []uint64{2, 6}
	want := [][]string{{"NORTH/P1", "?1.4"}, {"1.1", "1.4"}, {"1.1.1", "1.4.1"}, {"1.1.1/1.1.1.2", "1.4.1/1.4.1.1"}}
	for _, l := range levels {
		all := ask(l, "")
		for name, value := range all {
			if lost := slices.Contains(want[l], name); lost != (value == "UNAVAILABLE") || !lost && value != "ONLINE" {
				t.Errorf("%v %s is %q", l, name, value)
			}
		}
		gone, here := ask(l, "UNAVAILABLE"), ask(l, "ONLINE")
		if got := slices.Sorted(maps.Keys(gone)); !slices.Equal(got, slices.Sorted(slices.Values(want[l]))) {
			t.Errorf("%v: the key UNAVAILABLE finds %v, want %v", l, got, want[l])
		}
		if len(gone)+len(here) != len(all) {
			t.Errorf("%v: %d unavailable, %d online, %d in all", l, len(gone), len(here), len(all))
		}
	}
}

func TestPatientsAvailabilityCostsNothingWhileNothingIsLost(t *testing.T) {
	a := twoStudies(t)
	find(t, a, query.Query{Level: query.Patient, Keys: dataset(attribute{dict.PatientID, "P1"}), Return: []dict.Tag{dict.InstanceAvailability}})
	if a.asked.Load() != 0 {
		t.Errorf("%d of the patient's studies were asked after", a.asked.Load())
	}
}

func TestAttributesOutsideTheCatalogueAreAnswered(t *testing.T) {
	a := twoStudies(t)
	keys := dataset(attribute{dict.StudyDate, ""}, attribute{dict.ImageComments, "*BIEN"}, attribute{dict.PixelSpacing, ""})
	keys.SetSequence(dict.AnatomicRegionSequence, dataset(attribute{dict.CodeMeaning, ""}))
	keys.Set(0x00110010, dict.LO, "ACME")
	keys.Set(0x00111001, dict.LO)
	for _, level := range []query.Level{query.Study, query.Series, query.Image} {
		got := find(t, a, query.Query{Level: level, Keys: keys, Return: []dict.Tag{dict.Rows, dict.SOPClassUID}, FoldText: true})
		if len(got) != 2 {
			t.Fatalf("%v: %d answers, want 2", level, len(got))
		}
		ds := got[1]
		if s := ds.String(dict.ImageComments); s != "très bien" {
			t.Errorf("%v: comments %q", level, s)
		}
		if n, _ := ds.Int(dict.Rows); n != 512 {
			t.Errorf("%v: rows %d", level, n)
		}
		if s := ds.String(0x00111001); s != "alpha" {
			t.Errorf("%v: private value %q under the asker's block", level, s)
		}
		if e := ds.Get(dict.PixelSpacing); e == nil || len(e.Value) != 0 {
			t.Errorf("%v: what is absent must be answered empty", level)
		}
		e := ds.Get(dict.AnatomicRegionSequence)
		if e == nil || len(e.Items) != 1 || e.Items[0].String(dict.CodeMeaning) != "Tête" || e.Items[0].Has(dict.CodeValue) {
			t.Errorf("%v: sequence %+v, want the one attribute that was asked for", level, e)
		}
		if s := ds.String(dict.SOPClassUID); s != ctClass {
			t.Errorf("%v: class %q", level, s)
		}
		if s := ds.String(dict.IssuerOfPatientID); s != "NORTH" {
			t.Errorf("%v: issuer %q", level, s)
		}
	}
}

func TestRecordsAloneAnswerWhatTheyHold(t *testing.T) {
	a := twoStudies(t)
	got := find(t, a, query.Query{Level: query.Series, Keys: dataset(attribute{dict.PatientName, "mul*"}, attribute{dict.Modality, ""}), All: true})
	if len(got) != 2 || a.read.Load() != 0 {
		t.Errorf("%d answers, %d headers read; want 2 and none", len(got), a.read.Load())
	}
}

func TestImageLevelWithAllGivesTheHeader(t *testing.T) {
	got := find(t, twoStudies(t), query.Query{Level: query.Image, Keys: dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}), All: true})
	if len(got) != 1 {
		t.Fatalf("%d answers, want 1", len(got))
	}
	for _, tag := range []dict.Tag{dict.Rows, dict.InstanceNumber, dict.AnatomicRegionSequence, dict.StudyDate, dict.NumberOfStudyRelatedInstances, 0x00111201} {
		if !got[0].Has(tag) {
			t.Errorf("%v is missing", tag)
		}
	}
}

func TestIssuerQualifiesPatientID(t *testing.T) {
	a := twoStudies(t)
	for _, test := range []struct {
		issuer, key string
		want        int
	}{{"", "", 2}, {"NORTH", "", 2}, {"SOUTH", "", 0}, {"SOUTH", "NORTH", 2}, {"", "SOUTH", 0}, {"SOUTH", "*", 2}} {
		keys := dataset(attribute{dict.PatientID, "P1"}, attribute{dict.IssuerOfPatientID, test.key})
		if got := find(t, a, query.Query{Level: query.Study, Keys: keys, Issuer: test.issuer}); len(got) != test.want {
			t.Errorf("asker's issuer %q, key %q: %d studies, want %d", test.issuer, test.key, len(got), test.want)
		}
	}
}

func TestKeysThatNobodyAnswersAreTold(t *testing.T) {
	a := twoStudies(t)
	answer, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a}).Find(t.Context(), query.Query{
		Level: query.Study, Keys: dataset(attribute{dict.RetrieveAETitle, "OTHER"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []dict.Tag{dict.RetrieveAETitle}; !slices.Equal(answer.Ignored, want) {
		t.Errorf("ignored %v, want %v", answer.Ignored, want)
	}
}

func TestUnsettledAnswerSaysHowStaleItIs(t *testing.T) {
	a := twoStudies(t)
	a.settle = func(context.Context) error { return errors.New("journal is stuck") }
	e := engine.New(engine.Options{Catalog: a.catalog, Instances: a})
	answer, err := e.Find(t.Context(), query.Query{Level: query.Study})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Staleness <= 0 || answer.Staleness > time.Minute || !answer.Lags || !answer.Partial() {
		t.Errorf("staleness %v", answer.Staleness)
	}
}

func TestCancelEndsTheSearch(t *testing.T) {
	a := twoStudies(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a}).Find(ctx, query.Query{Level: query.Image})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	n := 0
	for _, err := range answer.Matches {
		if last = err; err == nil {
			n++
		}
		cancel()
	}
	if n != 1 || !fault.Is(last, fault.Canceled) {
		t.Errorf("%d matches, then %v; want 1, then canceled", n, last)
	}
}

func TestLevelThatDoesNotExistIsRefused(t *testing.T) {
	a := newArchive(t)
	if _, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a}).Find(t.Context(), query.Query{Level: 4}); !fault.Is(err, fault.Mismatch) {
		t.Errorf("%v, want mismatch", err)
	}
}
