package volatile

import (
	"errors"
	"slices"
	"testing"
)

func TestRowsAreThoseThatWereCommitted(t *testing.T) {
	r := &Rows{}
	if err := errors.Join(r.Commit(map[string][]byte{"a": {1}, "c": {3}, "b": {2}}), r.Commit(map[string][]byte{"a": nil})); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := r.Get("a"); ok {
		t.Error("a row that was dropped is there")
	}
	var seen []string
	err := r.From("b", func(key string, _ []byte) (bool, error) {
		seen = append(seen, key)
		return key != "b", nil
	})
	if err != nil || !slices.Equal(seen, []string{"b"}) {
		t.Errorf("visited %v, %v", seen, err)
	}
}
