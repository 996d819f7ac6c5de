package catalog

import (
	"bytes"
	"slices"
	"strings"
)

// Indexer names what a study can be found by. It is a pure function of the
// row: Apply calls it with the old row and the new one and rewrites the
// difference, so it must answer alike for as long as its Version stands. When
// the version differs from the one that the postings were written with, Open
// writes all of them again.
type Indexer interface {
	Version() uint32
	// Terms calls add with every index and term of a visible study; the same
	// pair may come twice. Terms hold no byte below 04.
	Terms(s StudyRow, add func(index byte, term string))
}

// noIndex is the Indexer of catalogues that are only read in order.
type noIndex struct{}

func (noIndex) Version() uint32                                   { return 0 }
func (noIndex) Terms(_ StudyRow, _ func(index byte, term string)) {}

// postings returns the keys under which a study is found, ascending, without
// duplicates: its patients', and the Indexer's.
func postings(s *study, ix Indexer) [][]byte {
	if s == nil || !s.visible() {
		return nil
	}
	order := s.order()
	keys := make([][]byte, 0, 64)
	for i := range s.patients {
		keys = append(keys, append(patientPrefix(s.patients[i].key(), s.uid), order[:]...))
	}
	ix.Terms(StudyRow{s: s}, func(index byte, term string) {
		if strings.IndexByte(term, 0) >= 0 {
			panic("catalog: an index term holds a NUL")
		}
		keys = append(keys, append(indexPrefix(index, term), order[:]...))
	})
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// diff calls drop for keys that only old has and put for those that only now has.
func diff(old, now [][]byte, drop, put func(key []byte)) {
	for len(old) > 0 || len(now) > 0 {
		var c int
		switch {
		case len(old) == 0:
			c = 1
		case len(now) == 0:
			c = -1
		default:
			c = bytes.Compare(old[0], now[0])
		}
		if c < 0 {
			drop(old[0])
		}
		if c > 0 {
			put(now[0])
		}
		if c <= 0 {
			old = old[1:]
		}
		if c >= 0 {
			now = now[1:]
		}
	}
}
