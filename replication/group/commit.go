package group

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
)

// CommitIndex returns an index up to which everything is committed that was
// committed anywhere when it was called, as the leader confirms it with a
// majority: fault.Unavailable when there is none.
func (g *Group) CommitIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Answer)
	defer cancel()
	leader := g.Leader()
	switch leader {
	case "":
		return 0, fault.New(fault.Unavailable, "group: no leader is known: nothing is decided without a majority of the voters")
	case g.o.ID:
		return g.rounds.join(ctx, g.node.CommitIndex)
	}
	generation, _ := g.node.Generation()
	path := "/raft/index?" + url.Values{"generation": {strconv.FormatUint(generation, 10)}}.Encode()
	response, err := g.o.Peers.Do(ctx, leader, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	var a committed
	if err := readAnswer(response, &a); err != nil {
		return 0, err
	}
	if now, _ := g.node.Generation(); now != generation {
		return 0, fault.New(fault.Unavailable, "group: the network's generation has changed")
	}
	return a.Index, nil
}

// committed answers who asks for the commit index.
type committed struct {
	Index uint64 `json:"index"`
}

func (g *Group) serveIndex(w http.ResponseWriter, r *http.Request) {
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.settings.Answer)
	defer cancel()
	index, err := g.rounds.join(ctx, g.node.CommitIndex)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	writeAnswer(w, committed{index})
}

// AwaitIndex returns once everything up to an index is applied here: for who
// must read what was written elsewhere. ctx should have a deadline.
func (g *Group) AwaitIndex(ctx context.Context, index uint64) error {
	return g.node.AwaitApplied(ctx, index)
}

// Staleness returns how stale the catalogue is at most, false when that is not
// known, or when this node is fenced.
func (g *Group) Staleness() (time.Duration, bool) {
	now := time.Now()
	g.mu.Lock()
	g.attended = now
	g.mu.Unlock()
	if g.Fenced() != nil {
		return 0, false
	}
	g.tracker.Applied(g.node.Applied())
	return g.tracker.Staleness(now)
}

// poll asks the leader for its commit index until ctx ends.
func (g *Group) poll(ctx context.Context) {
	generation, _ := g.node.Generation()
	swept := false
	for {
		sent := time.Now()
		index, err := g.CommitIndex(ctx)
		if now, _ := g.node.Generation(); now != generation {
			generation = now
			g.tracker.Reset()
			g.told.Store(0)
		} else if err == nil {
			g.tracker.Answered(sent, index)
			g.told.Store(index)
			if !swept {
				swept = g.sweep()
			}
		}
		g.tracker.Applied(g.node.Applied())
		pause := time.NewTimer(g.pause(err))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// pause is the time to the next question: short while nothing is known yet, and
// longer when nobody asks.
func (g *Group) pause(err error) time.Duration {
	g.mu.Lock()
	idle := time.Since(g.attended) > g.settings.Attention
	g.mu.Unlock()
	d := g.settings.Poll
	if _, known := g.tracker.Staleness(time.Now()); err != nil && !known {
		d = g.settings.Poll / 5
	} else if idle {
		d = g.settings.Idle
	}
	return d*4/5 + rand.N(d*2/5)
}

// rounds confirms leadership once for all who ask while the confirmation before
// is under way: each makes the leader talk to all members. Who asks waits for a
// round that begins after it has asked.
type rounds struct {
	pace time.Duration

	mu   sync.Mutex
	next *round
	wake chan struct{} // capacity 1, made by run or join
}

type round struct {
	confirm func(context.Context) (uint64, error)
	done    chan struct{}
	index   uint64
	err     error
}

// roundLimit bounds a confirmation: a leader that has lost its majority is told
// so by its lease before.
const roundLimit = 10 * time.Second

func (r *rounds) wakeLocked() chan struct{} {
	if r.wake == nil {
		r.wake = make(chan struct{}, 1)
	}
	return r.wake
}

// join waits for the next round.
func (r *rounds) join(ctx context.Context, confirm func(context.Context) (uint64, error)) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{confirm: confirm, done: make(chan struct{})}
	}
	mine := r.next
	select {
	case r.wakeLocked() <- struct{}{}:
	default:
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, fault.New(fault.KindOf(ctx.Err()), "group: leadership is not confirmed: %w", ctx.Err())
	}
}

// run goes through rounds until ctx ends.
func (r *rounds) run(ctx context.Context) {
	r.mu.Lock()
	wake := r.wakeLocked()
	r.mu.Unlock()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.mu.Unlock()
		if now != nil {
			limited, cancel := context.WithTimeout(ctx, roundLimit)
			now.index, now.err = now.confirm(limited)
			cancel()
			close(now.done)
		}
		pace.Reset(r.pace)
	}
}
