package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/engine"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// federation is the instances of an archive spread over nodes, of which n0 is
// asked: everybody has the same catalogue.
type federation struct {
	whole *archive // everything in one place, with the same catalogue
	nodes map[string]*archive

	mu       sync.Mutex
	probes   map[string]int // by node
	located  int
	asked    []query.Candidate
	silent   map[string]bool
	breakAt  map[string]int // a node's answers break off after so many instances
	afar     map[string]query.Availability
	inflight int
}

// spread announces every series from the nodes that hold names, for each of its
// instances. n0 comes first.
func spread(t tester, tb testing.TB, a *archive, issuer map[string]string, hold func(i query.Instance) []string) *federation {
	t.Helper()
	f := &federation{whole: newArchive(tb), nodes: map[string]*archive{"n0": {}}, probes: map[string]int{}}
	f.whole.instances = a.instances
	type held struct{ node, study, series string }
	facts := map[held]*catalog.SeriesFact{}
	var changes []any
	for _, x := range a.instances {
		for _, node := range hold(x.Instance) {
			n := f.nodes[node]
			if n == nil {
				n = &archive{}
				f.nodes[node] = n
			}
			i := x.Instance
			i.Number = uint64(len(n.instances) + 1)
			n.instances = append(n.instances, stored{i, x.header})
			name := held{node, i.Study, i.Series}
			fact := facts[name]
			if fact == nil {
				fact = &catalog.SeriesFact{
					Origin: node, Site: "site " + node, AsOf: 1, Study: i.Study, Series: i.Series, Issuer: issuer[i.Series],
					Attributes: catalog.Attributes(x.header),
				}
				facts[name] = fact
				changes = append(changes, fact)
			}
			fact.Instances++
			fact.Bytes += uint64(i.Bytes)
			hash := sha256.Sum256([]byte(i.SOP))
			for b := range fact.UIDHash {
				fact.UIDHash[b] ^= hash[b]
			}
			if !slices.Contains(fact.Classes, i.Class) {
				fact.Classes = append(fact.Classes, i.Class)
				slices.Sort(fact.Classes)
			}
		}
	}
	results, err := catalogtest.Alone(f.whole.catalog).Do(changes...)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range f.nodes {
		n.catalog = f.whole.catalog
	}
	return f
}

func (f *federation) engine(node string, a *archive) *engine.Engine {
	o := engine.Options{Catalog: f.whole.catalog, Instances: a, Issuer: "NORTH"}
	if node != "" {
		o.Node, o.Peers = node, f
	}
	return engine.New(o)
}

// ask runs a query at n0, to its end.
func (f *federation) ask(t tester, q query.Query) (all []*dicom.Dataset, silent []string) {
	t.Helper()
	answer, err := f.engine("n0", f.nodes["n0"]).Find(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	for ds, err := range answer.Matches {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ds)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inflight != 0 {
		t.Fatalf("%d probes outlive the answer", f.inflight)
	}
	if answer.Silent == nil {
		return all, nil
	}
	return all, answer.Silent()
}

func (f *federation) Probe(ctx context.Context, node string, p query.Probe, candidates []query.Candidate) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		f.mu.Lock()
		f.probes[node]++
		f.inflight++
		f.asked = append(f.asked, candidates...)
		silent, most := f.silent[node], f.breakAt[node]
		f.mu.Unlock()
		defer func() { f.mu.Lock(); f.inflight--; f.mu.Unlock() }()
		n := 0
		for found, err := range f.engine("", f.nodes[node]).Probe(ctx, p, candidates) {
			if silent || most > 0 && n == most {
				break
			}
			n++
			if !yield(found, err) {
				return
			}
		}
		if silent || most > 0 && n == most {
			yield(query.Found{}, fault.New(fault.Unavailable, "%s does not answer", node))
		}
	}
}

func (f *federation) Locate(ctx context.Context, node string, sops []string) ([]query.Instance, error) {
	f.mu.Lock()
	f.located++
	silent := f.silent[node]
	f.mu.Unlock()
	if silent {
		return nil, fault.New(fault.Unavailable, "%s does not answer", node)
	}
	return f.engine("", f.nodes[node]).Locate(ctx, sops)
}

func (f *federation) Nodes() []query.Node {
	var all []query.Node
	for _, id := range slices.Sorted(maps.Keys(f.nodes)) {
		if id != "n0" {
			all = append(all, query.Node{ID: id, Site: "site " + id})
		}
	}
	return all
}

