package spread

import (
	"encoding/binary"
	"fmt"
	"sync"

	"pelago/cluster/fault"
	"pelago/shard"
)

// Rows is a part of store/; *archive.Rows is one.
type Rows interface {
	// Commit writes rows, and drops those whose value is nil, all or none. They are
	// durable when it returns.
	Commit(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
	// From visits rows in key order, from the first one that is not before key on,
	// until visit returns false. The value is valid during the call.
	From(key string, visit func(key string, value []byte) (bool, error)) error
}

// ledger is the rows of stripes, and of what is told of them.
type ledger struct {
	rows Rows

	// telling is held from reading rows to the commit of what becomes of them: rows
	// come to be in the order of their numbers, and nobody's change is lost.
	telling sync.Mutex
	last    uint64 // number that was given last
}

func openLedger(rows Rows) (*ledger, error) {
	l := &ledger{rows: rows}
	value, ok, err := rows.Get(string(rune(rowNumber)))
	if err != nil {
		return nil, fmt.Errorf("spread: %w", err)
	}
	if ok {
		if len(value) != 8 {
			return nil, fault.New(fault.Corrupt, "spread: a number of %d bytes", len(value))
		}
		l.last = binary.BigEndian.Uint64(value)
	}
	return l, nil
}

// stripe returns what is known of a stripe; nil: nothing.
func (l *ledger) stripe(of shard.Stripe) (*record, error) {
	value, ok, err := l.rows.Get(keyStripe(of))
	if err != nil || !ok {
		return nil, err
	}
	return decodeRecord(of, value)
}

// stripes returns what is known of a pack's, in the order of generations.
func (l *ledger) stripes(pack [16]byte) (all []*record, err error) {
	prefix := keyStripe(shard.Stripe{Pack: pack})
	err = l.rows.From(prefix, func(key string, value []byte) (bool, error) {
		of, ok := stripeOf(key)
		if !ok || of.Pack != pack {
			return false, nil
		}
		r, err := decodeRecord(of, value)
		all = append(all, r)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// verdict is what becomes of a stripe's row.
type verdict uint8

const (
	leave verdict = iota // as it is
	note                 // as it was changed
	tell                 // as it was changed, and the network is to learn of it
	drop
)

// change decides about rows, nil where there is none, and makes it durable, all or
// none. It reports whether anything is to be told.
func (l *ledger) change(of []shard.Stripe, decide func(i int, r *record) (*record, verdict, error)) (told bool, err error) {
	l.telling.Lock()
	defer l.telling.Unlock()
	t := turn{ledger: l, last: l.last, rows: map[string][]byte{}}
	for i, stripe := range of {
		was, err := l.stripe(stripe)
		if err != nil {
			return false, err
		}
		next, v, err := decide(i, was)
		if err == nil {
			err = t.put(stripe, next, v)
		}
		if err != nil {
			return false, err
		}
	}
	if len(t.rows) == 0 {
		return false, nil
	}
	if told = t.last != l.last; told {
		t.rows[string(rune(rowNumber))] = binary.BigEndian.AppendUint64(nil, t.last)
	}
	if err := l.rows.Commit(t.rows); err != nil {
		return false, fmt.Errorf("spread: %w", err)
	}
	l.last = t.last
	return told, nil
}

// turn are rows that are about to be written.
type turn struct {
	*ledger
	last uint64
	rows map[string][]byte
}

func (t *turn) put(of shard.Stripe, r *record, v verdict) error {
	switch v {
	case leave:
		return nil
	case drop:
		t.rows[keyStripe(of)] = nil
		if r != nil && r.number > 0 {
			t.rows[keyFact(r.number)] = nil
		}
		return nil
	case tell:
		if r.head != nil {
			if err := t.key(r.seal.Key); err != nil {
				return err
			}
		}
		if r.number > 0 {
			t.rows[keyFact(r.number)] = nil
		}
		r.number, r.told = t.next(), r.seal.Revision
		t.rows[keyFact(r.number)] = []byte(keyStripe(of))
	case note:
	}
	b, err := r.encode()
	t.rows[keyStripe(of)] = b
	return err
}

func (t *turn) next() uint64 { t.last++; return t.last }

// key has a study key told that never was, before the seal that needs it.
func (t *turn) key(id [16]byte) error {
	key := keyKey(id)
	if t.rows[key] != nil {
		return nil
	}
	_, known, err := t.ledger.rows.Get(key)
	if err != nil || known {
		return err
	}
	t.tellKey(id, 0)
	return nil
}

// tellKey has a study key told, in place of an earlier number.
func (t *turn) tellKey(id [16]byte, before uint64) {
	if before > 0 {
		t.rows[keyFact(before)] = nil
	}
	number := t.next()
	t.rows[keyFact(number)] = []byte(keyKey(id))
	t.rows[keyKey(id)] = binary.BigEndian.AppendUint64(nil, number)
}

// againKey has a study key told once more, and the stripes that need it after it.
func (l *ledger) againKey(id [16]byte, of []shard.Stripe) error {
	l.telling.Lock()
	defer l.telling.Unlock()
	t := turn{ledger: l, last: l.last, rows: map[string][]byte{}}
	value, known, err := l.rows.Get(keyKey(id))
	if err != nil {
		return err
	}
	var before uint64
	if known && len(value) == 8 {
		before = binary.BigEndian.Uint64(value)
	}
	t.tellKey(id, before)
	for _, stripe := range of {
		r, err := l.stripe(stripe)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		if err := t.put(stripe, r, tell); err != nil {
			return err
		}
	}
	t.rows[string(rune(rowNumber))] = binary.BigEndian.AppendUint64(nil, t.last)
	if err := l.rows.Commit(t.rows); err != nil {
		return fmt.Errorf("spread: %w", err)
	}
	l.last = t.last
	return nil
}
