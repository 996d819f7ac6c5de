package engine_test

import (
	"fmt"
	"slices"
	"testing"

	"pelago/dimse/dict"
	"pelago/query"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// Names that begin alike are gathered if they are few, and found by runs of
// characters if they are many: both ways give the same answer.
func TestManyNamesThatBeginAlikeAreFoundAsFewAre(t *testing.T) {
	const many, few = 4_100, 3 // more than are gathered
	a := newArchive(t)
	var facts []any
	for i := range many + few {
		name := fmt.Sprintf("SMITH^A%d", i)
		if i%2000 == 7 {
			name = fmt.Sprintf("SMITH^B%d", i)
		}
		facts = append(facts, &catalog.SeriesFact{
			Origin: "n", Site: "s", AsOf: 1, Study: fmt.Sprintf("1.2.%05d", i), Series: fmt.Sprintf("1.2.%05d.1", i), Issuer: "NORTH",
			Attributes: catalogtest.Dataset(map[dict.Tag]string{
				dict.PatientName: name, dict.PatientID: fmt.Sprint("P", i), dict.Modality: "CT",
				dict.StudyDate: fmt.Sprintf("20%02d0101", 10+i%13), dict.StudyTime: fmt.Sprintf("%02d%02d00", i/60%24, i%60),
			}),
			Instances: 1, Classes: []string{ctClass},
		})
	}
	results, err := catalogtest.Alone(a.catalog).Do(facts...)
	if i := slices.IndexFunc(results, func(err error) bool { return err != nil }); err != nil || i >= 0 {
		t.Fatal(err, results[max(i, 0)])
	}
	uids := func(name string, limit int) []string {
		q := query.Query{Level: query.Study, Limit: limit, Keys: dataset(attribute{dict.PatientName, name})}
		return names(query.Study, find(t, a, q))
	}
	all := uids("", 0)
	if got := uids("smi*", 0); !slices.Equal(got, all) {
		t.Errorf("a common beginning finds %d of %d, or in another order", len(got), len(all))
	}
	if got := uids("smith^*", 100); !slices.Equal(got, all[:100]) {
		t.Errorf("the first 100 of a common beginning: %v", got)
	}
	want := slices.DeleteFunc(slices.Clone(all), func(uid string) bool {
		return !slices.Contains([]string{"1.2.00007", "1.2.02007", "1.2.04007"}, uid)
	})
	if got := uids("smith^b*", 100); len(want) != few || !slices.Equal(got, want) {
		t.Errorf("a rare beginning: %v, want %v", got, want)
	}
	if got := uids("SMITH^B2007", 100); !slices.Equal(got, []string{"1.2.02007"}) {
		t.Errorf("a whole name: %v", got)
	}
}

func TestAListOfUIDsIsLookedUpOnceEach(t *testing.T) {
	a := newArchive(t)
	var facts []any
	for i := range 20 {
		facts = append(facts, &catalog.SeriesFact{
			Origin: "n", Site: "s", AsOf: 1, Study: fmt.Sprint("1.2.", 100+i), Series: fmt.Sprintf("1.2.%d.1", 100+i),
			Attributes: catalogtest.Dataset(map[dict.Tag]string{dict.PatientName: "X", dict.Modality: "CT"}), Instances: 1,
		})
	}
	if _, err := catalogtest.Alone(a.catalog).Do(facts...); err != nil {
		t.Fatal(err)
	}
	v := a.catalog.View()
	defer v.Close()
	for what, look := range map[string]func(...string) ([]catalog.Order, error){"study": v.StudyOrders, "series": v.SeriesOrders} {
		uid := func(i int) string {
			if what == "series" {
				return fmt.Sprintf("1.2.%d.1", i)
			}
			return fmt.Sprint("1.2.", i)
		}
		found, err := look(uid(117), uid(103), uid(117), "1.9", uid(110))
		if err != nil || len(found) != 3 {
			t.Errorf("%s: %d found, want 3: %v", what, len(found), err)
		}
		for _, o := range found {
			if n := o.Number(); n != 3 && n != 10 && n != 17 {
				t.Errorf("%s: study %d was not asked for", what, n)
			}
		}
		if found, err := look(); err != nil || len(found) != 0 {
			t.Errorf("%s: nothing asked, %d found: %v", what, len(found), err)
		}
	}
}
