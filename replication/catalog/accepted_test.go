package catalog_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
)

// acceptance is the record of one accepted version of a series.
func acceptance(study, series, sop string) *catalog.RegistryFact {
	a := catalog.Accepted{Study: study, Series: series, Versions: map[string][32]byte{sop: {1}}}
	return &catalog.RegistryFact{Kind: catalog.KindAccepted, Name: catalog.AcceptedName(study, series), Value: a.Encode()}
}

// A late arrival may be accepted before anybody but its node has heard of its
// series. What a tombstone then takes back must not depend on who has.
func TestWhatIsTakenBackDoesNotDependOnWhatIsKnownAhead(t *testing.T) {
	for _, together := range []bool{false, true} { // in one Apply, or one each
		s := newScene(t)
		s.put(s.decision("a", "a", &catalog.TombstoneFact{Study: "1.2", Tick: 1}))
		s.put(s.decision("a", "a", acceptance("1.2", "1.2.1", "1.2.1.1")))
		s.put(s.decision("a", "a", &catalog.TombstoneFact{Study: "1.2", Tick: 9}))
		s.put(s.decision("a", "a", acceptance("1.2", "1.2.2", "1.2.2.1"), &catalog.TombstoneFact{Study: "1.2", Tick: 10}))
		var hashes [][32]byte
		for _, ahead := range []bool{false, true} {
			c := openMem(t, vfs.NewMem())
			defer c.Close()
			if ahead {
				v := values{dict.PatientID: "P1"}
				if err := c.Ahead([]*catalog.SeriesFact{fact("a", "1.2", "1.2.1", 1, 1, v), fact("a", "1.2", "1.2.2", 1, 1, v)}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range s.log {
				entries := s.log[i : i+1]
				if together {
					entries = s.log
				}
				at := replication.Position{Index: entries[len(entries)-1].Index}
				if err := c.Apply(entries, at); err != nil {
					t.Fatal(err)
				}
				if together {
					break
				}
			}
			hash, _ := c.StateHash()
			hashes = append(hashes, hash)
			if _, ok := c.Accepted("1.2", "1.2.1"); ok {
				t.Errorf("ahead %t: what was deleted again is accepted still", ahead)
			}
			if stone, _ := c.Deleted("1.2", "", ""); stone == nil || stone.Tick != 10 {
				t.Errorf("ahead %t: %+v", ahead, stone)
			}
			verify(t, c)
		}
		if hashes[0] != hashes[1] {
			t.Errorf("together %t: the state depends on what is known ahead", together)
		}
	}
}

func TestDroppingAnAcceptanceHidesWhatItShowed(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	apply(t, c, fact("a", "1.1", "1.1.1", 1, 3, values{dict.PatientID: "P1"}))
	apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 1})
	shown := acceptance("1.1", "1.1.1", "1.1.1.1")
	apply(t, c, shown)
	if got := c.Totals().Series; got != 1 {
		t.Fatalf("%d series", got)
	}
	dropped := &catalog.RegistryFact{Kind: shown.Kind, Name: shown.Name}
	for range 2 { // again it changes nothing
		apply(t, c, dropped)
		if got := c.Totals().Series; got != 0 {
			t.Errorf("%d series", got)
		}
		verify(t, c)
	}
}

// A series is shown for the version that was accepted of one of its instances; when
// that instance is deleted again it is hidden, like the others.
func TestDeletingWhatWasAcceptedHidesWhatItShowed(t *testing.T) {
	for name, stone := range map[string]*catalog.TombstoneFact{
		"the instance": {Study: "1.1", Series: "1.1.1", Instance: "1.1.1.1", Tick: 2},
		"the series":   {Study: "1.1", Series: "1.1.1", Tick: 2},
		"the study":    {Study: "1.1", Tick: 2},
	} {
		c := openMem(t, vfs.NewMem())
		defer c.Close()
		apply(t, c, fact("a", "1.1", "1.1.1", 1, 3, values{dict.PatientID: "P1"}))
		apply(t, c, &catalog.TombstoneFact{Study: "1.1", Tick: 1})
		apply(t, c, acceptance("1.1", "1.1.1", "1.1.1.1"))
		apply(t, c, stone)
		if got := c.Totals().Series; got != 0 {
			t.Errorf("%s is deleted again: %d series", name, got)
		}
		verify(t, c)
	}
}
