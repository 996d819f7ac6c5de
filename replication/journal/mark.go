package journal

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
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
	j.series.hasten(to, time.Now())
	poke(j.wake)
	var failed error
	err := j.awaitLocked(ctx, func() (done bool) {
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
// to the mark.
func (m Mark) reached(c catalog.Cursor, known bool) bool {
	if m.Number == 0 {
		return true
	}
	return known && (c.Incarnation > m.Incarnation || c.Incarnation == m.Incarnation && c.Number >= m.Number)
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
	response, err := peers.Do(ctx, node, http.MethodGet, MarkPath, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	b, err := call.Read(response.Body, maxMark)
	if err != nil {
		return err
	}
	var m Mark
	if err := json.Unmarshal(b, &m); err != nil {
		return fault.New(fault.Protocol, "journal: a peer's mark: %w", err)
	}
	for {
		changed := j.catalog.Changed()
		if c, known, err := j.catalog.Cursor(node); err != nil || m.reached(c, known) {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "journal: what node %s has stored is not known here yet: %w", node, ctx.Err())
		case <-changed:
		}
	}
}
