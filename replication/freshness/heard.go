package freshness

import (
	"sync"
	"time"
)

// Heard is what a leader knows of the journals of the others: until when each is
// known to have told the network all that it had logged. The zero value knows
// nothing.
type Heard struct {
	mu    sync.Mutex
	term  uint64
	began time.Time
	until map[string]time.Time
}

// Note tells that in a term a node had, at some time, told all that it had logged
// before it.
func (h *Heard) Note(now time.Time, term uint64, node string, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enterLocked(now, term)
	if until.After(h.until[node]) {
		h.until[node] = until
	}
}

// enterLocked forgets what was heard in an earlier term: others led since.
func (h *Heard) enterLocked(now time.Time, term uint64) {
	if h.until == nil || term != h.term {
		h.term, h.began, h.until = term, now, map[string]time.Time{}
	}
}

// NotYet is the age of a node that the leader has not heard of, and has not led
// long enough to know what that means.
const NotYet time.Duration = -1

// Late returns those of the nodes that were not heard for longer than limit, with
// how long ago they were, or [NotYet]. A node that was never heard in this term
// counts from its beginning.
func (h *Heard) Late(now time.Time, term uint64, limit time.Duration, nodes []string) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enterLocked(now, term)
	late := map[string]time.Duration{}
	for _, node := range nodes {
		until, heard := h.until[node]
		if !heard {
			until = h.began
		}
		switch age := now.Sub(until); {
		case age > limit:
			late[node] = age
		case !heard:
			late[node] = NotYet
		}
	}
	return late
}

// Silence is what a node knows, from what leaders have told it, of the others that
// the network does not hear. The zero value knows nothing.
type Silence struct {
	mu   sync.Mutex
	asOf time.Time            // when the question was sent that was answered last
	late map[string]time.Time // until when they were heard; zero: not known
}

// Told takes what [Heard.Late] said in answer to a question sent at some time.
// Answers overtake each other; an older one than the last is passed over.
func (s *Silence) Told(sent time.Time, late map[string]time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sent.After(s.asOf) {
		return
	}
	next := make(map[string]time.Time, len(late))
	for node, age := range late {
		until, before := s.late[node]
		switch {
		case age != NotYet:
			next[node] = sent.Add(-age)
		case before, s.asOf.IsZero(): // a leader that has just begun knows no better
			next[node] = until // zero: neither does this node
		}
	}
	s.asOf, s.late = sent, next
}

// Unheard reports whether the network has not heard a node for longer than limit,
// as far as is known here. When no leader has said anything for so long, that is
// so of every node.
func (s *Silence) Unheard(now time.Time, limit time.Duration, node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.asOf) > limit {
		return true
	}
	until, late := s.late[node]
	return late && now.Sub(until) > limit
}
