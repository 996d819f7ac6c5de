package main

import (
	"bytes"
	"testing"

	"pelago/node/admin"
)

func TestCodesOfTheCommandLine(t *testing.T) {
	for _, test := range []struct {
		text     string
		survives int
		want     *admin.CodeChange
		fails    bool
	}{
		{"", 0, nil, false},
		{"auto", 0, &admin.CodeChange{Auto: true}, false},
		{"3+3", 0, &admin.CodeChange{K: 3, M: 3}, false},
		{"10+4", 3, &admin.CodeChange{K: 10, M: 4, Survives: 3}, false},
		{"3", 0, nil, true}, {"3+", 0, nil, true}, {"+3", 0, nil, true}, {"-3+3", 0, nil, true}, {"3+3+3", 0, nil, true},
		{"3+3", -1, nil, true}, {"", 1, nil, true}, {"auto", 1, nil, true}, {"300+1", 0, nil, true}, {"Auto", 0, nil, true},
	} {
		got, err := (&codeCommand{Code: test.text, Survives: test.survives}).parse()
		if (err != nil) != test.fails || (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
			t.Errorf("%q, %d: %+v, %v", test.text, test.survives, got, err)
		}
	}
}

func TestTheLayoutInTheStatusForPeople(t *testing.T) {
	var none bytes.Buffer
	if rows := layoutRows(admin.Status{}); rows != nil {
		t.Errorf("without a layout: %v", rows)
	}
	st := admin.Status{
		LayoutVersion: 8, Sites: []admin.Site{{Name: "Grace", Nodes: []admin.Node{{ID: "g1"}}}},
		Layout: admin.Layout{
			From: 7, Waiting: []string{"g1"}, Code: admin.Code{K: 3, M: 3, Survives: 2, By: "ann", Sites: 6},
			CapacityBytes: 5 << 40, PledgedBytes: 6 << 40, Limits: []string{"the smallest"},
		},
	}
	const want = `A                 B
layout            8, being changed to from 7
stripes           3+3, set by ann; 6 sites hold shards
room for shards   5.0 TiB of 6.0 TiB pledged
layout waits for  Grace
limit             the smallest
`
	if err := table(&none, []string{"A", "B"}, layoutRows(st)); err != nil || none.String() != want {
		t.Errorf("%v\n%s", err, none.String())
	}
	var code bytes.Buffer
	if err := printCode(&code, admin.Code{Sites: 1}); err != nil || code.String() != "none: studies stay whole where they arrived\nsites that hold shards: 1\nsites that may be lost: 0\n" {
		t.Errorf("%v %q", err, code.String())
	}
}
