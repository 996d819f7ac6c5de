package reach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/query"
	"pelago/replication/catalog"
)

func uids(all []dimsetest.Instance) (study, series string) {
	return all[0].StudyInstanceUID, all[0].SeriesInstanceUID
}

func TestAStudyOfAnotherSiteOpensByteForByte(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed %t", packed), func(t *testing.T) {
			n := newNetwork(t, "a", "b")
			all := images(1, 0, 12)
			study, series := uids(all)
			a, b := n.sites["a"], n.sites["b"]
			a.store(all...)
			if packed {
				a.pack()
			}
			a.announce(study, series, "b")
			b.same(study, "", "", all...)
			b.same(study, series, "", all...)
			b.same("", series, "", all...)
			b.same(study, series, all[3].SOPInstanceUID, all[3])
			b.same(study, "", all[3].SOPInstanceUID, all[3])
			b.same("", "", all[3].SOPInstanceUID, all[3])
			a.same(study, "", "", all...)
			if got := n.asked.Load(); got > 5 {
				t.Errorf("%d manifests were asked for", got) // one, and two by SOP Instance UID, each asked in two steps here
			}
		})
	}
}

func TestWhatIsWholeHereAsksNobody(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 6)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	b.store(all...)
	a.announce(study, series, "b")
	b.same(study, "", "", all...)
	b.same(study, series, all[2].SOPInstanceUID, all[2])
	if got := n.asked.Load(); got != 0 {
		t.Errorf("%d manifests were asked for", got)
	}
	for ref, err := range b.reader.Select(context.Background(), study, "", "") {
		if err != nil || ref.Origin != "" {
			t.Errorf("%+v, %v", ref, err)
		}
	}
}

func TestASeriesOfManyOriginsIsListedOnceInOrder(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all[:6]...)
	a.pack()
	c.store(all[4:]...)
	b.store(all[5:6]...)
	c.announce(study, series, "b")
	a.announce(study, series, "b")
	b.same(study, "", "", all...)
	var sops []string
	from := map[string]int{}
	for ref, err := range b.reader.Select(context.Background(), study, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		sops = append(sops, ref.SOP)
		from[ref.Origin]++
	}
	if !slices.IsSorted(sops) || len(slices.Compact(slices.Clone(sops))) != len(sops) {
		t.Errorf("listed as %v", sops)
	}
	if from[""] != 1 || from["c"] != 4 || from["a"] != 4 { // 4 is at both: c announced first
		t.Errorf("by origin %v", from)
	}
}

func TestHeadersNeedNoBytes(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 5)
	study, series := uids(all)
	n.sites["a"].store(all...)
	n.sites["a"].pack()
	n.sites["a"].announce(study, series, "b")
	b := n.sites["b"]
	for ref, err := range b.reader.Select(context.Background(), study, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		h, err := b.reader.Headers(context.Background(), ref)
		if err != nil || h.Dataset.String(dict.SOPInstanceUID) != ref.SOP {
			t.Errorf("%s: %v", ref.SOP, err)
		}
	}
	if n.asked.Load() != 1 || n.ranges.Load() != 0 {
		t.Errorf("%d manifests, %d reads of packs", n.asked.Load(), n.ranges.Load())
	}
}

func TestWhatWasOpenedOpensWithoutItsSite(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 20)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	b.same(study, "", "", all...)
	b.settle(study, series, "a")
	n.cut("a", true)
	b.same(study, "", "", all...)
	b.restart()
	b.same(study, "", "", all...)
	if hits, misses := b.copies.Counters().Hits.Load(), b.copies.Counters().Misses.Load(); hits == 0 || misses != 0 {
		t.Errorf("%d reads were answered by copies, %d not", hits, misses)
	}
	b.same(study, series, all[7].SOPInstanceUID, all[7])
	if got := b.reader.Instances(b.archive.Instances()).Availability(context.Background(), study, "", 0); got != query.Online {
		t.Errorf("availability %s", got)
	}
}

