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

// eachPosting calls fn with the keys under which a study is found: its
// patients', and the Indexer's. The same key may come twice; it is fn's for the
// call only.
func eachPosting(s *study, ix Indexer, fn func(key []byte)) {
	if s == nil || !s.visible() {
		return
	}
	order := s.order()
	for i := range s.patients {
		fn(append(patientPrefix(s.patients[i].key(), s.uid), order[:]...))
	}
	key := make([]byte, 0, 128)
	ix.Terms(StudyRow{s: s}, func(index byte, term string) {
		if strings.IndexByte(term, 0) >= 0 {
			panic("catalog: an index term holds a NUL")
		}
		key = append(append(key[:0], rowIndex, index), term...)
		key = append(append(key, 0), order[:]...)
		fn(key)
	})
}

// postings returns the keys of eachPosting, ascending, without duplicates.
func postings(s *study, ix Indexer) [][]byte {
	keys := make([][]byte, 0, 64)
	eachPosting(s, ix, func(key []byte) { keys = append(keys, bytes.Clone(key)) })
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// remembered are keys of which something is known that need not be looked up
// again. What it does not hold may be so all the same.
type remembered map[string]struct{}

// maxRemembered bounds the keys that are remembered.
const maxRemembered = 1 << 16

func (r remembered) has(key string) bool { _, ok := r[key]; return ok }

// note remembers a key, or no longer.
func (r remembered) note(key string, holds bool) {
	if !holds {
		delete(r, key)
		return
	}
	if len(r) >= maxRemembered {
		clear(r)
	}
	r[key] = struct{}{}
}

// words calls put with the rows of a study's words that are not known to be written.
func (c *Catalog) words(s *study, put func(key []byte)) {
	if !s.visible() {
		return
	}
	c.indexer.Words(StudyRow{s: s}, func(index byte, word string) {
		key := append([]byte{rowWord, index}, word...)
		if !c.vocabulary.has(string(key)) {
			c.vocabulary.note(string(key), true)
			put(key)
		}
	})
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
