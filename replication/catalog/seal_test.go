package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
)

func idOf(n byte) [16]byte { return [16]byte{n, 15: n} }

// keyOf is a key of a study; each epoch wraps it otherwise.
func keyOf(origin, study string, id byte, epoch uint32) *catalog.KeyFact {
	f := &catalog.KeyFact{Origin: origin, Study: study, ID: idOf(id), Epoch: epoch}
	for i := range f.Wrapped {
		f.Wrapped[i] = byte(7*i) ^ id ^ byte(epoch)
	}
	return f
}

// sealOf is a pack of 1+2 as its origin seals it at first, with changes.
func sealOf(by, study, series string, pack, key byte, changes ...func(*catalog.SealFact)) *catalog.SealFact {
	f := &catalog.SealFact{
		By: by, Study: study, Series: series, Stripe: shard.Stripe{Pack: idOf(pack), Generation: 1},
		Origin: by, Key: idOf(key), Size: 40_000 + int64(pack), Instances: 10, Code: shard.Code{K: 1, M: 2}, Layout: 3, Receipts: 0b011, Virtual: 0,
	}
	for i := range f.Root {
		f.Root[i] = byte(11*i) ^ pack
	}
	for _, change := range changes {
		change(f)
	}
	return f
}

// text is a seal as tests compare it.
func text(s catalog.Seal) string {
	b := fmt.Sprintf("%s %s %x.%d of %s by %s: %v of %d, root %x, key %x, %d instances, layout %d, receipts %b, virtual %d, elsewhere %v, revision %d, withdrawn %d",
		s.Study, s.Series, s.Stripe.Pack[0], s.Stripe.Generation, s.Origin, s.By, s.Code, s.Size, s.Root[:2], s.Key[0], s.Instances, s.Layout, s.Receipts, s.Virtual, s.Elsewhere, s.Revision, s.Withdrawn)
	if s.Deleted {
		b += ", deleted"
	}
	return b
}