func TestWhatNobodyTellsOfIsMissing(t *testing.T) {
	for _, unsure := range []bool{false, true} {
		n := newNetwork(t, "a", "b", "c")
		all := images(1, 0, 8)
		study, series := uids(all)
		a, b := n.sites["a"], n.sites["b"]
		b.unsure.Store(unsure)
		a.store(all...)
		b.store(all[:3]...)
		a.announce(study, series, "b")
		n.cut("a", true)
		got, failed := b.read(study, "", "")
		var missing *archive.Missing
		if len(got) != 3 || len(failed) != 1 || !errors.As(failed[0], &missing) || missing.Instances != 5 || !fault.Is(failed[0], fault.Unavailable) {
			t.Errorf("%d instances, %v", len(got), failed)
		}
		for _, by := range [][3]string{{study, series}, {study, ""}, {"", ""}} {
			if _, failed := b.read(by[0], by[1], all[5].SOPInstanceUID); len(failed) != 1 || !fault.Is(failed[0], fault.Unavailable) {
				t.Errorf("by %v: %v", by, failed)
			}
		}
		if got := b.reader.Instances(b.archive.Instances()).Availability(context.Background(), study, "", 0); got == query.Online && !unsure {
			t.Errorf("availability %s", got)
		}
		n.cut("a", false)
		if unsure {
			continue // it is not asked again for some seconds
		}
		b.same(study, "", "", all...)
	}
}

func TestAKnownSeriesWhoseBytesNobodyGivesIsListed(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 8)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	for range b.reader.Select(context.Background(), study, "", "") {
	}
	n.cut("a", true)
	listed := 0
	for ref, err := range b.reader.Select(context.Background(), study, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		listed++
		if _, err := b.reader.Open(context.Background(), ref); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", ref.SOP, err)
		}
		if _, err := b.reader.Headers(context.Background(), ref); err != nil {
			t.Errorf("%s: %v", ref.SOP, err)
		}
	}
	if listed != len(all) {
		t.Errorf("%d listed", listed)
	}
}

func TestInstancesOfLostPacksAreListedAndComeFromElsewhere(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all[:6]...)
	a.pack()
	a.loseTables()
	a.store(all[6:]...)
	c.store(all[:4]...)
	a.announce(study, series, "b")
	got, failed := b.read(study, "", "")
	if len(got) != 3 || len(failed) != 6 {
		t.Errorf("of 3 instances and 6 that are lost: %d and %d", len(got), len(failed))
	}
	for _, err := range failed {
		if !fault.Is(err, fault.Corrupt) {
			t.Errorf("of a lost one: %v", err)
		}
	}
	if _, failed := b.read("", "", all[5].SOPInstanceUID); len(failed) != 1 || !fault.Is(failed[0], fault.Corrupt) {
		t.Errorf("of a lost one by its name: %v", failed)
	}
	c.announce(study, series, "b")
	if got, failed := b.read(study, "", ""); len(got) != 7 || len(failed) != 2 {
		t.Errorf("of 3 instances, 4 of another site, and 2 that are lost: %d and %d, %v", len(got), len(failed), failed)
	}
}

func TestInstancesByTheirOwnNamesShareAManifest(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 40)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.announce(study, series, "b")
	for _, in := range all {
		b.same("", "", in.SOPInstanceUID, in)
	}
	for _, in := range all {
		b.same(study, "", in.SOPInstanceUID, in)
	}
	// Each of two others is asked once, and the one that has it for the series' name.
	if got := n.asked.Load(); got > 3 {
		t.Errorf("%d manifests were asked for", got)
	}
	if _, failed := b.read("", "", "1.2.3"); len(failed) != 1 || !fault.Is(failed[0], fault.NotFound) {
		t.Errorf("what nobody has: %v", failed)
	}
	if err := b.archive.Delete(context.Background(), study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	if _, failed := b.read("", "", all[0].SOPInstanceUID); len(failed) != 1 || !fault.Is(failed[0], fault.NotFound) {
		t.Errorf("what is deleted: %v", failed)
	}
}

