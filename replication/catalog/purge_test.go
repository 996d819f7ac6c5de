package catalog_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// deletion is a network of nodes a and b, entry by entry. a has told a study of two
// series, 1.1.1 in packs 1 and 2 and 1.1.2 in pack 3, all under key 1.
type deletion struct {
	t     testing.TB
	c     *catalog.Catalog
	log   []replication.Entry
	heads map[string]*head // of the journals
}

type head struct {
	number uint64
	hash   [32]byte
}

const day = 24 * 3600

func newDeletion(t testing.TB) *deletion {
	d := &deletion{t: t, c: openMem(t, vfs.NewMem()), heads: map[string]*head{}}
	t.Cleanup(func() { d.c.Close() })
	d.must("a", catalogtest.Member("a", "site-a"))
	d.must("a", catalogtest.Member("b", "site-b"))
	v := values{dict.PatientID: "P1", dict.Modality: "CT"}
	d.say("a", catalog.Batch{
		Facts: []*catalog.SeriesFact{fact("a", "1.1", "1.1.1", 1, 10, v), fact("a", "1.1", "1.1.2", 2, 10, v)},
		Keys:  []*catalog.KeyFact{keyOf("a", "1.1", 1, 1)},
		Seals: []*catalog.SealFact{sealOf("a", "1.1", "1.1.1", 1, 1), sealOf("a", "1.1", "1.1.1", 2, 1), sealOf("a", "1.1", "1.1.2", 3, 1)},
	})
	return d
}

func (d *deletion) put(data []byte) []error {
	d.t.Helper()
	e := replication.Entry{Index: uint64(len(d.log) + 1), Term: 1, Data: data}
	d.log = append(d.log, e)
	if err := d.c.Apply([]replication.Entry{e}, replication.Position{Index: e.Index, Term: 1}); err != nil {
		d.t.Fatal(err)
	}
	results, ok := d.c.Results(e.Index)
	if !ok {
		d.t.Fatal("no results")
	}
	return results
}

func (d *deletion) do(node string, commands ...catalog.Command) []error {
	d.t.Helper()
	entry, err := catalog.EncodeDecision(catalogtest.SignerOf(node), node, nil, commands)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.put(entry)
}

func (d *deletion) must(node string, commands ...catalog.Command) {
	d.t.Helper()
	for _, err := range d.do(node, commands...) {
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *deletion) say(node string, b catalog.Batch) []error {
	d.t.Helper()
	h := d.heads[node]
	if h == nil {
		h = &head{}
		d.heads[node] = h
	}
	h.number++
	b.Node, b.Site, b.Incarnation, b.Number = node, "site-"+node, 1, h.number
	entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf(node), b, h.hash)
	if err != nil {
		d.t.Fatal(err)
	}
	h.hash = hash
	return d.put(entry)
}

// pass lets time pass on the network's clock.
func (d *deletion) pass(seconds uint64) {
	d.t.Helper()
	for seconds > 0 {
		at, err := d.c.Clock()
		if err != nil {
			d.t.Fatal(err)
		}
		step := min(seconds, 7200)
		d.must("a", &catalog.TickFact{From: at.Seconds, To: at.Seconds + step})
		seconds -= step
	}
}

// seen has nodes say that they are as far as the catalogue is.
func (d *deletion) seen(nodes ...string) {
	d.t.Helper()
	for _, n := range nodes {
		at := d.c.Applied()
		d.must(n, &catalog.SeenFact{Applied: at, Dropped: at})
	}
}

// due is a deletion of the study that may be purged.
func (d *deletion) due() {
	d.t.Helper()
	d.pass(3600)
	d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
	d.pass(30 * day)
	d.seen("a", "b")
}

