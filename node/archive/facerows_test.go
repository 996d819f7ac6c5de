package archive

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Rows of a face are its own, come in order from anywhere, and what was committed
// survives a crash.
func TestRowsAreVisitedFromAKeyOn(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := testOptions(fs, newRing())
	a, err := openAlone(o)
	if err != nil {
		t.Fatal(err)
	}
	rows := a.Rows("held")
	if err := rows.Commit(map[string][]byte{"a": {1}, "b1": {2}, "b2": {}, "c": {4}}); err != nil {
		t.Fatal(err)
	}
	if err := rows.Commit(map[string][]byte{"a": nil, "b3": {3}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Rows("helder").Note(map[string][]byte{"b": {9}}); err != nil {
		t.Fatal(err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	closeAlone(a)
	o = testOptions(crashed, newRing())
	if a, err = openAlone(o); err != nil {
		t.Fatal(err)
	}
	defer closeAlone(a)
	rows = a.Rows("held")
	for _, test := range []struct {
		from string
		most int
		want []string
	}{
		{"", 9, []string{"b1", "b2", "b3", "c"}}, {"b", 9, []string{"b1", "b2", "b3", "c"}},
		{"b2", 2, []string{"b2", "b3"}}, {"b2\x00", 9, []string{"b3", "c"}}, {"c\x00", 9, nil},
	} {
		var got []string
		err := rows.From(test.from, func(key string, value []byte) (bool, error) {
			got = append(got, key)
			return len(got) < test.most, nil
		})
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("from %q: %v, %v, want %v", test.from, got, err, test.want)
		}
	}
	if v, ok, err := rows.Get("b2"); !ok || err != nil || len(v) != 0 {
		t.Errorf("a row without a value: %v, %v, %v", v, ok, err)
	}
}
