package e2e

import (
	"net/http"
	"testing"
	"time"

	"pelago/dimse/dimsetest"
	"pelago/node/admin"
)

// protection is how safe a study is, as a node knows it.
func (n *node) protection(study string) admin.Protection {
	n.t.Helper()
	var p admin.Protection
	n.call(http.MethodGet, "/api/studies/"+study+"/protection", nil, &p)
	return p
}

func TestStorageCommitmentOverSites(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	c := start(t, joining("Lakes", a, a.token()))
	until(t, "packs are spread over three sites", func() bool {
		for _, n := range []*node{a, b, c} {
			if s := n.status(); s.SurvivesSites != 1 || s.LayoutVersion == 0 || s.Layout.Code.M != 2 {
				return false
			}
		}
		return true
	})
	all := world(dimsetest.World{Seed: 71, Patients: 2, PerSeries: 6})
	a.cstore(all)
	began := time.Now()
	if r := a.commit("E2E", "1.2.3.1", all...); len(r.Committed) != len(all) {
		t.Errorf("%d of %d are committed", len(r.Committed), len(all))
	}
	t.Logf("%d instances of %d studies were committed after %v", len(all), studiesOf(all), time.Since(began))
	for _, n := range []*node{a, b, c} {
		until(t, "the studies are protected", func() bool { return n.protection(all[0].study).State == "protected" })
		if p := n.protection(all[0].study); p.SurvivesSites != 2 || len(p.Packs) == 0 || len(p.Packs[0].Shards) != 3 {
			t.Errorf("%+v", p)
		}
		until(t, "they are counted", func() bool { return n.status().ProtectedStudies == studiesOf(all) })
	}

	c.kill()
	if r := a.commit("E2E", "1.2.3.2", all...); len(r.Committed) != len(all) {
		t.Errorf("without one site: %d of %d are committed", len(r.Committed), len(all))
	}
	until(t, "a site is missed", func() bool { return a.protection(all[0].study).SurvivesSites == 1 })
	b.kill()
	until(t, "another one is", func() bool { return a.protection(all[0].study).State == "degraded" })
	if r := a.tryCommit("E2E", "1.2.3.3", 8*time.Second, all...); r != nil {
		t.Errorf("alone, of three sites: %+v", r)
	}
}