func TestTheSameInstanceAtAnotherSiteIsAsGood(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 8)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all...)
	a.pack()
	c.store(all...)
	c.pack()
	a.announce(study, series, "b")
	c.announce(study, series, "b")
	var refs []archive.Ref
	for ref, err := range b.reader.Select(context.Background(), study, "", "") {
		if err != nil || ref.Origin != "a" {
			t.Fatalf("%+v, %v", ref, err)
		}
		refs = append(refs, ref)
	}
	// One is being read while its site goes.
	in, err := b.reader.Open(context.Background(), refs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	n.cut("a", true)
	whole := make([]byte, refs[0].Bytes)
	if _, err := in.Stored().ReadAt(whole, 0); err != nil || string(whole) != string(all[0].Dataset()) {
		t.Errorf("after its site went: %v", err)
	}
	for i, ref := range refs {
		if got, err := b.open(ref); err != nil || string(got) != string(all[i].Dataset()) {
			t.Errorf("%s: %v", ref.SOP, err)
		}
	}
	b.same(study, "", "", all...)
}

func TestACopyAtAnotherSiteServesWhenTheOriginIsAway(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 8)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b", "c")
	c.same(study, "", "", all...)
	c.settle(study, series, "a")
	for range b.reader.Select(context.Background(), study, "", "") { // the manifest is here, no bytes are
	}
	n.cut("a", true)
	b.same(study, "", "", all...)
}

func TestWhatWasReadAtOneSiteOpensAtAnotherWithoutItsOrigin(t *testing.T) {
	for _, unsure := range []bool{false, true} {
		t.Run(fmt.Sprintf("gossip has not noticed %t", unsure), func(t *testing.T) {
			n := newNetwork(t, "a", "b", "c", "d")
			all := images(1, 0, 20)
			study, series := uids(all)
			a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
			a.store(all...)
			a.pack()
			a.announce(study, series, "b", "c")
			c.same(study, "", "", all...)
			c.settle(study, series, "a")
			n.cut("a", true)
			c.restart()
			b.unsure.Store(unsure)
			b.same(study, series, all[7].SOPInstanceUID, all[7])
			b.same(study, "", "", all...)
			asked := n.asked.Load()
			b.same(study, "", "", all...)
			if now := n.asked.Load(); now > asked && !unsure {
				t.Errorf("%d manifests were asked for again", now-asked)
			}
		})
	}
}

func TestWhatWasToldOfLessIsNotTakenForAll(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all[:6]...)
	a.pack()
	a.announce(study, series, "c")
	c.same(study, "", "", all[:6]...)
	c.settle(study, series, "a")
	a.store(all[6:]...)
	a.announce(study, series, "b")
	n.cut("a", true)
	c.delete(study, series, all[2].SOPInstanceUID) // c does not tell of it
	got, failed := b.read(study, "", "")
	var missing *archive.Missing
	if len(got) != 5 || len(failed) != 1 || !errors.As(failed[0], &missing) || missing.Instances != 4 {
		t.Errorf("%d instances, %v", len(got), failed)
	}
	n.cut("a", false)
	b.same(study, "", "", all...)
}

