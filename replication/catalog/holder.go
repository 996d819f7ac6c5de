package catalog

import "pelago/cluster/fault"

// Holder is a node that says that it holds instances of a series.
type Holder struct {
	Study, Series string
	Node, Site    string
	AsOf          uint64 // the node's local number that this was true at
	Instances     uint64
	UIDHash       [16]byte // of the set of SOP Instance UIDs: equal hashes, equal sets
}

// Holders returns who holds a series or, with an empty series, every series of a
// study, in ascending UID order and of each in the order of first announcement.
// With an empty study it is every study that has the series. Series that a
// tombstone covers have no holders, those of Non-Patient Objects have.
func (v *View) Holders(study, series string) ([]Holder, error) {
	studies := []string{study}
	if study == "" {
		if series == "" {
			return nil, fault.New(fault.Invalid, "catalog: holders of nothing")
		}
		var err error
		if studies, err = v.studiesOf(series); err != nil {
			return nil, err
		}
	}
	var all []Holder
	for _, uid := range studies {
		s, _, err := findStudy(v.at, uid)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		for x, err := range allSeries(v.at, s, v.c) {
			if err != nil {
				return nil, err
			}
			if x.deleted || series != "" && x.uid != series {
				continue
			}
			all = x.appendHolders(all, uid)
		}
	}
	return all, nil
}

// Holders is as [View.Holders], of this series; Study is left empty.
func (r SeriesRow) Holders() []Holder { return r.x.appendHolders(nil, "") }

func (x *series) appendHolders(all []Holder, study string) []Holder {
	for i := range x.origins {
		o := &x.origins[i]
		if s := o.now(); s.instances > 0 {
			all = append(all, Holder{
				Study: study, Series: x.uid, Node: o.node, Site: s.site, AsOf: s.asOf, Instances: s.instances, UIDHash: s.uidHash,
			})
		}
	}
	return all
}

// studiesOf returns the UIDs of the studies that may have a series.
func (v *View) studiesOf(series string) ([]string, error) {
	orders, err := v.SeriesOrders(series)
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, o := range orders {
		row, err := get(v.at, studyKey(o))
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		s, err := decodeStudy(row)
		if err != nil {
			return nil, err
		}
		uids = append(uids, s.uid)
	}
	return uids, nil
}