// sealedAnswers is what a catalogue answers about keys and packs.
func sealedAnswers(t tester, c *catalog.Catalog) string {
	t.Helper()
	var b strings.Builder
	v := c.View()
	defer v.Close()
	for i := range 5 {
		study := fmt.Sprintf("1.%d", i)
		seals, err := v.Seals(study, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range seals {
			fmt.Fprintln(&b, text(s))
		}
		keys, err := v.Keys(study, "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, study, keys)
	}
	for seals, err := range v.Group(0, 1, [16]byte{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range seals {
			fmt.Fprintln(&b, text(s))
		}
	}
	for k, err := range c.StudyKeys(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, k)
	}
	return fmt.Sprintf("%s%+v", b.String(), c.Sealed())
}

// randomKey and randomSeal draw facts over few names: most fit together, some do not.
func randomKey(t *rapid.T) *catalog.KeyFact {
	n := rapid.ByteRange(1, 4).Draw(t, "key")
	f := keyOf([]string{"a", "b"}[n%2], fmt.Sprintf("1.%d", n), n, rapid.Uint32Range(1, 3).Draw(t, "epoch"))
	switch rapid.IntRange(0, 9).Draw(t, "twist") {
	case 0:
		f.Wrapped[0]++
	case 1:
		f.Study = "1.1"
	}
	return f
}

func randomSeal(t *rapid.T) *catalog.SealFact {
	n := rapid.ByteRange(1, 4).Draw(t, "key")
	f := sealOf([]string{"a", "b"}[n%2], fmt.Sprintf("1.%d", n), fmt.Sprintf("1.%d.%d", n, 1+n%3), n+10*rapid.ByteRange(0, 2).Draw(t, "pack"), n)
	if rapid.IntRange(0, 3).Draw(t, "by another") == 0 {
		f.By = "a"
	}
	f.Stripe.Generation = rapid.Uint32Range(1, 3).Draw(t, "generation")
	if f.Stripe.Generation > 1 {
		f.Code = shard.Code{K: 2, M: 2}
		f.Root[0] = byte(f.Stripe.Generation)
	}
	f.Receipts = rapid.Uint16Range(0, 1<<f.Code.N()-1).Draw(t, "receipts")
	f.Revision = rapid.Uint64Range(0, 3).Draw(t, "revision")
	f.Virtual = rapid.IntRange(catalog.NoShard, f.Code.N()-1).Draw(t, "virtual")
	if at := rapid.IntRange(0, 2*f.Code.N()).Draw(t, "elsewhere"); at < f.Code.N() {
		f.Elsewhere = []catalog.Elsewhere{{Shard: at, Node: "c"}}
	}
	f.Withdrawn = rapid.Uint32Range(0, f.Stripe.Generation-1).Draw(t, "withdrawn")
	f.Survives = rapid.IntRange(0, 2).Draw(t, "survives")
	switch rapid.IntRange(0, 19).Draw(t, "twist") {
	case 0:
		f.Root[1]++
	case 1:
		f.Size++
	case 2:
		f.Series = "1.1.1"
	case 3:
		f.Receipts = 0x8000
	}
	return f
}

// kinds names the kinds of results.
func kinds(results []error) string {
	var all []string
	for _, err := range results {
		if err == nil {
			all = append(all, "ok")
		} else {
			all = append(all, fault.KindOf(err).String())
		}
	}
	return strings.Join(all, ", ")
}

func TestWhatOfSealsIsTaken(t *testing.T) {
	seal := func(changes ...func(*catalog.SealFact)) *catalog.SealFact {
		return sealOf("a", "1.1", "1.1.1", 1, 1, changes...)
	}
	revision := func(n uint64) func(*catalog.SealFact) { return func(f *catalog.SealFact) { f.Revision = n } }
	receipts := func(bits uint16) func(*catalog.SealFact) { return func(f *catalog.SealFact) { f.Receipts = bits } }
	by := func(node string) func(*catalog.SealFact) { return func(f *catalog.SealFact) { f.By = node } }
	of := func(node string) func(*catalog.SealFact) { return func(f *catalog.SealFact) { f.Origin = node } }
	generation := func(g uint32) func(*catalog.SealFact) {
		return func(f *catalog.SealFact) {
			f.Stripe.Generation, f.Code, f.Root[0], f.Receipts = g, shard.Code{K: 2, M: 2}, byte(g), 0xF
		}
	}
	withdraw := func(to uint32, survives int) func(*catalog.SealFact) {
		return func(f *catalog.SealFact) { f.Withdrawn, f.Survives = to, survives }
	}
	other := func(change func(*catalog.SealFact)) func(*catalog.SealFact) { return change }
	key := keyOf("a", "1.1", 1, 1)
	for _, test := range []struct {
		rule  string
		facts []any
		want  string
		left  string // generations with receipts, of pack 1
	}{
		{"a seal needs its key", []any{seal()}, "not found", ""},
		{"a seal with its key is taken", []any{key, seal()}, "ok, ok", "1:11"},
		{"the key must be of the study and the origin", []any{key, keyOf("b", "1.2", 2, 1), sealOf("a", "1.1", "1.1.1", 1, 2), seal(by("b"), of("b"))}, "ok, ok, conflict, conflict", ""},
		{"the same may be told again", []any{key, seal(), seal()}, "ok, ok, ok", "1:11"},
		{"receipts grow by a higher revision", []any{key, seal(), seal(revision(1), receipts(0b111))}, "ok, ok, ok", "1:111"},
		{"receipts shrink by a higher revision", []any{key, seal(), seal(revision(1), receipts(0b001))}, "ok, ok, ok", "1:1"},
		{"an older revision changes nothing", []any{key, seal(revision(2)), seal(revision(1), receipts(0b111))}, "ok, ok, conflict", "1:11"},
		{"of two with one revision the first counts", []any{key, seal(), seal(receipts(0b111))}, "ok, ok, conflict", "1:11"},
		{"another node tells news of what it has read", []any{key, seal(), seal(by("b"), of("a"), revision(1), receipts(0b110))}, "ok, ok, ok", "1:110"},
		{"what its origin did not read of it is refused", []any{key, seal(), seal(by("b"), of("a"), revision(1), receipts(0b110)), seal(revision(1), receipts(0b111))}, "ok, ok, ok, conflict", "1:110"},
		{"another node stripes when the origin is gone", []any{key, seal(by("b"), of("a"))}, "ok, ok", "1:11"},
		{"another root under one name is refused", []any{key, seal(), seal(by("b"), of("a"), revision(1), other(func(f *catalog.SealFact) { f.Root[3]++ }))}, "ok, ok, conflict", "1:11"},
		{"another code under one name is refused", []any{key, seal(), seal(revision(1), other(func(f *catalog.SealFact) { f.Code.M = 3 }))}, "ok, ok, conflict", "1:11"},
		{"another length of a pack is refused", []any{key, seal(), seal(generation(2), other(func(f *catalog.SealFact) { f.Size++ }))}, "ok, ok, conflict", "1:11"},
		{"other instances of a pack are refused", []any{key, seal(), seal(generation(2), other(func(f *catalog.SealFact) { f.Instances++ }))}, "ok, ok, conflict", "1:11"},
		{"a pack is of one series", []any{key, seal(), sealOf("a", "1.1", "1.1.2", 1, 1)}, "ok, ok, conflict", "1:11"},
		{"a pack is of one study", []any{key, keyOf("a", "1.2", 2, 1), seal(), sealOf("a", "1.2", "1.1.1", 1, 2)}, "ok, ok, ok, conflict", "1:11"},
		{"generations stand beside each other", []any{key, seal(), seal(generation(2))}, "ok, ok, ok", "2:1111 1:11"},
		{"also when the earlier comes late", []any{key, seal(generation(2)), seal()}, "ok, ok, ok", "2:1111 1:11"},
		{"a later one withdraws an earlier", []any{key, seal(), seal(generation(2), withdraw(1, 2))}, "ok, ok, ok", "2:1111"},
		{"not with fewer receipts than it should have", []any{key, seal(), seal(generation(2), withdraw(1, 2), receipts(0b0111))}, "ok, ok, conflict", "1:11"},
		{"not with fewer to spare than the earlier", []any{key, seal(receipts(0b111)), seal(generation(2), withdraw(1, 1), receipts(0b0111))}, "ok, ok, conflict", "1:111"},
		{"unless its own code has not so many, and all are there", []any{key, seal(receipts(0b111)), seal(generation(2), withdraw(1, 1), receipts(0b111), other(func(f *catalog.SealFact) { f.Code.M = 1 }))}, "ok, ok, ok", "2:111"},
		{"not when it cannot be read itself", []any{key, seal(receipts(0)), seal(generation(2), withdraw(1, 0), receipts(0b0001))}, "ok, ok, conflict", "1:0"},
		{"what is withdrawn stays so", []any{key, seal(), seal(generation(2), withdraw(1, 2)), seal(revision(7)), seal(generation(2), revision(1))}, "ok, ok, ok, conflict, ok", "2:1111"},
		{"withdrawing twice is withdrawing once", []any{key, seal(), seal(generation(2), withdraw(1, 2)), seal(generation(2), withdraw(1, 2))}, "ok, ok, ok, ok", "2:1111"},
		{"also of what was not known", []any{key, seal(generation(3), withdraw(2, 2)), seal(generation(2)), seal()}, "ok, ok, conflict, conflict", "3:1111"},
		{"nothing withdraws itself", []any{key, seal(generation(2), withdraw(2, 0))}, "ok, invalid", ""},
		{"a stripe has no receipts beyond its shards", []any{key, seal(receipts(0b1000))}, "ok, invalid", ""},
		{"shards elsewhere ascend", []any{key, seal(other(func(f *catalog.SealFact) {
			f.Elsewhere = []catalog.Elsewhere{{Shard: 1, Node: "b"}, {Shard: 1, Node: "c"}}
		}))}, "ok, invalid", ""},
		{"shards elsewhere are of the stripe", []any{key, seal(other(func(f *catalog.SealFact) { f.Elsewhere = []catalog.Elsewhere{{Shard: 3, Node: "b"}} }))}, "ok, invalid", ""},
		{"a virtual shard is of the stripe", []any{key, seal(other(func(f *catalog.SealFact) { f.Virtual = 3 }))}, "ok, invalid", ""},
		{"there is no stripe without a generation", []any{key, seal(other(func(f *catalog.SealFact) { f.Stripe.Generation = 0 }))}, "ok, invalid", ""},
		{"columns have leaves", []any{key, seal(other(func(f *catalog.SealFact) { f.Code, f.Receipts = shard.Code{K: 4, M: 1}, 1 }))}, "ok, invalid", ""},
		{"a witness has no packs", []any{key, witness(func(m *catalogpb.Member) {}), sealOf("w", "1.1", "1.1.1", 1, 1, of("a")), keyOf("w", "1.1", 9, 1)}, "ok, ok, denied, denied", ""},
	} {
		t.Run(test.rule, func(t *testing.T) {
			c := openMem(t, vfs.NewMem())
			defer c.Close()
			var results []error
			for _, f := range test.facts {
				results = append(results, apply(t, c, f)...)
			}
			if got := kinds(results); got != test.want {
				t.Errorf("results %s, want %s", got, test.want)
			}
			verify(t, c)
			v := c.View()
			defer v.Close()
			seals, err := v.Pack(idOf(1))
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, s := range seals {
				left = append(left, fmt.Sprintf("%d:%b", s.Stripe.Generation, s.Receipts))
				if one, ok, err := v.Stripe(s.Stripe); err != nil || !ok || text(one) != text(s) {
					t.Errorf("its stripe: %s, %t, %v, want %s", text(one), ok, err, text(s))
				}
			}
			if got := strings.Join(left, " "); got != test.left {
				t.Errorf("left are %q, want %q", got, test.left)
			}
		})
	}
}

func TestWhatOfKeysIsTaken(t *testing.T) {
	twisted := keyOf("a", "1.1", 1, 1)
	twisted.Wrapped[9]++
	for _, test := range []struct {
		rule  string
		facts []any
		want  string
		left  string // places and epochs
	}{
		{"a key is told", []any{keyOf("a", "1.1", 1, 1)}, "ok", "1:1"},
		{"the same may be told again", []any{keyOf("a", "1.1", 1, 1), keyOf("a", "1.1", 1, 1)}, "ok, ok", "1:1"},
		{"a later epoch takes the place of the earlier", []any{keyOf("a", "1.1", 1, 1), keyOf("b", "1.1", 2, 1), keyOf("a", "1.1", 1, 2)}, "ok, ok, ok", "2:1 3:2"},
		{"an earlier epoch changes nothing", []any{keyOf("a", "1.1", 1, 2), keyOf("a", "1.1", 1, 1)}, "ok, ok", "1:2"},
		{"of two wrappings of one epoch the first counts", []any{keyOf("a", "1.1", 1, 1), twisted}, "ok, conflict", "1:1"},
		{"an id is of one study", []any{keyOf("a", "1.1", 1, 1), keyOf("a", "1.2", 1, 2)}, "ok, conflict", "1:1"},
		{"an id is of one origin", []any{keyOf("a", "1.1", 1, 1), keyOf("b", "1.1", 1, 2)}, "ok, conflict", "1:1"},
		{"epochs begin with 1", []any{keyOf("a", "1.1", 1, 0)}, "invalid", ""},
	} {
		t.Run(test.rule, func(t *testing.T) {
			c := openMem(t, vfs.NewMem())
			defer c.Close()
			if got := kinds(apply(t, c, test.facts...)); got != test.want {
				t.Errorf("results %s, want %s", got, test.want)
			}
			verify(t, c)
			var left []string
			for k, err := range c.StudyKeys(t.Context(), 0) {
				if err != nil {
					t.Fatal(err)
				}
				left = append(left, fmt.Sprintf("%d:%d", k.At, k.Epoch))
			}
			if got := strings.Join(left, " "); got != test.left {
				t.Errorf("left are %q, want %q", got, test.left)
			}
		})
	}
}

// Whatever comes, in whatever order and by whomever: what a stripe is made of never
// changes, and none goes but by the word of a later one that stands.
func TestStripesStayAsTheyAreUntilTheyAreReplaced(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := openMem(t, vfs.NewMem())
		defer c.Close()
		for n := byte(1); n <= 4; n++ {
			apply(rt, c, keyOf([]string{"a", "b"}[n%2], fmt.Sprintf("1.%d", n), n, 1))
		}
		known := map[shard.Stripe]catalog.Seal{}
		for range rapid.IntRange(1, 40).Draw(rt, "facts") {
			apply(rt, c, randomSeal(rt))
			v := c.View()
			now := map[shard.Stripe]catalog.Seal{}
			withdrawn := map[[16]byte]uint32{}
			for seals, err := range v.Group(0, 1, [16]byte{}) {
				if err != nil {
					rt.Fatal(err)
				}
				for _, s := range seals {
					now[s.Stripe], withdrawn[s.Stripe.Pack] = s, s.Withdrawn
				}
			}
			v.Close()
			for stripe, was := range known {
				is, ok := now[stripe]
				switch {
				case !ok && stripe.Generation > withdrawn[stripe.Pack]:
					rt.Fatalf("%v is gone, withdrawn up to %d", stripe, withdrawn[stripe.Pack])
				case ok && (is.Root != was.Root || is.Code != was.Code || is.Size != was.Size || is.Key != was.Key || is.Origin != was.Origin || is.Series != was.Series):
					rt.Fatalf("%s became %s", text(was), text(is))
				case ok && is.Revision < was.Revision:
					rt.Fatalf("%s went back to %s", text(was), text(is))
				}
			}
			known = now
		}
		verify(rt, c)
	})
}