func (f *federation) Availability(node string) query.Availability {
	return cmp.Or(f.afar[node], query.Online)
}

// text is a data set as bytes, to compare whole answers.
func text(t tester, ds *dicom.Dataset) string {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	b, err := ds.Encode(nil, explicit)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// issuersOf are the issuers of an archive's series, as its catalogue has them.
func issuersOf(t tester, a *archive) map[string]string {
	issuers := map[string]string{}
	for _, l := range leaves(t, a) {
		issuers[l.series] = cmp.Or(l.key.Issuer, issuers[l.series], "NORTH")
	}
	return issuers
}

func TestSpreadOverNodesTheAnswerIsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := randomArchive(rt, t)
		nodes := []string{"n0", "n1", "n2", "n3"}
		owners := map[string][]string{}
		f := spread(rt, t, a, issuersOf(rt, a), func(i query.Instance) []string {
			of := owners[i.Series]
			if of == nil {
				of = []string{rapid.SampledFrom(nodes).Draw(rt, "owner")}
				if rapid.IntRange(0, 3).Draw(rt, "twice") == 0 {
					of = append(of, rapid.SampledFrom(nodes).Draw(rt, "second owner"))
				}
				owners[i.Series] = slices.Compact(of)
			}
			if of = owners[i.Series]; rapid.IntRange(0, 9).Draw(rt, "only one has it") == 0 {
				return of[:1]
			}
			return of
		})
		for range 8 {
			q := randomQuery(rt)
			q.Return = append(q.Return, dict.InstanceAvailability)
			if rapid.Bool().Draw(rt, "more") {
				q.Return = append(q.Return, dict.Rows, dict.InstanceNumber, dict.SOPClassUID, dict.AnatomicRegionSequence)
			}
			q.All = rapid.IntRange(0, 3).Draw(rt, "all") == 0
			if rapid.Bool().Draw(rt, "page") {
				q.Offset = rapid.IntRange(0, 3).Draw(rt, "offset")
				q.Limit = rapid.IntRange(1, 3).Draw(rt, "limit")
			}
			want := find(rt, f.whole, q)
			got, silent := f.ask(rt, q)
			if len(silent) > 0 {
				rt.Fatalf("silent: %v", silent)
			}
			if len(got) != len(want) {
				rt.Fatalf("level %v, keys %s\n got %v\nwant %v", q.Level, keysText(q.Keys), names(q.Level, got), names(q.Level, want))
			}
			for i := range got {
				if g, w := text(rt, got[i]), text(rt, want[i]); g != w {
					rt.Fatalf("level %v, keys %s, answer %d\n got %q\nwant %q", q.Level, keysText(q.Keys), i, g, w)
				}
			}
		}
	})
}

// threeOwners is an archive of six studies, two at each of n1, n2 and n3, of two
// series of two instances. Comments tell odd instances from even ones.
func threeOwners(t testing.TB, also func(study int) []string) *federation {
	a := newArchive(t)
	issuers := map[string]string{}
	owner := map[string][]string{}
	for study := range 6 {
		for x := range 2 {
			for i := range 2 {
				uid := fmt.Sprintf("1.%d", study+1)
				series := fmt.Sprintf("%s.%d", uid, x+1)
				a.store(t, "NORTH", dataset(
					attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, fmt.Sprintf("%s.%d", series, i+1)},
					attribute{dict.StudyInstanceUID, uid}, attribute{dict.SeriesInstanceUID, series},
					attribute{dict.PatientID, fmt.Sprintf("P%d", study/2)}, attribute{dict.StudyDate, fmt.Sprintf("2024010%d", study+1)},
					attribute{dict.Modality, "CT"}, attribute{dict.ImageComments, []string{"even", "odd"}[i]},
				))
				issuers[series] = "NORTH"
				owner[series] = []string{fmt.Sprintf("n%d", study%3+1)}
				if also != nil {
					owner[series] = append(owner[series], also(study)...)
				}
			}
		}
	}
	return spread(t, t, a, issuers, func(i query.Instance) []string { return owner[i.Series] })
}

var odd = dataset(attribute{dict.ImageComments, "odd"})

