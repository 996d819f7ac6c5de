package match

import (
	"pelago/cluster/fault"
	"pelago/dimse/dicom"
)

// sequenceTest matches when one item matches every key (PS3.4 C.2.2.2.6).
type sequenceTest struct{ keys *Matcher }

func compileSequence(r *rule, el *dicom.Element, options Options, budget *int, depth int) error {
	switch len(el.Items) {
	case 0:
		return nil
	case 1:
	default:
		return fault.New(fault.Mismatch, "match: key %v has %d items; it may have one", el.Tag, len(el.Items))
	}
	m, err := compile(el.Items[0], options, budget, depth+1)
	if err != nil || len(m.rules) == 0 {
		return err
	}
	if options.Timezone {
		widen(m.rules) // whether the keys have a zone is known at the top only
	}
	r.test, r.key.Kind, r.key.Keys = &sequenceTest{m}, Sequence, m.Keys()
	return nil
}

func (t *sequenceTest) match(c candidate, el *dicom.Element) bool {
	for _, item := range el.Items {
		c.ds = item
		if t.keys.match(c, nil) {
			return true
		}
	}
	return false
}
