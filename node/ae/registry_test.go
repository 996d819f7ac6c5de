package ae

import (
	"context"
	"errors"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
)

func TestTheRegistryReadsOnlyWhatHasChanged(t *testing.T) {
	rows := newRecords()
	r := NewRegistry("here", rows, rows)
	ctx := context.Background()
	if err := r.Put(ctx, AE{Title: "CT1", Hosts: []string{"10.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := r.Get("CT1"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get("CT2"); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	}
	if rows.reads > 1 {
		t.Errorf("the records were read %d times", rows.reads)
	}
	// Another's change is seen at once.
	other := NewRegistry("here", rows, rows)
	if err := other.Put(ctx, AE{Title: "CT2", Hosts: []string{"10.0.0.2"}, Port: 104}); err != nil {
		t.Fatal(err)
	}
	if ae, err := r.Get("CT2"); err != nil || ae.Port != 104 {
		t.Errorf("%+v, %v", ae, err)
	}
	if err := other.Delete(ctx, "CT1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get("CT1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: %v", err)
	}
	if err := r.Delete(ctx, "CT1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if all, err := r.List(); err != nil || len(all) != 1 || all[0].Title != "CT2" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAEsOfOtherSitesAreNotSeen(t *testing.T) {
	rows := newRecords()
	if err := NewRegistry("there", rows, rows).Put(context.Background(), AE{Title: "CT1", Hosts: []string{"10.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRegistry("here", rows, rows).Get("CT1"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestABrokenRecordDeniesNobodyElse(t *testing.T) {
	rows := newRecords()
	r := NewRegistry("here", rows, rows)
	ctx := context.Background()
	if err := r.Put(ctx, AE{Title: "CT1", Hosts: []string{"10.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	rows.rows["here/BAD"] = []byte("{")
	rows.rows["here/NEW"] = []byte(`{"version": 99}`)
	rows.applied++
	if _, err := r.Get("CT1"); err != nil {
		t.Errorf("a sound record beside a broken one: %v", err)
	}
	if _, err := r.Get("BAD"); err == nil || fault.Is(err, fault.NotFound) {
		t.Errorf("the broken one: %v", err)
	}
	if _, err := r.List(); err == nil {
		t.Error("the list hides the broken one")
	}
	for _, title := range []string{"BAD", "NEW"} {
		if err := r.Delete(ctx, title); err != nil {
			t.Errorf("deleting %s: %v", title, err)
		}
	}
	if _, err := r.List(); err != nil {
		t.Error(err)
	}
}

// A modality is not a stranger because a disk stumbled: it is told to come again.
func TestARegistryThatCannotBeReadMakesNobodyAStranger(t *testing.T) {
	rows := newRecords()
	r := NewRegistry("here", rows, rows)
	if err := r.Put(t.Context(), AE{Title: "CT1", Hosts: []string{"10.0.0.1"}, Rights: AllRights}); err != nil {
		t.Fatal(err)
	}
	rows.unread = errors.New("input/output error")
	if _, err := r.Get("CT1"); !fault.Is(err, fault.Unavailable) || !errors.Is(err, rows.unread) {
		t.Errorf("a registry that cannot be read: %v", err)
	}
	if _, err := r.List(); !errors.Is(err, rows.unread) {
		t.Errorf("its list: %v", err)
	}
	f := New(Options{Registry: r})
	if _, err := f.Admit(t.Context(), &assoc.Request{Calling: "CT1", Remote: from("10.0.0.1")}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an association meanwhile: %v", err)
	}
	rows.unread = nil // without a change of the catalogue
	if _, err := r.Get("CT1"); err != nil {
		t.Errorf("once it can be read again: %v", err)
	}
}

func TestARegistryThatCannotBeWrittenSaysSo(t *testing.T) {
	rows := newRecords()
	rows.failing = fault.New(fault.Unavailable, "no quorum")
	err := NewRegistry("here", rows, rows).Put(context.Background(), AE{Title: "CT1", Hosts: []string{"10.0.0.1"}})
	if !fault.Is(err, fault.Unavailable) || !errors.Is(err, rows.failing) {
		t.Error(err)
	}
}

func TestRecordsThatMakeNoSenseAreRefused(t *testing.T) {
	good := AE{Title: "CT 1", Hosts: []string{"10.0.0.0/8", "CT-1_a.example.", "müller.example", "fe80::1%eth0", "localhost"}, Port: 104, TLS: true, Certificate: "ct", Charset: "ISO 2022 IR 6\\ISO 2022 IR 87"}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*AE){
		"no title":                    func(a *AE) { a.Title = "" },
		"title of 17 characters":      func(a *AE) { a.Title = "12345678901234567" },
		"title with a backslash":      func(a *AE) { a.Title = `A\B` },
		"title in blanks":             func(a *AE) { a.Title = " A" },
		"title with a control":        func(a *AE) { a.Title = "A\n" },
		"no host":                     func(a *AE) { a.Hosts = nil },
		"empty host":                  func(a *AE) { a.Hosts = []string{""} },
		"too many hosts":              func(a *AE) { a.Hosts = make([]string, maxHosts+1) },
		"no network":                  func(a *AE) { a.Hosts = []string{"10.0.0.0/99"} },
		"a port and only networks":    func(a *AE) { a.Hosts = []string{"10.0.0.0/8"} },
		"a certificate without TLS":   func(a *AE) { a.TLS = false },
		"a character set of its own":  func(a *AE) { a.Charset = "KLINGON" },
		"an idle time below nothing":  func(a *AE) { a.Idle = -time.Second },
		"a host with a blank in it":   func(a *AE) { a.Hosts = []string{"a b"} },
		"an address beyond 255":       func(a *AE) { a.Hosts = []string{"10.1.2.300"} },
		"an address cut short":        func(a *AE) { a.Hosts = []string{"10.1.2"} },
		"an address with a port":      func(a *AE) { a.Hosts = []string{"10.1.2.3:104"} },
		"a name with a port":          func(a *AE) { a.Hosts = []string{"ct.example:104"} },
		"a name of other characters":  func(a *AE) { a.Hosts = []string{"not_a_host!!"} },
		"a name with an empty label":  func(a *AE) { a.Hosts = []string{"ct..example"} },
		"a title of blanks and a dot": func(a *AE) { a.Title = "  ." },
	} {
		bad := good
		change(&bad)
		if err := bad.check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
