package catalog

// ShortenCommitted is [Catalog.Shorten] for facts that must never miss their
// support: they lean on nothing but what is committed, and on no series that is
// told in the same batch. They must be the facts of the node's next batch, all
// batches before it being committed and applied here.
func (c *Catalog) ShortenCommitted(facts []*SeriesFact) ([]*SeriesFact, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type name struct{ study, series string }
	told := map[name]bool{}
	for _, f := range facts {
		told[name{f.Study, f.Series}] = true
	}
	t := c.begin()
	short := make([]*SeriesFact, len(facts))
	for i, f := range facts {
		short[i] = f
		s, bad := f.check()
		if bad != nil || f.leans != nil {
			continue
		}
		on, err := t.committedSupport(f, s, func(series string) bool { return told[name{f.Study, series}] })
		if err != nil {
			return nil, err
		}
		if on != nil {
			leaning := *f
			leaning.support = on
			short[i] = &leaning
		}
	}
	return short, nil
}

// Leans reports whether a decoded fact leans on another, without which it says
// nothing.
func (f *SeriesFact) Leans() bool { return f.leans != nil }

// committedSupport returns what the node has committed of the series, else the
// best of what it has of others of the study that are not told anew; nil for none.
func (t *txn) committedSupport(f *SeriesFact, s *saying, told func(series string) bool) (*saying, error) {
	st, err := t.study(f.Study, false)
	if err != nil || st == nil {
		return nil, err
	}
	x, err := st.findSeries(f.Series)
	if err != nil {
		return nil, err
	}
	if on := said(x, f.Origin, false); on != nil && s.mayLean(on) {
		return on, nil
	}
	if err := st.loadAll(); err != nil {
		return nil, err
	}
	var best *saying
	least, looked := cost(s.attrs, nil, s.classes)-leanBytes, 0
	for _, x := range st.inOrder() {
		on := said(x, f.Origin, false)
		if on == nil || told(x.cur.uid) || !s.mayLean(on) {
			continue
		}
		if n := cost(s.leaned(on)); n < least {
			best, least = on, n
		}
		if looked++; looked == maxLooked {
			break
		}
	}
	return best, nil
}
