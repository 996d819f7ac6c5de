package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/reconcile"
	"pelago/node/work"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
)

// network is what nodes hold of the series 1.1.1, with a catalogue that knows it.
type network struct {
	t       *testing.T
	catalog *catalog.Catalog
	solo    *alone.Solo
	holds   map[string]map[string]reconcile.Content // by node
	asked   []string
	silent  map[string]bool
	told    uint64
	rows    map[string]map[string][]byte // of each node
}

func newNetwork(t *testing.T) *network {
	c, err := catalog.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &network{t: t, catalog: c, solo: alone.New(c), holds: map[string]map[string]reconcile.Content{}, silent: map[string]bool{}, rows: map[string]map[string][]byte{}}
}

// hold has a node hold instances, as uid=content, and tell so.
func (n *network) hold(node string, instances ...string) {
	n.t.Helper()
	n.told++
	contents := map[string]reconcile.Content{}
	fact := &catalog.SeriesFact{
		Origin: node, Site: "site " + node, AsOf: n.told, Study: "1.1", Series: "1.1.1", Issuer: "N", Instances: uint64(len(instances)),
		Attributes: catalogtest.Dataset(map[dict.Tag]string{dict.PatientID: "P", dict.Modality: "CT"}), Classes: []string{"1.2.3"},
	}
	for _, i := range instances {
		sop, content, _ := strings.Cut(i, "=")
		content, syntax, _ := strings.Cut(content, "@")
		contents[sop] = reconcile.Content{Hash: [32]byte{content[0]}, Syntax: syntax}
		for b := range sop {
			fact.UIDHash[b] += sop[b]
		}
	}
	n.holds[node] = contents
	results, err := n.solo.Do(fact)
	if err != nil || results[0] != nil {
		n.t.Fatal(results, err)
	}
}

type rows map[string][]byte

func (r rows) Get(key string) ([]byte, bool, error) { v, ok := r[key]; return v, ok, nil }
func (r rows) Note(all map[string][]byte) error {
	for k, v := range all {
		r[k] = v
	}
	return nil
}

// round lets a node look through the catalogue, and returns whom it asked and the
// conflicts that everybody sees then.
func (n *network) round(node string) (asked, conflicts string) {
	n.t.Helper()
	n.asked = nil
	if n.rows[node] == nil {
		n.rows[node] = map[string][]byte{}
	}
	r := reconcile.New(reconcile.Options{
		Catalog: n.catalog, Node: node, Decide: n.solo, Rows: rows(n.rows[node]),
		Own: func(context.Context, string, string) (map[string]reconcile.Content, error) { return n.holds[node], nil },
		Other: func(_ context.Context, other, study, series string) (map[string]reconcile.Content, error) {
			n.asked = append(n.asked, other)
			if n.silent[other] || study != "1.1" || series != "1.1.1" {
				return nil, fault.New(fault.Unavailable, "away")
			}
			return n.holds[other], nil
		},
	})
	if err := r.Round(n.t.Context(), &work.Progress{}); err != nil {
		n.t.Fatal(err)
	}
	all, err := reconcile.Conflicts(n.catalog)
	if err != nil {
		n.t.Fatal(err)
	}
	var texts []string
	for _, c := range all {
		text := fmt.Sprintf("%s/%s %s-%s %d:", c.Study, c.Series, c.First.Node, c.Second.Node, c.Total)
		for _, i := range c.Instances {
			text += " " + i.SOP
			if i.Syntax {
				text += "@"
			}
		}
		texts = append(texts, text)
	}
	return strings.Join(n.asked, " "), strings.Join(texts, ", ")
}

func (n *network) check(name, node, asked, conflicts string) {
	n.t.Helper()
	if a, c := n.round(node); a != asked || c != conflicts {
		n.t.Errorf("%s: %s asked %q and found %q, want %q and %q", name, node, a, c, asked, conflicts)
	}
}

func TestTheLaterOriginComparesAndRecordsWhatDiffers(t *testing.T) {
	n := newNetwork(t)
	n.hold("a", "1=x", "2=x", "3=x")
	n.check("alone", "a", "", "")
	n.hold("b", "2=x", "3=y", "4=x")
	n.check("the earlier", "a", "", "")
	n.check("the later", "b", "a", "1.1/1.1.1 a-b 1: 3")
	n.check("once", "b", "", "1.1/1.1.1 a-b 1: 3")
	n.hold("c", "1=y", "3=y@rle", "4=x")
	n.check("the third compares with both", "c", "a b", "1.1/1.1.1 a-b 1: 3, 1.1/1.1.1 a-c 2: 1 3@")
	n.hold("b", "2=x", "4=x")
	n.check("what differs no more is dropped", "b", "a", "1.1/1.1.1 a-c 2: 1 3@")
	n.check("others compare again", "c", "b", "1.1/1.1.1 a-c 2: 1 3@")
}

func TestEqualSetsOfOtherContentAreFound(t *testing.T) {
	n := newNetwork(t)
	n.hold("a", "1=x", "2=x")
	n.hold("b", "1=x", "2=y")
	n.check("the later", "b", "a", "1.1/1.1.1 a-b 1: 2")
}

func TestWhoIsSilentIsAskedTheNextTime(t *testing.T) {
	n := newNetwork(t)
	n.hold("a", "1=x")
	n.hold("b", "1=x", "2=x")
	n.hold("c", "1=y")
	n.silent["a"] = true
	n.check("one is silent", "c", "a b", "1.1/1.1.1 b-c 1: 1")
	n.silent["a"] = false
	n.check("it answers", "c", "a", "1.1/1.1.1 a-c 1: 1, 1.1/1.1.1 b-c 1: 1")
}

func TestRecordsNameAFewOfMany(t *testing.T) {
	n := newNetwork(t)
	var one, other []string
	for i := range 100 {
		one, other = append(one, fmt.Sprintf("%03d=x", i)), append(other, fmt.Sprintf("%03d=y", i))
	}
	n.hold("a", one...)
	n.hold("b", other...)
	n.round("b")
	all, err := reconcile.Conflicts(n.catalog)
	if err != nil || len(all) != 1 || all[0].Total != 100 || len(all[0].Instances) != 64 || all[0].First.Site != "site a" {
		t.Errorf("%+v, %v", all, err)
	}
}

type records map[string][]byte

func (r records) Registry(string) (map[string][]byte, error) { return r, nil }

func TestRecordsThatDoNotParseAreTold(t *testing.T) {
	all, err := reconcile.Conflicts(records{"a": []byte("{"), "b": []byte(`{"version":2}`), "c": []byte(`{"version":1,"study":"1"}`)})
	if len(all) != 1 || err == nil || !fault.Is(err, fault.Corrupt) {
		t.Errorf("%+v, %v", all, err)
	}
	if !slices.ContainsFunc(all, func(c reconcile.Conflict) bool { return c.Study == "1" }) {
		t.Errorf("%+v", all)
	}
}
