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
	"pelago/replication/freshness"
)

// CommitIndex returns an index up to which everything is committed that was
// committed anywhere when it was called, as the leader confirms it with a
// majority: fault.Unavailable when there is none.
func (g *Group) CommitIndex(ctx context.Context) (uint64, error) {
	a, err := g.ask(ctx)
	return a.Index, err
}

// ask asks the leader for what committed says, and tells it how long this node has
// kept what it logged.
func (g *Group) ask(ctx context.Context) (committed, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Answer)
	defer cancel()
	var kept time.Duration
	if g.o.Kept != nil {
		kept = g.o.Kept()
	}
	leader := g.Leader()
	switch leader {
	case "":
		return committed{}, fault.New(fault.Unavailable, "group: no leader is known: nothing is decided without a majority of the voters")
	case g.o.ID:
		return g.answer(ctx, g.o.ID, kept)
	}
	generation, _ := g.node.Generation()
	path := "/raft/index?" + url.Values{
		"generation": {strconv.FormatUint(generation, 10)}, "kept": {strconv.FormatInt(kept.Milliseconds(), 10)},
	}.Encode()
	response, err := g.o.Peers.Do(ctx, leader, http.MethodGet, path, nil)
	if err != nil {
		return committed{}, err
	}
	var a committed
	if err := readAnswer(response, &a); err != nil {
		return committed{}, err
	}
	if now, _ := g.node.Generation(); now != generation {
		return committed{}, fault.New(fault.Unavailable, "group: the network's generation has changed")
	}
	return a, nil
}

// committed answers who asks for the commit index.
type committed struct {
	Index uint64 `json:"index"`
	// Late are the members whose journal the leader has not heard for longer than
	// heardLimit, with the milliseconds since; −1: [freshness.NotYet].
	Late map[string]int64 `json:"late,omitempty"`
}

const (
	// heardLimit is how long a member's journal may be silent before answers say so
	// (DESIGN §6).
	heardLimit = 10 * time.Second
	// maxKept bounds what a peer may claim to have kept something for.
	maxKept = 10 * 365 * 24 * time.Hour
)

// answer confirms leadership and returns what a member is told who has kept
// something for some time.
func (g *Group) answer(ctx context.Context, member string, kept time.Duration) (committed, error) {
	asked, term := time.Now(), g.node.Stats().Term
	index, err := g.rounds.join(ctx, g.node.CommitIndex)
	if err != nil {
		return committed{}, err
	}
	g.heard.Note(asked, term, member, asked.Add(-kept))
	a := committed{Index: index}
	var others []string
	for _, m := range g.node.Members() {
		others = append(others, m.ID)
	}
	for node, age := range g.heard.Late(time.Now(), term, heardLimit, others) {
		if a.Late == nil {
			a.Late = map[string]int64{}
		}
		if a.Late[node] = age.Milliseconds(); age == freshness.NotYet {
			a.Late[node] = -1
		}
	}
	return a, nil
}

// late is what Late says, as durations.
func (a committed) late() map[string]time.Duration {
	late := make(map[string]time.Duration, len(a.Late))
	for node, ms := range a.Late {
		if late[node] = freshness.NotYet; ms >= 0 {
			late[node] = time.Duration(min(ms, maxKept.Milliseconds())) * time.Millisecond
		}
	}
	return late
}

// Unheard reports whether the network has not heard a node's journal for so long
// that what the node has stored since may be missing here; when it began is not
// told to a moment, but to the pause between two questions to the leader. Of
// this node it is never so: what it stored it knows.
func (g *Group) Unheard(node string) bool {
	return node != g.o.ID && g.silence.Unheard(time.Now(), heardLimit, node)
}

func (g *Group) serveIndex(w http.ResponseWriter, r *http.Request) {
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	member, err := callerOf(r)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	kept, err := strconv.ParseUint(r.URL.Query().Get("kept"), 10, 63)
	if err != nil {
		call.Refuse(w, fault.New(fault.Invalid, "group: a question without how long something was kept"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.settings.Answer)
	defer cancel()
	a, err := g.answer(ctx, member, time.Duration(min(kept, uint64(maxKept.Milliseconds())))*time.Millisecond)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	writeAnswer(w, a)
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
		a, err := g.ask(ctx)
		if now, _ := g.node.Generation(); now != generation {
			generation = now
			g.tracker.Reset()
			g.told.Store(0)
		} else if err == nil {
			g.tracker.Answered(sent, a.Index)
			g.silence.Told(sent, a.late())
			g.told.Store(a.Index)
			if !swept && g.node.Applied() >= a.Index {
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
