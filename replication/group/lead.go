package group

import (
	"context"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/replication"
	"pelago/replication/consensus"
)

const (
	// leadEvery is how often a leader looks at its members, and leadPause the
	// least time between two looks, however fast entries come in.
	leadEvery = time.Second
	leadPause = 100 * time.Millisecond
	// maxLag is how many entries a member may be behind that is given a vote, and
	// keeps it.
	maxLag = 2048
)

// lead keeps the membership as the catalogue has it while this node leads.
func (g *Group) lead(ctx context.Context) {
	changes, cancel := g.node.Subscribe()
	defer cancel()
	tick := time.NewTicker(leadEvery)
	defer tick.Stop()
	var term uint64 // in which everything committed before is applied here
	h := &health{steady: g.settings.Steady, doubt: g.settings.Doubt}
	for ctx.Err() == nil {
		changed := g.o.Catalogue.Changed()
		status := g.node.Stats()
		switch {
		case status.Phase != consensus.Leading:
			changed = nil
			*h = health{steady: h.steady, doubt: h.doubt}
		case status.Term != term:
			// What the catalogue lacks must not look as if nobody had decided it.
			if err := g.barrier(ctx); err == nil {
				term = status.Term
				h.enter()
				continue
			}
		default:
			again, err := g.leadStep(ctx, h, status)
			if err != nil && ctx.Err() == nil {
				g.log.Warn("membership", "error", err)
			} else if again {
				continue
			}
		}
		if !pause.For(ctx, leadPause) {
			return
		}
		select {
		case <-ctx.Done():
		case <-changes:
		case <-changed:
		case <-tick.C:
		}
	}
}

func (g *Group) barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Answer)
	defer cancel()
	return g.node.Barrier(ctx)
}

// leadStep makes the next change that is due, and reports whether it made one.
func (g *Group) leadStep(ctx context.Context, h *health, status consensus.Status) (bool, error) {
	list, err := records(g.o.Catalogue)
	if err != nil {
		return false, err
	}
	members := g.node.Members()
	g.examine(h, members, status)
	s, ok := plan(g.o.ID, list, members, h.healthy, h.barred)
	if !ok {
		return false, nil
	}
	steps := []step{s}
	if votes := newVotes(g.o.ID, list, members, h.healthy, h.barred); len(votes) > 0 {
		if !g.respond(ctx, h, votes) {
			return true, ctx.Err() // who is left is another matter
		}
		steps = votes
	}
	for _, s := range steps {
		g.log.Info("membership", "step", s.do.String(), "member", s.id)
		if err := g.takeWithin(ctx, s); err != nil {
			return false, err
		}
	}
	return true, nil
}

// respond reports whether all answer now that are to be given a vote; who does not is not
// healthy any more. What is known of them is up to some seconds old, and a vote that goes
// to the dead can cost the network its majority, which nobody can mend without it.
func (g *Group) respond(ctx context.Context, h *health, votes []step) bool {
	ids := make([]string, len(votes))
	for i, s := range votes {
		ids[i] = s.id
	}
	ctx, cancel := context.WithTimeout(ctx, g.settings.Raft.Election)
	defer cancel()
	silent := g.node.Silent(ctx, ids)
	h.doubted(silent)
	return len(silent) == 0
}

func (g *Group) takeWithin(ctx context.Context, s step) error {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Propose)
	defer cancel()
	return g.take(ctx, s)
}

// examine looks at who was heard of, and how far they are.
func (g *Group) examine(h *health, members []replication.Member, status consensus.Status) {
	now := time.Now()
	g.mu.Lock()
	h.doubted(g.unwell)
	g.unwell = nil
	g.mu.Unlock()
	heard := g.node.Heard()
	for _, m := range members {
		of := heard[m.ID]
		well := now.Sub(of.Sent) <= 2*g.settings.Raft.Election && lag(status.Last, of.Last) <= maxLag
		if h.remember(m, of, status.Last) {
			g.log.Error("a member's log ends before what it had confirmed: it was put back from an earlier copy, or lost entries; it may not vote until it has been caught up", "member", m.ID)
		}
		if m.ID == g.o.ID {
			well = status.Halted == nil && !status.Silent
		}
		h.see(m.ID, m.Suffrage == replication.Voter, well, now)
	}
	h.keep(members)
}

func (g *Group) take(ctx context.Context, s step) error {
	switch s.do {
	case remove:
		return g.node.Remove(ctx, s.id)
	case admit:
		return g.node.AddNonvoter(ctx, s.id, s.address)
	case promote:
		return g.node.AddVoter(ctx, s.id, s.address)
	case demote:
		return g.node.Demote(ctx, s.id)
	case abdicate:
		return g.node.LeadershipTransfer(ctx, "")
	}
	return fault.New(fault.Other, "group: an unknown step %d", s.do)
}
