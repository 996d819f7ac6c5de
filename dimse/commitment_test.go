package dimse_test

import (
	"reflect"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

func explicit() dict.TransferSyntax {
	s, _ := dict.Syntax(dict.ExplicitLittleEndian)
	return s
}

// reread encodes and parses a data set.
func reread(t *testing.T, d *dicom.Dataset, syntax string) *dicom.Dataset {
	t.Helper()
	s, _ := dict.Syntax(syntax)
	b, err := d.Encode(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := dicom.ParseDataset(b, s, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestCommitmentsSurviveTheWire(t *testing.T) {
	references := []dimse.Reference{{Class: "1.2", Instance: "1.2.3"}, {Class: "1.2", Instance: "1.2.4"}}
	for _, syntax := range []string{dict.ImplicitLittleEndian, dict.ExplicitLittleEndian, dict.ExplicitBigEndian} {
		request := &dimse.CommitmentRequest{Transaction: "1.9.9", References: references}
		if got, err := dimse.ParseCommitmentRequest(reread(t, request.Dataset(), syntax)); err != nil || !reflect.DeepEqual(got, request) {
			t.Errorf("%s: %+v, %v", syntax, got, err)
		}
		for _, result := range []*dimse.CommitmentResult{
			{Transaction: "1.9.9", Committed: references, RetrieveAE: "PELAGO"},
			{Transaction: "1.9.9", Committed: references[:1], Failed: []dimse.FailedReference{{Reference: references[1], Reason: 0x0213}}},
			{Transaction: "1.9.9", Failed: []dimse.FailedReference{{Reference: references[0], Reason: 0x0110}, {Reference: references[1], Reason: 0x0119}}},
		} {
			if got, err := dimse.ParseCommitmentResult(reread(t, result.Dataset(), syntax)); err != nil || !reflect.DeepEqual(got, result) {
				t.Errorf("%s: %+v, %v", syntax, got, err)
			}
		}
	}
}

func TestReferencesWithoutTheirUIDsAreRefused(t *testing.T) {
	for name, r := range map[string]*dimse.CommitmentRequest{
		"no transaction": {References: []dimse.Reference{{Class: "1", Instance: "2"}}},
		"no references":  {Transaction: "1"},
		"no class":       {Transaction: "1", References: []dimse.Reference{{Instance: "2"}}},
		"no instance":    {Transaction: "1", References: []dimse.Reference{{Class: "1", Instance: "2"}, {Class: "1"}}},
	} {
		if _, err := dimse.ParseCommitmentRequest(r.Dataset()); !fault.Is(err, fault.Mismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzCommitment reads data sets as requests and results; what is taken must be
// complete.
func FuzzCommitment(f *testing.F) {
	add := func(d *dicom.Dataset) {
		b, err := d.Encode(nil, explicit())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := dimse.Reference{Class: "1.2", Instance: "1.2.3"}
	add((&dimse.CommitmentRequest{Transaction: "1.9", References: []dimse.Reference{r}}).Dataset())
	add((&dimse.CommitmentResult{Transaction: "1.9", Committed: []dimse.Reference{r}, RetrieveAE: "A"}).Dataset())
	add((&dimse.CommitmentResult{Transaction: "1.9", Failed: []dimse.FailedReference{{Reference: r, Reason: 1}}}).Dataset())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := dicom.ParseDataset(b, explicit(), dicom.DefaultLimits)
		if err != nil {
			return
		}
		if r, err := dimse.ParseCommitmentRequest(d); err == nil && (r.Transaction == "" || len(r.References) == 0) {
			t.Errorf("taken: %+v", r)
		}
		if r, err := dimse.ParseCommitmentResult(d); err == nil {
			for _, f := range r.Failed {
				if f.Class == "" || f.Instance == "" {
					t.Errorf("taken: %+v", r)
				}
			}
		}
	})
}