// A member whose record is written anew may be an earlier copy of what it was: until it has
// said again how far it is, nothing goes by what it had said.
func TestWhoJoinsAnewIsPastNothing(t *testing.T) {
	d := newDeletion(t)
	d.due()
	purge, forget := &catalog.PurgeFact{Pack: idOf(1), Study: true}, &catalog.ForgetFact{Key: idOf(1)}
	before, err := d.c.Seen("b")
	if err != nil || before.Applied == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	d.pass(3600)
	d.must("a", catalogtest.Member("b", "site-b"))
	if got, err := d.c.Seen("b"); err != nil || got != (catalog.Seen{At: before.At}) {
		t.Errorf("%+v, %v, want nothing but that it was heard of at %d", got, err, before.At)
	}
	if got := kindOf(d.do("a", purge)[0]); got != "conflict" {
		t.Errorf("a purge: %s", got)
	}
	d.seen("b")
	for id := byte(1); id <= 3; id++ {
		d.must("a", &catalog.PurgeFact{Pack: idOf(id), Study: true})
	}
	d.seen("a", "b")
	d.must("a", catalogtest.Member("b", "site-b"))
	if got := kindOf(d.do("a", forget)[0]); got != "conflict" {
		t.Errorf("giving a key up: %s", got)
	}
	d.seen("b")
	d.must("a", forget)
}

func kindOf(err error) string {
	if err == nil {
		return "taken"
	}
	return fault.KindOf(err).String()
}

func TestTheClockGoesOnFromWhereItStands(t *testing.T) {
	d := newDeletion(t)
	for _, test := range []struct {
		from, to uint64
		want     string
		at       uint64
	}{
		{0, 0, "invalid", 0}, {0, 7201, "invalid", 0}, {1, 2, "conflict", 0}, {0, 10, "taken", 10},
		{0, 10, "conflict", 10}, {10, 10, "invalid", 10}, {10, 9, "invalid", 10}, {10, 7210, "taken", 7210},
	} {
		got := kindOf(d.do("b", &catalog.TickFact{From: test.from, To: test.to})[0])
		if at, err := d.c.Clock(); got != test.want || err != nil || at.Seconds != test.at {
			t.Errorf("from %d to %d: %s, at %d, %v; want %s, %d", test.from, test.to, got, at.Seconds, err, test.want, test.at)
		}
	}
}

