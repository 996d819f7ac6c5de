package consensus

import (
	"context"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// Leader returns the id and the address of the leader, empty when none is known.
func (n *Node) Leader() (id, address string) {
	r, err := n.running()
	if err != nil {
		return "", ""
	}
	a, i := r.LeaderWithID()
	return string(i), string(a)
}

// Members returns the latest membership that this node has in its log. It may
// not be committed.
func (n *Node) Members() []replication.Member {
	r, err := n.running()
	if err != nil {
		at, _, _ := n.applier.state()
		return at.Members
	}
	return members(r.GetConfiguration().Configuration())
}

// AddNonvoter adds a node that receives everything and does not vote, or
// changes its address. Like all changes it is for leaders, and returns once it is
// committed.
func (n *Node) AddNonvoter(ctx context.Context, id, address string) error {
	return n.change(ctx, id, address, func(r *raft.Raft) raft.IndexFuture {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, enqueueTimeout)
	})
}

// AddVoter adds a node that votes, or gives a vote to a member.
func (n *Node) AddVoter(ctx context.Context, id, address string) error {
	return n.change(ctx, id, address, func(r *raft.Raft) raft.IndexFuture {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, enqueueTimeout)
	})
}

// Demote takes a member's vote.
func (n *Node) Demote(ctx context.Context, id string) error {
	return n.change(ctx, id, "-", func(r *raft.Raft) raft.IndexFuture {
		return r.DemoteVoter(raft.ServerID(id), 0, enqueueTimeout)
	})
}

// Remove takes a node out of the membership.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, id, "-", func(r *raft.Raft) raft.IndexFuture {
		return r.RemoveServer(raft.ServerID(id), 0, enqueueTimeout)
	})
}

func (n *Node) change(ctx context.Context, id, address string, call func(*raft.Raft) raft.IndexFuture) error {
	if id == "" || address == "" || len(id) > replication.MaxMemberBytes || len(address) > replication.MaxMemberBytes {
		return fault.New(fault.Invalid, "consensus: a member of id %q", id)
	}
	if len(n.Members()) >= replication.MaxMembers {
		return fault.New(fault.Full, "consensus: %d members", replication.MaxMembers)
	}
	return n.wait(ctx, func(r *raft.Raft) error { return call(r).Error() })
}

// LeadershipTransfer gives leadership to a voter, the one that is furthest when
// id is empty. It is for leaders.
func (n *Node) LeadershipTransfer(ctx context.Context, id string) error {
	var to *replication.Member
	for _, m := range n.Members() {
		if m.ID == id && m.Suffrage == replication.Voter {
			to = &m
		}
	}
	if id != "" && to == nil {
		return fault.New(fault.NotFound, "consensus: no voter %q", id)
	}
	return n.wait(ctx, func(r *raft.Raft) error {
		// The library tells a follower apart from a failed transfer only by text.
		if r.State() != raft.Leader {
			return raft.ErrNotLeader
		}
		if to == nil {
			return r.LeadershipTransfer().Error()
		}
		return r.LeadershipTransferToServer(raft.ServerID(to.ID), raft.ServerAddress(to.Address)).Error()
	})
}
