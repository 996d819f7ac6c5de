package ae

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Action is what an audit event tells of.
type Action uint8

// The audited actions of this face (PS3.15 A.5.3).
const (
	Associate Action = iota // an association was asked for
	Stored                  // instances transferred to us
	Queried                 // a query
	Sent                    // instances transferred from us
	Retrieved               // a retrieve that sent nothing: refused, or nothing found
	Committed               // a storage commitment request
)

// Event is an audited action. It may hold patient ids.
type Event struct {
	Action      Action
	AE, Remote  string // who asked
	Destination string // where instances went, if not to AE
	Study       string
	Patient     string // Patient ID, where known
	Classes     []string
	Instances   int
	Query       []byte // the identifier of a query or retrieve, explicit little endian
	Class       string // SOP class of the query or retrieve
	Failed      bool
	Why         string // of a failure
}

// tally counts what an association stores, so that the audit trail has one
// event a study and minute and not one an image.
type tally struct {
	mu      sync.Mutex
	studies map[string]*Event
	since   time.Time       // of the first entry
	all     map[string]bool // the first maxTally studies ever stored; read after the last add
}

const (
	// maxTally bounds the studies an association is accounted for one by one;
	// beyond, they share one event.
	maxTally = 1024
	// tallyFor is how long a store waits for its event: an association may stay
	// open for days, and what it stored must not be lost with the process.
	tallyFor = time.Minute
)

// add counts one C-STORE.
func (t *tally) add(study, patient, class string, failed bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.studies) == 0 {
		t.studies, t.since = map[string]*Event{}, now
	}
	if !failed && len(t.all) < maxTally {
		if t.all == nil {
			t.all = map[string]bool{}
		}
		t.all[study] = true
	}
	key := study
	if failed {
		key += "\x00failed"
	}
	e := t.studies[key]
	if e == nil && len(t.studies) >= maxTally {
		key, study, patient = "", "", ""
		e = t.studies[key]
	}
	if e == nil {
		e = &Event{Action: Stored, Study: study, Patient: patient, Failed: failed}
		t.studies[key] = e
	}
	e.Failed = e.Failed || failed
	e.Instances++
	if !slices.Contains(e.Classes, class) && len(e.Classes) < 64 {
		e.Classes = append(e.Classes, class)
	}
}

// take returns what was counted and begins anew, if the first of it is older
// than tallyFor; with a zero time at any age.
func (t *tally) take(now time.Time) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.studies) == 0 || !now.IsZero() && now.Sub(t.since) < tallyFor {
		return nil
	}
	all := make([]Event, 0, len(t.studies))
	for _, e := range t.studies {
		all = append(all, *e)
	}
	t.studies = nil
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Study, b.Study) })
	return all
}
