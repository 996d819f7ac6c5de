package journal

import (
	"time"

	"pelago/replication/catalog"
)

// kept is what is remembered of a batch whose row is kept.
type kept struct {
	number   uint64
	previous [hashBytes]byte
	hash     [hashBytes]byte
	series   int       // facts of series in it
	facts    int       // of all kinds
	since    time.Time // when it was logged, or what is in it should have been, as far as this process knows
}

// verdict says how the committed cursor of this node and its log agree.
type verdict uint8

const (
	// fits: what the network has is what was logged.
	fits verdict = iota
	// behind: the network lacks batches that are not kept any more. Of a catalogue
	// that is still catching up this says nothing.
	behind
	// foreign: the network has what this log has not under these numbers: the log
	// is older than the network, or there are two of it.
	foreign
)

// judge compares the committed cursor (known: whether there is one) with the log
// and returns the number of the batch to be proposed next: of the oldest that is
// kept when the network is behind, as a question.
func judge(c catalog.Cursor, known bool, s state, rows []kept) (next uint64, v verdict) {
	if !known || c.Incarnation < s.incarnation {
		if s.oldest > 1 {
			return s.oldest, behind
		}
		return 1, fits
	}
	switch {
	case c.Incarnation > s.incarnation, c.Number >= s.next:
		return 0, foreign
	case c.Number+1 < s.oldest:
		return s.oldest, behind
	}
	hash := s.last
	switch {
	case c.Number >= s.oldest:
		hash = rows[c.Number-s.oldest].hash
	case len(rows) > 0:
		hash = rows[0].previous
	}
	if c.Hash != hash {
		return 0, foreign
	}
	return c.Number + 1, fits
}
