package catalog

import (
	"bytes"
	"context"
	"fmt"

	"pelago/replication/catalog/catalogpb"
)

// EncodeDecisionUnder encodes a decision under a given nonce.
func EncodeDecisionUnder(nonce [16]byte, s Signer, node string, conditions []Condition, commands []Command) ([]byte, error) {
	return encodeDecision(s, &catalogpb.Decision{Node: node, Nonce: nonce[:]}, conditions, commands)
}

// CountSlotsPage counts the slots of so many packs more, and reports whether all are.
func CountSlotsPage(c *Catalog, packs int) (bool, error) { return c.countSlots(packs) }

// Dump returns all rows but meta and vocabularies, which tell of the past, and
// decisions, whose names are random, as text.
func Dump(c *Catalog) []string {
	it, err := c.db.NewIter(nil)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	var rows []string
	for it.First(); it.Valid(); it.Next() {
		if !bytes.Contains([]byte{rowMeta, rowPosition, rowDecision}, it.Key()[:1]) && it.Key()[0] != rowWord {
			rows = append(rows, fmt.Sprintf("%q %q", it.Key(), it.Value()))
		}
	}
	return rows
}

// Marks is the number of series that have sayings that are not committed yet.
func Marks(c *Catalog) int {
	marks, err := c.marks([]byte{rowAhead})
	if err != nil {
		panic(err)
	}
	return len(marks)
}

// OfSeries returns those of an entry's results that are of facts of series: none of
// what is no batch.
func OfSeries(entry []byte, results []error) []error {
	e, err := DecodeEntry(entry)
	if err != nil || e.Batch == nil {
		return nil
	}
	return results[:min(len(results), len(e.Batch.Facts))]
}

// Rests compacts all rows and returns the bytes of the tables that they are in.
func Rests(c *Catalog) uint64 {
	if err := c.db.Flush(); err != nil {
		panic(err)
	}
	if err := c.db.Compact(context.Background(), []byte{0}, []byte{0xFF}, true); err != nil {
		panic(err)
	}
	m := c.db.Metrics().Total()
	return uint64(m.TablesSize)
}