func TestWhatTheCatalogueKnowsSendsNoMessage(t *testing.T) {
	f := threeOwners(t, nil)
	for _, l := range []query.Level{query.Patient, query.Study, query.Series} {
		got, _ := f.ask(t, query.Query{Level: l, All: true, Keys: dataset(attribute{dict.Modality, "CT"}, attribute{dict.StudyDate, "20240101-"})})
		if len(got) == 0 {
			t.Errorf("%v: no answer", l)
		}
	}
	if len(f.probes)+f.located != 0 {
		t.Errorf("%v probes, %d located", f.probes, f.located)
	}
}

func TestOwnersAreAskedOnceAWindow(t *testing.T) {
	f := threeOwners(t, nil)
	got, silent := f.ask(t, query.Query{Level: query.Image, Keys: odd})
	if len(got) != 12 || len(silent) > 0 {
		t.Errorf("%d answers, silent %v; want 12 and nobody", len(got), silent)
	}
	if want := map[string]int{"n1": 1, "n2": 1, "n3": 1}; !maps.Equal(f.probes, want) {
		t.Errorf("probes %v, want %v", f.probes, want)
	}
}

func TestSilentOwnersAreNamed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		also    func(int) []string
		silent  []string
		breakAt map[string]int
		want    int // instances of 24
		named   []string
	}{
		{"all answer", nil, nil, nil, 24, nil},
		{"one is silent", nil, []string{"n2"}, nil, 16, []string{"site n2"}},
		{"two are", nil, []string{"n3", "n2"}, nil, 8, []string{"site n2", "site n3"}},
		{"all are", nil, []string{"n1", "n2", "n3"}, nil, 0, []string{"site n1", "site n2", "site n3"}},
		{"others hold the same", func(int) []string { return []string{"n4"} }, []string{"n1", "n2", "n3"}, nil, 24, nil},
		{"others hold the same of some", func(s int) []string {
			if s < 3 {
				return []string{"n4"}
			}
			return nil
		}, []string{"n1", "n2", "n3"}, nil, 12, []string{"site n1", "site n2", "site n3"}},
		{"the copies are silent too", func(int) []string { return []string{"n4"} }, []string{"n1", "n4"}, nil, 16, []string{"site n1", "site n4"}},
		{"one breaks off", nil, nil, map[string]int{"n1": 3}, 19, []string{"site n1"}},
		{"one breaks off, others hold the same", func(int) []string { return []string{"n4"} }, nil, map[string]int{"n1": 3, "n2": 1, "n3": 7}, 24, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := threeOwners(t, tt.also)
			f.breakAt, f.silent = tt.breakAt, map[string]bool{}
			for _, n := range tt.silent {
				f.silent[n] = true
			}
			got, named := f.ask(t, query.Query{Level: query.Image})
			if len(got) != tt.want || !slices.Equal(named, tt.named) {
				t.Errorf("%d instances, silent %v; want %d, %v", len(got), named, tt.want, tt.named)
			}
			once := map[string]bool{}
			for _, name := range names(query.Image, got) {
				if once[name] {
					t.Errorf("%s twice", name)
				}
				once[name] = true
			}
		})
	}
}

func TestASilentNodeIsAskedOnceOnly(t *testing.T) {
	f := threeOwners(t, nil)
	f.silent = map[string]bool{"n1": true}
	f.ask(t, query.Query{Level: query.Study, Keys: odd})
	if f.probes["n1"] != 1 {
		t.Errorf("%d probes of the node that does not answer", f.probes["n1"])
	}
}

func TestNearerNodesAreAskedFirst(t *testing.T) {
	f := threeOwners(t, func(int) []string { return []string{"n4"} })
	f.afar = map[string]query.Availability{"n1": query.Unavailable, "n2": query.Nearline}
	f.ask(t, query.Query{Level: query.Image})
	if f.probes["n1"] != 0 || f.probes["n2"] != 0 || f.probes["n3"] == 0 || f.probes["n4"] == 0 {
		t.Errorf("probes %v", f.probes)
	}
}

