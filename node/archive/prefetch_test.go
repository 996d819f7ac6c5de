package archive

import (
	"strings"
	"testing"
)

func TestReferencesAreArrangedAsInstancesRest(t *testing.T) {
	refs := []Ref{ // as they are selected
		{Study: "1", Series: "1.1", SOP: "1.1.1", Number: 3},
		{Study: "1", Series: "1.1", SOP: "1.1.10", Number: 12},
		{Study: "1", Series: "1.1", SOP: "1.1.2", Number: 4},
		{Study: "1", Series: "1.1", SOP: "1.1.3", Number: 1, Origin: "far"},
		{Study: "1", Series: "1.2", SOP: "1.2.1", Number: 2},
		{Study: "1", Series: "1.2", SOP: "1.2.2", Number: 1},
		{Study: "2", Series: "2.1", SOP: "2.1.1", Number: 1},
	}
	Arrange(refs)
	var got []string
	for _, r := range refs {
		got = append(got, r.SOP)
	}
	if want := "1.1.1 1.1.2 1.1.10 1.1.3 1.2.2 1.2.1 2.1.1"; strings.Join(got, " ") != want {
		t.Errorf("arranged as %v, want %s", got, want)
	}
}
