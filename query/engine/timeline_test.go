package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
	"pelago/replication/catalog"
)

// identities are timelines, and aliases of issuers.
type identities struct {
	lines   [][]catalog.PatientKey
	aliases map[string]string
	err     error
}

func (i *identities) Timeline(key catalog.PatientKey) ([]catalog.PatientKey, error) {
	for _, line := range i.lines {
		if slices.Contains(line, key) {
			return line, i.err
		}
	}
	return []catalog.PatientKey{key}, i.err
}

func (i *identities) Issuer(local string) (string, error) {
	if issuer, ok := i.aliases[local]; ok {
		return issuer, i.err
	}
	return local, i.err
}

// hospitals is an archive of the same number at two hospitals, which are two
// people, and of another number at the second, which is the first's.
func hospitals(t testing.TB) *archive {
	a := newArchive(t)
	for i, p := range []struct{ issuer, id, name, date string }{
		{"NORTH", "7", "Ada^North", "20240101"}, {"SOUTH", "7", "Bob^South", "20240102"},
		{"SOUTH", "9", "Ada^South", "20240103"}, {"NORTH", "7", "Ada^North", "20240104"}, {"SOUTH", "9", "Ada^South", "20240105"},
	} {
		study := fmt.Sprintf("1.%d", i+1)
		a.store(t, p.issuer, dataset(
			attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, study + ".1.1"},
			attribute{dict.StudyInstanceUID, study}, attribute{dict.SeriesInstanceUID, study + ".1"},
			attribute{dict.PatientID, p.id}, attribute{dict.PatientName, p.name}, attribute{dict.StudyDate, p.date},
		))
	}
	return a
}

func (i *identities) find(t *testing.T, a *archive, q query.Query) []*dicom.Dataset {
	t.Helper()
	answer, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a, Issuer: "NORTH", Identities: i}).Find(t.Context(), q)
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

var ada = []catalog.PatientKey{{Issuer: "NORTH", ID: "7"}, {Issuer: "SOUTH", ID: "9"}}

func TestLinkedIdsAreOneTimeline(t *testing.T) {
	a := hospitals(t)
	linked := &identities{lines: [][]catalog.PatientKey{ada}}
	for _, tt := range []struct {
		name  string
		ids   *identities
		level query.Level
		keys  *dicom.Dataset
		asker string
		want  string // names, in order
	}{
		{"not linked", &identities{}, query.Study, dataset(attribute{dict.PatientID, "7"}), "", "1.4 1.1"},
		{"the same number elsewhere", &identities{}, query.Study, dataset(attribute{dict.PatientID, "7"}), "SOUTH", "1.2"},
		{"linked, by one id", linked, query.Study, dataset(attribute{dict.PatientID, "7"}), "", "1.5 1.4 1.3 1.1"},
		{"linked, by the other", linked, query.Study, dataset(attribute{dict.PatientID, "9"}), "SOUTH", "1.5 1.4 1.3 1.1"},
		{"linked, issuer named", linked, query.Study, dataset(attribute{dict.PatientID, "9"}, attribute{dict.IssuerOfPatientID, "SOUTH"}), "", "1.5 1.4 1.3 1.1"},
		{"linked, the same number elsewhere", linked, query.Study, dataset(attribute{dict.PatientID, "7"}), "SOUTH", "1.2"},
		{"linked, other keys still count", linked, query.Study, dataset(attribute{dict.PatientID, "7"}, attribute{dict.PatientName, "*South"}), "", "1.5 1.3"},
		{"linked, any issuer", linked, query.Study, dataset(attribute{dict.PatientID, "7"}, attribute{dict.IssuerOfPatientID, "*"}), "", "1.4 1.2 1.1"},
		{"linked, series", linked, query.Series, dataset(attribute{dict.PatientID, "7"}), "", "1.5.1 1.4.1 1.3.1 1.1.1"},
		{"patients, not linked", &identities{}, query.Patient, dataset(attribute{dict.PatientName, "Ada*"}), "", "SOUTH/9 NORTH/7"},
		{"patients, linked", linked, query.Patient, dataset(attribute{dict.PatientName, "*"}), "", "SOUTH/9 SOUTH/7"},
		{"patients by id, linked", linked, query.Patient, dataset(attribute{dict.PatientID, "7"}), "", "SOUTH/9"},
		{"patients by id, other keys still count", linked, query.Patient, dataset(attribute{dict.PatientID, "7"}, attribute{dict.PatientName, "*North"}), "", "NORTH/7"},
		{"patients whose every key is of an earlier study", linked, query.Patient, dataset(attribute{dict.StudyDate, "-20240103"}), "", "SOUTH/9 SOUTH/7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.ids.find(t, a, query.Query{Level: tt.level, Keys: tt.keys, Issuer: tt.asker, Return: []dict.Tag{dict.PatientID, dict.StudyInstanceUID}})
			if s := strings.Join(names(tt.level, got), " "); s != tt.want {
				t.Errorf("%s, want %s", s, tt.want)
			}
			for _, ds := range got {
				key := catalog.PatientKey{Issuer: ds.String(dict.IssuerOfPatientID), ID: ds.String(dict.PatientID)}
				line, _ := tt.ids.Timeline(key)
				var others []catalog.PatientKey
				if e := ds.Get(dict.OtherPatientIDsSequence); e != nil {
					for _, item := range e.Items {
						others = append(others, catalog.PatientKey{Issuer: item.String(dict.IssuerOfPatientID), ID: item.String(dict.PatientID)})
					}
				}
				if key.Issuer == "" || len(others) != len(line)-1 || slices.Contains(others, key) {
					t.Errorf("%v is answered with other ids %v, of %v", key, others, line)
				}
			}
		})
	}
}

