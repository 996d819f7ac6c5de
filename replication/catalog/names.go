package catalog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// name is a node and its site, which stand in every saying: records hold a number
// in place of them. The numbers are of this catalogue alone, and never reused.
// There are as many as members and sites that they were moved to, for a batch
// names the site of its member record.
type name struct{ node, site string }

const namesVersion = 1

func nameKey(number int) []byte {
	return binary.BigEndian.AppendUint32([]byte{rowName}, uint32(number))
}

// loadNames reads the names.
func (c *Catalog) loadNames() error {
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowName}, UpperBound: after([]byte{rowName})})
	if err != nil {
		return fmt.Errorf("catalog: read names: %w", err)
	}
	defer it.Close()
	var list []name
	c.nameOf = map[name]int{}
	for it.First(); it.Valid(); it.Next() {
		d := &decoder{b: it.Value()}
		if v := d.byte(); !d.bad && v != namesVersion {
			return fault.New(fault.Unsupported, "catalog: names of version %d", v)
		}
		n := name{d.string(), d.string()}
		if err := d.done("name"); err != nil {
			return err
		}
		if string(it.Key()) != string(nameKey(len(list))) {
			return fault.New(fault.Corrupt, "catalog: name %d is missing", len(list))
		}
		c.nameOf[n] = len(list)
		list = append(list, n)
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read names: %w", err)
	}
	c.names.Store(&list)
	return nil
}

// number returns the number of a name, which it gets if it has none.
func (t *txn) number(n name) int {
	if i, ok := t.c.nameOf[n]; ok {
		return i
	}
	known := len(*t.c.names.Load())
	if i := slices.Index(t.names, n); i >= 0 {
		return known + i
	}
	i := known + len(t.names)
	t.names = append(t.names, n)
	t.rows.set(nameKey(i), appendString(appendString([]byte{namesVersion}, n.node), n.site))
	return i
}

// publish makes new names known to readers, once their rows are written.
func (t *txn) publish() {
	if len(t.names) == 0 {
		return
	}
	list := slices.Clone(*t.c.names.Load())
	for _, n := range t.names {
		t.c.nameOf[n] = len(list)
		list = append(list, n)
	}
	t.c.names.Store(&list)
}