func TestWhatIsDeletedIsNotOpenedAndItsCopiesGo(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all, others := images(1, 0, 6), images(2, 0, 6)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.store(others...)
	a.pack()
	a.announce(study, series, "b")
	a.announce(others[0].StudyInstanceUID, others[0].SeriesInstanceUID, "b")
	b.same(study, "", "", all...)
	b.same(others[0].StudyInstanceUID, "", "", others...)
	b.settle(study, series, "a")
	b.settle(others[0].StudyInstanceUID, others[0].SeriesInstanceUID, "a")
	both := b.copies.Bytes()
	b.delete(study, series, all[2].SOPInstanceUID)
	b.same(study, "", "", append(slices.Clone(all[:2]), all[3:]...)...)
	if got, failed := b.read(study, series, all[2].SOPInstanceUID); len(got) > 0 || !fault.Is(failed[0], fault.NotFound) {
		t.Errorf("%d instances, %v", len(got), failed)
	}
	if got, failed := b.read("", "", all[2].SOPInstanceUID); len(got) > 0 || !fault.Is(failed[0], fault.NotFound) {
		t.Errorf("by its UID alone: %d instances, %v", len(got), failed)
	}
	b.delete(study, "", "")
	if got, failed := b.read(study, "", ""); len(got) > 0 || !fault.Is(failed[0], fault.NotFound) {
		t.Errorf("%d instances, %v", len(got), failed)
	}
	if err := b.reader.DropDeleted(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := b.copies.Bytes(); left == 0 || left >= both {
		t.Errorf("%d bytes are kept, of %d before", left, both)
	}
	if _, err := b.copies.Recall(study, series, "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("the manifest is still there: %v", err)
	}
	b.same(others[0].StudyInstanceUID, "", "", others...)
}

func TestASeriesThatGrowsIsAskedForAgain(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all[:4]...)
	a.announce(study, series, "b")
	b.same(study, "", "", all[:4]...)
	b.same(study, "", "", all[:4]...)
	if got := n.asked.Load(); got != 1 {
		t.Errorf("%d manifests were asked for", got)
	}
	a.store(all[4:]...)
	a.announce(study, series, "b")
	b.same(study, "", "", all...)
	if got := n.asked.Load(); got != 2 {
		t.Errorf("%d manifests were asked for", got)
	}
	// What the node told before is of use while it is away.
	a.store(images(1, 9, 3)...)
	a.announce(study, series, "b")
	n.cut("a", true)
	listed, missing := 0, 0
	for _, err := range b.reader.Select(context.Background(), study, "", "") {
		var m *archive.Missing
		if errors.As(err, &m) {
			missing += m.Instances
		} else if err == nil {
			listed++
		}
	}
	if listed != 9 || missing != 3 {
		t.Errorf("%d listed, %d missing", listed, missing)
	}
}

func TestReadersAtOnceShareManifests(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 10)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() { b.same(study, "", "", all...) })
	}
	readers.Wait()
	if got := n.asked.Load(); got > 8 {
		t.Errorf("%d manifests were asked for", got)
	}
	b.settle(study, series, "a")
	before := n.ranges.Load()
	b.same(study, "", "", all...)
	if n.ranges.Load() != before {
		t.Error("what is kept was read from afar")
	}
}

// pieces is a reader that writes ranges from its own memory, a few bytes at a time,
// until it breaks.
type pieces struct {
	content []byte
	breaks  int64 // from here on
}

func (p pieces) ReadAt(b []byte, off int64) (int, error) { return readerAt(p.content).ReadAt(b, off) }

