package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/raftlog"
)

// Options are what a member is made of.
type Options struct {
	ID        string // node id
	Address   string // what others reach Transport under; its LocalAddr
	Transport Transport
	Log       *raftlog.Store // closed by the caller, after Run
	Machine   StateMachine
	Peers     Peers
	Settings  Settings
	Logger    *slog.Logger // nil: silent
	// Newcomer says that this node has never taken part: nobody has counted on it
	// yet. Otherwise a log without a past means that it was lost: see [Peers].Release.
	Newcomer bool
	// Fence says why nothing may be applied to what the machine holds, whenever it has
	// been replaced, and at the start; nil, or a function that returns nil: it may.
	Fence func() error
}

// Node is a member. Its methods answer fault.Unavailable while Run does not run.
type Node struct {
	o        Options
	settings Settings
	trans    *transport
	log      *slog.Logger
	applier  *applier
	wanted   chan replication.Position // capacity 1: a copy of the state machine is needed
	resumed  chan struct{}             // capacity 1: the state machine is another one
	waiting  chan struct{}             // capacity maxWaiting

	mu          sync.Mutex
	raft        *raft.Raft // nil: not running
	phase       Phase
	readyTerm   uint64 // in which this leader has committed an entry of its own
	subscribers map[chan Status]struct{}
}

// New checks the options. Nothing is read or started.
func New(o Options) (*Node, error) {
	if o.ID == "" || len(o.ID) > replication.MaxMemberBytes || o.Address == "" || len(o.Address) > replication.MaxMemberBytes {
		return nil, fault.New(fault.Invalid, "consensus: a member needs an id and an address of up to %d bytes", replication.MaxMemberBytes)
	}
	if o.Transport == nil || o.Log == nil || o.Machine == nil || o.Peers == nil {
		return nil, fault.New(fault.Invalid, "consensus: a member needs a transport, a log, a state machine and peers")
	}
	if o.Newcomer && o.Machine.Position().Index > 0 {
		return nil, fault.New(fault.Invalid, "consensus: a newcomer whose state machine stands at %d", o.Machine.Position().Index)
	}
	settings := o.Settings.withDefaults()
	n := &Node{
		o: o, settings: settings, log: o.Logger,
		trans:  newTransport(o.Transport, settings.Commit),
		wanted: make(chan replication.Position, 1), waiting: make(chan struct{}, maxWaiting),
		resumed:     make(chan struct{}, 1),
		subscribers: map[chan Status]struct{}{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if err := raft.ValidateConfig(n.settings.raft(o.ID, nil)); err != nil {
		return nil, fault.New(fault.Invalid, "consensus: %w", err)
	}
	n.applier = newApplier(o.Machine, n.want, o.Fence)
	return n, nil
}

// Found makes this node the only voter of a new network. It is called once, in
// a fresh log, before Run; fault.Conflict when the log has a past.
func (n *Node) Found() error {
	c := n.settings.raft(n.o.ID, nil)
	err := raft.BootstrapCluster(c, n.o.Log, n.o.Log, newSnapshots(n.o.Machine.Position(), n.firstIndex), n.trans,
		configuration([]replication.Member{{ID: n.o.ID, Address: n.o.Address}}))
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fault.New(fault.Conflict, "consensus: %w", err)
	}
	if err != nil {
		return fmt.Errorf("consensus: found: %w", err)
	}
	return nil
}

func (n *Node) firstIndex() uint64 {
	first, _ := n.o.Log.Bounds()
	return first
}

// want asks Run for a copy of the state machine. It does not block.
func (n *Node) want(p replication.Position) {
	select {
	case n.wanted <- p:
	default:
	}
}

// running returns the library's instance.
func (n *Node) running() (*raft.Raft, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raft == nil {
		return nil, fault.New(fault.Unavailable, "consensus: not running: %s", n.phase)
	}
	return n.raft, nil
}

// ErrUnknownOutcome marks the error of a proposal that may or may not have been
// committed, or be committed yet. Who proposes again must be ready to see it twice.
var ErrUnknownOutcome = errors.New("the outcome is not known")

// Propose puts an entry into the order and returns its index once it is
// committed and applied here. It is for leaders: anywhere else it is
// fault.Unavailable, and [Node.Leader] tells whom to ask. An entry of over
// raftlog.MaxEntryBytes is fault.Invalid. With [ErrUnknownOutcome] the entry may
// be committed; with any other error it is not.
func (n *Node) Propose(ctx context.Context, data []byte) (uint64, error) {
	if len(data) == 0 || len(data) > raftlog.MaxEntryBytes {
		return 0, fault.New(fault.Invalid, "consensus: an entry of %d bytes", len(data))
	}
	var index uint64
	err := n.wait(ctx, func(r *raft.Raft) error {
		f := r.Apply(data, enqueueTimeout)
		if err := f.Error(); err != nil {
			return err
		}
		index = f.Index()
		if err, ok := f.Response().(error); ok && err != nil {
			return fmt.Errorf("consensus: entry %d is committed and not applied: %w: %w", index, ErrUnknownOutcome, err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return index, nil
}

// Barrier returns once everything that was committed before is applied here.
// It is for leaders.
func (n *Node) Barrier(ctx context.Context) error {
	return n.wait(ctx, func(r *raft.Raft) error { return r.Barrier(enqueueTimeout).Error() })
}

// wait runs a call that cannot be interrupted, until it or ctx ends.
func (n *Node) wait(ctx context.Context, call func(*raft.Raft) error) error {
	r, err := n.running()
	if err != nil {
		return err
	}
	select {
	case n.waiting <- struct{}{}:
	default:
		return fault.New(fault.Unavailable, "consensus: %d calls wait", maxWaiting)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-n.waiting }()
		done <- call(r)
	}()
	select {
	case <-ctx.Done():
		return fault.New(fault.KindOf(ctx.Err()), "consensus: %w: %w", ErrUnknownOutcome, ctx.Err())
	case err := <-done:
		return kinded(err)
	}
}

// kinded gives the library's errors their kinds.
func kinded(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrAbortedByRestore):
		return fault.New(fault.Unavailable, "consensus: %w: %w", ErrUnknownOutcome, err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return fault.New(fault.Unavailable, "consensus: %w", err)
	case fault.KindOf(err) != fault.Other:
		return err
	}
	return fault.New(fault.Unavailable, "consensus: %w: %w", ErrUnknownOutcome, err)
}

// CommitIndex returns an index up to which everything is committed that was
// committed anywhere when it was called. It is for leaders, and confirmed: a
// majority of the voters answered to what was sent after the call. ctx should
// have a deadline.
func (n *Node) CommitIndex(ctx context.Context) (uint64, error) {
	r, err := n.running()
	if err != nil {
		return 0, err
	}
	term := r.CurrentTerm()
	if r.State() != raft.Leader {
		return 0, fault.New(fault.Unavailable, "consensus: %w", raft.ErrNotLeader)
	}
	if err := n.ready(ctx, r, term); err != nil {
		return 0, err
	}
	asked := time.Now()
	index := r.CommitIndex()
	// It makes heartbeats go out now. What it answers is not what is waited for.
	if err := n.wait(ctx, func(r *raft.Raft) error { return r.VerifyLeader().Error() }); err != nil {
		return 0, err
	}
	all := func() []replication.Member { return members(r.GetConfiguration().Configuration()) }
	if err := n.trans.evidence.await(ctx, n.o.ID, all, term, asked); err != nil {
		return 0, err
	}
	return index, nil
}

// Ready returns once everything is applied here that the leaders before this one had
// committed. It is for leaders.
func (n *Node) Ready(ctx context.Context) error {
	r, err := n.running()
	if err != nil {
		return err
	}
	term := r.CurrentTerm()
	if r.State() != raft.Leader {
		return fault.New(fault.Unavailable, "consensus: %w", raft.ErrNotLeader)
	}
	return n.ready(ctx, r, term)
}

// ready returns once this leader has committed an entry of its own term: before
// that it does not know what its predecessors committed.
func (n *Node) ready(ctx context.Context, r *raft.Raft, term uint64) error {
	n.mu.Lock()
	ready := n.readyTerm == term
	n.mu.Unlock()
	if ready {
		return nil
	}
	if err := n.Barrier(ctx); err != nil {
		return err
	}
	if r.CurrentTerm() != term || r.State() != raft.Leader {
		return fault.New(fault.Unavailable, "consensus: %w", raft.ErrNotLeader)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.readyTerm = max(n.readyTerm, term)
	return nil
}

// Halt stops applying, as a state machine's failure does: for who finds out that
// what it holds is wrong. Raft goes on, and leadership goes elsewhere.
func (n *Node) Halt(why error) { n.applier.halt(why) }

// Resume goes on applying from where the state machine stands, which was replaced
// while nothing was applied (see Halt). Raft is started again for that.
func (n *Node) Resume() {
	select {
	case n.resumed <- struct{}{}:
	default:
	}
}

// Halted returns why nothing is applied any more, nil while it is.
func (n *Node) Halted() error {
	_, _, halted := n.applier.state()
	return halted
}

// Applied returns the index up to which everything is applied here, entries of
// Raft's own included.
func (n *Node) Applied() uint64 {
	at, _, halted := n.applier.state()
	r, err := n.running()
	if err != nil || halted != nil {
		return at.Index
	}
	// The library counts what it has handed over. Behind what is applied there
	// may be entries that it hands to nobody.
	handed := r.AppliedIndex()
	index := at.Index
	for index < handed {
		var l raft.Log
		if n.o.Log.GetLog(index+1, &l) != nil || l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			break
		}
		index++
	}
	return index
}

// AwaitApplied returns once everything up to an index is applied here.
func (n *Node) AwaitApplied(ctx context.Context, index uint64) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		_, changed, halted := n.applier.state()
		if n.Applied() >= index {
			return nil
		}
		if halted != nil {
			return halted
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "consensus: %d is not applied: %w", index, ctx.Err())
		case <-changed:
		case <-tick.C:
		}
	}
}