func TestCountsAreOfTheWholeTimeline(t *testing.T) {
	a := hospitals(t)
	keys := dataset(attribute{dict.PatientID, "7"}, attribute{dict.NumberOfPatientRelatedStudies, ""})
	for want, ids := range map[string]*identities{"2": {}, "4": {lines: [][]catalog.PatientKey{ada}}} {
		got := ids.find(t, a, query.Query{Level: query.Patient, Keys: keys})
		if len(got) != 1 || got[0].String(dict.NumberOfPatientRelatedStudies) != want {
			t.Errorf("%d patients of %q studies, want one of %s", len(got), got[0].String(dict.NumberOfPatientRelatedStudies), want)
		}
	}
}

// A study may name two ids of one person: it is one study, and one patient.
func TestAStudyUnderTwoLinkedIdsIsOne(t *testing.T) {
	a := hospitals(t)
	a.store(t, "SOUTH", dataset(
		attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, "1.1.2.1"}, attribute{dict.StudyInstanceUID, "1.1"},
		attribute{dict.SeriesInstanceUID, "1.1.2"}, attribute{dict.PatientID, "9"}, attribute{dict.StudyDate, "20240101"},
	))
	linked := &identities{lines: [][]catalog.PatientKey{ada}}
	if got := names(query.Study, linked.find(t, a, query.Query{Level: query.Study, Keys: dataset(attribute{dict.PatientID, "7"})})); len(got) != 4 {
		t.Errorf("studies %v", got)
	}
	got := linked.find(t, a, query.Query{Level: query.Patient, Keys: dataset(attribute{dict.StudyDate, "20240101"}, attribute{dict.NumberOfPatientRelatedStudies, ""}), Return: []dict.Tag{dict.PatientID}})
	if len(got) != 1 || got[0].String(dict.NumberOfPatientRelatedStudies) != "4" {
		t.Errorf("patients %v", names(query.Patient, got))
	}
}

func TestLinkedIdsStandBesideThoseOfTheObject(t *testing.T) {
	a := newArchive(t)
	ds := dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, "1.1.1.1"}, attribute{dict.StudyInstanceUID, "1.1"},
		attribute{dict.SeriesInstanceUID, "1.1.1"}, attribute{dict.PatientID, "7"})
	ds.SetSequence(dict.OtherPatientIDsSequence,
		dataset(attribute{dict.PatientID, "9"}, attribute{dict.IssuerOfPatientID, "SOUTH"}), dataset(attribute{dict.PatientID, "old"}, attribute{dict.IssuerOfPatientID, "NORTH"}))
	a.store(t, "NORTH", ds)
	keys := dataset(attribute{dict.PatientID, "7"})
	keys.SetSequence(dict.OtherPatientIDsSequence)
	line := append(slices.Clone(ada), catalog.PatientKey{Issuer: "WEST", ID: "1"})
	got := (&identities{lines: [][]catalog.PatientKey{line}}).find(t, a, query.Query{Level: query.Study, Keys: keys})
	var ids []string
	for _, item := range got[0].Get(dict.OtherPatientIDsSequence).Items {
		ids = append(ids, item.String(dict.IssuerOfPatientID)+"/"+item.String(dict.PatientID))
	}
	if want := []string{"SOUTH/9", "NORTH/old", "WEST/1"}; !slices.Equal(ids, want) {
		t.Errorf("%v, want %v", ids, want)
	}
}

func TestIssuersAreAskedForByTheirLocalNames(t *testing.T) {
	a := hospitals(t)
	ids := &identities{aliases: map[string]string{"here": "NORTH", "there": "SOUTH"}}
	for _, tt := range []struct {
		asker, key string
		want       int
	}{{"here", "", 2}, {"there", "", 1}, {"here", "there", 1}, {"", "here", 2}, {"", "*", 3}, {"", "nowhere", 0}} {
		keys := dataset(attribute{dict.PatientID, "7"}, attribute{dict.IssuerOfPatientID, tt.key})
		if got := ids.find(t, a, query.Query{Level: query.Study, Keys: keys, Issuer: tt.asker}); len(got) != tt.want {
			t.Errorf("asker %q, key %q: %d studies, want %d", tt.asker, tt.key, len(got), tt.want)
		}
		if s := keys.String(dict.IssuerOfPatientID); s != tt.key {
			t.Errorf("the asker's key %q has become %q", tt.key, s)
		}
	}
}

func TestWithoutTheLinksThereIsNoAnswer(t *testing.T) {
	a := hospitals(t)
	ids := &identities{err: fault.New(fault.Unavailable, "rotten")}
	_, err := engine.New(engine.Options{Catalog: a.catalog, Instances: a, Identities: ids}).Find(t.Context(), query.Query{Level: query.Study, Keys: dataset(attribute{dict.PatientID, "7"})})
	if !errors.Is(err, ids.err) {
		t.Errorf("%v", err)
	}
}
