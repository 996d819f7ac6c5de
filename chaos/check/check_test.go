package check

import (
	"slices"
	"testing"
	"time"
)

var (
	h1 = Hash{1}
	h2 = Hash{2}
	h3 = Hash{3}
)

// judge compares what a checker found, as text.
func judge(t *testing.T, found []Violation, want []string) {
	t.Helper()
	var got []string
	for _, v := range found {
		got = append(got, v.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestInstances(t *testing.T) {
	type has = map[string]Hash
	both := func(h has) []Returned { return []Returned{{"a", h}, {"b", h}} }
	ok := func(uid string, h Hash) Store { return Store{UID: uid, Hash: h, Acknowledged: true} }
	cases := []struct {
		rule    string
		history Instances
		want    []string
	}{
		{"nothing happened", Instances{Returned: both(has{})}, nil},
		{"acknowledged is returned by all", Instances{Stores: []Store{ok("1", h1), ok("2", h2)}, Returned: both(has{"1": h1, "2": h2})}, nil},
		{
			"acknowledged is not returned by one",
			Instances{Stores: []Store{ok("1", h1)}, Returned: []Returned{{"a", has{"1": h1}}, {"b", has{}}}},
			[]string{"lost: 1 at b: acknowledged and not returned"},
		},
		{
			"acknowledged is nowhere", Instances{Stores: []Store{ok("1", h1)}, Returned: both(has{})},
			[]string{"lost: 1 at a: acknowledged and not returned", "lost: 1 at b: acknowledged and not returned", "lost: 1: 01000000 is nowhere, nor in quarantine"},
		},
		{"not acknowledged may be gone", Instances{Stores: []Store{{UID: "1", Hash: h1}}, Returned: both(has{})}, nil},
		{"not acknowledged may be kept", Instances{Stores: []Store{{UID: "1", Hash: h1}}, Returned: both(has{"1": h1})}, nil},
		{
			"not acknowledged is kept by all or none",
			Instances{Stores: []Store{{UID: "1", Hash: h1}}, Returned: []Returned{{"a", has{}}, {"b", has{"1": h1}}}},
			[]string{"disagreed: 1 at a: not returned, but 01000000 at b"},
		},
		{"acknowledged at the second try", Instances{Stores: []Store{{UID: "1", Hash: h1}, ok("1", h1)}, Returned: []Returned{{"a", has{}}}},
			[]string{"lost: 1 at a: acknowledged and not returned", "lost: 1: 01000000 is nowhere, nor in quarantine"}},
		{
			"bytes that nobody sent", Instances{Stores: []Store{ok("1", h1)}, Returned: []Returned{{"a", has{"1": h3}}}},
			[]string{"changed: 1 at a: 03000000 was never stored", "lost: 1: 01000000 is nowhere, nor in quarantine"},
		},
		{"a UID that nobody sent", Instances{Returned: []Returned{{"a", has{"9": h1}}}}, []string{"invented: 9 at a: 01000000"}},
		{
			"of two contents one is returned, the other set aside",
			Instances{Stores: []Store{ok("1", h1), ok("1", h2)}, Quarantined: []Store{{UID: "1", Hash: h2}}, Returned: both(has{"1": h1})}, nil,
		},
		{
			"of two contents one is nowhere",
			Instances{Stores: []Store{ok("1", h1), ok("1", h2)}, Returned: both(has{"1": h1})},
			[]string{"lost: 1: 02000000 is nowhere, nor in quarantine"},
		},
		{
			"of two contents each node returns another",
			Instances{Stores: []Store{ok("1", h1), ok("1", h2)}, Returned: []Returned{{"a", has{"1": h1}}, {"b", has{"1": h2}}}},
			[]string{"disagreed: 1 at b: 02000000, but 01000000 at a"},
		},
		{
			"what nobody sent is set aside, and found twice",
			Instances{Quarantined: []Store{{UID: "1", Hash: h3}, {UID: "1", Hash: h3}}, Returned: both(has{})},
			[]string{"invented: 1: 03000000 in quarantine"},
		},
		{
			"set aside is not stored",
			Instances{Stores: []Store{ok("1", h1)}, Quarantined: []Store{{UID: "1", Hash: h3}}, Returned: []Returned{{"a", has{"1": h3}}}},
			[]string{"changed: 1 at a: 03000000 was never stored", "lost: 1: 01000000 is nowhere, nor in quarantine", "invented: 1: 03000000 in quarantine"},
		},
		{"deleted is gone", Instances{Stores: []Store{ok("1", h1)}, Deleted: []string{"1"}, Returned: both(has{})}, nil},
		{
			"deleted came back at one", Instances{Stores: []Store{ok("1", h1)}, Deleted: []string{"1"}, Returned: []Returned{{"a", has{}}, {"b", has{"1": h1}}}},
			[]string{"revived: 1 at b: 01000000"},
		},
		{"perhaps deleted may be gone", Instances{Stores: []Store{ok("1", h1)}, MaybeDeleted: []string{"1"}, Returned: both(has{})}, nil},
		{"perhaps deleted may be there", Instances{Stores: []Store{ok("1", h1)}, MaybeDeleted: []string{"1"}, Returned: both(has{"1": h1})}, nil},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) { judge(t, c.history.Check(), c.want) })
	}
}

func TestJournals(t *testing.T) {
	a1, a2, b1 := Journal{"a", 1}, Journal{"a", 2}, Journal{"b", 1}
	logged := []Record{{a1, 1, h1}, {a1, 2, h2}, {a1, 3, h3}, {b1, 1, h1}}
	cases := []struct {
		rule    string
		history Journals
		want    []string
	}{
		{"each once and in order", Journals{Logged: logged, Settled: true, Applied: []Applied{{Node: "n", Records: logged}}}, nil},
		{
			"journals come in any order",
			Journals{Logged: logged, Settled: true, Applied: []Applied{{Node: "n", Records: []Record{logged[3], logged[0], logged[1], logged[2]}}}}, nil,
		},
		{
			"one is applied again",
			Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: []Record{logged[0], logged[1], logged[0], logged[2]}}}},
			[]string{"applied twice: a/1 #1 at n: after 2"},
		},
		{
			"one is skipped",
			Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: []Record{logged[0], logged[2]}}}},
			[]string{"skipped: a/1 #3 at n: after 1"},
		},
		{
			"one is skipped and follows late",
			Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: []Record{logged[0], logged[2], logged[1]}}}},
			[]string{"skipped: a/1 #3 at n: after 1", "applied twice: a/1 #2 at n: after 3"},
		},
		{
			"some never came", Journals{Logged: logged, Settled: true, Applied: []Applied{{Node: "n", Records: logged[:1]}}},
			[]string{"unapplied: a/1 #2 at n: of 3", "unapplied: b/1 #1 at n: of 1"},
		},
		{"some are still to come", Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: logged[:1]}}}, nil},
		{
			"nobody logged it", Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: []Record{{a2, 1, h1}}}}},
			[]string{"forged: a/2 #1 at n: nobody logged it"},
		},
		{
			"it was logged otherwise", Journals{Logged: logged, Applied: []Applied{{Node: "n", Records: []Record{{a1, 1, h2}}}}},
			[]string{"forged: a/1 #1 at n: applied 02000000, logged 01000000"},
		},
		{
			"a journal says two things under a number", Journals{Logged: []Record{{a1, 1, h1}, {a1, 1, h2}}},
			[]string{"forged: a/1 #1 at a: logged as 01000000 and as 02000000"},
		},
		{
			"a copied state is where it was copied",
			Journals{Logged: logged, Settled: true, Applied: []Applied{{Node: "n", After: map[Journal]uint64{a1: 2, b1: 1}, Records: logged[2:3]}}}, nil,
		},
		{
			"a copied state has it already",
			Journals{Logged: logged, Applied: []Applied{{Node: "n", After: map[Journal]uint64{a1: 2}, Records: logged[1:3]}}},
			[]string{"applied twice: a/1 #2 at n: after 2"},
		},
		{
			"every node is judged by itself",
			Journals{Logged: logged[:1], Settled: true, Applied: []Applied{{Node: "n", Records: logged[:1]}, {Node: "m"}}},
			[]string{"unapplied: a/1 #1 at m: of 1"},
		},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			judge(t, c.history.Check(), c.want)
			for _, a := range c.history.Applied {
				if n, ok := a.After[a1]; ok && n != 2 {
					t.Error("the history was changed by judging it")
				}
			}
		})
	}
}