// A purge is taken when everything holds, and refused for each that does not.
func TestWhatMayBePurged(t *testing.T) {
	study := func(pack byte) *catalog.PurgeFact { return &catalog.PurgeFact{Pack: idOf(pack), Study: true} }
	terms := func(grace, away time.Duration) *catalog.RegistryFact {
		return &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: grace, Away: away}.Encode()}
	}
	hold := func(name string) *catalog.RegistryFact {
		return &catalog.RegistryFact{Kind: catalog.KindHold, Name: name, Value: []byte("{}")}
	}
	revoke := &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")}
	for name, test := range map[string]struct {
		before func(d *deletion)
		by     string
		fact   *catalog.PurgeFact
		want   string
	}{
		"its grace is over":                   {(*deletion).due, "a", study(1), "taken"},
		"of a pack that is not known":         {(*deletion).due, "a", study(9), "not found"},
		"without a tombstone":                 {(*deletion).due, "a", &catalog.PurgeFact{Pack: idOf(1), Series: true}, "conflict"},
		"of no tombstone":                     {(*deletion).due, "a", &catalog.PurgeFact{Pack: idOf(1)}, "invalid"},
		"of an instance that is not deleted":  {(*deletion).due, "a", &catalog.PurgeFact{Pack: idOf(1), Study: true, Instances: []string{"1.1.1.1"}}, "conflict"},
		"of instances in no order":            {(*deletion).due, "a", &catalog.PurgeFact{Pack: idOf(1), Instances: []string{"1.2", "1.1"}}, "invalid"},
		"by another than its origin":          {(*deletion).due, "b", study(1), "denied"},
		"by another, its origin being gone":   {func(d *deletion) { d.due(); d.must("b", revoke) }, "b", study(1), "taken"},
		"by another, its origin being silent": {func(d *deletion) { d.due(); d.pass(90*day - 1); d.seen("b"); d.pass(1) }, "b", study(1), "taken"},
		"within the grace": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(30*day - 1)
			d.seen("a", "b")
		}, "a", study(1), "conflict"},
		"before the clock began": {func(d *deletion) { d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1}) }, "a", study(1), "conflict"},
		"deleted before the clock began, and since then within the grace": {func(d *deletion) {
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(30*day - 1)
			d.seen("a", "b")
		}, "a", study(1), "conflict"},
		"deleted before the clock began, and past the grace since": {func(d *deletion) {
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(30 * day)
			d.seen("a", "b")
		}, "a", study(1), "taken"},
		"a member is behind": {func(d *deletion) {
			d.pass(3600)
			d.seen("b")
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(30 * day)
			d.seen("a")
		}, "a", study(1), "conflict"},
		"a member was never heard of": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(30 * day)
			d.seen("a")
		}, "a", study(1), "conflict"},
		"a member that was away for too long does not count": {func(d *deletion) {
			d.pass(3600)
			d.seen("b")
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
			d.pass(90 * day)
			d.seen("a")
		}, "a", study(1), "taken"},
		"a member that joined late counts": {func(d *deletion) {
			d.due()
			d.pass(100 * day)
			d.seen("a", "b")
			d.must("a", catalogtest.Member("c", "site-c"))
		}, "a", study(1), "conflict"},
		"a hold of the study":     {func(d *deletion) { d.due(); d.must("a", hold(catalog.StudyHold("1.1"))) }, "a", study(1), "conflict"},
		"a hold of another study": {func(d *deletion) { d.due(); d.must("a", hold(catalog.StudyHold("1.2"))) }, "a", study(1), "taken"},
		"a hold of its patient": {func(d *deletion) {
			d.due()
			d.must("a", hold(catalog.PatientHold(catalog.PatientKey{Issuer: fact("a", "1.1", "1.1.1", 1, 1, nil).Issuer, ID: "P1"})))
		}, "a", study(1), "conflict"},
		"a hold of another patient": {func(d *deletion) { d.due(); d.must("a", hold(catalog.PatientHold(catalog.PatientKey{ID: "P2"}))) }, "a", study(1), "taken"},
		"a hold of a patient, nobody saying any more whose the series was": {func(d *deletion) {
			d.due()
			d.say("a", catalog.Batch{Facts: []*catalog.SeriesFact{fact("a", "1.1", "1.1.1", 3, 0, nil)}}) // all of it was deleted by itself
			d.must("a", hold(catalog.PatientHold(catalog.PatientKey{ID: "P1"})))
		}, "a", study(1), "conflict"},
		"a hold of a study, nobody saying any more whose the series was": {func(d *deletion) {
			d.due()
			d.say("a", catalog.Batch{Facts: []*catalog.SeriesFact{fact("a", "1.1", "1.1.1", 3, 0, nil)}})
			d.must("a", hold(catalog.StudyHold("1.2")))
		}, "a", study(1), "taken"},
		"restored": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1}, &catalog.RestoreFact{Study: "1.1", Tick: 2})
			d.pass(30 * day)
			d.seen("a", "b")
		}, "a", study(1), "conflict"},
		"a longer grace was agreed on": {func(d *deletion) { d.due(); d.must("a", terms(31*24*time.Hour, 90*24*time.Hour)) }, "a", study(1), "conflict"},
		"a shorter one": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1}, terms(time.Hour, time.Hour))
			d.pass(3600)
			d.seen("a", "b")
		}, "a", study(1), "taken"},
		"terms that are none count as the default": {func(d *deletion) {
			d.due()
			d.must("a", &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: []byte{1, 0, 0}})
		}, "a", study(1), "taken"},
		"instances, one of which is young": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Instance: "1.1.1.1", Tick: 1})
			d.pass(30 * day)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Instance: "1.1.1.2", Tick: 1})
			d.seen("a", "b")
		}, "a", &catalog.PurgeFact{Pack: idOf(1), Instances: []string{"1.1.1.1", "1.1.1.2"}}, "conflict"},
		"instances": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Instance: "1.1.1.1", Tick: 1})
			d.pass(30 * day)
			d.seen("a", "b")
		}, "a", &catalog.PurgeFact{Pack: idOf(1), Instances: []string{"1.1.1.1"}}, "taken"},
		"instances by another, the origin being gone": {func(d *deletion) {
			d.pass(3600)
			d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.1", Instance: "1.1.1.1", Tick: 1})
			d.pass(30 * day)
			d.seen("a", "b")
			d.must("b", revoke)
		}, "b", &catalog.PurgeFact{Pack: idOf(1), Instances: []string{"1.1.1.1"}}, "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeletion(t)
			test.before(d)
			would, err := d.c.Would(test.by, test.fact)
			if err != nil {
				t.Fatal(err)
			}
			before, _ := d.c.StateHash()
			got := kindOf(d.do(test.by, test.fact)[0])
			if got != test.want || kindOf(would) != got {
				t.Errorf("%s, foretold %s; want %s", got, kindOf(would), test.want)
			}
			index, err := d.c.Purged(idOf(1))
			if err != nil || (index > 0) != (got == "taken") {
				t.Errorf("purged by %d, %v", index, err)
			}
			if after, _ := d.c.StateHash(); after == before {
				t.Error("a decision leaves no trace")
			}
			verify(t, d.c)
		})
	}
}