func (p pieces) WriteRange(w io.Writer, off, length int64) error {
	for length > 0 {
		if off >= p.breaks {
			return fault.New(fault.Unavailable, "it broke")
		}
		n := min(7, length, p.breaks-off)
		if _, err := w.Write(p.content[off : off+n]); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// takesNothing is a writer that fails.
type takesNothing struct{ err error }

func (t takesNothing) Write([]byte) (int, error) { return 0, t.err }

// What writes from memory does so through all that is wrapped around it; another
// source goes on where one breaks, and what is not what was stored is not sent to
// its end.
func TestRangesAreWrittenFromWhereTheyRest(t *testing.T) {
	content := []byte("an instance that is somewhat longer than a word")
	size := int64(len(content))
	whole := &pieces{content, size}
	reads := func(v io.ReaderAt, off, length int64) (string, error) {
		ranges, ok := v.(ranger)
		if !ok {
			t.Fatal("it copies")
		}
		var b bytes.Buffer
		err := ranges.WriteRange(&b, off, length)
		return b.String(), err
	}
	none := func(failed error) (io.ReaderAt, error) { return nil, failed }
	for _, test := range []struct {
		name        string
		stored      io.ReaderAt
		off, length int64
		want        string
		kind        fault.Kind
	}{
		{"whole", anyOf(whole, none), 0, size, string(content), 0},
		{"a range", anyOf(whole, none), 3, 20, string(content[3:23]), 0},
		{"the next one goes on", anyOf(&pieces{content, 12}, func(error) (io.ReaderAt, error) { return whole, nil }), 2, 30, string(content[2:32]), 0},
		{"so does one that only reads", anyOf(&pieces{content, 12}, func(error) (io.ReaderAt, error) { return readerAt(content), nil }), 0, size, string(content), 0},
		{"there is none", anyOf(&pieces{content, 12}, none), 0, size, string(content[:12]), fault.Unavailable},
		{"other bytes", anyOf(&pieces{append([]byte("X"), content[1:]...), size}, none), 0, size, "Xn instance that is somewhat longer than a ", fault.Corrupt},
	} {
		got, err := reads(verify(test.stored, size, hashOf(content)), test.off, test.length)
		if !strings.HasPrefix(test.want, got) || len(got) < len(test.want)-6 || fault.KindOf(err) != test.kind && (err != nil || test.kind != 0) {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
		if err == nil && got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	full := errors.New("full")
	asked := false
	v := anyOf(whole, func(failed error) (io.ReaderAt, error) { asked = true; return nil, failed })
	if err := v.(ranger).WriteRange(takesNothing{full}, 0, size); !errors.Is(err, full) || asked {
		t.Errorf("who takes nothing: %v, another asked %t", err, asked)
	}
	if _, ok := anyOf(readerAt(content), none).(ranger); ok {
		t.Error("what only reads writes ranges")
	}
}

func TestWhatIsReadWholeIsHashed(t *testing.T) {
	content := []byte("an instance that is somewhat longer than a word")
	want := hashOf(content)
	for _, test := range []struct {
		name string
		sent []byte
		fine bool
	}{
		{"what was stored", content, true},
		{"other bytes", append([]byte("X"), content[1:]...), false},
	} {
		v := verify(readerAt(test.sent), int64(len(content)), want)
		b := make([]byte, 10)
		var err error
		for off := 0; off < len(content) && err == nil; off += len(b) {
			_, err = v.ReadAt(b[:min(len(b), len(content)-off)], int64(off))
		}
		if test.fine != (err == nil) || err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s in order: %v", test.name, err)
		}
		// A range proves nothing, and breaks the order of others.
		if _, err := v.ReadAt(b, 20); err != nil {
			t.Errorf("%s by range: %v", test.name, err)
		}
		if _, err := v.ReadAt(b[:7], 40); err != nil {
			t.Errorf("%s at its end: %v", test.name, err)
		}
	}
}

func TestANodeThatSendsNothingAsksNobody(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 2)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.announce(study, series, "b")
	b.reader.o.Sends = func() error { return fault.New(fault.Unavailable, "%w", &archive.Closed{Why: "for a reason"}) }
	n.cut("a", true) // asking it would be another error
	yields := 0
	for _, err := range b.reader.Select(t.Context(), study, "", "") {
		yields++
		if closed := new(archive.Closed); !errors.As(err, &closed) {
			t.Errorf("%v", err)
		}
	}
	if yields != 1 {
		t.Errorf("%d yields", yields)
	}
	n.cut("a", false)
	if got := b.reader.Instances(b.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Unavailable {
		t.Errorf("available: %v", got)
	}
}

// A manifest that went from memory and was read from store/ again is no answer.
func TestWhatWasKeptIsNotTakenForWhatANodeSaysNow(t *testing.T) {
	n := newNetwork(t, "a", "b")
	a, b := n.sites["a"], n.sites["b"]
	all := images(1, 0, 3)
	study, series := uids(all)
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	b.same(study, "", "", all...)
	name := seriesAt{study, series, "a"}
	for _, test := range []struct {
		name string
		ask  func() error
	}{
		{"what the caller had is another value by now", func() error {
			old := b.reader.recall(name)
			b.reader.known.Drop()
			if again := b.reader.recall(name); again == nil || again == old {
				t.Fatal("it is not read from the disk")
			}
			_, err := b.reader.fetch(t.Context(), name, "a", wanted{}, catalog.Holder{}, old)
			return err
		}},
		{"it is in store/ alone", func() error {
			b.reader.known.Drop()
			for _, err := range b.reader.SelectAt(t.Context(), "a", study, series) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		before := n.asked.Load()
		if err := test.ask(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if asked := n.asked.Load() - before; asked != 1 {
			t.Errorf("%s: asked %d times", test.name, asked)
		}
	}
}

func TestInstancesOfManySeriesByTheirOwnNamesAreOneQuestion(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d")
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	var all []dimsetest.Instance
	var names []string
	for seed := range 20 {
		one := images(uint64(seed+1), 0, 2)
		study, series := uids(one)
		at := []*site{a, c}[seed%2]
		at.store(one...)
		at.announce(study, series, "b")
		all = append(all, one...)
		names = append(names, one[1].SOPInstanceUID, one[0].SOPInstanceUID)
	}
	names = append(names, "1.2.3")
	read := func(sop string) error {
		ctx := archive.WithHint(t.Context(), archive.Hint{Named: names})
		for ref, err := range b.reader.Select(ctx, "", "", sop) {
			if err != nil {
				return err
			}
			got, err := b.open(ref)
			i := slices.IndexFunc(all, func(in dimsetest.Instance) bool { return in.SOPInstanceUID == sop })
			if err != nil || ref.SOP != sop || !slices.Equal(got, all[i].Dataset()) {
				t.Errorf("%s as %s: %d bytes, %v", sop, ref.SOP, len(got), err)
			}
		}
		return nil
	}
	for _, sop := range names[:40] {
		if err := read(sop); err != nil {
			t.Errorf("%s: %v", sop, err)
		}
	}
	if err := read("1.2.3"); !fault.Is(err, fault.NotFound) {
		t.Errorf("what nobody has: %v", err)
	}
	if got := n.located.Load(); got != 3 {
		t.Errorf("%d questions where they are, to three nodes", got)
	}
	if got := n.asked.Load(); got > 20 {
		t.Errorf("%d manifests of 20 series were asked for", got)
	}
	n.cut("d", true)
	names = []string{"1.2.4", "1.2.5"}
	var missing *archive.Missing
	if err := read("1.2.4"); !errors.As(err, &missing) || missing.SOP != "1.2.4" || !fault.Is(err, fault.Unavailable) {
		t.Errorf("what may be where nobody answers: %v", err)
	}
}

func TestWhatASilentNodeToldIsRecalled(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := images(1, 0, 6)
	study, series := uids(all)
	a, b, c := n.sites["a"], n.sites["b"], n.sites["c"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b", "c")
	b.same(study, "", "", all...)
	b.settle(study, series, "a")
	n.cut("a", true)
	for _, test := range []struct {
		name string
		at   *site
		how  query.Availability
	}{
		{"where it was opened", b, query.Online},
		{"at another node, which asks it", c, query.Unavailable},
	} {
		got, whole := test.at.reader.Recall(t.Context(), study, series, []string{"a"})
		if len(got) != len(all) || !whole {
			t.Fatalf("%s: %d instances, whole %t", test.name, len(got), whole)
		}
		for i, one := range got {
			h, err := one.Header(t.Context())
			if err != nil || h.Dataset.String(dict.SOPInstanceUID) != one.SOP || one.Origin != "a" || one.Availability != test.how {
				t.Errorf("%s: instance %d: %+v, %v", test.name, i, one.Instance, err)
			}
		}
		// Metadata of a study (WADO-RS) is what is selected, and its headers.
		for ref, err := range test.at.reader.Select(t.Context(), study, "", "") {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			} else if h, err := test.at.reader.Headers(t.Context(), ref); err != nil || h.Dataset.String(dict.SOPInstanceUID) != ref.SOP {
				t.Errorf("%s: header: %v", test.name, err)
			}
		}
	}
	b.delete(study, series, all[0].SOPInstanceUID)
	if got, _ := b.reader.Recall(t.Context(), study, series, []string{"a"}); len(got) != len(all)-1 {
		t.Errorf("%d instances of %d of which one is deleted", len(got), len(all))
	}
	if got, whole := b.reader.Recall(t.Context(), "1.2", "1.2.3", []string{"a"}); len(got) > 0 || whole {
		t.Errorf("of what nobody knows: %d, %t", len(got), whole)
	}
}
