package patients_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/query/patients"
	"pelago/replication/catalog"
)

// registry is a registry in memory that decides at once.
type registry struct {
	records map[string][]byte // by kind/name
	changed uint64
	reads   int
	failing error
	race    func() // before a decision is taken
}

func (r *registry) Registry(kind string) (map[string][]byte, error) {
	r.reads++
	all := map[string][]byte{}
	for name, v := range r.records {
		if name, ok := strings.CutPrefix(name, kind+"/"); ok {
			all[name] = v
		}
	}
	return all, r.failing
}

func (r *registry) RegistryRecord(kind, name string) ([]byte, error) {
	return r.records[kind+"/"+name], r.failing
}

func (r *registry) RegistryChanged() uint64 { return r.changed }

func (r *registry) Decide(_ context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	if r.race != nil {
		r.race()
	}
	for _, c := range conditions {
		if c != catalog.If(c.Kind, c.Name, r.records[c.Kind+"/"+c.Name]) {
			return []error{fault.New(fault.Conflict, "changed meanwhile")}, nil
		}
	}
	for _, c := range commands {
		f := c.(*catalog.RegistryFact)
		r.changed++
		if len(f.Value) == 0 {
			delete(r.records, f.Kind+"/"+f.Name)
		} else {
			r.records[f.Kind+"/"+f.Name] = f.Value
		}
	}
	return []error{nil}, nil
}

func newRegistry() *registry { return &registry{records: map[string][]byte{}} }

func key(s string) catalog.PatientKey {
	k, err := patients.ParseID(s)
	if err != nil {
		panic(err)
	}
	return k
}