// MaxCommitted bounds the entries of one Committed, MaxCommittedBytes their data: a
// first one is returned whatever it has.
const (
	MaxCommitted      = 1024
	MaxCommittedBytes = 8 << 20
)

// Committed returns entries of the log for a peer that lost them, from first up
// to last, cut short at the limits. What is not known to be committed, or not
// kept any more, is fault.NotFound.
func (n *Node) Committed(first, last uint64) ([]*raft.Log, error) {
	r, err := n.running()
	if err != nil {
		return nil, err
	}
	if first == 0 || last < first {
		return nil, fault.New(fault.Invalid, "consensus: entries %d to %d", first, last)
	}
	last = min(last, r.CommitIndex(), first+MaxCommitted-1)
	var logs []*raft.Log
	size := 0
	for i := first; i <= last; i++ {
		l := new(raft.Log)
		if err := n.o.Log.GetLog(i, l); errors.Is(err, raft.ErrLogNotFound) {
			break
		} else if err != nil {
			return nil, err
		}
		if size += len(l.Data) + len(l.Extensions); size > MaxCommittedBytes && i > first {
			break
		}
		logs = append(logs, l)
	}
	if len(logs) == 0 {
		return nil, fault.New(fault.NotFound, "consensus: no committed entries from %d on", first)
	}
	return logs, nil
}