func TestBareInstanceUIDsAreLookedForEverywhere(t *testing.T) {
	for _, tt := range []struct {
		name    string
		keys    *dicom.Dataset
		silent  string
		want    int
		named   []string
		located int
	}{
		{"at one", dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}), "", 1, nil, 3},
		{"at several", dataset(attribute{dict.SOPInstanceUID, `1.2.1.1\1.3.2.2`}), "", 2, nil, 3},
		{"nowhere", dataset(attribute{dict.SOPInstanceUID, "9"}), "", 0, nil, 3},
		{"found although one is silent", dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}), "n1", 1, nil, 3},
		{"nowhere, and one is silent", dataset(attribute{dict.SOPInstanceUID, "9"}), "n1", 0, []string{"site n1"}, 3},
		{"the study is named", dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}, attribute{dict.StudyInstanceUID, "1.2"}), "n1", 1, nil, 0},
		{"the study is named, its owner silent", dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}, attribute{dict.StudyInstanceUID, "1.2"}), "n2", 0, []string{"site n2"}, 0},
		{"another study is named", dataset(attribute{dict.SOPInstanceUID, "1.2.1.1"}, attribute{dict.StudyInstanceUID, "1.3"}), "", 0, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := threeOwners(t, nil)
			f.silent = map[string]bool{tt.silent: true}
			got, named := f.ask(t, query.Query{Level: query.Image, Keys: tt.keys})
			if len(got) != tt.want || !slices.Equal(named, tt.named) || f.located != tt.located {
				t.Errorf("%d instances, silent %v, %d located; want %d, %v, %d", len(got), named, f.located, tt.want, tt.named, tt.located)
			}
			for _, c := range f.asked {
				if c.Study != "1.2" && c.Study != "1.3" {
					t.Errorf("asked about %s", c.Study)
				}
			}
		})
	}
}

func TestANodeAloneAsksNobodyAndSaysNothingOfOthers(t *testing.T) {
	f := threeOwners(t, func(int) []string { return []string{"n0"} })
	e := engine.New(engine.Options{
		Catalog: f.whole.catalog, Instances: f.nodes["n0"], Issuer: "NORTH", Node: "n0", Peers: f, Alone: func() bool { return true },
	})
	for _, q := range []query.Query{
		{Level: query.Image, Keys: odd}, {Level: query.Image, Keys: dataset(attribute{dict.SOPInstanceUID, "1.1.1.1"})},
		{Level: query.Study, Return: []dict.Tag{dict.ImageComments}},
	} {
		answer, err := e.Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range answer.Matches {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n == 0 || answer.Silent != nil {
			t.Errorf("%d answers, which may be partial: %t", n, answer.Silent != nil)
		}
	}
	if len(f.probes)+f.located != 0 {
		t.Errorf("%v probes, %d located", f.probes, f.located)
	}
}

// A catalogue is replaced in a moment in which nobody has a view of it.
func TestASlowAnswerDoesNotHoldTheCatalogue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeOwners(t, nil)
		c := f.whole.catalog
		if err := c.Checkpoint("copy"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Prepare(t.Context(), "copy", "n0"); err != nil {
			t.Fatal(err)
		}
		answer, err := f.engine("n0", f.nodes["n0"]).Find(t.Context(), query.Query{Level: query.Image})
		if err != nil {
			t.Fatal(err)
		}
		replaced := make(chan error, 1)
		n := 0
		for _, err := range answer.Matches {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 1 {
				go func() { replaced <- c.Replace(t.Context(), "copy") }()
			}
			time.Sleep(10 * time.Second) // the asker is slow: four minutes for all
		}
		if err := <-replaced; err != nil || n != 24 {
			t.Errorf("%d answers, and the catalogue: %v", n, err)
		}
	})
}

func TestALimitEndsAskingEarly(t *testing.T) {
	a := newArchive(t)
	issuers := map[string]string{}
	for i := range 100 {
		study := fmt.Sprintf("1.%d", i+1)
		a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, study + ".1.1"},
			attribute{dict.StudyInstanceUID, study}, attribute{dict.SeriesInstanceUID, study + ".1"}, attribute{dict.ImageComments, "odd"}))
		issuers[study+".1"] = "NORTH"
	}
	f := spread(t, t, a, issuers, func(query.Instance) []string { return []string{"n1"} })
	got, _ := f.ask(t, query.Query{Level: query.Study, Keys: odd, Limit: 3})
	if len(got) != 3 || len(f.asked) > 8 {
		t.Errorf("%d studies, %d series asked about", len(got), len(f.asked))
	}
	f.asked = nil
	if got, _ = f.ask(t, query.Query{Level: query.Study, Keys: odd}); len(got) != 100 || len(f.asked) != 100 {
		t.Errorf("%d studies, %d series asked about", len(got), len(f.asked))
	}
}

