package purge

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// What rests is as docs/formats/purge.md says.
func TestWhatRestsIsGolden(t *testing.T) {
	if got, want := fmt.Sprintf("%x", cursor{generation: 2, index: 0x0102}.encode()), "01"+"0000000000000002"+"0000000000000102"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := parseCursor(cursor{3, 4}.encode()); got != (cursor{3, 4}) {
		t.Errorf("%+v", got)
	}
	if got, want := fmt.Sprintf("%x", catalog.DefaultTerms().Encode()), "0180"+"9a9e01"+"80ceda03"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b, err := json.Marshal(record{Version: 1, Issuer: "NORTH", ID: "7", By: "o", Reason: "r", At: time.Unix(0, 0).UTC()})
	if want := `{"version":1,"issuer":"NORTH","id":"7","by":"o","reason":"r","at":"1970-01-01T00:00:00Z"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	if got, want := catalog.PatientHold(catalog.PatientKey{Issuer: "NORTH", ID: "7"}), "patient/"; len(got) != len(want)+32 || got[:len(want)] != want {
		t.Error(got)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(cursor{1, 2}.encode())
	f.Add([]byte(`{"version":1,"study":"1.2","by":"o"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c := parseCursor(b); c != (cursor{}) && string(c.encode()) != string(b) {
			t.Errorf("%+v is not %x", c, b)
		}
		if h := parseHold(b); (h.Study != "") && h.Patient != nil {
			t.Errorf("%+v", h)
		}
	})
}

func TestHoldsAreOfAStudyOrAPatient(t *testing.T) {
	n := newNetwork(t, "a")
	holds := Holds{Catalog: n.nodes[0].c, Decide: n.nodes[0]}
	who := &catalog.PatientKey{Issuer: "N", ID: "7"}
	for _, h := range []Hold{{}, {Study: "1.2", Patient: who}, {Patient: &catalog.PatientKey{Issuer: "N"}}, {Study: "1.2", Reason: string(make([]byte, 2000))}} {
		if err := holds.Put(t.Context(), h); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if err := holds.Drop(t.Context(), Hold{Patient: who}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	for _, reason := range []string{"one", "another"} {
		if err := holds.Put(t.Context(), Hold{Patient: who, Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := holds.List(); err != nil || len(all) != 1 || *all[0].Patient != *who || all[0].Reason != "another" {
		t.Errorf("%+v, %v", all, err)
	}
	n.must(n.nodes[0], &catalog.RegistryFact{Kind: catalog.KindHold, Name: "study/9", Value: []byte("?")})
	if all, err := holds.List(); err != nil || len(all) != 2 {
		t.Errorf("one that does not parse: %+v, %v", all, err)
	}
}
