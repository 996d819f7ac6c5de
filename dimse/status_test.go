package dimse_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
)

// TestEveryKindHasAStatusForEveryService walks all kinds × services against the
// table of DESIGN §9.
func TestEveryKindHasAStatusForEveryService(t *testing.T) {
	type line struct{ store, find, retrieve, commit command.Status }
	want := map[fault.Kind]line{
		fault.Other:       {0x0110, 0x0110, 0x0110, 0x0110},
		fault.Invalid:     {0xC000, 0xC001, 0xC001, 0x0115},
		fault.Mismatch:    {0xA900, 0xA900, 0xA900, 0x0120},
		fault.Unsupported: {0x0122, 0x0122, 0x0122, 0x0122},
		fault.Denied:      {0x0124, 0x0124, 0x0124, 0x0124},
		fault.NotFound:    {0x0110, 0x0000, 0x0000, 0x0112},
		fault.Conflict:    {0x0000, 0x0110, 0x0110, 0x0110},
		fault.Full:        {0xA700, 0xA700, 0xA702, 0x0213},
		fault.Unavailable: {0xA700, 0xC002, 0xA702, 0x0213},
		fault.Corrupt:     {0x0110, 0xC001, 0xA702, 0x0110},
		fault.Canceled:    {0xA700, 0xFE00, 0xFE00, 0x0110},
		fault.Protocol:    {0x0212, 0x0212, 0x0212, 0x0212},
	}
	for _, kind := range fault.Kinds() {
		w, ok := want[kind]
		if !ok {
			t.Errorf("kind %v has no line", kind)
		}
		for _, o := range dimse.Operations() {
			expect := w.commit
			switch o {
			case dimse.Store:
				expect = w.store
			case dimse.Find:
				expect = w.find
			case dimse.Move, dimse.Get:
				expect = w.retrieve
			}
			if got := dimse.KindStatus(o, kind); got != expect {
				t.Errorf("%v %v: status %v, want %v", o, kind, got, expect)
			}
			status, comment := dimse.StatusOf(o, fault.New(kind, "at\\most ü %s", strings.Repeat("x", 100)))
			if status != expect {
				t.Errorf("%v %v: error's status %v, want %v", o, kind, status, expect)
			}
			if len(comment) > dimse.MaxComment || strings.ContainsAny(comment, "\\ü") {
				t.Errorf("%v %v: comment %q is not fit for (0000,0902)", o, kind, comment)
			}
		}
	}
	if got := dimse.KindStatus(dimse.Store, fault.Kind(200)); got != command.ProcessingFailure {
		t.Errorf("unknown kind: %v", got)
	}
}

func TestTextWithoutAKindStaysInside(t *testing.T) {
	status, comment := dimse.StatusOf(dimse.Store, errors.New("DOE^JANE was not stored"))
	if status != command.ProcessingFailure || strings.Contains(comment, "DOE") {
		t.Errorf("got %v %q", status, comment)
	}
}

func TestAStatusErrorIsAnsweredExactly(t *testing.T) {
	err := fmt.Errorf("store: %w", &dimse.StatusError{Status: 0xB007, Comment: "elements\ncoerced"})
	if status, comment := dimse.StatusOf(dimse.Store, err); status != 0xB007 || comment != "elements?coerced" {
		t.Errorf("got %v %q", status, comment)
	}
	if status, _ := dimse.StatusOf(dimse.Move, dimse.DestinationUnknown()); status != 0xA801 {
		t.Errorf("unknown destination: %v", status)
	}
	if status, comment := dimse.StatusOf(dimse.Store, nil); status != 0 || comment != "" {
		t.Errorf("nil: %v %q", status, comment)
	}
}

func TestAPeersStatusBecomesAKind(t *testing.T) {
	want := map[command.Status]fault.Kind{
		0xA700: fault.Full, 0xA702: fault.Full, 0x0213: fault.Full, 0xA801: fault.NotFound, 0x0112: fault.NotFound,
		0xA900: fault.Mismatch, 0x0120: fault.Mismatch, 0xC123: fault.Invalid, 0x0115: fault.Invalid,
		0x0122: fault.Unsupported, 0x0211: fault.Unsupported, 0x0124: fault.Denied,
		0x0210: fault.Protocol, 0xFE00: fault.Canceled, 0x0110: fault.Other,
	}
	for status, kind := range want {
		if got := dimse.StatusKind(status); got != kind {
			t.Errorf("%v: %v, want %v", status, got, kind)
		}
	}
}

func TestQueryClassesRoundTrip(t *testing.T) {
	if got := dimse.StudyRoot.Class(dimse.Move); got != "1.2.840.10008.5.1.4.1.2.2.2" {
		t.Errorf("study root move: %s", got)
	}
	for _, r := range dimse.Roots() {
		for _, o := range []dimse.Operation{dimse.Find, dimse.Move, dimse.Get} {
			if root, op, ok := dimse.QueryClass(r.Class(o)); !ok || root != r || op != o {
				t.Errorf("%s: %v %v %v", r.Class(o), root, op, ok)
			}
		}
	}
	if _, _, ok := dimse.QueryClass(dimse.Verification); ok {
		t.Error("verification is no query class")
	}
}

func TestQueryOptionsAreBytesOfTheirOperation(t *testing.T) {
	all := dimse.QueryOptions{Relational: true, CombinedDateTime: true, Fuzzy: true, Timezone: true}
	if got := all.Bytes(dimse.Find); string(got) != "\x01\x01\x01\x01\x00" {
		t.Errorf("find: %v", got)
	}
	if got := all.Bytes(dimse.Get); string(got) != "\x01\x00" {
		t.Errorf("get: %v", got)
	}
	for _, o := range []dimse.Operation{dimse.Find, dimse.Move} {
		one := dimse.ParseQueryOptions(o, []byte{1})
		if one != (dimse.QueryOptions{Relational: true}) || dimse.ParseQueryOptions(o, nil) != (dimse.QueryOptions{}) {
			t.Errorf("%v: absent bytes mean no: %+v", o, one)
		}
	}
	if got := dimse.ParseQueryOptions(dimse.Find, all.Bytes(dimse.Find)); got != all {
		t.Errorf("round trip: %+v", got)
	}
	if got := all.And(dimse.QueryOptions{Fuzzy: true}); got != (dimse.QueryOptions{Fuzzy: true}) {
		t.Errorf("and: %+v", got)
	}
}
