package catalog

import (
	"fmt"

	"pelago/cluster/fault"
	"pelago/replication"
)

// maxTxnFacts bounds, roughly, the facts that are in memory at once while a
// backlog is applied.
const maxTxnFacts = 2048

// applied is an entry of a transaction and what became of it.
type applied struct {
	index   uint64
	results []error
}

// Apply applies committed entries in order and makes at the position, which is
// that of the last of them or later; entries at or below the position are
// skipped, and there may be none. What an entry asks for and does not get is a
// result, equal on every node (see [Catalog.Results]), and so are bytes that are
// no entry. The error means that nothing of the last transaction was applied and
// that nothing more may be: the store failed, or an entry is for a newer version
// (fault.Unsupported).
//
// Position and records change in one step. A long run is applied in several, each
// of which leaves a position that is right. What is applied is durable after
// [Catalog.Sync].
func (c *Catalog) Apply(entries []replication.Entry, at replication.Position) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.Position()
	if at.Index <= known.Index {
		return nil
	}
	t := c.begin()
	var done []applied
	for _, e := range entries {
		if e.Index <= known.Index {
			continue
		}
		if e.Index > at.Index {
			return fault.New(fault.Invalid, "catalog: entry %d beyond position %d", e.Index, at.Index)
		}
		results, err := t.entry(e)
		if err != nil {
			return fmt.Errorf("catalog: entry %d: %w", e.Index, err)
		}
		done = append(done, applied{e.Index, results})
		c.entries.Add(1)
		c.entryBytes.Add(uint64(len(e.Data)))
		// Between two changes of the members nobody knows who they were: there the
		// position must move at once.
		if changed := at.MembersIndex != known.MembersIndex; t.facts >= maxTxnFacts && (!changed || at.MembersIndex <= e.Index) {
			part := at
			part.Index, part.Term = e.Index, e.Term
			if err := c.commit(t, part, done); err != nil {
				return err
			}
			t, done = c.begin(), nil
		}
	}
	return c.commit(t, at, done)
}

// commit writes a transaction that ends at a position.
func (c *Catalog) commit(t *txn, at replication.Position, done []applied) error {
	if at.Index == c.Applied() && len(done) == 0 && len(t.touched) == 0 {
		return nil
	}
	if err := t.save(at); err != nil {
		return err
	}
	if t.stones {
		c.stones.Store(true) // before the first can be seen
	}
	if err := t.rows.commit(c.db); err != nil {
		return err
	}
	if t.registered { // after it can be seen: who reads in between reads once more
		c.registryChanges.Add(1)
	}
	if t.buried {
		c.tombstoneChanges.Add(1)
	}
	t.publish()
	c.next = t.next
	c.founded.Store(t.founded)
	c.ticked.Store(t.ticked)
	c.totals.Store(&t.totals)
	c.sealed.Store(&t.sealed)
	if len(t.slots) > 0 {
		c.slots.add(t.slots)
	}
	c.state.Store(&state{at, t.hash})
	c.told.notify(done)
	return nil
}

// entry changes the transaction by an entry. The error ends the transaction.
func (t *txn) entry(e replication.Entry) ([]error, error) {
	entry, bad := DecodeEntry(e.Data)
	switch {
	case fault.Is(bad, fault.Unsupported):
		return nil, bad
	case bad != nil:
		return all(1, bad), nil
	case entry.Batch != nil:
		return t.batch(entry, e.Index)
	}
	t.facts++
	return t.decide(entry, e.Index)
}

// batch applies the facts of a batch, if it is the next of its journal.
func (t *txn) batch(e *Entry, index uint64) ([]error, error) {
	b := e.Batch
	next, isNew, result, err := records(t.read).follows(e, index)
	if err != nil {
		return nil, err
	}
	if result != nil || !isNew {
		return all(b.Len(), result), nil
	}
	results := make([]error, len(b.Facts), b.Len())
	for i, f := range b.Facts {
		if results[i], err = t.fact(f, place{index, uint32(i)}); err != nil {
			return nil, err
		}
	}
	if results, err = t.sealing(b, results); err != nil {
		return nil, err
	}
	t.facts += 1 + b.Len()
	return results, t.agree(cursorKey(b.Node), next.encode())
}

// Ahead lets queries here see facts of this node that are not committed yet. They
// are in no state hash and count for nothing that is committed; one is replaced
// once a later one of the same series is committed, or itself. Facts that name
// what cannot be are left out. It is as durable as what Apply writes: the caller
// says them again after a crash, in the order of its journal.
func (c *Catalog) Ahead(facts []*SeriesFact) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.begin()
	for _, f := range facts {
		if _, err := t.fact(f, place{index: uncommitted}); err != nil {
			return err
		}
	}
	return c.commit(t, c.Position(), nil)
}
