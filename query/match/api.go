// Package match is attribute matching (PS3.4 C.2.2.2, DESIGN §9 Matching): the
// one engine of C-FIND, QIDO-RS and `pelago find`. It is pure.
package match

import (
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Options are the negotiated and face-dependent rules.
type Options struct {
	Fuzzy            bool
	CombinedDateTime bool
	Timezone         bool
	FoldText         bool
}

// Kind is how a key matches.
type Kind uint8

// The kinds of PS3.4 C.2.2.2.
const (
	Universal Kind = iota
	Single
	List     // list of UIDs, or a list of codes such as ModalitiesInStudy
	Wildcard // * and ?
	Range    // dates and times
	Sequence
)

// Key is one compiled matching key, for planners.
type Key struct {
	Tag    dict.Tag
	VR     dict.VR
	Kind   Kind
	Values []string // Single: one; List: all; Wildcard: the pattern; normalised as the index holds them (names folded)
	Low    string   // Range: inclusive bounds, normalised (YYYYMMDD, HHMMSS.FFFFFF, or both joined); "" = open
	High   string
	Keys   []Key // Sequence: of its item
}

// Matcher is a compiled set of keys. It may be used by many goroutines.
type Matcher struct{}

// Compile checks and normalises keys; fault.Mismatch for values that the VR
// forbids as a key.
func Compile(keys *dicom.Dataset, options Options) (*Matcher, error) { panic("match: Compile") }

// Keys returns the compiled keys that are not universal, in tag order. With
// CombinedDateTime a date and its time are one Key under the date's tag.
func (m *Matcher) Keys() []Key { panic("match: Keys") }

// Match reports whether a data set matches every key whose tag only accepts
// (nil: every key).
func (m *Matcher) Match(ds *dicom.Dataset, only func(dict.Tag) bool) bool { panic("match: Match") }

// FoldName returns a person name (one component group) as indexes hold it:
// case, accents and punctuation folded, components separated by ^, no trailing
// delimiters.
func FoldName(name string) string { panic("match: FoldName") }

// FuzzyCodes returns the phonetic codes of the words of a person name, all
// component groups; two names match fuzzily when every word of the key has its
// code among the other's, or is a prefix of one of its words.
func FuzzyCodes(name string) []string { panic("match: FuzzyCodes") }
