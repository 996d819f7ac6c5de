package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"pelago/replication"
	"pelago/replication/raftlog"
)

// keeper is the log as the library sees it: young entries stay, whatever the
// library cuts. It counts entries, and a day of many would take the place of
// fourteen.
type keeper struct {
	*raftlog.Store
	retain time.Duration
}

var _ raft.LogStore = keeper{}

// DeleteRange deletes what a new leader overwrites, and of a prefix that a
// snapshot covers what is old.
func (k keeper) DeleteRange(low, high uint64) error {
	if first, last := k.Bounds(); low <= first && high < last {
		high = min(high, k.FirstSince(time.Now().Add(-k.retain))-1)
	}
	return k.Store.DeleteRange(low, high)
}

// What to do with a log before Raft starts on it.
type opening uint8

const (
	openLog   opening = iota // the log goes on from the state machine, or before it
	clearLog                 // the state machine is of another history, or beyond the log: a copy
	copyState                // the log begins beyond the state machine
)

// openingOf decides from the bounds of the log, the state machine's position
// and the term of the log's entry at that position.
//
// The position is committed. If the log has an entry of another term there,
// that one and all after it were never committed and never will be.
func openingOf(first, last uint64, at replication.Position, term uint64) opening {
	switch {
	case last == 0:
		return openLog
	case at.Index+1 < first:
		return copyState
	case at.Index > last:
		return clearLog
	case at.Index >= first && term != at.Term:
		return clearLog
	}
	return openLog
}
