package engine_test

import (
	"cmp"
	"context"
	"slices"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
)

// told is what nodes told before, by node.
type told struct {
	nodes map[string]*archive
	lacks int // of each series so many are not known
	asked int
}

// Recall implements [query.Memory].
func (m *told) Recall(_ context.Context, study, series string, nodes []string) (all []query.Recorded, whole bool) {
	m.asked++
	for _, node := range nodes {
		a := m.nodes[node]
		if a == nil {
			continue
		}
		for i := range a.List(context.Background(), study, series) {
			i.Origin = node
			one := query.Recorded{Instance: i, Availability: query.Unavailable}
			one.Header = func(ctx context.Context) (*dicom.Header, error) { return a.Header(ctx, i.Number) }
			all = append(all, one)
		}
		slices.SortFunc(all, func(a, b query.Recorded) int { return cmp.Compare(a.SOP, b.SOP) })
		return all[:len(all)-min(m.lacks, len(all))], m.lacks == 0
	}
	return nil, false
}

func TestWhatSilentNodesToldBeforeIsFound(t *testing.T) {
	f := threeOwners(t, nil)
	want, _ := f.ask(t, query.Query{Level: query.Image, All: true})
	ask := func(m *told, q query.Query) (all []*dicom.Dataset, silent []string) {
		o := engine.Options{Catalog: f.whole.catalog, Instances: f.nodes["n0"], Issuer: "NORTH", Node: "n0", Peers: f, Memory: m}
		answer, err := engine.New(o).Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for ds, err := range answer.Matches {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ds)
		}
		return all, answer.Silent()
	}
	m := &told{nodes: f.nodes}
	if got, _ := ask(m, query.Query{Level: query.Image, All: true}); len(got) != len(want) || m.asked > 0 {
		t.Errorf("while all answer: %d instances, %d looks at what they told before", len(got), m.asked)
	}
	f.silent = map[string]bool{"n1": true, "n2": true, "n3": true}
	got, silent := ask(m, query.Query{Level: query.Image, All: true})
	if len(got) != len(want) || len(silent) > 0 {
		t.Fatalf("%d instances of %d, silent %v", len(got), len(want), silent)
	}
	for i := range got {
		if a := got[i].String(dict.InstanceAvailability); a != string(query.Unavailable) {
			t.Errorf("available %s", a)
		}
		got[i].Set(dict.InstanceAvailability, dict.CS, want[i].String(dict.InstanceAvailability))
		if text(t, got[i]) != text(t, want[i]) {
			t.Errorf("answer %d is another", i)
		}
	}
	one := dataset(attribute{dict.SOPInstanceUID, want[3].String(dict.SOPInstanceUID)},
		attribute{dict.SeriesInstanceUID, want[3].String(dict.SeriesInstanceUID)}, attribute{dict.StudyInstanceUID, want[3].String(dict.StudyInstanceUID)})
	if got, silent := ask(m, query.Query{Level: query.Image, Keys: one}); len(got) != 1 || len(silent) > 0 {
		t.Errorf("by its names: %d, silent %v", len(got), silent)
	}
	// What is not all is told, and its owners are silent nevertheless.
	m = &told{nodes: f.nodes, lacks: 1}
	if got, silent := ask(m, query.Query{Level: query.Image}); len(got) == 0 || len(got) >= len(want) || len(silent) != 3 {
		t.Errorf("of what is known by half: %d of %d, silent %v", len(got), len(want), silent)
	}
	f.silent, f.breakAt = map[string]bool{}, map[string]int{"n1": 3}
	if got, silent := ask(&told{nodes: f.nodes}, query.Query{Level: query.Image}); len(got) != len(want) || len(silent) > 0 {
		t.Errorf("where one breaks off: %d of %d, silent %v", len(got), len(want), silent)
	}
}
