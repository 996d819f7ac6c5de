package recent

import (
	"slices"
	"testing"
)

func (c *Values[K, V]) keys(all ...K) (kept []K) {
	for _, key := range all {
		c.mu.Lock()
		_, ok := c.at[key]
		c.mu.Unlock()
		if ok {
			kept = append(kept, key)
		}
	}
	return kept
}

func TestWhatWasUsedLastIsKept(t *testing.T) {
	type step struct {
		do   func(c *Values[string, int])
		want []string
	}
	put := func(key string, bytes int64) func(*Values[string, int]) {
		return func(c *Values[string, int]) { c.Put(key, int(bytes), bytes) }
	}
	offer := func(key string, bytes int64) func(*Values[string, int]) {
		return func(c *Values[string, int]) { c.Offer(key, int(bytes), bytes) }
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"the one used longest ago goes", []step{
			{put("a", 40), []string{"a"}}, {put("b", 40), []string{"a", "b"}},
			{func(c *Values[string, int]) { c.Get("a") }, []string{"a", "b"}}, {put("c", 40), []string{"a", "c"}},
		}},
		{"what takes a key's place gives its room back", []step{
			{put("a", 90), []string{"a"}}, {put("a", 10), []string{"a"}}, {put("b", 90), []string{"a", "b"}},
		}},
		{"what is offered for a key that has a value is not taken", []step{
			{put("a", 10), []string{"a"}}, {offer("a", 90), []string{"a"}}, {offer("b", 90), []string{"a", "b"}},
		}},
		{"a giant is kept until the next", []step{
			{put("a", 10), []string{"a"}}, {put("giant", 1000), []string{"giant"}}, {put("b", 10), []string{"b"}},
		}},
		{"what is told is forgotten, and all of it", []step{
			{put("a", 10), []string{"a"}}, {put("b", 20), []string{"a", "b"}},
			{func(c *Values[string, int]) { c.Forget("a", func(v int) bool { return v == 11 }) }, []string{"a", "b"}},
			{func(c *Values[string, int]) { c.Forget("a", func(v int) bool { return v == 10 }) }, []string{"b"}},
			{func(c *Values[string, int]) { c.Drop() }, nil}, {put("c", 100), []string{"c"}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Values[string, int]{Limit: 100}
			for i, s := range test.steps {
				s.do(c)
				if got := c.keys("a", "b", "c", "giant"); !slices.Equal(got, s.want) {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}