func TestValuesTooLongForTheCatalogueComeFromTheirOwner(t *testing.T) {
	long := strings.Repeat("x", 2000)
	a := newArchive(t)
	a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, "1.1.1.1"},
		attribute{dict.StudyInstanceUID, "1.1"}, attribute{dict.SeriesInstanceUID, "1.1.1"}, attribute{dict.SeriesDescription, long}))
	f := spread(t, t, a, map[string]string{"1.1.1": "NORTH"}, func(query.Instance) []string { return []string{"n1"} })
	for _, key := range []string{"", "*xx", "*y"} {
		q := query.Query{Level: query.Study, Keys: dataset(attribute{dict.SeriesDescription, key})}
		want := find(t, f.whole, q)
		got, _ := f.ask(t, q)
		if len(got) != len(want) || (len(got) > 0) != (key != "*y") || len(got) > 0 && got[0].String(dict.SeriesDescription) != long {
			t.Errorf("%q: %d answers, want %d", key, len(got), len(want))
		}
	}
	f.silent = map[string]bool{"n1": true}
	answer, err := f.engine("n0", f.nodes["n0"]).Find(t.Context(), query.Query{Level: query.Study, Keys: dataset(attribute{dict.SeriesDescription, "*xx"})})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for _, err := range answer.Matches {
		last = err
	}
	if !fault.Is(last, fault.Unavailable) {
		t.Errorf("a query of which nobody expects that others are asked ends with %v, want unavailable", last)
	}
}

