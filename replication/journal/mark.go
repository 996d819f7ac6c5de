package journal

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/replication/catalog"
)

// Mark is a place in a node's journal: the end of a batch.
type Mark struct {
	Incarnation uint64 `json:"incarnation"`
	Number      uint64 `json:"number"` // of the batch; 0: none was logged
}

// Mark returns where the journal ends once all is logged that Dirty named before
// the call: who has applied it up to there knows everything that this node had
// acknowledged then. A series that was logged within the last second waits until
// that is over. fault.Unavailable when there is no room in the log, since the
// network takes nothing.
func (j *Journal) Mark(ctx context.Context) (Mark, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	complete := func() bool { return j.announced && j.unmarked == 0 }
	if err := j.awaitLocked(ctx, complete); err != nil {
		return Mark{}, err
	}
	to := j.cursor.highest()
	var failed error
	err := j.awaitLocked(ctx, func() (done bool) {
		if j.series.hasten(to, time.Now()) { // also what was in flight, and was only told
			poke(j.wake)
		}
		done, failed = j.series.logged(to)
		if j.left != 0 && j.left <= to {
			failed = fault.New(fault.Unavailable, "there is no room in the log")
		}
		return failed != nil || done && complete()
	})
	switch {
	case err != nil:
		return Mark{}, err
	case failed != nil:
		return Mark{}, fault.New(fault.Unavailable, "journal: a series is not logged: %w", failed)
	}
	return Mark{j.state.incarnation, j.state.next - 1}, nil
}

// reached reports whether a catalogue that has a journal up to a cursor has it up
// to the mark; void, that it never will have: a new incarnation has begun, which
// announces everything again in its own order.
func (m Mark) reached(c catalog.Cursor, known bool) (reached, void bool) {
	if m.Number == 0 {
		return true, false
	}
	return known && c.Incarnation == m.Incarnation && c.Number >= m.Number, known && c.Incarnation > m.Incarnation
}

// MarkPath is where nodes ask each other for [Journal.Mark].
const MarkPath = "/journal/mark"

const (
	maxMark  = 1 << 10         // bytes of an answer
	markTime = 8 * time.Second // for an answer
)

// Handler answers other nodes, under /journal/ of the peer service.
func (j *Journal) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+MarkPath, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), markTime)
		defer cancel()
		m, err := j.Mark(ctx)
		if err != nil {
			call.Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m) // an asker that is gone needs no answer
	})
	return mux
}

// After returns once the catalogue here knows everything that a node, this one or
// another, had acknowledged before the call: who has stored there reads it here
// then (DESIGN §6). fault.Unavailable when the node does not answer, or ctx ends.
func (j *Journal) After(ctx context.Context, node string, peers *call.Client) error {
	if node == j.o.Node {
		return j.Settle(ctx)
	}
	for {
		m, err := markOf(ctx, node, peers)
		if err != nil {
			return err
		}
		if void, err := j.awaitMark(ctx, node, m); !void || err != nil {
			return err
		}
		// The node may not have heard yet that it has to begin one.
		if !pause.For(ctx, minPause) {
			return unknown(ctx, node)
		}
	}
}

// markOf asks a node for its mark.
func markOf(ctx context.Context, node string, peers *call.Client) (m Mark, err error) {
	response, err := peers.Do(ctx, node, http.MethodGet, MarkPath, nil)
	if err != nil {
		return m, err
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxMark)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fault.New(fault.Protocol, "journal: a peer's mark: %w", err)
	}
	return m, nil
}

// awaitMark returns once the catalogue here has a node's journal up to a mark, or the
// mark is void.
func (j *Journal) awaitMark(ctx context.Context, node string, m Mark) (void bool, err error) {
	for {
		changed := j.catalog.Changed()
		c, known, err := j.catalog.Cursor(node)
		if err != nil {
			return false, err
		}
		if reached, void := m.reached(c, known); reached || void {
			return void, nil
		}
		select {
		case <-ctx.Done():
			return false, unknown(ctx, node)
		case <-changed:
		}
	}
}

func unknown(ctx context.Context, node string) error {
	return fault.New(fault.Unavailable, "journal: what node %s has stored is not known here yet: %w", node, ctx.Err())
}
