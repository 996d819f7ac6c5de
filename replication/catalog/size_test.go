package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
)

// longID is as long as node ids are.
const longID = "h3xq5zj2mv6k7ptw4ydcnbr3eafgl2so"

// told returns the facts of one telling of a study as a CT makes it: series of
// 100 images each, of which so many have come.
func told(telling, series int) []*catalog.SeriesFact {
	const study = "1.2.840.113619.2.55.3.604688119.868.1714557600.431"
	var facts []*catalog.SeriesFact
	for i := range series {
		f := fact(longID, study, fmt.Sprintf("1.2.840.113619.2.55.3.604688119.868.1714557600.%d", 437+i), uint64(41_200_000+100*telling), uint64([]int{1, 40, 100}[telling]), values{
			dict.PatientName: "MUELLER^HANNELORE^^^", dict.PatientID: "40018273", dict.PatientBirthDate: "19530612", dict.PatientSex: "F",
			dict.StudyDate: "20240501", dict.StudyTime: "101530.250", dict.AccessionNumber: "A2024050100412", dict.ReferringPhysicianName: "SCHNEIDER^ANDREAS^^DR",
			dict.StudyDescription: "CT ABDOMEN AND PELVIS WITH CONTRAST", dict.StudyID: "20451", dict.PatientAge: "070Y", dict.PatientWeight: "71.5",
			dict.SeriesDate: "20240501", dict.SeriesTime: fmt.Sprintf("1017%02d.120", 5*i), dict.Modality: "CT", dict.Manufacturer: "GE MEDICAL SYSTEMS",
			dict.InstitutionName: "NORTH UNIVERSITY HOSPITAL", dict.StationName: "CT01", dict.SeriesDescription: fmt.Sprintf("PORTAL VENOUS %d.0 MM SOFT", 1+i),
			dict.OperatorsName: "KLEIN^JULIA", dict.ManufacturerModelName: "Revolution CT", dict.BodyPartExamined: "ABDOMEN", dict.ProtocolName: "5.12 Abdomen Pelvis Routine",
			dict.PatientPosition: "FFS", dict.SeriesNumber: fmt.Sprint(1 + i), dict.PerformedProcedureStepStartDate: "20240501",
			dict.PerformedProcedureStepStartTime: "101530.250", dict.PerformedProcedureStepID: "PPS20451", dict.PerformedProcedureStepDescription: "CT ABDOMEN PELVIS",
		})
		for j := range f.UIDHash {
			f.UIDHash[j] = byte(17*i + 31*telling + 7*j*j)
		}
		f.Bytes, f.Arrived = f.Instances*526_000, 1_714_557_600_000_000+int64(telling)*4_000_000
		facts = append(facts, f)
	}
	return facts
}

// A study of five series, each told three times, takes at most 3 KB of the log
// (DESIGN §6).
func TestAStudyIsToldInThreeKilobytes(t *testing.T) {
	for _, test := range []struct {
		name    string
		apart   bool // every fact in a batch of its own
		shorten bool
		most    int
	}{
		{"the series of a study together", false, true, 3 << 10},
		{"every fact alone", true, true, 5 << 10},
		{"the series together, in full", false, false, 4 << 10},
		{"every fact alone, in full", true, false, 12 << 10},
	} {
		n := newNetwork(t, longID)
		m := n.members[0]
		begun := len(n.log)
		for telling := range 3 {
			facts := told(telling, 5)
			for len(facts) > 0 {
				batch := facts
				if test.apart {
					batch = facts[:1]
				}
				n.say(m, batch...)
				n.commit(m)
				n.catchUp(m, len(n.log))
				facts = facts[len(batch):]
			}
		}
		log := n.log[begun:]
		if !test.shorten {
			log = n.full[begun:]
		}
		bytes := 0
		for _, e := range log {
			bytes += len(e.Data)
		}
		t.Logf("%s: %d bytes in %d entries", test.name, bytes, len(log))
		if bytes > test.most {
			t.Errorf("%s: %d bytes, want at most %d", test.name, bytes, test.most)
		}
		if got := m.c.Totals().Instances; got != 500 {
			t.Errorf("%s: %d instances, want 500", test.name, got)
		}
		for _, e := range log {
			if results, ok := m.c.Results(e.Index); test.shorten && (!ok || results[0] != nil) {
				t.Errorf("%s: %v, %t", test.name, results, ok)
			}
		}
		verify(t, m.c)
		n.close()
	}
}

