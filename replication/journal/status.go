package journal

import "time"

// Status is how far a journal is, for operators.
type Status struct {
	Incarnation uint64
	Logged      uint64 // number of the last batch that is durable here
	Committed   uint64 // number of the last one that the network has
	Pending     uint64 // facts that the network does not have
	// Left says that there is no room for facts in the log because the network
	// takes none; they are made again when it does. Those of series are told here.
	Left bool
	// Failing is why the last proposal failed, Since when the first of those that
	// failed since a success did. nil: the network takes batches.
	Failing error
	Since   time.Time
	// Refused is why the network does not take batches of this node at all: nothing
	// is sent until its membership changes.
	Refused error
}

// Status returns it.
func (j *Journal) Status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Status{
		Incarnation: j.state.incarnation, Logged: j.state.next - 1, Committed: j.committed,
		Pending: j.pendingLocked(), Left: j.left != 0 || j.offered.full,
		Failing: j.sending.failed, Since: j.sending.since, Refused: j.sending.refused,
	}
}

// Pending is the number of facts that the network does not have: of series that
// must be announced, and in batches that are not committed.
func (j *Journal) Pending() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pendingLocked()
}

func (j *Journal) pendingLocked() uint64 {
	n := uint64(len(j.series.dirty)+len(j.series.flying)) + j.leftFacts
	for _, r := range j.rows {
		if r.number > j.committed {
			n += uint64(r.facts)
		}
	}
	return n
}

// Kept is how long this node has kept from the network what it has logged, or had
// no room to log; 0: the network has all of it. What a process before this one
// logged counts from its start.
func (j *Journal) Kept() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	since := j.keptSinceLocked()
	if since.IsZero() {
		return 0
	}
	return time.Since(since)
}

// keptSinceLocked is since when that is so; zero: it is not.
func (j *Journal) keptSinceLocked() (since time.Time) {
	if j.lacksLocked() {
		since = j.lacking
	}
	for _, r := range j.rows {
		if r.number > j.committed && (since.IsZero() || r.since.Before(since)) {
			since = r.since
		}
	}
	return since
}

// lacksLocked reports whether there is something that the log has not, and that
// does not wait to be coalesced.
func (j *Journal) lacksLocked() bool {
	return j.left != 0 || j.unmarked != 0 || !j.announced || j.offered.full
}

// Rejected is the number of facts that the catalogue refused as invalid since
// the start: a fault of the Source.
func (j *Journal) Rejected() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rejected
}
