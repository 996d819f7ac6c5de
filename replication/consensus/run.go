package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/replication"
	"pelago/replication/raftlog"
)

// maxRetry bounds the pause after failed bootstraps and fetches.
const maxRetry = time.Minute

// Run takes part until ctx ends, or until the member cannot go on. All that it
// started has ended when it returns.
func (n *Node) Run(ctx context.Context) error {
	defer n.enter(Stopped, nil)
	receiving, stop := context.WithCancel(ctx)
	var received sync.WaitGroup
	received.Go(func() { n.trans.receive(receiving, n.admit) })
	defer received.Wait()
	defer stop()
	if err := n.comeBack(ctx); err != nil {
		return err
	}
	received.Go(func() { n.mark(receiving) })
	for {
		want, err := n.prepare(ctx)
		if err == nil && want == nil {
			want, err = n.participate(ctx)
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		if want != nil {
			err = n.copy(ctx, *want)
		} else {
			n.applier.reset() // resumed
		}
		if err != nil {
			return err
		}
	}
}

// mark marks, soon after the log has grown, how far it is, so that an earlier copy of it is
// known for one. It stands beside the watch over the log, which a disk that hangs must
// not hold up.
func (n *Node) mark(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.o.Log.Appended():
		}
		if sleep(ctx, markEvery) != nil {
			return
		}
		if err := n.o.Log.Mark(); err != nil {
			n.log.Error("raft log: how far it is cannot be marked", "error", err)
		}
	}
}

func (n *Node) enter(p Phase, r *raft.Raft) {
	n.mu.Lock()
	n.phase, n.raft = p, r
	n.mu.Unlock()
	n.publish()
}

// prepare makes log and state machine agree. It returns a position when the
// state machine must be copied first.
func (n *Node) prepare(ctx context.Context) (*replication.Position, error) {
	n.enter(Repairing, nil)
	at, _, _ := n.applier.state()
	if err := n.succeed(at); err != nil {
		return nil, err
	}
	if err := n.mend(ctx, at); err != nil {
		return nil, err
	}
	first, last := n.o.Log.Bounds()
	var term uint64
	if at.Index >= first && at.Index <= last && last > 0 {
		var l raft.Log
		err := n.o.Log.GetLog(at.Index, &l)
		if err != nil && !fault.Is(err, fault.Corrupt) {
			return nil, err
		}
		term = l.Term
		if err != nil {
			term = at.Term // applied: what rotted there is known to be committed
		}
	}
	switch openingOf(first, last, at, term) {
	case clearLog:
		n.log.Warn("raft log cleared: the catalogue is beyond it", "first", first, "last", last, "applied", at.Index)
		return nil, n.o.Log.DeleteRange(first, last)
	case copyState:
		now, err := n.term()
		return &replication.Position{Index: first - 1, Term: GenerationOf(now) << generationShift}, err
	}
	return nil, nil
}

