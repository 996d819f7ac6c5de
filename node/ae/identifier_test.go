package ae

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/query"
)

// wing is an archive of two patients: studies 1 and 2 of P1, 3 of P2; each of
// two series (S.1, S.2) of two instances (S.1.1, S.1.2 …).
func wing() *memory {
	m := &memory{}
	for s := 1; s <= 3; s++ {
		for e := 1; e <= 2; e++ {
			for i := 1; i <= 2; i++ {
				patient := "P1"
				if s == 3 {
					patient = "P2"
				}
				m.all = append(m.all, dimsetest.Instance{
					SOPClassUID: dimsetest.CTImageStorage, PatientID: patient,
					StudyInstanceUID: fmt.Sprint(s), SeriesInstanceUID: fmt.Sprintf("%d.%d", s, e),
					SOPInstanceUID: fmt.Sprintf("%d.%d.%d", s, e, i), Rows: 2, Columns: 2,
				})
			}
		}
	}
	return m
}

// patients answers study level queries by Patient ID.
type patients struct{ answers }

func (p *patients) Find(ctx context.Context, q query.Query) (*query.Answer, error) {
	p.matches = nil
	studies := map[string][]string{"P1": {"1", "2"}, "P2": {"3"}}[q.Keys.String(dict.PatientID)]
	for _, uid := range studies {
		d := dicom.NewDataset()
		d.Set(dict.StudyInstanceUID, dict.UI, uid)
		p.matches = append(p.matches, d)
	}
	return p.answers.Find(ctx, q)
}

func TestRetrieveIdentifiers(t *testing.T) {
	type keys = map[dict.Tag][]string
	const patient, study, series, image = dict.PatientID, dict.StudyInstanceUID, dict.SeriesInstanceUID, dict.SOPInstanceUID
	for _, test := range []struct {
		name  string
		root  dimse.Root
		level string
		keys  keys
		want  string // instances, in order
		kind  fault.Kind
	}{
		{"a patient", dimse.PatientRoot, "PATIENT", keys{patient: {"P2"}}, "3.1.1 3.1.2 3.2.1 3.2.2", 0},
		{"a patient of several studies", dimse.PatientRoot, "PATIENT", keys{patient: {"P1"}}, "1.1.1 1.1.2 1.2.1 1.2.2 2.1.1 2.1.2 2.2.1 2.2.2", 0},
		{"a patient, lower keys do not count", dimse.PatientRoot, "PATIENT", keys{patient: {"P2"}, series: {"3.1"}}, "3.1.1 3.1.2 3.2.1 3.2.2", 0},
		{"an unknown patient", dimse.PatientRoot, "PATIENT", keys{patient: {"P9"}}, "", 0},
		{"every patient is nobody's to have", dimse.PatientRoot, "PATIENT", keys{patient: {"*"}}, "", fault.Mismatch},
		{"a pattern of patients", dimse.PatientRoot, "PATIENT", keys{patient: {"P?"}}, "", fault.Mismatch},
		{"no patient", dimse.PatientRoot, "PATIENT", keys{}, "", fault.Mismatch},
		{"an empty patient", dimse.PatientRoot, "PATIENT", keys{patient: {""}}, "", fault.Mismatch},

		{"a study", dimse.StudyRoot, "STUDY", keys{study: {"2"}}, "2.1.1 2.1.2 2.2.1 2.2.2", 0},
		{"a list of studies", dimse.StudyRoot, "STUDY", keys{study: {"2", "3"}}, "2.1.1 2.1.2 2.2.1 2.2.2 3.1.1 3.1.2 3.2.1 3.2.2", 0},
		{"a list with commas", dimse.StudyRoot, "STUDY", keys{study: {"2,3"}}, "2.1.1 2.1.2 2.2.1 2.2.2 3.1.1 3.1.2 3.2.1 3.2.2", 0},
		{"a study twice is sent once", dimse.StudyRoot, "STUDY", keys{study: {"2", "2"}}, "2.1.1 2.1.2 2.2.1 2.2.2", 0},
		{"a study under its patient", dimse.PatientRoot, "STUDY", keys{patient: {"P1"}, study: {"1"}}, "1.1.1 1.1.2 1.2.1 1.2.2", 0},
		{"a study of the patient/study model", dimse.PatientStudyOnly, "STUDY", keys{study: {"1"}}, "1.1.1 1.1.2 1.2.1 1.2.2", 0},
		{"some studies are unknown", dimse.StudyRoot, "STUDY", keys{study: {"9", "1"}}, "1.1.1 1.1.2 1.2.1 1.2.2", 0},
		{"nothing to send", dimse.StudyRoot, "STUDY", keys{study: {"9"}}, "", 0},
		{"no study", dimse.StudyRoot, "STUDY", keys{series: {"1.1"}}, "", fault.Mismatch},

		{"a series", dimse.StudyRoot, "SERIES", keys{study: {"1"}, series: {"1.2"}}, "1.2.1 1.2.2", 0},
		{"a list of series", dimse.StudyRoot, "SERIES", keys{study: {"1"}, series: {"1.2", "1.1"}}, "1.2.1 1.2.2 1.1.1 1.1.2", 0},
		{"a series without its study", dimse.StudyRoot, "SERIES", keys{series: {"1.2"}}, "1.2.1 1.2.2", 0},
		{"a series of another study", dimse.StudyRoot, "SERIES", keys{study: {"2"}, series: {"1.2"}}, "", 0},
		{"no series", dimse.StudyRoot, "SERIES", keys{study: {"1"}}, "", fault.Mismatch},

		{"an instance", dimse.StudyRoot, "IMAGE", keys{study: {"1"}, series: {"1.2"}, image: {"1.2.1"}}, "1.2.1", 0},
		{"a list of instances", dimse.StudyRoot, "IMAGE", keys{study: {"1"}, series: {"1.2"}, image: {"1.2.2", "1.2.1"}}, "1.2.2 1.2.1", 0},
		{"an instance alone", dimse.StudyRoot, "IMAGE", keys{image: {"3.1.2"}}, "3.1.2", 0},
		{"an instance of another series", dimse.StudyRoot, "IMAGE", keys{series: {"1.1"}, image: {"3.1.2"}}, "", 0},
		{"no instance", dimse.StudyRoot, "IMAGE", keys{study: {"1"}, series: {"1.1"}}, "", fault.Mismatch},

		{"no level", dimse.StudyRoot, "", keys{study: {"1"}}, "", fault.Mismatch},
		{"an unknown level", dimse.StudyRoot, "EPISODE", keys{study: {"1"}}, "", fault.Mismatch},
		{"a patient of the study root", dimse.StudyRoot, "PATIENT", keys{patient: {"P1"}}, "", fault.Mismatch},
		{"a series of the patient/study model", dimse.PatientStudyOnly, "SERIES", keys{study: {"1"}, series: {"1.1"}}, "", fault.Mismatch},
		{"too many combinations", dimse.StudyRoot, "IMAGE", keys{study: many(700), series: many(700), image: {"1"}}, "", fault.Full},
	} {
		s := sessionOf(New(Options{Archive: wing(), Engine: &patients{}}), AE{Title: "X"})
		c, err := s.choose(context.Background(), test.root, identifier(test.level, test.keys))
		if test.kind != 0 {
			if !fault.Is(err, test.kind) {
				t.Errorf("%s: %v, want %v", test.name, err, test.kind)
			}
			continue
		}
		var got []string
		for _, r := range c.refs {
			got = append(got, r.SOP)
		}
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, %v", test.name, got, err)
		}
	}
}