// Of a deleted study readers see no seals and no keys, and who looks after shards sees
// that it is deleted; what is restored, or accepted after, is back.
func TestSealsOfWhatIsDeletedAreHiddenAndStay(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c, keyOf("a", "1.1", 1, 1), sealOf("a", "1.1", "1.1.1", 1, 1), sealOf("a", "1.1", "1.1.2", 2, 1))
	seen := func() string {
		t.Helper()
		verify(t, c)
		v := c.View()
		defer v.Close()
		seals, err := v.Seals("1.1", "")
		keys, err2 := v.Keys("1.1", "a")
		_, byID, err3 := v.Key(idOf(1))
		second, ok, err4 := v.Stripe(shard.Stripe{Pack: idOf(2), Generation: 1})
		if err := errors.Join(err, err2, err3, err4); err != nil || !ok {
			t.Fatal(err, ok)
		}
		all := 0
		for range c.StudyKeys(t.Context(), 0) {
			all++
		}
		if all != 1 || c.Sealed().Packs != 2 || c.Sealed().Bytes != 80_003 {
			t.Errorf("%d keys are copied, %+v", all, c.Sealed())
		}
		return fmt.Sprintf("%d seals, %d keys, %t; the second deleted %t", len(seals), len(keys), byID, second.Deleted)
	}
	for _, step := range []struct {
		change any
		want   string
	}{
		{&catalog.TombstoneFact{Study: "1.9", Tick: 1}, "2 seals, 1 keys, true; the second deleted false"},
		{&catalog.TombstoneFact{Study: "1.1", Series: "1.1.2", Tick: 1}, "1 seals, 1 keys, true; the second deleted true"},
		{&catalog.TombstoneFact{Study: "1.1", Tick: 1}, "0 seals, 0 keys, false; the second deleted true"},
		{acceptance("1.1", "1.1.1", "1.1.1.1"), "1 seals, 1 keys, true; the second deleted true"},
		{&catalog.TombstoneFact{Study: "1.1", Tick: 2}, "0 seals, 0 keys, false; the second deleted true"},
		{&catalog.RestoreFact{Study: "1.1", Tick: 3}, "1 seals, 1 keys, true; the second deleted true"},
		{&catalog.RestoreFact{Study: "1.1", Series: "1.1.2", Tick: 3}, "2 seals, 1 keys, true; the second deleted false"},
	} {
		if err := apply(t, c, step.change)[0]; err != nil {
			t.Fatal(err)
		}
		if got := seen(); got != step.want {
			t.Errorf("after %+v: %s, want %s", step.change, got, step.want)
		}
	}
}

