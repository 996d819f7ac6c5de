package catalog

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// decide applies a decision: what admits says of it, or fault.Conflict when a
// condition does not hold; else results are the commands'. One that was taken before
// has the results it had and changes nothing.
func (t *txn) decide(e *Entry, index uint64) ([]error, error) {
	d := e.Decision
	result, err := t.c.admits(t.read, t.founded, e)
	if err != nil {
		return nil, err
	}
	if result != nil {
		return all(len(d.Commands), result), nil
	}
	taken := e.takenKey()
	row, err := t.read(taken)
	if err != nil {
		return nil, err
	}
	if row != nil {
		return decodeTaken(row, len(d.Commands))
	}
	results, err := t.decideNew(d, index)
	if err != nil {
		return nil, err
	}
	return results, t.agree(taken, encodeTaken(index, results))
}

// takenKey is that of what is remembered of a decision.
func (e *Entry) takenKey() []byte { return decisionKey(blake3.Sum256(decisionMessage(e.body))) }

func (t *txn) decideNew(d *Decision, index uint64) ([]error, error) {
	for _, c := range d.Conditions {
		value, err := t.read(registryKey(c.Kind, c.Name))
		if err != nil {
			return nil, err
		}
		if If(c.Kind, c.Name, value) != c {
			return all(len(d.Commands), fault.New(fault.Conflict, "catalog: a %q record is not what the decision is for", c.Kind)), nil
		}
	}
	results := make([]error, len(d.Commands))
	for i, c := range d.Commands {
		var err error
		if results[i], err = t.command(c, d.Node, index); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// command changes the transaction by one command of a node's decision. The first error
// is the command's result, the second ends the transaction.
func (t *txn) command(c Command, node string, index uint64) (result, err error) {
	switch k := c.(type) {
	case *TombstoneFact:
		return t.tombstoneFact(k, index)
	case *RestoreFact:
		return t.restoreFact(k)
	case *RegistryFact:
		return t.registryFact(k)
	case *TickFact:
		return t.tickFact(k, index)
	case *SeenFact:
		return t.seenFact(k, node, index)
	case *PurgeFact:
		return t.purgeFact(k, node, index)
	case *ForgetFact:
		return t.forgetFact(k, node, index)
	}
	return nil, fault.New(fault.Unsupported, "catalog: a command of unknown type %T", c)
}

func (t *txn) registryFact(f *RegistryFact) (result, err error) {
	if !isName(f.Kind) || !isName(f.Name) {
		return fault.New(fault.Invalid, "catalog: a registry record has no proper name"), nil
	}
	value := f.Value
	if len(value) == 0 {
		value = nil
	}
	if f.Kind == KindMember && value != nil {
		if _, bad := t.c.memberRecord(f.Name, value); bad != nil {
			return bad, nil
		}
		t.founded = true
		if err := t.joined(f.Name); err != nil {
			return nil, err
		}
	}
	t.registered = true
	switch {
	case f.Kind == KindAccepted && value != nil:
		return t.accept(f)
	case f.Kind == KindAccepted:
		return nil, t.unaccept(f)
	}
	return nil, t.agree(registryKey(f.Kind, f.Name), value)
}

const takenVersion = 1

// encodeTaken returns what is remembered of a decision: where it was taken, and
// the kinds of its results.
func encodeTaken(index uint64, results []error) []byte {
	b := binary.AppendUvarint([]byte{takenVersion}, index)
	for _, result := range results {
		if result == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1+byte(fault.KindOf(result)))
		}
	}
	return b
}

func decodeTaken(row []byte, commands int) ([]error, error) {
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != takenVersion {
		return nil, fault.New(fault.Unsupported, "catalog: decision of version %d", v)
	}
	index := d.uvarint()
	results := make([]error, commands)
	for i, kind := range d.take(uint64(commands)) {
		if kind > 0 {
			results[i] = fault.New(fault.Kind(kind-1), "catalog: refused by entry %d", index)
		}
	}
	return results, d.done("decision")
}

// all returns n results that are one error.
func all(n int, err error) []error {
	results := make([]error, max(n, 1))
	for i := range results {
		results[i] = err
	}
	return results
}