// mend puts entries that cannot be read, and that are yet to be applied, back
// in from a peer. Until then the member does not vote: it has acknowledged them.
func (n *Node) mend(ctx context.Context, at replication.Position) error {
	for pause := n.settings.Retry; ; pause = min(2*pause, maxRetry) {
		bad, err := n.o.Log.Check(ctx, at.Index+1)
		if err != nil || len(bad) == 0 {
			return err
		}
		if err = n.fetch(ctx, bad[0]); err == nil {
			pause = n.settings.Retry / 2
			continue
		}
		n.log.Error("raft log: entries that cannot be read are not to be had yet", "first", bad[0].First, "last", bad[0].Last, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (n *Node) fetch(ctx context.Context, bad *raftlog.CorruptError) error {
	logs, err := n.o.Peers.Fetch(ctx, bad.First, bad.Last)
	if err != nil {
		return err
	}
	if len(logs) == 0 || logs[0].Index != bad.First {
		return fault.New(fault.Protocol, "consensus: a peer sent %d entries that were not asked for", len(logs))
	}
	if excess := int64(len(logs)) - int64(bad.Last-bad.First+1); excess > 0 {
		logs = logs[:int64(len(logs))-excess]
	}
	err = n.o.Log.Replace(logs)
	if !fault.Is(err, fault.Invalid) {
		return err
	}
	// What was committed does not fit what stands around it: from there on this
	// log is of a leader that lost.
	_, last := n.o.Log.Bounds()
	if err := n.o.Log.DeleteRange(bad.First, last); err != nil {
		return err
	}
	return n.o.Log.StoreLogs(logs)
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	if !pause.For(ctx, d) {
		return fault.New(fault.KindOf(ctx.Err()), "consensus: %w", ctx.Err())
	}
	return nil
}

// copy replaces the state machine. What the log has beyond the copy stays, for this
// member has acknowledged it; prepare drops a log that does not lead on from there.
func (n *Node) copy(ctx context.Context, want replication.Position) error {
	n.enter(Copying, nil)
	for pause := n.settings.Retry; ; pause = min(2*pause, maxRetry) {
		err := n.o.Peers.Bootstrap(ctx, want)
		if err == nil {
			if !behind(n.o.Machine.Position(), want) {
				break
			}
			err = fault.New(fault.Protocol, "consensus: the copy stands before %d", want.Index)
		}
		n.log.Error("catalogue could not be copied", "want", want.Index, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	n.applier.reset()
	return nil
}

// participate runs Raft until ctx ends, until the state machine must be copied, or
// until it was.
func (n *Node) participate(ctx context.Context) (want *replication.Position, err error) {
	cache, err := raft.NewLogCache(logCacheEntries, keeper{n.o.Log, n.settings.Retain})
	if err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	at, _, _ := n.applier.state()
	r, err := raft.NewRaft(n.settings.raft(n.o.ID, n.log), n.applier, cache, n.o.Log,
		newSnapshots(at, n.firstIndex), n.trans)
	if err != nil {
		return nil, fmt.Errorf("consensus: start: %w", err)
	}
	events := make(chan raft.Observation, 16)
	o := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(o)
	absent := n.trans.serve()
	n.enter(Following, r)
	defer func() {
		r.DeregisterObserver(o)
		n.enter(Stopped, nil)
		n.drain()
		absent()
		err = errors.Join(err, r.Shutdown().Error())
	}()
	n.electAlone(ctx, r)
	return n.supervise(ctx, r, events)
}

// electAlone spares the only voter the wait for a leader that cannot be: it is
// told to stand for election as one is that leadership is transferred to. Whose
// time is up when is nothing that Raft's safety rests on.
func (n *Node) electAlone(ctx context.Context, r *raft.Raft) {
	alone := false
	for _, m := range members(r.GetConfiguration().Configuration()) {
		if m.Suffrage == replication.Voter && m.ID != n.o.ID {
			return
		}
		alone = alone || m.Suffrage == replication.Voter
	}
	if !alone {
		return
	}
	answer := make(chan raft.RPCResponse, 1)
	now := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, RespChan: answer}
	select {
	case n.trans.in <- now:
	case <-ctx.Done():
	}
}

// drain waits until calls under way are answered: the library forgets those
// that it has not answered when it ends. A leader that has lost its majority
// answers once its lease is over, a log that hangs never.
func (n *Node) drain() {
	const step = 10 * time.Millisecond
	for waited := time.Duration(0); len(n.waiting) > 0 && waited < 2*n.settings.Election; waited += step {
		time.Sleep(step)
	}
}

// supervise watches over Raft: its log, its state machine, who leads. It returns when
// Raft must end, with a position if the state machine must be copied.
func (n *Node) supervise(ctx context.Context, r *raft.Raft, events <-chan raft.Observation) (*replication.Position, error) {
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	_, changed, halted := n.applier.state()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case want := <-n.wanted:
			if at, _, _ := n.applier.state(); !behind(at, want) {
				continue // asked for before the copy that was made since
			}
			n.log.Warn("catalogue lies behind what the leader keeps", "want", want.Index)
			return &want, nil
		case <-n.resumed:
			n.log.Warn("raft starts again: the catalogue was replaced", "index", n.o.Machine.Position().Index)
			return nil, nil
		case <-events:
			n.publish()
		case <-watch.C:
			n.listen()
			// The library only takes a request to step down when its loop is free.
			if halted != nil && r.State() == raft.Leader && n.trans.speak() == nil {
				r.LeadershipTransfer()
			}
		case <-changed:
			before := halted
			if _, changed, halted = n.applier.state(); halted != nil && before == nil {
				n.log.Error("catalogue applies no more", "error", halted)
				n.publish()
			}
		}
	}
}

// listen falls silent when the log hangs, and speaks again when it does not.
func (n *Node) listen() {
	op, since, busy := n.o.Log.Stalled()
	silent := busy && since >= n.settings.Stall
	if !n.trans.setSilent(silent) {
		return
	}
	if silent {
		n.log.Error("raft log hangs: silent, so that others elect", "operation", op.String(), "since", since)
	} else {
		n.log.Warn("raft log goes on")
	}
	n.publish()
}