func TestAnswersTellWhoHoldsAStudyAndWhichCountsAreNotExact(t *testing.T) {
	a := newArchive(t)
	for i := range 3 {
		a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, fmt.Sprintf("1.1.1.%d", i)},
			attribute{dict.StudyInstanceUID, "1.1"}, attribute{dict.SeriesInstanceUID, "1.1.1"}))
	}
	a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, "1.2.1.1"},
		attribute{dict.StudyInstanceUID, "1.2"}, attribute{dict.SeriesInstanceUID, "1.2.1"}))
	f := spread(t, t, a, map[string]string{"1.1.1": "NORTH", "1.2.1": "NORTH"}, func(i query.Instance) []string {
		if i.SOP == "1.1.1.2" {
			return []string{"n2"}
		}
		return []string{"n1", "n2"}
	})
	for _, tt := range []struct {
		level       query.Level
		study       string
		ask         []dict.Tag
		sites       string
		approximate bool
	}{
		{query.Study, "1.1", []dict.Tag{query.TagSites}, `site n1\site n2`, false},
		{query.Study, "1.1", []dict.Tag{dict.NumberOfStudyRelatedInstances}, "", true},
		{query.Study, "1.2", []dict.Tag{dict.NumberOfStudyRelatedInstances, query.TagApproximate}, "", false},
		{query.Series, "1.1", []dict.Tag{query.TagSites, query.TagApproximate}, `site n1\site n2`, true},
		{query.Series, "1.2", []dict.Tag{query.TagSites}, `site n1\site n2`, false},
		{query.Series, "1.1", nil, "", false},
	} {
		got, _ := f.ask(t, query.Query{Level: tt.level, Keys: dataset(attribute{dict.StudyInstanceUID, tt.study}), Return: tt.ask})
		sites, approximate := strings.Join(got[0].Strings(query.TagSites), `\`), got[0].String(query.TagApproximate) == "YES"
		if sites != tt.sites || approximate != tt.approximate || got[0].Has(query.TagCreator) != (sites != "" || approximate) {
			t.Errorf("%v of %s, asked for %v: sites %q, approximate %t", tt.level, tt.study, tt.ask, sites, approximate)
		}
	}
	if len(f.probes) > 0 {
		t.Errorf("probes %v", f.probes)
	}
	if got, _ := f.ask(t, query.Query{Level: query.Image, Keys: dataset(attribute{dict.StudyInstanceUID, "1.1"})}); len(got) != 3 {
		t.Errorf("%d instances of the union, want 3", len(got))
	}
}

func TestStalenessIsTheWorseOfOwnAndOthers(t *testing.T) {
	a := twoStudies(t)
	for _, tt := range []struct {
		others time.Duration
		known  bool
		want   time.Duration
	}{{0, true, 0}, {time.Hour, true, time.Hour}, {0, false, query.StalenessUnknown}} {
		e := engine.New(engine.Options{Catalog: a.catalog, Instances: a, Staleness: func() (time.Duration, bool) { return tt.others, tt.known }})
		answer, err := e.Find(t.Context(), query.Query{Level: query.Study})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Staleness != tt.want || answer.Partial() != (tt.want > 0) {
			t.Errorf("%v, partial %v; want %v", answer.Staleness, answer.Partial(), tt.want)
		}
	}
}

func TestSitesThatWereNotHeardAreNamed(t *testing.T) {
	a := twoStudies(t)
	e := engine.New(engine.Options{Catalog: a.catalog, Instances: a, Unheard: func() []string { return []string{"north"} }})
	answer, err := e.Find(t.Context(), query.Query{Level: query.Study})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(answer.Unheard, []string{"north"}) || !answer.Partial() {
		t.Errorf("unheard %q, partial %v", answer.Unheard, answer.Partial())
	}
}

func TestProbesOfKeysThatCannotBeUsedAreRefused(t *testing.T) {
	a := twoStudies(t)
	e := engine.New(engine.Options{Catalog: a.catalog, Instances: a})
	for _, err := range e.Probe(t.Context(), query.Probe{Keys: dataset(attribute{dict.ContentDate, "yesterday"})}, []query.Candidate{{Study: "1.1", Series: "1.1.1"}}) {
		if !fault.Is(err, fault.Mismatch) {
			t.Errorf("%v, want mismatch", err)
		}
	}
}

func TestProbesGiveNoMoreThanWasAskedFor(t *testing.T) {
	a := twoStudies(t)
	e := engine.New(engine.Options{Catalog: a.catalog, Instances: a})
	one := []query.Candidate{{Study: "1.1", Series: "1.1.1"}}
	for f, err := range e.Probe(t.Context(), query.Probe{}, one) {
		if err != nil || f.Header != nil || a.read.Load() != 0 {
			t.Errorf("%v, header %v, %d headers read; want none", err, f.Header, a.read.Load())
		}
	}
	keys := dicom.NewDataset()
	keys.Set(0x00110010, dict.LO, "ACME")
	keys.Set(0x00111001, dict.LO, "al*")
	for f, err := range e.Probe(t.Context(), query.Probe{Keys: keys, Match: []dict.Tag{0x00111001}, Return: []dict.Tag{dict.Rows}}, one) {
		if err != nil {
			t.Fatal(err)
		}
		var tags []dict.Tag
		for _, e := range f.Header.Dataset.Elements {
			tags = append(tags, e.Tag)
		}
		if want := []dict.Tag{dict.SpecificCharacterSet, 0x00110012, 0x00111201, dict.Rows}; !slices.Equal(tags, want) {
			t.Errorf("%v, want %v", tags, want)
		}
		if !bytes.Equal([]byte(f.Instance.SOP), []byte("1.1.1.1")) {
			t.Errorf("instance %s", f.Instance.SOP)
		}
	}
}

func TestAKeyFindsValuesTooLongForTheCatalogue(t *testing.T) {
	long := strings.Repeat("Head^and ", 200)
	a := newArchive(t)
	for i, tag := range []dict.Tag{dict.StudyDescription, dict.PatientName, dict.AccessionNumber, dict.StudyID, dict.ReferringPhysicianName} {
		study := fmt.Sprintf("1.%d", i+1)
		a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, study + ".1.1"},
			attribute{dict.StudyInstanceUID, study}, attribute{dict.SeriesInstanceUID, study + ".1"}, attribute{tag, long + "neck"}))
		a.store(t, "NORTH", dataset(attribute{dict.SOPClassUID, ctClass}, attribute{dict.SOPInstanceUID, study + "9.1.1"},
			attribute{dict.StudyInstanceUID, study + "9"}, attribute{dict.SeriesInstanceUID, study + "9.1"}, attribute{tag, "Head^and foot"}))
		for _, test := range []struct {
			key  string
			want int
		}{
			{"*neck", 1}, {"Head*", 2}, {"*and Head*", 1}, {"*foot", 1}, {"*arm", 0}, {long[:1000], 0}, {long[:1000] + "*", 1},
		} {
			got := find(t, a, query.Query{Level: query.Study, Keys: dataset(attribute{tag, test.key})})
			if len(got) != test.want {
				t.Errorf("%v: %.20s… of %d characters finds %d studies, want %d", tag, test.key, len(test.key), len(got), test.want)
			}
		}
	}
}
