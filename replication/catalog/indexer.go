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
	// Words calls add with the words of a visible study that enter an index's
	// vocabulary. A vocabulary only grows: it says what may be among the terms.
	Words(s StudyRow, add func(index byte, word string))
}

// noIndex is the Indexer of catalogues that are only read in order.
type noIndex struct{}

func (noIndex) Version() uint32                                   { return 0 }
func (noIndex) Terms(_ StudyRow, _ func(index byte, term string)) {}
func (noIndex) Words(_ StudyRow, _ func(index byte, word string)) {}

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

// maxVocabulary bounds the words that are remembered as written: more are
// written again, which changes nothing.
const maxVocabulary = 1 << 16

// words calls put with the rows of a study's words that are not known to be written.
func (c *Catalog) words(s *study, put func(key []byte) error) error {
	if !s.visible() {
		return nil
	}
	var failed error
	c.indexer.Words(StudyRow{s: s}, func(index byte, word string) {
		key := string([]byte{rowWord, index}) + word
		if _, ok := c.vocabulary[key]; ok || failed != nil {
			return
		}
		if len(c.vocabulary) >= maxVocabulary {
			clear(c.vocabulary)
		}
		c.vocabulary[key] = struct{}{}
		failed = put([]byte(key))
	})
	return failed
}

// diff calls drop for keys that only old has and put for those that only new has.
func diff(old, new [][]byte, drop, put func(key []byte)) {
	for len(old) > 0 || len(new) > 0 {
		var c int
		switch {
		case len(old) == 0:
			c = 1
		case len(new) == 0:
			c = -1
		default:
			c = bytes.Compare(old[0], new[0])
		}
		if c < 0 {
			drop(old[0])
		}
		if c > 0 {
			put(new[0])
		}
		if c <= 0 {
			old = old[1:]
		}
		if c >= 0 {
			new = new[1:]
		}
	}
}