func TestWhatIsPurgedIsGoneAndStaysSo(t *testing.T) {
	d := newDeletion(t)
	d.due()
	before := d.c.Sealed()
	d.must("a", &catalog.PurgeFact{Pack: idOf(1), Study: true}, &catalog.PurgeFact{Pack: idOf(2), Study: true})
	index := d.c.Applied()
	d.must("a", &catalog.PurgeFact{Pack: idOf(1), Study: true}) // again
	if at, err := d.c.Purged(idOf(1)); at != index || err != nil {
		t.Errorf("purged by %d, %v; want %d", at, err, index)
	}
	v := d.c.View()
	defer v.Close()
	if seals, err := v.Pack(idOf(1)); len(seals) > 0 || err != nil {
		t.Errorf("%d seals, %v", len(seals), err)
	}
	for seals, err := range v.Group(0, 1, [16]byte{}) {
		if err != nil || seals[0].Stripe.Pack != idOf(3) {
			t.Errorf("pack %x, %v", seals[0].Stripe.Pack, err)
		}
	}
	if left, err := v.Packs("1.1", ""); len(left) != 1 || err != nil {
		t.Errorf("%d packs, %v", len(left), err)
	}
	if s := d.c.Sealed(); s.Packs != before.Packs-2 || s.Bytes >= before.Bytes {
		t.Errorf("%+v, before %+v", s, before)
	}
	// It does not come back.
	if got := kindOf(d.say("a", catalog.Batch{Seals: []*catalog.SealFact{sealOf("a", "1.1", "1.1.1", 1, 1)}})[0]); got != "conflict" {
		t.Errorf("a seal of what was purged: %s", got)
	}
	if got := kindOf(d.do("a", &catalog.RestoreFact{Study: "1.1", Tick: 2})[0]); got != "conflict" {
		t.Errorf("restored after the purge: %s", got)
	}
	var gone []string
	for g, err := range d.c.Gone(t.Context(), 0) {
		gone = append(gone, fmt.Sprint(g.Index, g.IsKey, g.ID[0], g.Study, err))
	}
	if want := []string{fmt.Sprint(index, false, 1, "1.1", nil), fmt.Sprint(index, false, 2, "1.1", nil)}; !slices.Equal(gone, want) {
		t.Errorf("gone %v, want %v", gone, want)
	}
	for range d.c.Gone(t.Context(), index) {
		t.Error("what is gone comes again")
	}
	verify(t, d.c)
}

// Even a grace that is made longer afterwards takes nothing back of which some is gone.
func TestNothingIsTakenBackOfWhichSomeIsPurged(t *testing.T) {
	d := newDeletion(t)
	d.due()
	d.must("a", &catalog.PurgeFact{Pack: idOf(1), Study: true},
		&catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: 1000 * 24 * time.Hour, Away: time.Hour}.Encode()})
	if got := kindOf(d.do("a", &catalog.RestoreFact{Study: "1.1", Tick: 2})[0]); got != "conflict" {
		t.Error(got)
	}
}