func many(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("1.2.", i)
	}
	return all
}

func TestAPatientIsOfTheAskersIssuer(t *testing.T) {
	engine := &patients{}
	s := sessionOf(New(Options{Archive: wing(), Engine: engine}), AE{Title: "X", Issuer: "NORTH"})
	keys := map[dict.Tag][]string{dict.PatientID: {"P1"}}
	if _, err := s.choose(context.Background(), dimse.PatientRoot, identifier("PATIENT", keys)); err != nil {
		t.Fatal(err)
	}
	if engine.asked.Issuer != "NORTH" || engine.asked.Keys.Has(dict.IssuerOfPatientID) {
		t.Errorf("asked %+v", engine.asked)
	}
	keys[dict.IssuerOfPatientID] = []string{"SOUTH"}
	if _, err := s.choose(context.Background(), dimse.PatientRoot, identifier("PATIENT", keys)); err != nil {
		t.Fatal(err)
	}
	if got := engine.asked.Keys.String(dict.IssuerOfPatientID); got != "SOUTH" {
		t.Errorf("asked for the issuer %q", got)
	}
}

func TestFailuresOfThePatientSearchAreTold(t *testing.T) {
	for _, engine := range []*answers{
		{failure: fault.New(fault.Unavailable, "no catalogue")},
		{matches: []*dicom.Dataset{dicom.NewDataset()}, breaks: fault.New(fault.Unavailable, "no catalogue")},
	} {
		s := sessionOf(New(Options{Archive: wing(), Engine: engine}), AE{Title: "X"})
		_, err := s.choose(context.Background(), dimse.PatientRoot, identifier("PATIENT", map[dict.Tag][]string{dict.PatientID: {"P1"}}))
		if !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	}
}

func TestListsOfUIDs(t *testing.T) {
	d := dicom.NewDataset()
	d.Set(dict.StudyInstanceUID, dict.UI, "1.2", "1.3 , 1.4", "", "1.5")
	if got := uids(d, dict.StudyInstanceUID); !slices.Equal(got, []string{"1.2", "1.3", "1.4", "1.5"}) {
		t.Error(got)
	}
}
