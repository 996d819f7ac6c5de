package catalog

// LacksKey reports whether a key must be told: the catalogue does not have it, or has
// not this wrapping. What it would refuse must be told: the refusal is the network's.
func (c *Catalog) LacksKey(f *KeyFact) (bool, error) {
	row, err := get(c.db, keyKey(f.ID))
	if err != nil {
		return false, err
	}
	known, err := decodeKey(f.ID, row)
	if err != nil || known == nil {
		return err == nil, err
	}
	return known.fact() != *f && (known.Study != f.Study || known.Origin != f.Origin || f.Epoch >= known.Epoch), nil
}

// News returns how a node should tell a seal of its own, nil when the catalogue has
// just that: of a stripe that is committed what may change, which encodes to a third;
// else, and if it contradicts what is committed, all of it.
func (c *Catalog) News(f *SealFact) (*SealFact, error) {
	key := packKey(f.Study, f.Series, f.Stripe.Pack)
	row, err := get(c.db, key)
	if err != nil || row == nil {
		return f, err
	}
	p, err := decodePack(key, row)
	if err != nil {
		return nil, err
	}
	i, known := p.find(f.Stripe.Generation)
	switch {
	case !known || !p.fixes(f) || p.stripes[i].code != f.Code || p.stripes[i].root != f.Root:
		return f, nil
	case p.has(f):
		return nil, nil
	}
	short := *f
	short.news = true
	return &short, nil
}

// IsNews reports whether a decoded seal is told as what may change of a stripe, and
// has only that.
func (f *SealFact) IsNews() bool { return f.news }
