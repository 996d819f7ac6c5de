package consensus

import (
	"context"

	"github.com/hashicorp/raft"

	"pelago/replication"
)

// StateMachine is what entries are applied to. Its calls come one at a time,
// but Sync, which may come beside Apply.
type StateMachine interface {
	// Apply applies entries in order and, atomically with them, makes at the
	// position: at is that of the last of them, or later. There may be none. It
	// must give the same result on every node, and need not be durable. An error
	// stops applying for good: a failed store, or an entry that is not understood.
	Apply(entries []replication.Entry, at replication.Position) error
	// Position returns where the state machine stands.
	Position() replication.Position
	// Sync makes what was applied durable.
	Sync() error
}

// Peers is how a member gets from others what Raft does not send.
type Peers interface {
	// Bootstrap replaces the state machine by a copy of a peer's that stands at
	// least at want, and returns once that is durable. No Apply is under way or
	// begins before it returns. It is called again, after a pause, when it fails.
	Bootstrap(ctx context.Context, want replication.Position) error
	// Release has the network take the vote of this node, whose log is lost, through
	// the leader's [Node.Release], and returns what that answers. It is called again,
	// after a pause, when it fails.
	Release(ctx context.Context) (replication.Position, error)
	// Fetch returns committed entries from a peer's [Node.Committed], from first
	// on: at least one, at most up to last.
	Fetch(ctx context.Context, first, last uint64) ([]*raft.Log, error)
}

func members(c raft.Configuration) []replication.Member {
	var all []replication.Member
	for _, s := range c.Servers {
		m := replication.Member{ID: string(s.ID), Address: string(s.Address), Suffrage: replication.Voter}
		if s.Suffrage != raft.Voter {
			m.Suffrage = replication.Nonvoter
		}
		all = append(all, m)
	}
	return all
}

func configuration(all []replication.Member) raft.Configuration {
	var c raft.Configuration
	for _, m := range all {
		s := raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address), Suffrage: raft.Voter}
		if m.Suffrage != replication.Voter {
			s.Suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, s)
	}
	return c
}