// A placement group is one run of packs, of which more groups are parts, and a walk
// goes on where another ended.
func TestGroupsAreWalkedInParts(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	const packs = 300
	changes := []any{keyOf("a", "1.1", 1, 1)}
	for i := range packs {
		f := sealOf("a", "1.1", fmt.Sprintf("1.1.%d", i%7), 1, 1)
		f.Stripe.Pack = [16]byte{byte(i), byte(i >> 8), 1}
		changes = append(changes, f)
	}
	apply(t, c, changes...)
	verify(t, c)
	for _, groups := range []int{1, 2, 64, 1024} {
		var all [][16]byte
		for group := range groups {
			behind := [16]byte{}
			for {
				v, n := c.View(), 0
				for seals, err := range v.Group(group, groups, behind) {
					if err != nil {
						t.Fatal(err)
					}
					if n++; n > 10 {
						break
					}
					behind = seals[0].Stripe.Pack
					if all = append(all, behind); shard.Group(behind, groups) != group {
						t.Fatalf("a pack of group %d of %d is in %d", shard.Group(behind, groups), groups, group)
					}
				}
				v.Close()
				if n <= 10 {
					break
				}
			}
		}
		if len(all) != packs || !slices.IsSortedFunc(all, func(a, b [16]byte) int {
			if shard.Spread(a) < shard.Spread(b) {
				return -1
			}
			return 1
		}) {
			t.Errorf("of %d groups: %d packs, or not in order", groups, len(all))
		}
	}
	v := c.View()
	defer v.Close()
	for _, bad := range [][2]int{{0, 0}, {0, 3}, {2, 2}, {-1, 2}} {
		for _, err := range v.Group(bad[0], bad[1], [16]byte{}) {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("group %d of %d: %v", bad[0], bad[1], err)
			}
		}
	}
}

