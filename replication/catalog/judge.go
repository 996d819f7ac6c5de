package catalog

// judge says of tombstones whether they may be acted on, as of one moment. It remembers
// what it has read of the members, and of the study that it was asked of last.
type judge struct {
	t     *txn    // that only reads, from a snapshot
	least *uint64 // index that every member that counts is past; nil: not read yet

	study, series string // asked of last
	held          bool   // what a hold says of the study, of whatever series
	unnamed       bool   // a hold of a patient keeps the series, of which nobody says whose it is
	known, seen   bool   // the study's, and the series', were read
}

// Overs reports of each tombstone whether it has stood for the network's grace, every
// member that counts is past it, and no hold keeps what it covers: that may be purged.
// They are judged beside Apply, as of one moment; in key order it costs least. While
// many are judged a copy of another node's catalogue cannot take this one's place: who
// has very many asks in parts.
func (c *Catalog) Overs(stones ...*Tombstone) (_ []bool, err error) {
	c.readers.enter()
	defer c.readers.leave()
	c.mu.Lock() // the names of nodes in rows become known right after the rows
	snapshot := c.db.NewSnapshot()
	c.mu.Unlock()
	defer func() {
		if closing := snapshot.Close(); err == nil {
			err = closing
		}
	}()
	j := &judge{t: &txn{c: c, at: snapshot, studies: map[string]*studyState{}, small: map[string][]byte{}}}
	over := make([]bool, len(stones))
	for i, stone := range stones {
		if over[i], err = j.over(stone); err != nil {
			return nil, err
		}
	}
	return over, nil
}

// Over is Overs of one tombstone.
func (c *Catalog) Over(stone *Tombstone) (bool, error) {
	over, err := c.Overs(stone)
	return err == nil && over[0], err
}

func (j *judge) over(stone *Tombstone) (bool, error) {
	since, refusal, err := j.t.agedAt(tombstoneKey(stone.Study, stone.Series, stone.Instance), stone.Study)
	if refusal != nil || err != nil {
		return false, err
	}
	if j.least == nil {
		least, err := j.t.leastApplied()
		if err != nil {
			return false, err
		}
		j.least = &least
	}
	if *j.least < since {
		return false, nil
	}
	held, err := j.keeps(stone.Study, stone.Series)
	return !held && err == nil, err
}

// keeps is heldOf, remembered.
func (j *judge) keeps(study, series string) (bool, error) {
	if !j.known || study != j.study {
		clear(j.t.studies) // one at a time is in memory
		j.t.touched = nil
		held, err := j.t.held(study)
		if err != nil {
			return false, err
		}
		j.study, j.held, j.known, j.seen = study, held, true, false
	}
	if j.held {
		return true, nil
	}
	if !j.seen || series != j.series {
		unnamed, err := j.t.heldUnnamed(study, series)
		if err != nil {
			return false, err
		}
		j.series, j.unnamed, j.seen = series, unnamed, true
	}
	return j.unnamed, nil
}
