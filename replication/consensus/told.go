package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// TermAt returns the term of an entry of the log, 0 when it has none there.
func (n *Node) TermAt(index uint64) uint64 {
	var l raft.Log
	if n.o.Log.GetLog(index, &l) != nil {
		return 0
	}
	return l.Term
}

// Told says that the leader of a term has told, elsewhere than in Raft, that its
// entry at an index is committed. Raft's own news of that comes up to twice
// [Settings.Commit] later; who waits for its entry to be applied here need not.
//
// The library is handed the message that the leader might have sent at that moment:
// no entries, the one before being the committed one. It is refused unless this node
// has that entry, of that term, and still follows that leader; and does no more than
// the leader's next message would.
//
// The entry may be on its way: then Told waits for it, for as long as Raft's own news
// might take.
func (n *Node) Told(ctx context.Context, leader string, term, index uint64) {
	r, err := n.running()
	if err != nil || term == 0 || !n.stored(ctx, index) || r.CurrentTerm() != term || r.State() != raft.Follower ||
		r.CommitIndex() >= index || n.TermAt(index) != term {
		return
	}
	address, id := r.LeaderWithID()
	if string(id) != leader {
		return
	}
	from := n.o.Transport.EncodePeer(id, address)
	rpc := raft.RPC{
		Command: &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: from},
			Term:      term, PrevLogEntry: index, PrevLogTerm: term, LeaderCommitIndex: index,
		},
		RespChan: make(chan raft.RPCResponse, 1),
	}
	n.trans.deliver(ctx, rpc)
}

// stored reports whether the log reaches an index within twice Settings.Commit.
func (n *Node) stored(ctx context.Context, index uint64) bool {
	limit := time.NewTimer(2 * n.settings.Commit)
	defer limit.Stop()
	tick := time.NewTicker(storedEvery)
	defer tick.Stop()
	for {
		if _, last := n.o.Log.Bounds(); last >= index {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-tick.C:
		}
	}
}

// storedEvery is how often the log is looked at for an entry that is on its way.
const storedEvery = 2 * time.Millisecond