func TestStates(t *testing.T) {
	cases := []struct {
		rule   string
		states States
		want   []string
	}{
		{"nothing seen", nil, nil},
		{"equal index, equal hash", States{{"a", 1, h1}, {"b", 1, h1}, {"a", 2, h2}, {"b", 2, h2}}, nil},
		{"other index, other hash", States{{"a", 1, h1}, {"b", 2, h2}}, nil},
		{"equal index, other hash", States{{"a", 1, h1}, {"a", 2, h2}, {"b", 2, h3}}, []string{"diverged: index 2 at b: 03000000, but 02000000 at a"}},
		{"a node against itself, after a restart", States{{"a", 2, h1}, {"a", 2, h2}}, []string{"diverged: index 2 at a: 02000000, but 01000000 at a"}},
		{"each that differs from the first", States{{"a", 1, h1}, {"b", 1, h2}, {"c", 1, h1}, {"d", 1, h2}},
			[]string{"diverged: index 1 at b: 02000000, but 01000000 at a", "diverged: index 1 at d: 02000000, but 01000000 at a"}},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) { judge(t, c.states.Check(), c.want) })
	}
}

func TestStaleness(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	shows := func(version uint64) map[string]uint64 { return map[string]uint64{"x": version} }
	facts := []Fact{{Key: "x", Version: 2, Committed: at(20)}, {Key: "x", Version: 1, Committed: at(10)}}
	answer := func(asked, stale int, versions map[string]uint64) []Answer {
		return []Answer{{Node: "n", Asked: at(asked), Known: true, Staleness: time.Duration(stale) * time.Second, Versions: versions}}
	}
	cases := []struct {
		rule    string
		history Staleness
		want    []string
	}{
		{"fresh and complete", Staleness{facts, answer(30, 0, shows(2))}, nil},
		{"a later version holds the earlier", Staleness{facts, answer(30, 0, shows(3))}, nil},
		{"lacks what is younger than it says", Staleness{facts, answer(25, 6, shows(1))}, nil},
		{"lacks what came at that moment", Staleness{facts, answer(25, 5, shows(1))}, nil},
		{
			"lacks what is older than it says", Staleness{facts, answer(25, 4, shows(1))},
			[]string{"staler than claimed: x at n: claims 4s, shows version 1, but 2 was committed 5s before"},
		},
		{
			"lacks all of it", Staleness{facts, answer(25, 0, nil)},
			[]string{
				"staler than claimed: x at n: claims 0s, shows version 0, but 1 was committed 15s before",
				"staler than claimed: x at n: claims 0s, shows version 0, but 2 was committed 5s before",
			},
		},
		{"asked before it was committed", Staleness{facts, answer(5, 0, nil)}, nil},
		{"does not say how stale", Staleness{facts, []Answer{{Node: "n", Asked: at(100)}}}, nil},
		{"says it is of the future", Staleness{nil, answer(5, -1, nil)}, []string{"staler than claimed: answer at n: claims -1s: of the future"}},
		{"what is gone is not shown", Staleness{append(slices.Clone(facts), Fact{Key: "x", Version: 3, Gone: true, Committed: at(30)}), answer(40, 0, nil)}, nil},
		{
			"what is gone may have gone before the observer knew",
			Staleness{append(slices.Clone(facts), Fact{Key: "x", Version: 3, Gone: true, Committed: at(50)}), answer(40, 0, nil)}, nil,
		},
		{
			"what is gone is still shown",
			Staleness{append(slices.Clone(facts), Fact{Key: "x", Version: 3, Gone: true, Committed: at(30)}), answer(40, 0, shows(2))},
			[]string{"staler than claimed: x at n: claims 0s, shows version 2, but 3 was committed 10s before"},
		},
		{
			"what came again is shown",
			Staleness{[]Fact{{Key: "x", Version: 3, Gone: true, Committed: at(30)}, {Key: "x", Version: 4, Committed: at(35)}}, answer(40, 0, nil)},
			[]string{"staler than claimed: x at n: claims 0s, shows version 0, but 4 was committed 5s before"},
		},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) { judge(t, c.history.Check(), c.want) })
	}
}

func TestEveryRuleHasAName(t *testing.T) {
	seen := map[string]bool{}
	for r := Lost; r <= Stale; r++ {
		if seen[r.String()] {
			t.Errorf("%q twice", r)
		}
		seen[r.String()] = true
	}
	if len(seen) != len(rules) || (Stale+1).String() != "rule 11" {
		t.Errorf("%d rules, %d names", len(seen), len(rules))
	}
}
