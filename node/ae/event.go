package ae

import (
	"cmp"
	"slices"
	"sync"
)

// Action is what an audit event tells of.
type Action uint8

// The audited actions of this face (PS3.15 A.5.3).
const (
	Associate Action = iota // an association was asked for
	Stored                  // instances transferred to us
	Queried                 // a query
	Sent                    // instances transferred from us
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
	Query       []byte // the identifier of a query, explicit little endian
	Class       string // SOP class of the query
	Failed      bool
}

// tally counts what an association stored, so that the audit trail has one
// event a study and not one an image.
type tally struct {
	mu      sync.Mutex
	studies map[string]*Event
	dropped int // studies beyond maxTally
}

// maxTally bounds the studies an association is accounted for one by one;
// beyond, they share one event.
const maxTally = 1024

func (t *tally) add(study, class string, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.studies == nil {
		t.studies = map[string]*Event{}
	}
	key := study
	if failed {
		key += "\x00failed"
	}
	e := t.studies[key]
	if e == nil {
		if len(t.studies) >= maxTally {
			key, study = "", ""
			t.dropped++
		}
		if e = t.studies[key]; e == nil {
			e = &Event{Action: Stored, Study: study, Failed: failed}
			t.studies[key] = e
		}
	}
	e.Instances++
	if !slices.Contains(e.Classes, class) && len(e.Classes) < 64 {
		e.Classes = append(e.Classes, class)
	}
}

func (t *tally) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.studies) == 0
}

func (t *tally) events() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Event, 0, len(t.studies))
	for _, e := range t.studies {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Study, b.Study) })
	return all
}