// No wall clock ends a grace: not that of who deletes, nor of who restores.
func TestAWallClockEndsNoGrace(t *testing.T) {
	for _, jump := range []int64{-1 << 40, 0, 1 << 40} {
		d := newDeletion(t)
		d.pass(3600)
		d.must("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1_700_000_000 - jump})
		d.pass(30*day - 1)
		d.seen("a", "b")
		if got := kindOf(d.do("a", &catalog.PurgeFact{Pack: idOf(1), Study: true})[0]); got != "conflict" {
			t.Errorf("clock %d s wrong: purged within the grace: %s", jump, got)
		}
		if got := kindOf(d.do("a", &catalog.RestoreFact{Study: "1.1", Tick: 1_700_000_000 + jump})[0]); got != "taken" {
			t.Errorf("clock %d s wrong: restored within the grace: %s", jump, got)
		}
	}
}

func TestKeysAreForgottenLast(t *testing.T) {
	d := newDeletion(t)
	forget := &catalog.ForgetFact{Key: idOf(1)}
	want := func(node, want string) {
		t.Helper()
		if got := kindOf(d.do(node, forget)[0]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	want("a", "conflict") // nothing is deleted
	d.due()
	want("a", "conflict") // packs are under it
	d.must("a", &catalog.PurgeFact{Pack: idOf(1), Study: true}, &catalog.PurgeFact{Pack: idOf(2), Study: true})
	d.seen("a", "b")
	want("a", "conflict") // one is
	d.must("a", &catalog.PurgeFact{Pack: idOf(3), Study: true})
	d.seen("a")
	want("a", "conflict") // b has not dropped it
	d.seen("b")
	want("b", "denied") // it is a's
	hold := &catalog.RegistryFact{Kind: catalog.KindHold, Name: catalog.StudyHold("1.1"), Value: []byte("{}")}
	d.must("a", hold)
	want("a", "conflict")
	d.must("a", &catalog.RegistryFact{Kind: hold.Kind, Name: hold.Name})
	want("a", "taken")
	index := d.c.Applied()
	want("a", "taken") // again
	if got := kindOf(d.do("a", &catalog.ForgetFact{Key: idOf(7)})[0]); got != "not found" {
		t.Error(got)
	}
	v := d.c.View()
	if keys, err := v.KeysLeft("1.1"); len(keys) > 0 || err != nil {
		t.Error(keys, err)
	}
	v.Close()
	for k, err := range d.c.StudyKeys(t.Context(), 0) {
		t.Error(k.ID, err)
	}
	if gone, err := d.c.Forgotten(idOf(1)); !gone || err != nil || d.c.Sealed().Keys != 0 {
		t.Error(gone, err, d.c.Sealed())
	}
	last := catalog.Gone{}
	for g, err := range d.c.Gone(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = g
	}
	if last != (catalog.Gone{Index: index, IsKey: true, ID: idOf(1), Study: "1.1"}) {
		t.Errorf("%+v", last)
	}
	if got := kindOf(d.say("a", catalog.Batch{Keys: []*catalog.KeyFact{keyOf("a", "1.1", 1, 2)}})[0]); got != "conflict" {
		t.Errorf("the key is told again: %s", got)
	}
	verify(t, d.c)
}

// The key of a node that is gone is given up by others, of a study that is deleted as a
// whole.
func TestKeysOfWhoIsGone(t *testing.T) {
	d := newDeletion(t)
	d.due()
	d.must("b", &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")})
	for i := byte(1); i <= 3; i++ {
		d.must("b", &catalog.PurgeFact{Pack: idOf(i), Study: true})
	}
	d.seen("b")
	d.must("b", &catalog.ForgetFact{Key: idOf(1)})
	verify(t, d.c)
}

// However the same entries come, in one Apply or many, and whatever a node knows ahead
// of the log, nodes have the same state.
func TestNodesAgreeOnWhatIsPurged(t *testing.T) {
	d := newDeletion(t)
	d.must("a", &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: time.Hour, Away: 12 * time.Hour}.Encode()})
	d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.2", Tick: 3})
	d.pass(1800)
	d.do("a", &catalog.TombstoneFact{Study: "1.1", Tick: 1}, &catalog.PurgeFact{Pack: idOf(3), Series: true})
	d.seen("a", "b")
	d.pass(3600)
	d.must("b", &catalog.RegistryFact{Kind: catalog.KindHold, Name: catalog.PatientHold(catalog.PatientKey{ID: "P1"}), Value: []byte("{}")})
	for i := byte(1); i <= 4; i++ {
		d.do("a", &catalog.PurgeFact{Pack: idOf(i), Study: true}, &catalog.PurgeFact{Pack: idOf(i), Series: true})
	}
	d.seen("a", "b")
	d.say("a", catalog.Batch{Keys: []*catalog.KeyFact{keyOf("a", "1.1", 1, 2), keyOf("a", "1.1", 2, 2)}, Seals: []*catalog.SealFact{sealOf("a", "1.1", "1.1.1", 1, 2), sealOf("a", "1.1", "1.1.1", 9, 2)}})
	d.do("a", &catalog.ForgetFact{Key: idOf(1)}, &catalog.ForgetFact{Key: idOf(2)})
	want, index := d.c.StateHash()
	for _, size := range []int{1, 2, 3, 7, len(d.log)} {
		c := openMem(t, vfs.NewMem())
		if size == 3 {
			f := fact("a", "1.1", "1.1.3", 9, 4, values{dict.PatientID: "P7"})
			if err := c.Ahead([]*catalog.SeriesFact{f}); err != nil {
				t.Fatal(err)
			}
		}
		for part := range slices.Chunk(d.log, size) {
			if err := c.Apply(part, replication.Position{Index: part[len(part)-1].Index, Term: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if hash, at := c.StateHash(); hash != want || at != index {
			t.Errorf("%d entries at a time: %x at %d, want %x at %d", size, hash[:4], at, want[:4], index)
		}
		verify(t, c)
		c.Close()
	}
}

func TestPurgesAreGolden(t *testing.T) {
	d := newDeletion(t)
	d.due()
	commands := []catalog.Command{
		&catalog.TickFact{From: 2_595_600, To: 2_599_200},
		&catalog.SeenFact{Applied: 7, Dropped: 5},
		&catalog.PurgeFact{Pack: idOf(1), Study: true},
		&catalog.PurgeFact{Pack: idOf(2), Study: true, Series: true, Instances: []string{"1.1.1.1", "1.1.1.2"}},
		&catalog.ForgetFact{Key: idOf(1)},
	}
	entry, err := catalog.EncodeDecisionUnder([16]byte{9}, catalogtest.SignerOf("a"), "a", nil, commands)
	if err != nil {
		t.Fatal(err)
	}
	e, err := catalog.DecodeEntry(entry)
	if err != nil {
		t.Fatal(err)
	}
	again, err := catalog.EncodeDecisionUnder([16]byte{9}, catalogtest.SignerOf("a"), "a", nil, e.Decision.Commands)
	if err != nil || !bytes.Equal(again, entry) {
		t.Errorf("decoding and encoding again gives other bytes (%v)", err)
	}
	for i := byte(1); i <= 3; i++ {
		d.must("a", &catalog.PurgeFact{Pack: idOf(i), Study: true})
	}
	kept := catalog.Dump(d.c)
	d.seen("a", "b")
	d.must("a", &catalog.ForgetFact{Key: idOf(1)})
	var b bytes.Buffer
	fmt.Fprintf(&b, "%x\n", entry)
	for _, row := range append(kept, catalog.Dump(d.c)...) {
		if slices.Contains([]byte("tqlwbfi"), row[1]) {
			fmt.Fprintln(&b, row)
		}
	}
	goldenText(t, "purge.txt", b.String())
}

// An older reader stops at what it would skip.
func TestPurgesAreForReadersWhoKnowThem(t *testing.T) {
	for _, c := range []catalog.Command{&catalog.TickFact{To: 1}, &catalog.SeenFact{}, &catalog.PurgeFact{Pack: idOf(1), Study: true}, &catalog.ForgetFact{Key: idOf(1)}} {
		entry, err := catalog.EncodeDecision(catalogtest.SignerOf("a"), "a", nil, []catalog.Command{c})
		if err != nil || entry[2] != 0x10 || entry[3] != 4 {
			t.Fatalf("%T: %x, %v", c, entry[:4], err)
		}
		entry[3] = 2
		if _, err := catalog.DecodeEntry(entry); !fault.Is(err, fault.Invalid) {
			t.Errorf("%T for readers who do not know it: %v", c, err)
		}
	}
}

// A catalogue whose clock has begun opens as it was, and is none for older programs.
func TestAClockThatHasBegunIsRemembered(t *testing.T) {
	fs := vfs.NewMem()
	c := openMem(t, fs)
	decide := catalogtest.Alone(c)
	if _, err := decide.Decide(t.Context(), nil, &catalog.TickFact{To: 3600}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	if results, err := catalogtest.Alone(c).Decide(t.Context(), nil, &catalog.TombstoneFact{Study: "1.1", Tick: 5}); err != nil || results[0] != nil {
		t.Fatal(results, err)
	}
	for stone, err := range c.Tombstones(t.Context()) {
		if err != nil || stone.At != 3600 || stone.Index != c.Applied() {
			t.Errorf("%+v, %v", stone, err)
		}
	}
}
