package catalog

import (
	"crypto/ed25519"

	"pelago/cluster/fault"
)

// records reads the small records that an entry is judged by: as a transaction
// leaves them, or as they are committed.
type records func(key []byte) ([]byte, error)

// committed reads records as they are committed.
func (c *Catalog) committed(key []byte) ([]byte, error) { return get(c.db, key) }

// Admit says whether a node may propose an entry, as of what is applied here, by
// whatever of Apply's rules an entry that is yet to come cannot change. Whoever leads
// asks before an entry is in the order, where it stays and costs every site its
// bytes, taken or not. Errors are those of [DecodeEntry], one of which, for a newer
// version, would stop all nodes that cannot read it; fault.Denied when the entry is
// another's, or not signed by a member who may; and of a batch that is not the next
// of its journal fault.Mismatch or, if it is known, fault.Conflict.
//
// again reports a decision that was taken before: it has its results once more and
// changes nothing.
func (c *Catalog) Admit(from string, entry []byte) (again bool, err error) {
	e, err := DecodeEntry(entry)
	if err != nil {
		return false, err
	}
	if e.node() != from {
		return false, fault.New(fault.Denied, "catalog: an entry of one node is proposed by another")
	}
	if e.Batch != nil {
		_, isNew, refusal, err := records(c.committed).follows(e, 0)
		if err == nil && refusal == nil && !isNew {
			refusal = fault.New(fault.Conflict, "catalog: batch %d is known", e.Batch.Number)
		}
		if err != nil {
			return false, err
		}
		return false, refusal
	}
	if refusal, err := c.admits(c.committed, c.founded.Load(), e); err != nil || refusal != nil {
		if err == nil {
			err = refusal
		}
		return false, err
	}
	row, err := c.committed(e.takenKey())
	return row != nil, err
}

// node is the node that an entry is of.
func (e *Entry) node() string {
	if e.Batch != nil {
		return e.Batch.Node
	}
	return e.Decision.Node
}

// admits judges who has signed a decision: fault.Denied when no member did, or a
// witness one of more than its own address. Until there was a member, one that makes
// its own node a member is signed by that node's key.
func (c *Catalog) admits(read records, founded bool, e *Entry) (refusal, err error) {
	d := e.Decision
	member, refusal, err := read.member(d.Node)
	if err != nil {
		return nil, err
	}
	if !founded {
		if member = c.founder(d); member != nil {
			refusal = nil
		}
	}
	switch {
	case refusal != nil:
		return refusal, nil
	case !ed25519.Verify(member.PublicKey, decisionMessage(e.body), e.signature):
		return fault.New(fault.Denied, "catalog: the signature of a decision is not good"), nil
	case member.Witness && !member.Founder && !d.moves(member):
		return fault.New(fault.Denied, "catalog: a witness decides nothing but where it is reached: ask another node"), nil
	}
	return nil, nil
}