// Who copies keys hears of each once, wherever it goes on, and of new wrappings again.
func TestKeysComeInTheOrderOfCommit(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	const keys = 1200 // several reads
	for i := range keys {
		f := keyOf("a", fmt.Sprintf("1.%d", i%9), 0, 1)
		f.ID = [16]byte{byte(i), byte(i >> 8), 1}
		apply(t, c, f)
	}
	heard := map[[16]byte]uint32{}
	last := uint64(0)
	listen := func(most int) {
		t.Helper()
		for k, err := range c.StudyKeys(t.Context(), last) {
			if err != nil || k.At <= last {
				t.Fatalf("at %d after %d: %v", k.At, last, err)
			}
			if heard[k.ID] == k.Epoch {
				t.Fatal("heard twice")
			}
			if last, heard[k.ID] = k.At, k.Epoch; most > 0 {
				if most--; most == 0 {
					return
				}
			}
		}
	}
	listen(700)
	listen(0)
	if len(heard) != keys || last != keys {
		t.Errorf("%d keys up to %d", len(heard), last)
	}
	again := keyOf("a", "1.3", 0, 2)
	again.ID = [16]byte{3, 0, 1}
	apply(t, c, again)
	listen(0)
	if heard[again.ID] != 2 || last != keys+1 || c.Sealed().Keys != keys {
		t.Errorf("wrapped anew: %d, up to %d, %+v", heard[again.ID], last, c.Sealed())
	}
	verify(t, c)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.StudyKeys(canceled, 0) {
		if err == nil {
			t.Error("who has gone hears a key")
		}
	}
}

