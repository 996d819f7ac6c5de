package placement

import (
	"context"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/cluster/pause"
	"pelago/node/member"
)

const (
	// pledgeEvery is how often a node looks at what it can hold.
	pledgeEvery = time.Minute
	// pledgeStep is by how much that must differ from what it has told, at the least: a
	// twentieth. By so much is told at once what an operator says, and pledgeRest after
	// the last time what has grown.
	pledgeStep = 20
	pledgeRest = 24 * time.Hour
	// pledgeFall is by how much it falls before less is told: a fifth. Nodes pledge four
	// fifths of what their disk has for them, so it holds what they owe until then. A
	// disk that others fill as well, perhaps other nodes, would else have shards moved
	// over and over.
	pledgeFall = 5
)

// Pledged is how many bytes of shards this node has told the network that it will
// hold: 0 before it has.
func (p *Placement) Pledged() int64 { return p.now.Load().pledges[p.o.Self] }

// Pledge tells the network what this node will hold, until the context ends: less as
// soon as it has fallen by a fifth, more once it has doubled, or a day after the last
// time (or the start); what an operator has set at once. What fails is tried again.
func (p *Placement) Pledge(ctx context.Context) error {
	last := time.Now()
	for {
		v := p.now.Load()
		wait := jitter(pledgeEvery)
		told, err := p.pledge(ctx, v.facts, time.Since(last) >= pledgeRest)
		if err != nil && ctx.Err() == nil {
			p.failed(err)
			wait = jitter(retry)
		}
		if told {
			last = time.Now()
		}
		changed := v.changed
		if p.member(v.facts) { // else it is told as soon as there is somebody to tell
			changed = nil
		}
		if !pause.Until(ctx, changed, wait) {
			return nil
		}
	}
}

// member reports whether this node is a member that may hold shards.
func (p *Placement) member(f *facts) bool {
	return slices.ContainsFunc(f.members, func(m member.Member) bool { return m.Node == p.o.Self && !m.Witness })
}

// pledge tells of it if need be, and reports whether it did. rested: it has not for
// long.
func (p *Placement) pledge(ctx context.Context, f *facts, rested bool) (bool, error) {
	if p.o.Pledge == nil || !p.member(f) {
		return false, nil
	}
	now, err := p.o.Pledge()
	if err != nil || now < 0 {
		return false, err
	}
	now = min(now, layout.MaxPledge)
	differs := func(told int64) bool { return differs(told, now, now == p.o.PledgeSet, rested) }
	if told, ok := f.pledges[p.o.Self]; ok && !differs(told) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	err = p.own(ctx, kindPledge, func(there []byte) ([]byte, error) {
		told, err := parsePledge(there)
		if there != nil && (err == nil && !differs(told.Bytes) || fault.Is(err, fault.Unsupported)) {
			return nil, nil
		}
		return encode(pledge{Version: recordVersion, Bytes: now}), nil
	})
	return err == nil, err
}

// differs reports whether a pledge is worth telling anew: it moves shards. set: it is
// what an operator says, not what a disk happens to have.
func differs(told, now int64, set, rested bool) bool {
	switch {
	case (told == 0) != (now == 0):
		return true
	case set:
		return max(told, now)-min(told, now) > told/pledgeStep
	case now < told:
		return told-now >= told/pledgeFall
	}
	return now/2 >= told && now > told || rested && now-told > told/pledgeStep
}

// Complete says that this node has all that its rows of a version of the layout give
// it, and returns once the network knows, at once if it does already: when all that count have said so, the
// layout before is dropped. fault.Invalid for a version that there is not,
// fault.NotFound if this node is no member, fault.Unavailable without a majority.
func (p *Placement) Complete(ctx context.Context, version uint64) error {
	v := p.now.Load()
	switch newest := v.newest(); {
	case newest == nil || version > newest.Version:
		return fault.New(fault.Invalid, "placement: the network has no layout %d", version)
	case version < newest.Version, v.placed[p.o.Self] >= version:
		return nil // nobody waits for it any more, or for this node
	}
	return p.own(ctx, kindPlaced, func(there []byte) ([]byte, error) {
		said, err := parsePlaced(there)
		if there != nil && (err == nil && said.Layout >= version || fault.Is(err, fault.Unsupported)) {
			return nil, nil
		}
		return encode(placed{Version: recordVersion, Layout: version}), nil
	})
}

// own changes this node's own record of a kind. make makes it from what is there, nil:
// nothing; it returns nil if there is nothing to change.
func (p *Placement) own(ctx context.Context, kind string, make func(there []byte) ([]byte, error)) error {
	return p.make(ctx, func(s *member.Step) error {
		if _, err := p.o.Decisions.Member(s, p.o.Self); err != nil {
			return err
		}
		there, err := p.o.Decisions.Record(kind, p.o.Self)
		if err != nil {
			return err
		}
		value, err := make(there)
		if err != nil || value == nil {
			return err
		}
		s.Given(kind, p.o.Self, there)
		s.Put(kind, p.o.Self, value)
		return nil
	})
}
