package catalog

import (
	"bytes"
	"slices"
	"testing"

	"pelago/dimse/dict"
	"pelago/shard"
)

func TestOrderIsNewestFirst(t *testing.T) {
	ordered := []Order{
		orderOf("20240229", "235959.9", 9), orderOf("20240229", "235959", 8), orderOf("20240229", "0000", 7), orderOf("20240229", "", 1),
		orderOf("2024.02.28", "12:00:00", 3), orderOf("20240228", "120000", 4), orderOf("19000101", "", 2),
		orderOf("20240230", "", 5), orderOf("20240101\\20240102", "", 6), orderOf("", "120000", 10), orderOf("", "", 11),
	}
	for i := 1; i < len(ordered); i++ {
		if bytes.Compare(ordered[i-1][:], ordered[i][:]) >= 0 {
			t.Errorf("order %d does not stand before %d", i-1, i)
		}
	}
}

func TestSpansHoldTheDaysAndWhatIsUnclear(t *testing.T) {
	in := func(o Order, spans []Span) bool {
		for _, s := range spans {
			if bytes.Compare(s.First[:], o[:]) <= 0 && bytes.Compare(o[:], s.Last[:]) <= 0 {
				return true
			}
		}
		return false
	}
	for _, test := range []struct {
		low, high, date string
		want            bool
	}{
		{"20240101", "20240131", "20240101", true},
		{"20240101", "20240131", "20240131", true},
		{"20240101", "20240131", "20231231", false},
		{"20240101", "20240131", "20240201", false},
		{"", "20240131", "19010101", true},
		{"20240101", "", "20991231", true},
		{"20240101", "20240131", "2024", true},
		{"20240101", "20240131", "", false},
		{"20240201", "20240131", "20240201", false},
		{"bogus", "", "19010101", true},
	} {
		if got := in(orderOf(test.date, "101010", 1), Spans(test.low, test.high)); got != test.want {
			t.Errorf("%q in %s..%s: %t", test.date, test.low, test.high, got)
		}
	}
}

func TestOmittedAttributesAreNamed(t *testing.T) {
	as := attrs{{codePatientID, []byte("P1")}, {codeOmitted, []byte{codePatientName, codeModality}}}
	back, err := parseAttributes(as.dataset())
	if err != nil || !back.equal(as) {
		t.Fatalf("%v, %v; want %v", back, err, as)
	}
	if !back.omits(dict.PatientName) || back.omits(dict.PatientID) {
		t.Error("omits tells the wrong tags")
	}
	if s := back.of(ofSeries); !s.omits(dict.Modality) || s.omits(dict.PatientName) {
		t.Errorf("of the series: %v", s)
	}
}

func seedStudy() *study {
	s := &study{uid: "1.2.3", number: 7}
	x := &series{uid: "1.2.3.4", origins: []origin{{node: "n", said: &saying{site: "s", asOf: 9, issuer: "I", instances: 3, classes: []string{"1.2"},
		attrs: attrs{{codePatientName, []byte("DOE^JANE")}, {codePatientID, []byte("P1")}, {codeStudyDate, []byte("20240101")}, {codeModality, []byte("CT")}}}}}}
	s.add(x)
	return s
}

func FuzzDecodeStudy(f *testing.F) {
	f.Add(seedStudy().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeStudy(b)
		if err != nil {
			return
		}
		again, err := decodeStudy(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Errorf("a record that was read cannot be written and read again: %v", err)
		}
		s.order()
	})
}

func FuzzDecodeSeries(f *testing.F) {
	s := seedStudy()
	x := &series{uid: "1.2.3.4", origins: []origin{
		{node: "n", first: place{7, 1}, said: &saying{issuer: "I", attrs: attrs{{codePatientName, []byte("DOE^JANE")}, {codePatientID, []byte("P1")}, {codeStudyDate, []byte("20240101")}}, instances: 1}},
		{node: "m", first: place{index: uncommitted}, ahead: &saying{instances: 2}},
		{node: "o", first: place{9, 0}, said: &saying{instances: 2}, ahead: &saying{instances: 3, site: "s"}},
	}}
	var names []name
	number := func(n name) int {
		if i := slices.Index(names, n); i >= 0 {
			return i
		}
		names = append(names, n)
		return len(names) - 1
	}
	f.Add(x.encode(s, number))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeSeries(b, "1.2.3.4", s, names)
		if err != nil {
			return
		}
		again, err := decodeSeries(x.encode(s, number), x.uid, s, names)
		if err != nil || !bytes.Equal(again.encode(s, number), x.encode(s, number)) {
			t.Errorf("a record that was read cannot be written and read again: %v", err)
		}
		x.counts()
		x.visible()
	})
}