func TestSealedPacksAreCountedByWhatTheySurvive(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	with := func(pack byte, revision uint64, receipts uint16) *catalog.SealFact {
		return sealOf("a", "1.1", "1.1.1", pack, 1, func(f *catalog.SealFact) { f.Revision, f.Receipts = revision, receipts })
	}
	apply(t, c, keyOf("a", "1.1", 1, 1), with(1, 0, 0b001), with(2, 0, 0b111), with(3, 0, 0b011), with(4, 0, 0))
	surviving := func(want ...uint64) {
		t.Helper()
		s := c.Sealed()
		for lost, packs := range want {
			if got := s.Surviving(lost); got.Packs != packs {
				t.Errorf("%d packs survive the loss of %d, want %d", got.Packs, lost, packs)
			}
		}
		if s.Packs != 4 || s.Bytes != 160_010 {
			t.Errorf("%+v", s)
		}
	}
	surviving(3, 2, 1, 0)
	apply(t, c, with(1, 1, 0b111), with(3, 1, 0))
	surviving(2, 2, 2, 0)
	grown := sealOf("a", "1.1", "1.1.1", 3, 1, func(f *catalog.SealFact) {
		f.Stripe.Generation, f.Code, f.Receipts = 2, shard.Code{K: 2, M: 2}, 0b0111
	})
	apply(t, c, grown)
	surviving(3, 3, 2, 0)
	verify(t, c)
}

