package catalog_test

import (
	"fmt"
	"slices"
	"testing"

	"pelago/dimse/dict"
	"pelago/replication/catalog"
)

// Many tombstones at once are judged as each by itself is, whatever is remembered between them,
// and without waiting for Apply.
func TestManyTombstonesAreJudgedAsOneIs(t *testing.T) {
	d := newDeletion(t)
	d.pass(3600)
	v := values{dict.PatientID: "P2", dict.Modality: "CT"}
	d.say("a", catalog.Batch{Facts: []*catalog.SeriesFact{
		fact("a", "1.2", "1.2.1", 3, 10, v), fact("a", "1.2", "1.2.2", 4, 0, nil), fact("a", "1.3", "1.3.1", 5, 10, values{dict.PatientID: "P3"}),
	}})
	for _, uids := range [][3]string{{"1.1", "", ""}, {"1.1", "1.1.1", ""}, {"1.2", "1.2.1", "9.1"}, {"1.2", "1.2.1", "9.2"}, {"1.2", "1.2.2", "9.3"}, {"1.3", "", ""}, {"1.4", "1.4.1", "9.4"}} {
		d.must("a", &catalog.TombstoneFact{Study: uids[0], Series: uids[1], Instance: uids[2], Tick: 1})
	}
	d.pass(30 * day)
	d.must("a", &catalog.TombstoneFact{Study: "1.1", Series: "1.1.2", Tick: 1}) // within its grace
	stones := func() (all []*catalog.Tombstone) {
		for stone, err := range d.c.Tombstones(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, stone)
		}
		return all
	}
	judged := func() (text string) {
		all := stones()
		over, err := d.c.Overs(all...)
		if err != nil {
			t.Fatal(err)
		}
		for i, stone := range all {
			one, err := d.c.Over(stone)
			if err != nil || one != over[i] {
				t.Errorf("%s %s %s: %v of many, %v by itself, %v", stone.Study, stone.Series, stone.Instance, over[i], one, err)
			}
			if over[i] {
				text += stone.Study + "/" + stone.Instance + " "
			}
		}
		return text
	}
	hold := func(name string, value []byte) {
		d.must("a", &catalog.RegistryFact{Kind: catalog.KindHold, Name: name, Value: value})
	}
	if got := judged(); got != "" {
		t.Errorf("nobody is past them, and over are %s", got)
	}
	d.seen("a", "b")
	patient, other := catalog.PatientHold(catalog.PatientKey{Issuer: "NORTH", ID: "P3"}), catalog.StudyHold("1.1")
	for _, test := range []struct {
		do   func()
		want string
	}{
		{func() {}, "1.1/ 1.1/ 1.2/9.1 1.2/9.2 1.2/9.3 1.3/ 1.4/9.4 "},
		{func() { hold(other, []byte("x")) }, "1.2/9.1 1.2/9.2 1.2/9.3 1.3/ 1.4/9.4 "},
		{func() { hold(patient, []byte("x")) }, "1.2/9.1 1.2/9.2 "}, // of 1.2.2 and 1.4.1 nobody says whose they are
		{func() { hold(other, nil) }, "1.1/ 1.1/ 1.2/9.1 1.2/9.2 "},
	} {
		test.do()
		if got := judged(); got != test.want {
			t.Errorf("over are %s, want %s", got, test.want)
		}
	}
}

// BenchmarkOver asks of 100,000 tombstones past their grace, each of an instance, whether
// they may be acted on: once through them all is an operation. The studies have as many
// series as the name says.
func BenchmarkOver(b *testing.B) {
	const stones = 100_000
	for _, series := range []int{1, 100} {
		b.Run(fmt.Sprintf("series=%d", series), func(b *testing.B) {
			d := newDeletion(b)
			d.pass(3600)
			v := values{dict.PatientID: "P1", dict.Modality: "CT"}
			per := stones / 100
			number := uint64(10)
			var commands []catalog.Command
			for study := range 100 {
				uid := fmt.Sprintf("2.%d", study)
				var facts []*catalog.SeriesFact
				for s := range series {
					number++
					facts = append(facts, fact("a", uid, fmt.Sprintf("%s.%d", uid, s), number, 10, v))
				}
				for part := range slices.Chunk(facts, 100) {
					d.say("a", catalog.Batch{Facts: part})
				}
				for i := range per {
					commands = append(commands, &catalog.TombstoneFact{Study: uid, Series: fmt.Sprintf("%s.%d", uid, i%series), Instance: fmt.Sprintf("%s.%d.%d", uid, i%series, i), Tick: 1})
				}
			}
			for part := range slices.Chunk(commands, 2000) {
				d.must("a", part...)
			}
			d.pass(30 * day)
			d.seen("a", "b")
			var all []*catalog.Tombstone
			for stone, err := range d.c.Tombstones(b.Context()) {
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, stone)
			}
			for b.Loop() {
				for part := range slices.Chunk(all, 256) {
					if over, err := d.c.Overs(part...); err != nil || slices.Contains(over, false) {
						b.Fatal(over, err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(all)), "µs/stone")
		})
	}
}
