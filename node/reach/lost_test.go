package reach

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/archive"
	"pelago/query"
)

func TestWhatIsLostHereIsReadElsewhereAndFetchedBack(t *testing.T) {
	for _, test := range []struct {
		name string
		lose func(*site)
		copy bool // b keeps a copy of a's packs, else it stores the same instances
	}{
		{"tables are missing, another site stores the same", (*site).loseTables, false},
		{"tables are missing, another site keeps copies", (*site).loseTables, true},
		{"tables are rotten, another site stores the same", (*site).rotTables, false},
		{"tables are rotten, another site keeps copies", (*site).rotTables, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t, "a", "b", "c")
			all := images(1, 0, 9)
			study, series := uids(all)
			a, b := n.sites["a"], n.sites["b"]
			a.rests = true
			a.store(all...)
			a.pack()
			if test.copy {
				a.announce(study, series, "b")
				b.same(study, "", "", all...)
				b.settle(study, series, "a")
			} else {
				b.store(all...)
				b.announce(study, series, "a")
			}
			test.lose(a)
			a.same(study, "", "", all...)
			if got := a.reader.Counters().Elsewhere.Load(); got == 0 {
				t.Error("nothing was read elsewhere")
			}
			for ref, err := range a.reader.Select(t.Context(), study, "", "") {
				if err != nil || ref.Origin != "" {
					t.Errorf("listed as %q, %v", ref.Origin, err)
				}
				if h, err := a.reader.Headers(t.Context(), ref); err != nil || h.Dataset.String(dict.SOPInstanceUID) != ref.SOP {
					t.Errorf("header: %v", err)
				}
			}
			before := refsOf(t, a, study)
			if err := a.reader.MendLost(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := a.reader.Counters().Mended.Load(); got == 0 {
				t.Error("nothing was fetched back")
			}
			n.cut("b", true)
			n.cut("c", true)
			a.same(study, "", "", all...)
			for _, ref := range before { // listed before it was fetched back
				if _, err := a.open(ref); err != nil {
					t.Errorf("by an old reference: %v", err)
				}
			}
			if got := a.reader.Instances(a.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Online {
				t.Errorf("availability is %s", got)
			}
			if a.reader.MendLost(t.Context()) != nil {
				t.Error("something is left to be fetched back")
			}
		})
	}
}

// refsOf lists a study as a site does now.
func refsOf(t *testing.T, s *site, study string) (refs []archive.Ref) {
	t.Helper()
	for ref, err := range s.reader.Select(t.Context(), study, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	return refs
}

func TestWhatReadersFindLostIsFetchedBackByItself(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.pack()
	b.store(all...)
	b.announce(study, series, "a")
	a.loseTables()
	a.same(study, "", "", all...)
	eventually(t, func() bool { return a.reader.Counters().Mended.Load() == uint64(len(all)) })
	n.cut("b", true)
	a.same(study, "", "", all...)
}

func TestWhatIsLostAndDeletedDoesNotComeBack(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.rests = true
	a.store(all...)
	a.pack()
	b.store(all...)
	b.announce(study, series, "a")
	a.loseTables()
	refs := refsOf(t, a, study)
	if err := a.archive.Delete(t.Context(), study, series, all[0].SOPInstanceUID, "test"); err != nil {
		t.Fatal(err)
	}
	if err := a.reader.MendLost(t.Context()); err != nil {
		t.Error(err)
	}
	if got := a.reader.Counters().Mended.Load(); got != uint64(len(all)-1) {
		t.Errorf("%d were fetched back of %d that are not deleted", got, len(all)-1)
	}
	i := slices.IndexFunc(refs, func(r archive.Ref) bool { return r.SOP == all[0].SOPInstanceUID })
	if b, err := a.open(refs[i]); err == nil {
		t.Errorf("%d bytes of what is deleted were read", len(b))
	}
	a.same(study, "", "", all[1:]...)
}

func TestWhatIsLostEverywhereIsCorruptAndAvailableNowhere(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 5)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.rests = true
	a.store(all...)
	a.pack()
	a.loseTables()
	got, failed := a.read(study, "", "")
	if len(got) > 0 || len(failed) != len(all) {
		t.Fatalf("%d read, %d failed", len(got), len(failed))
	}
	for _, err := range failed {
		if !fault.Is(err, fault.Corrupt) {
			t.Errorf("%v", err)
		}
	}
	if asked := n.ranges.Load(); asked > 2 {
		t.Errorf("the other node was asked %d times for one pack that it has not", asked)
	}
	instances := a.reader.Instances(a.archive.Instances())
	// Pebble tells of the table beside the read that met it.
	eventually(t, func() bool {
		return instances.Availability(t.Context(), study, "", 0) == query.Unavailable
	})
	b.store(all...)
	b.announce(study, series, "a")
	if got := instances.Availability(t.Context(), study, "", 0); got != query.Online {
		t.Errorf("with another holder: %s", got)
	}
	n.cut("b", true)
	if got := instances.Availability(t.Context(), study, series, 0); got != query.Unavailable {
		t.Errorf("with another holder that does not answer: %s", got)
	}
	if err := a.reader.MendLost(t.Context()); err != nil || a.reader.Counters().Mended.Load() > 0 {
		t.Errorf("fetched back from nobody: %d, %v", a.reader.Counters().Mended.Load(), err)
	}
}

// What a node that answers has lost is known before the status line, as what is lost
// here is.
func TestARetrieveOfWhatIsLostElsewhereIsPartial(t *testing.T) {
	n := newNetwork(t, "a", "b")
	all := images(1, 0, 9)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.rests = true
	a.store(all[:6]...)
	a.pack()
	a.loseTables()
	a.store(all[6:]...)
	a.announce(study, series, "b")
	r := httptest.NewRequest(http.MethodGet, "/dicom-web/studies/"+study, nil)
	r.Header.Set("Accept", acceptDICOM)
	w := httptest.NewRecorder()
	b.faces().web.ServeHTTP(w, r)
	if w.Code != http.StatusPartialContent || w.Header().Get("Warning") == "" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	for i, in := range all {
		if got := bytes.Contains(w.Body.Bytes(), in.Dataset()); got != (i >= 6) {
			t.Errorf("instance %d came: %v", i, got)
		}
	}
}