// News of a seal leaves out what is fixed, and says the same.
func TestNewsIsShort(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	f := sealOf("a", "1.1", "1.1.1", 1, 1)
	short := func(f *catalog.SealFact) *catalog.SealFact {
		t.Helper()
		news, err := c.News(f)
		if err != nil {
			t.Fatal(err)
		}
		return news
	}
	bytes := func(f *catalog.SealFact) int {
		t.Helper()
		entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), catalog.Batch{Node: "a", Site: "s", Incarnation: 1, Number: 1, Seals: []*catalog.SealFact{f}}, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return len(entry)
	}
	if news := short(f); news != f {
		t.Error("what nobody knows is told as news")
	}
	apply(t, c, keyOf("a", "1.1", 1, 1), f)
	if news := short(f); news != nil {
		t.Error("what is known is told")
	}
	next := sealOf("a", "1.1", "1.1.1", 1, 1, func(f *catalog.SealFact) { f.Revision, f.Receipts = 1, 0b111 })
	news := short(next)
	if news == nil || !news.IsNews() {
		t.Fatal("what has changed is not told as news")
	}
	if short, long := bytes(news), bytes(next); long-short < 55 {
		t.Errorf("news takes %d bytes, all of it %d", short, long)
	}
	if got := kinds(apply(t, c, news)); got != "ok" {
		t.Error(got)
	}
	if short(next) != nil {
		t.Error("news is not known")
	}
	lie := *next
	lie.Root[0]++
	if news := short(&lie); news != &lie || kinds(apply(t, c, news)) != "conflict" {
		t.Error("what contradicts is not told in full, or taken")
	}
	unknown := sealOf("a", "1.1", "1.1.1", 2, 1)
	apply(t, c, unknown)
	entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), catalog.Batch{Node: "a", Site: "s", Incarnation: 1, Number: 1, Seals: []*catalog.SealFact{news}}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := catalog.DecodeEntry(entry)
	if err != nil || !e.Batch.Seals[0].IsNews() {
		t.Fatal(err)
	}
	empty := openMem(t, vfs.NewMem())
	defer empty.Close()
	if got := kinds(apply(t, empty, keyOf("a", "1.1", 1, 1), news)); got != "ok, not found" {
		t.Errorf("news of nothing: %s", got)
	}
	if key, err := c.LacksKey(keyOf("a", "1.1", 1, 1)); err != nil || key {
		t.Error("a known key is lacking", err)
	}
	if key, err := c.LacksKey(keyOf("a", "1.1", 1, 2)); err != nil || !key {
		t.Error("a new wrapping is not lacking", err)
	}
}

