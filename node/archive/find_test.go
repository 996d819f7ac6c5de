package archive

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
)

// TestWhatIsStoredIsFoundByEveryIndexedKey goes through the archive's own
// catalogue: it must have been opened with the indexes that the engine plans for.
func TestWhatIsStoredIsFoundByEveryIndexedKey(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 24 {
		b.store(serial(n))
	}
	find := engine.New(engine.Options{Catalog: b.Catalog(), Instances: b.Instances(), Issuer: "site"})
	for _, test := range []struct {
		name  string
		level query.Level
		tag   dict.Tag
		vr    dict.VR
		value string
		want  int
	}{
		{"patient id", query.Study, dict.PatientID, dict.LO, "P1", 1},
		{"patient id by prefix", query.Study, dict.PatientID, dict.LO, "P*", 3},
		{"name", query.Study, dict.PatientName, dict.PN, "test^p2", 1},
		{"name in the middle", query.Study, dict.PatientName, dict.PN, "*P2*", 1},
		{"date range", query.Study, dict.StudyDate, dict.DA, "20260101-20260103", 3},
		{"modality", query.Study, dict.ModalitiesInStudy, dict.CS, "CT", 3},
		{"study", query.Study, dict.StudyInstanceUID, dict.UI, "1.2.1", 1},
		{"series", query.Series, dict.SeriesInstanceUID, dict.UI, "1.2.1.0", 1},
		{"instance", query.Image, dict.SOPInstanceUID, dict.UI, "1.2.1.0.8", 1},
		{"another patient", query.Study, dict.PatientID, dict.LO, "P9", 0},
	} {
		keys := dicom.NewDataset()
		keys.Set(test.tag, test.vr, test.value)
		answer, err := find.Find(context.Background(), query.Query{Level: test.level, Keys: keys, Relational: true})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := 0
		for _, err := range answer.Matches {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				break
			}
			got++
		}
		if got != test.want {
			t.Errorf("%s: %d matches, want %d", test.name, got, test.want)
		}
	}
}
