package catalog

import "fmt"

// Dump returns all rows but meta and vocabularies, which tell of the past, as text.
func Dump(c *Catalog) []string {
	it, err := c.db.NewIter(nil)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	var rows []string
	for it.First(); it.Valid(); it.Next() {
		if it.Key()[0] != rowMeta && it.Key()[0] != rowWord {
			rows = append(rows, fmt.Sprintf("%q %q", it.Key(), it.Value()))
		}
	}
	return rows
}