// So it is with a key and with the seals of its five series, which come together, and
// come again when more receipts have.
func TestAStudyIsSealedInThreeKilobytes(t *testing.T) {
	n := newNetwork(t, longID)
	defer n.close()
	m := n.members[0]
	begun, last := len(n.log), 0
	grown := func() int {
		before := last
		last = 0
		for _, e := range n.log[begun:] {
			last += len(e.Data)
		}
		return last - before
	}
	for telling := range 3 {
		n.say(m, told(telling, 5)...)
		n.commit(m)
		n.catchUp(m, len(n.log))
	}
	series := grown()
	study := told(0, 5)[0].Study
	key := keyOf(longID, study, 1, 7)
	key.ID = [16]byte{0: 0xC3, 15: 0x5A}
	seals := func(revision uint64, receipts uint16) (all []*catalog.SealFact) {
		for i, f := range told(0, 5) {
			s := sealOf(longID, study, f.Series, byte(1+i), 1, func(f *catalog.SealFact) {
				f.Key, f.Size, f.Instances, f.Code, f.Layout = key.ID, 21_000_000+int64(i), 100, shard.Code{K: 5, M: 4}, 300
				f.Receipts, f.Revision = receipts, revision
			})
			all = append(all, s)
		}
		return all
	}
	seal := func(keys []*catalog.KeyFact, seals []*catalog.SealFact) int {
		n.seal(m, keys, seals)
		n.commit(m)
		n.catchUp(m, len(n.log))
		results, ok := m.c.Results(m.c.Applied())
		if !ok || strings.Trim(kinds(results), "ok, ") != "" {
			t.Fatalf("%v, %t", results, ok)
		}
		return grown()
	}
	one := seal([]*catalog.KeyFact{key}, seals(0, 0xFF)[:1])
	four := seal(nil, seals(0, 0xFF)[1:])
	news := seal(nil, seals(1, 0x1FF))
	t.Logf("%d bytes: series %d, then a key and a seal %d, four seals %d, news of five %d", last, series, one, four, news)
	// As it is told, the key and all seals stand in one entry.
	together, _, err := catalog.EncodeBatch(catalogtest.SignerOf(longID), catalog.Batch{
		Node: longID, Site: "site-" + longID, Incarnation: 1, Number: 1, Keys: []*catalog.KeyFact{key}, Seals: seals(0, 0xFF),
	}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	all := series + len(together) + news
	t.Logf("%d bytes: series %d, key and seals %d, news of the seals %d", all, series, len(together), news)
	if all > 3<<10 {
		t.Errorf("%d bytes, want at most %d", all, 3<<10)
	}
	verify(t, m.c)
}

// What keys and packs add to a series at rest. All the rest of it takes 242 bytes in
// studies of five, with the postings of query/plan (docs/benchmarks-network.md).
func TestASealAndItsShareOfAKeyRestInFewBytes(t *testing.T) {
	const studies = 1500
	for _, test := range []struct{ series, most uint64 }{{1, 400}, {5, 200}} {
		c := openMem(t, vfs.NewMem())
		var facts, keys, seals []any
		for i := range uint64(studies) {
			var of []any
			for n := range test.series {
				of = append(of, catalogtest.Make(1, i).FactOf(int(n)+1, 1))
			}
			key, packs := catalogtest.Sealed(of)
			facts, keys, seals = append(facts, of...), append(keys, key), append(seals, packs...)
		}
		apply(t, c, facts...)
		before := catalog.Rests(c)
		for i, err := range apply(t, c, append(keys, seals...)...) {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		got := (catalog.Rests(c) - before) / (studies * test.series)
		t.Logf("studies of %d: %d bytes a series, then %d more", test.series, before/(studies*test.series), got)
		if got > test.most {
			t.Errorf("studies of %d: %d bytes a series, want at most %d", test.series, got, test.most)
		}
		verify(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