func FuzzDecodePack(f *testing.F) {
	p := &pack{id: [16]byte{1}, study: "1.2.3", series: "1.2.3.4", origin: "n", key: [16]byte{2}, size: 40_000, instances: 3, withdrawn: 1, stripes: []stripe{
		{generation: 2, by: "n", code: shard.Code{K: 1, M: 2}, root: [32]byte{3}, receipts: 7, virtual: NoShard},
		{generation: 3, by: "m", revision: 4, code: shard.Code{K: 2, M: 2}, root: [32]byte{4}, layout: 9, elsewhere: []Elsewhere{{1, "o"}}},
	}}
	key := packKey(p.study, p.series, p.id)
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePack(key, b)
		if err != nil {
			return
		}
		again, err := decodePack(key, p.encode())
		if err != nil || !bytes.Equal(again.encode(), p.encode()) {
			t.Errorf("a record that was read cannot be written and read again: %v", err)
		}
		p.spare()
	})
}

func FuzzDecodeKey(f *testing.F) {
	f.Add((&StudyKey{At: 3, Study: "1.2.3", Origin: "n", Epoch: 4}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeKey([16]byte{1}, b)
		if err != nil || b == nil {
			return
		}
		again, err := decodeKey(k.ID, k.encode())
		if err != nil || *again != *k {
			t.Errorf("a record that was read cannot be written and read again: %v", err)
		}
	})
}

func FuzzDecodeMeta(f *testing.F) {
	m := meta{index: 3, next: 4, founded: true, sealed: Sealed{Keys: 5, Packs: 6, Bytes: 7, lastKey: 8}}
	m.sealed.Spares[2] = Amount{9, 10}
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again, err := decodeMeta(m.encode()); err != nil || again != m {
			t.Errorf("a record that was read cannot be written and read again: %v", err)
		}
	})
}

func FuzzParseAttributes(f *testing.F) {
	f.Add(attrs{{codePatientID, []byte("P1")}, {codeOmitted, []byte{0}}}.dataset())
	f.Fuzz(func(t *testing.T, b []byte) {
		as, err := parseAttributes(b)
		if err != nil {
			return
		}
		if back, err := parseAttributes(as.dataset()); err != nil || !back.equal(as) {
			t.Errorf("attributes that were read cannot be written and read again: %v", err)
		}
	})
}

func FuzzDecodePurging(f *testing.F) {
	f.Add(Clock{3, 4}.encode())
	f.Add(Seen{3, 2, 9}.encode())
	f.Add(purged{5, "1.2.3"}.encode())
	f.Add(Terms{5, 6}.Encode())
	f.Add((&Tombstone{TombstoneFact: TombstoneFact{Tick: 4, By: "n"}, At: 1, Index: 2, Purged: 3}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeClock(b); err == nil && b != nil {
			if again, err := decodeClock(c.encode()); err != nil || again != c {
				t.Errorf("clock: %v", err)
			}
		}
		if s, err := decodeSeen(b); err == nil && b != nil {
			if again, err := decodeSeen(s.encode()); err != nil || again != s {
				t.Errorf("seen: %v", err)
			}
		}
		if p, err := decodePurged(b); err == nil {
			if again, err := decodePurged(p.encode()); err != nil || again != p {
				t.Errorf("purged: %v", err)
			}
		}
		if terms := decodeTerms(b); terms.Grace <= 0 || terms.Away <= 0 || decodeTerms(terms.Encode()) != terms {
			t.Errorf("terms: %+v", terms)
		}
		key := tombstoneKey("1.2", "1.2.3", "")
		if s, err := decodeTombstone(key, b); err == nil {
			if again, err := decodeTombstone(key, s.encode()); err != nil || *again != *s {
				t.Errorf("tombstone: %v", err)
			}
		}
	})
}
