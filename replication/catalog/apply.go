package catalog

import (
	"strings"

	"pelago/cluster/fault"
)

// Limits of what a command may name.
const (
	maxUID     = 128 // the standard's 64, and what real files hold
	maxName    = 256 // node, site, issuer, registry names
	maxClasses = 1024
)

// Apply applies commands atomically together with the applied index; an index
// at or below the applied one is skipped, with nil results. Results are per
// command: nil or an error of a kind (Invalid, Conflict, NotFound) that every
// node computes alike, which left nothing of that command behind. The error
// means that nothing was applied and that nothing more may be: the store
// failed, or a command is not understood (fault.Unsupported).
//
// What is applied is durable after [Catalog.Sync].
func (c *Catalog) Apply(index uint64, commands []Command) ([]error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index <= c.applied.Load() {
		return nil, nil
	}
	t := c.begin()
	results := make([]error, len(commands))
	for i, command := range commands {
		result, err := t.apply(command)
		if err != nil {
			return nil, err
		}
		results[i] = result
	}
	if err := t.save(index); err != nil {
		return nil, err
	}
	if t.stones {
		c.stones.Store(true) // before the first can be seen
	}
	if err := t.rows.commit(c.db); err != nil {
		return nil, err
	}
	c.next = t.next
	c.totals.Store(&t.totals)
	c.applied.Store(index)
	return results, nil
}

// apply changes the transaction by one command. The first error is the
// command's result, the second ends the transaction.
func (t *txn) apply(command Command) (result, err error) {
	switch k := command.(type) {
	case *SeriesFact:
		return t.seriesFact(k)
	case *TombstoneFact:
		return t.tombstoneFact(k)
	case *RestoreFact:
		return t.restoreFact(k)
	case *RegistryFact:
		return t.registryFact(k)
	}
	return nil, fault.New(fault.Unsupported, "catalog: a command of unknown type %T", command)
}

func (t *txn) seriesFact(f *SeriesFact) (result, err error) {
	if !isUID(f.Study) || !isUID(f.Series) || f.Origin == "" || len(f.Origin) > maxName || len(f.Site) > maxName ||
		len(f.Issuer) > maxName || len(f.Classes) > maxClasses {
		return fault.New(fault.Invalid, "catalog: a series fact names what cannot be"), nil
	}
	for _, class := range f.Classes {
		if !isUID(class) {
			return fault.New(fault.Invalid, "catalog: a series fact has a SOP class of %d bytes", len(class)), nil
		}
	}
	as, bad := parseAttributes(f.Attributes)
	if bad != nil {
		return bad, nil
	}
	st, err := t.study(f.Study, f.Instances > 0)
	if err != nil || st == nil {
		return nil, err
	}
	x, err := st.findSeries(f.Series)
	if err != nil {
		return nil, err
	}
	o := origin{
		node: f.Origin, site: f.Site, asOf: f.AsOf, issuer: f.Issuer, attrs: as, instances: f.Instances,
		bytes: f.Bytes, uidHash: [uidHashBytes]byte(f.UIDHash[:uidHashBytes]), classes: f.Classes, reserved: f.Reserved, arrived: f.Arrived,
	}
	if as.text(codePatientID) == "" {
		o.issuer = ""
	}
	if x == nil {
		if f.Instances == 0 {
			return nil, nil
		}
		return nil, st.newSeries(f.Series, o)
	}
	return nil, st.changeSeries(x, o)
}

// newSeries adds a series to the study. It is the last in announcement, so
// that the study's fold goes on where it was.
func (st *studyState) newSeries(uid string, o origin) error {
	deleted, err := st.t.covered(st.cur.uid, uid)
	if err != nil {
		return err
	}
	x := &series{uid: uid, sequence: st.cur.nextSeries, deleted: deleted, origins: []origin{o}}
	st.cur.nextSeries++
	st.loaded[uid] = &seriesState{cur: x, changed: true}
	if x.visible() && !st.refold {
		st.cur.add(x)
	}
	st.t.rows.set(seriesUIDKey(uid, st.cur.uid), nil)
	return nil
}

// changeSeries folds a fact of a known series in: by difference where only
// counts rise, else the study is folded again.
func (st *studyState) changeSeries(x *seriesState, o origin) error {
	before := x.cur.counts()
	change := x.cur.take(o)
	if change == changedNothing {
		return nil
	}
	x.changed = true
	after := x.cur.counts()
	if change == changedAll || before.approx || after.approx || after.arrived < before.arrived {
		st.refold = true
	}
	if st.refold || !x.cur.visible() {
		return nil
	}
	st.cur.instances -= before.instances
	st.cur.bytes -= before.bytes
	st.cur.addCounts(x.cur)
	return nil
}

// isUID reports whether a string may be a UID as real files have them.
func isUID(s string) bool {
	if s == "" || len(s) > maxUID {
		return false
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7E {
			return false
		}
	}
	return true
}

func (t *txn) registryFact(f *RegistryFact) (result, err error) {
	if f.Kind == "" || f.Name == "" || len(f.Kind) > maxName || len(f.Name) > maxName ||
		strings.IndexByte(f.Kind, 0) >= 0 || strings.IndexByte(f.Name, 0) >= 0 {
		return fault.New(fault.Invalid, "catalog: a registry record has no proper name"), nil
	}
	if len(f.Value) == 0 {
		t.rows.drop(registryKey(f.Kind, f.Name))
	} else {
		t.rows.set(registryKey(f.Kind, f.Name), f.Value)
	}
	return nil, nil
}
