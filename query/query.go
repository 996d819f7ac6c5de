// Package query is the vocabulary of what is known: queries at the four levels
// of the DICOM information model (PS3.4 C.6), and their answers. One engine
// serves C-FIND, QIDO-RS and `pelago find`.
package query

import (
	"context"
	"iter"
	"math"
	"time"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Level is a level of the query/retrieve information model.
type Level uint8

// The levels, from the top.
const (
	Patient Level = iota
	Study
	Series
	Image
)

// String returns the value of (0008,0052).
func (l Level) String() string { return [...]string{"PATIENT", "STUDY", "SERIES", "IMAGE"}[l] }

// Query is one question.
type Query struct {
	Level Level
	// Keys are the matching keys, in any character set; elements of zero length
	// or `*` match everything. Sequences match by their one item (PS3.4 C.2.2.2.6).
	Keys *dicom.Dataset
	// Return lists attributes to answer besides the keys.
	Return []dict.Tag
	// All asks for every attribute known of the level (includefield=all).
	All bool

	Relational       bool // keys of lower levels allowed without the upper unique keys
	Fuzzy            bool // fuzzy semantic matching of person names (negotiated)
	CombinedDateTime bool // a date and its time as one range (negotiated; QIDO always)
	Timezone         bool // times are adjusted by (0008,0201) (negotiated)
	FoldText         bool // QIDO: case does not count in free-text descriptions

	// Issuer qualifies Patient ID where the query names no issuer: the asking
	// AE's issuer; "" means this site's.
	Issuer string

	Limit, Offset int // 0: no limit, from the start
}

// Attributes of ours, in a private block of [PrivateCreator], that answers have on
// request: they are asked for by these tags.
const (
	PrivateCreator          = "PELAGO"
	TagCreator     dict.Tag = 0x70610010
	TagSites       dict.Tag = 0x70611001 // LO 1-n: the sites that hold any of the study or series
	// TagApproximate (CS, YES) comes unasked too, with counts that are not exact:
	// nodes hold different instances, and the counts are of who holds most.
	TagApproximate dict.Tag = 0x70611002
)

// Answer is a stream of matches with what must be said of it.
type Answer struct {
	// Matches yields data sets in explicit little endian and ISO_IR 192, with
	// the requested attributes, in a total order that does not change while
	// the matching studies do not. It must be ranged over at most once, and
	// stops when ctx ends.
	Matches iter.Seq2[*dicom.Dataset, error]
	// Staleness is how old the answer may be: for other sites' studies, and for
	// this node's own where the catalogue has not kept up with them.
	// [StalenessUnknown]: nobody can tell.
	Staleness time.Duration
	// Lags tells that even what this node has acknowledged may be missing.
	Lags bool
	// Silent names, ascending, the sites that own data which may match and have
	// not answered so far: all of them once Matches has ended. nil: what this node
	// knows answers the query, and no site is asked.
	Silent func() []string
	// Unheard names, ascending, the sites whose journal the network has not heard
	// lately (DESIGN §6): what they stored since may be missing.
	Unheard []string
	// Ignored lists matching keys that could not be used (FF01).
	Ignored []dict.Tag
}

// StalenessUnknown is the staleness of answers of a node that has heard of no
// agreement since it started.
const StalenessUnknown time.Duration = math.MaxInt64

// OrdinaryStaleness is what answers may say while nothing is wrong: nodes on which
// nobody asks anything look every few seconds whether they know all there is.
const OrdinaryStaleness = 10 * time.Second

// Partial reports whether something must be said of the answer as far as it has
// been ranged over: a key that did not count, a site that did not answer or was
// not heard, this node's own instances missing, or staleness beyond the ordinary.
func (a *Answer) Partial() bool {
	return len(a.Ignored) > 0 || a.Lags || len(a.Unheard) > 0 || a.Staleness > OrdinaryStaleness || a.Silent != nil && len(a.Silent()) > 0
}

// Engine answers queries.
type Engine interface {
	Find(ctx context.Context, q Query) (*Answer, error)
}

// Instance is a stored instance as the engine sees it.
type Instance struct {
	Study, Series, SOP string
	Class              string
	Syntax             string
	Origin             string // id of the node that holds it; "": this one
	Number             uint64 // local number of that node; 0 if only it knows
	Bytes              int64
}

// Availability is a value of Instance Availability (0008,0056).
type Availability string

// How soon instances can be had (PS3.3 C.4.23.1.1).
const (
	Online      Availability = "ONLINE"      // at once
	Nearline    Availability = "NEARLINE"    // by a detour
	Unavailable Availability = "UNAVAILABLE" // not at all
)

// Instances is the image level: what [Engine] asks of the node's own archive.
// Quarantined and deleted instances are not in it.
type Instances interface {
	// List yields instances in ascending (study, series, instance) UID order;
	// empty series means all of the study.
	List(ctx context.Context, study, series string) iter.Seq2[Instance, error]
	// Find returns the instances with a SOP Instance UID: usually one.
	Find(ctx context.Context, sop string) ([]Instance, error)
	// Header returns the header record.
	Header(ctx context.Context, number uint64) (*dicom.Header, error)
	// Availability returns how the instances of a study can be had now, or those
	// of a series, wherever they are; with the local number of one of the series,
	// how that one can, which is here. An empty study: everything that is here. It is the least of theirs. A hint:
	// what was not found lost yet is [Online]. Where nothing is lost it costs
	// nothing.
	Availability(ctx context.Context, study, series string, number uint64) Availability
	// Settle returns once every instance acknowledged before the call is in the
	// catalogue, so that a sender finds what it has just stored.
	Settle(ctx context.Context) error
}

// Recorded is an instance of another node as that once told of it.
type Recorded struct {
	Instance
	// Availability is how it can be had while its node does not answer.
	Availability Availability
	// Header returns its header.
	Header func(ctx context.Context) (*dicom.Header, error)
}

// Memory is what nodes told of series that they hold, for while they do not answer.
type Memory interface {
	// Recall returns the instances of a series that nodes hold, in ascending order of
	// their SOP Instance UIDs, as one of them told, here or somebody who answers now.
	// whole: these are as many as the catalogue knows of. None if nobody knows any.
	Recall(ctx context.Context, study, series string, nodes []string) (all []Recorded, whole bool)
}