func link(t *testing.T, p *patients.Patients, one, other string) {
	t.Helper()
	if err := p.Link(t.Context(), patients.Link{One: key(one), Other: key(other), By: "op", Reason: "merge", At: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
}

func line(t *testing.T, p *patients.Patients, of string) string {
	t.Helper()
	keys, err := p.Timeline(key(of))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range keys {
		ids = append(ids, patients.FormatID(k))
	}
	return strings.Join(ids, " ")
}

func TestTimelinesGrowByLinksAndAreTakenBack(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	if got := line(t, p, "7^^^NORTH"); got != "" {
		t.Errorf("before: %s", got)
	}
	link(t, p, "9^^^SOUTH", "7^^^NORTH")
	link(t, p, "7^^^NORTH", "9^^^SOUTH") // the same
	link(t, p, "9^^^SOUTH", "1^^^WEST")
	link(t, p, "5^^^EAST", "6^^^EAST")
	for _, of := range []string{"7^^^NORTH", "9^^^SOUTH", "1^^^WEST"} {
		if got := line(t, p, of); got != "7^^^NORTH 9^^^SOUTH 1^^^WEST" {
			t.Errorf("of %s: %s", of, got)
		}
	}
	if got := line(t, p, "7^^^SOUTH"); got != "" {
		t.Errorf("the same number of another issuer: %s", got)
	}
	links, err := p.Links()
	if err != nil || len(links) != 3 || links[0].By != "op" || links[0].Reason != "merge" || links[0].At.IsZero() {
		t.Errorf("%+v, %v", links, err)
	}
	if err := p.Unlink(t.Context(), key("7^^^NORTH"), key("1^^^WEST")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a link through another is taken back: %v", err)
	}
	if err := p.Unlink(t.Context(), key("7^^^NORTH"), key("9^^^SOUTH")); err != nil {
		t.Fatal(err)
	}
	if got := line(t, p, "7^^^NORTH") + ", " + line(t, p, "1^^^WEST"); got != ", 9^^^SOUTH 1^^^WEST" {
		t.Errorf("after: %s", got)
	}
	for name := range r.records {
		if strings.Contains(name, "NORTH") || strings.Contains(name, "9") && strings.Contains(name, "SOUTH") {
			t.Errorf("the name %s tells a patient's id", name)
		}
	}
}

func TestALinkThatChangesMeanwhileIsNotTakenBack(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	link(t, p, "7^^^NORTH", "9^^^SOUTH")
	r.race = func() {
		r.race = nil
		link(t, patients.New(r, r), "7^^^NORTH", "9^^^SOUTH")
		for name := range maps.Clone(r.records) {
			r.records[name] = append(slices.Clone(r.records[name]), ' ')
		}
	}
	if err := p.Unlink(t.Context(), key("7^^^NORTH"), key("9^^^SOUTH")); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v, want a conflict", err)
	}
}

func TestRecordsAreReadOnceUntilTheyChange(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	for range 10 {
		line(t, p, "7^^^NORTH")
	}
	if r.reads != 2 { // links and aliases
		t.Errorf("%d reads", r.reads)
	}
}

func TestWhatIsNoLinkIsRefused(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	long := strings.Repeat("x", 65)
	for _, l := range []patients.Link{
		{}, {One: key("7^^^NORTH"), Other: key("7^^^NORTH")}, {One: key("7^^^NORTH")},
		{One: key("7^^^NORTH"), Other: catalog.PatientKey{Issuer: long, ID: "1"}}, {One: key("7^^^NORTH"), Other: catalog.PatientKey{Issuer: "S", ID: "a\\b"}},
		{One: key("7^^^NORTH"), Other: key("9^^^SOUTH"), Reason: strings.Repeat("x", 257)},
	} {
		if err := p.Link(t.Context(), l); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for i := range 63 {
		link(t, p, "0^^^N", fmt.Sprintf("%d^^^S", i+1))
	}
	if err := p.Link(t.Context(), patients.Link{One: key("0^^^N"), Other: key("x^^^S")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a timeline of 65 ids: %v", err)
	}
	link(t, p, "1^^^S", "2^^^S") // which are on it already
}

func TestRecordsThatDoNotParseAreToldAndTheOthersCount(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	link(t, p, "7^^^NORTH", "9^^^SOUTH")
	if err := p.PutAlias(t.Context(), patients.Alias{Site: "Mercy", Local: "MRN", Issuer: "1.2.3"}); err != nil {
		t.Fatal(err)
	}
	for name, v := range maps.Clone(r.records) {
		if strings.HasPrefix(name, "link/") {
			r.records["link/another"] = v // not the name of its ids
		}
	}
	r.records["link/x"], r.records["link/y"] = []byte("{"), []byte(`{"version":2}`)
	r.records["alias/none"], r.records["alias/Mercy/empty"] = []byte(`{"version":1,"issuer":"x"}`), []byte(`{"version":1}`)
	r.changed++
	links, err := p.Links()
	if len(links) != 1 || err == nil {
		t.Errorf("%v, %v", links, err)
	}
	if got := line(t, p, "7^^^NORTH"); got != "7^^^NORTH 9^^^SOUTH" {
		t.Errorf("%s", got)
	}
	aliases, err := p.Aliases()
	if len(aliases) != 1 || err == nil {
		t.Errorf("%v, %v", aliases, err)
	}
	r.failing = errors.New("rotten")
	r.changed++
	if _, err := p.Timeline(key("7^^^NORTH")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("unreadable records: %v", err)
	}
}

func TestAliasesAreOfOneSite(t *testing.T) {
	r := newRegistry()
	p := patients.New(r, r)
	for _, a := range []patients.Alias{{Site: "Mercy", Local: "MRN", Issuer: "1.2.3"}, {Site: "Grace", Local: "MRN", Issuer: "4.5.6"}} {
		if err := p.PutAlias(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ site, local, want string }{{"Mercy", "MRN", "1.2.3"}, {"Grace", "MRN", "4.5.6"}, {"Hope", "MRN", "MRN"}, {"Mercy", "X", "X"}, {"Mercy", "", ""}} {
		if got, err := p.Issuer(tt.site, tt.local); got != tt.want || err != nil {
			t.Errorf("%s at %s is %s, want %s", tt.local, tt.site, got, tt.want)
		}
		if got, err := p.At(tt.site).Issuer(tt.local); got != tt.want || err != nil {
			t.Errorf("%s at %s is %s, want %s", tt.local, tt.site, got, tt.want)
		}
	}
	if err := p.DropAlias(t.Context(), "Mercy", "MRN"); err != nil {
		t.Fatal(err)
	}
	if got, _ := p.Issuer("Mercy", "MRN"); got != "MRN" {
		t.Errorf("after: %s", got)
	}
	if err := p.DropAlias(t.Context(), "Mercy", "MRN"); !fault.Is(err, fault.NotFound) {
		t.Errorf("twice: %v", err)
	}
	for _, a := range []patients.Alias{{}, {Site: "a/b", Local: "x", Issuer: "y"}, {Site: "a", Local: "x"}, {Site: "a", Issuer: "y"}} {
		if err := p.PutAlias(t.Context(), a); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

func TestIdsAreReadAsHL7WritesThem(t *testing.T) {
	for s, want := range map[string]catalog.PatientKey{
		"7^^^NORTH": {Issuer: "NORTH", ID: "7"}, "7^^^NORTH&1.2.3&ISO": {Issuer: "1.2.3", ID: "7"}, "7^^^NORTH&&": {Issuer: "NORTH", ID: "7"},
		" A-1 ^^^ North Hospital ": {Issuer: "North Hospital", ID: "A-1"},
	} {
		if got, err := patients.ParseID(s); got != want || err != nil {
			t.Errorf("%q is %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "7", "7^^^", "^^^NORTH", "7^NORTH", "7^^^N^X", "7\n^^^N"} {
		if got, err := patients.ParseID(s); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("7^^^NORTH&1.2.3&ISO")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := patients.ParseID(s)
		if err != nil {
			return
		}
		if again, err := patients.ParseID(patients.FormatID(k)); err != nil || again != k {
			t.Fatalf("%q is %+v, and then %+v, %v", s, k, again, err)
		}
	})
}
