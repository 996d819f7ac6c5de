package scu

import (
	"fmt"
	"slices"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
)

const (
	ctClass  = "1.2.840.10008.5.1.4.1.1.2"
	mrClass  = "1.2.840.10008.5.1.4.1.1.4"
	jpeg2000 = "1.2.840.10008.1.2.4.90"
)

func TestAPlanProposesTheStoredSyntaxAloneAndTheUncompressedOnes(t *testing.T) {
	plan := StorePlan([]Kind{
		{ctClass, dict.ExplicitLittleEndian}, {mrClass, jpeg2000}, {ctClass, jpeg2000}, {ctClass, jpeg2000},
	})
	both := []string{dict.ExplicitLittleEndian, dict.ImplicitLittleEndian}
	want := []assoc.Context{
		{ID: 1, Abstract: ctClass, Syntaxes: []string{dict.ExplicitLittleEndian}},
		{ID: 3, Abstract: ctClass, Syntaxes: []string{jpeg2000}},
		{ID: 5, Abstract: ctClass, Syntaxes: both},
		{ID: 7, Abstract: mrClass, Syntaxes: []string{jpeg2000}},
		{ID: 9, Abstract: mrClass, Syntaxes: both},
	}
	if len(plan) != 1 || len(plan[0]) != len(want) {
		t.Fatalf("plan %+v", plan)
	}
	for i, c := range plan[0] {
		if c.ID != want[i].ID || c.Abstract != want[i].Abstract || !slices.Equal(c.Syntaxes, want[i].Syntaxes) {
			t.Errorf("context %d: %+v, want %+v", i, c, want[i])
		}
	}
	if StorePlan(nil) != nil {
		t.Error("nothing to send needs no association")
	}
}

func TestAPlanOpensFurtherAssociationsBeyond128Contexts(t *testing.T) {
	var kinds []Kind
	for i := range 100 {
		for j := range 1 + i%3 {
			kinds = append(kinds, Kind{fmt.Sprintf("1.2.%d", i), fmt.Sprintf("1.3.%d", j)})
		}
	}
	for i := range 300 { // more syntaxes than an association has room for
		kinds = append(kinds, Kind{"1.9", fmt.Sprintf("1.4.%d", i)})
	}
	plan := StorePlan(kinds)
	where := map[string]int{}
	total := 0
	for n, contexts := range plan {
		if len(contexts) == 0 || len(contexts) > maxContexts {
			t.Errorf("association %d has %d contexts", n, len(contexts))
		}
		total += len(contexts)
		ids := map[byte]bool{}
		for _, c := range contexts {
			if c.ID%2 == 0 || ids[c.ID] {
				t.Errorf("association %d: id %d", n, c.ID)
			}
			ids[c.ID] = true
			if at, seen := where[c.Abstract]; seen && at != n {
				t.Errorf("class %s is on associations %d and %d", c.Abstract, at, n)
			}
			where[c.Abstract] = n
		}
	}
	if len(where) != 101 {
		t.Errorf("%d classes planned, want 101", len(where))
	}
	if want := 100 + 199 + 128; total != want {
		t.Errorf("%d contexts, want %d", total, want)
	}
}

func TestChoosePrefersTheStoredSyntax(t *testing.T) {
	accepted := func(syntaxes ...string) []assoc.Context {
		var contexts []assoc.Context
		for i, s := range syntaxes {
			contexts = append(contexts, assoc.Context{ID: byte(2*i + 1), Abstract: ctClass, Syntax: s, SCU: true})
		}
		return contexts
	}
	const private = "1.2.3.4.5"
	for name, tt := range map[string]struct {
		contexts []assoc.Context
		stored   string
		want     string
	}{
		"stored":                          {accepted(dict.ExplicitLittleEndian, dict.ImplicitLittleEndian), dict.ImplicitLittleEndian, dict.ImplicitLittleEndian},
		"converted to explicit":           {accepted(dict.ImplicitLittleEndian, dict.ExplicitLittleEndian), dict.ExplicitBigEndian, dict.ExplicitLittleEndian},
		"converted to implicit":           {accepted(dict.ImplicitLittleEndian), dict.ExplicitLittleEndian, dict.ImplicitLittleEndian},
		"inflated":                        {accepted(dict.ImplicitLittleEndian), dict.DeflatedExplicitLittleEndian, dict.ImplicitLittleEndian},
		"compressed needs its own":        {accepted(dict.ExplicitLittleEndian), jpeg2000, ""},
		"private is never converted":      {accepted(dict.ExplicitLittleEndian), private, ""},
		"private as stored":               {accepted(private), private, private},
		"uncompressed never gets encoded": {accepted(jpeg2000), dict.ExplicitLittleEndian, ""},
		"nothing accepted":                {nil, dict.ExplicitLittleEndian, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(tt.contexts, true, ctClass, tt.stored)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q %v, want %q", got, err, tt.want)
			}
			if err != nil && !fault.Is(err, fault.Unsupported) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
		})
	}
}

func TestChooseMindsRolesAndResults(t *testing.T) {
	contexts := []assoc.Context{
		{Abstract: ctClass, Syntax: dict.ExplicitLittleEndian, SCU: true},
		{Abstract: mrClass, Syntax: dict.ExplicitLittleEndian, SCP: true},
		{Abstract: "1.2.3", Syntax: dict.ExplicitLittleEndian, SCU: true, SCP: true, Result: 1},
	}
	for _, tt := range []struct {
		class     string
		requestor bool
		ok        bool
	}{
		{ctClass, true, true}, {ctClass, false, false},
		{mrClass, true, false}, {mrClass, false, true},
		{"1.2.3", true, false}, {"1.2.3", false, false},
	} {
		if _, err := Choose(contexts, tt.requestor, tt.class, dict.ExplicitLittleEndian); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