// Nodes that tell of each other's packs, again and out of turn, agree at every index,
// however the log is cut into runs, and a copy of one goes on like it.
func TestNodesAgreeOnSealsAtEveryIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNetwork(rt, "a", "b", "c")
		defer n.close()
		hashes := map[uint64][32]byte{}
		note := func(c *catalog.Catalog) {
			hash, index := c.StateHash()
			if known, ok := hashes[index]; ok && known != hash {
				rt.Fatalf("two hashes at %d", index)
			}
			hashes[index] = hash
		}
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			m := n.members[rapid.IntRange(0, 2).Draw(rt, "member")]
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1, 2, 3:
				var keys []*catalog.KeyFact
				var seals []*catalog.SealFact
				for range rapid.IntRange(0, 2).Draw(rt, "keys") {
					f := randomKey(rt)
					f.Origin = m.name
					keys = append(keys, f)
				}
				for range rapid.IntRange(0, 3).Draw(rt, "seals") {
					f := randomSeal(rt)
					f.By = m.name
					seals = append(seals, f)
				}
				n.seal(m, keys, seals)
				n.commit(m)
			case 4: // an entry that is in the log twice
				data := n.log[rapid.IntRange(0, len(n.log)-1).Draw(rt, "entry")].Data
				n.append(data, data)
			case 5:
				n.catchUp(m, rapid.IntRange(1, 6).Draw(rt, "entries"))
				note(m.c)
			case 6:
				m.restart(rt)
			}
		}
		plain := n.plain(nil, 0)
		defer plain.Close()
		for i, e := range n.log {
			if err := plain.Apply(n.log[i:i+1], replication.Position{Index: e.Index, Term: 1}); err != nil {
				rt.Fatal(err)
			}
			note(plain)
		}
		verify(rt, plain)
		for _, m := range n.members {
			n.catchUp(m, len(n.log))
			note(m.c)
			verify(rt, m.c)
			if got, want := catalog.Dump(m.c), catalog.Dump(plain); !slices.Equal(got, want) {
				rt.Fatalf("rows differ:\n%v\n%v", got, want)
			}
		}
	})
}

// An entry that says less than it holds of who may read it would part older nodes
// from newer ones.
func TestSealsAreForReadersWhoKnowThem(t *testing.T) {
	entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), catalog.Batch{
		Node: "a", Site: "s", Incarnation: 1, Number: 1, Keys: []*catalog.KeyFact{keyOf("a", "1.1", 1, 1)},
	}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if entry[2] != 0x10 || entry[3] != 3 {
		t.Fatalf("min_reader is not 3: %x", entry[:4])
	}
	entry[3] = 2
	if _, err := catalog.DecodeEntry(entry); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key for readers of version 2: %v", err)
	}
	plain, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), catalog.Batch{Node: "a", Site: "s", Incarnation: 1, Number: 1}, [32]byte{})
	if err != nil || plain[3] != 2 {
		t.Errorf("a batch without either is not for readers of version 2: %v", err)
	}
}
