package catalog

import (
	"strings"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
)

// batchToProto groups facts of one study that stand together.
func batchToProto(b Batch, previous [32]byte) (*catalogpb.Batch, error) {
	if !isName(b.Node) || len(b.Site) > maxName || b.Incarnation == 0 || b.Number == 0 || len(b.Facts) > MaxBatchFacts {
		return nil, fault.New(fault.Invalid, "catalog: batch %d of incarnation %d with %d facts is none", b.Number, b.Incarnation, len(b.Facts))
	}
	pb := &catalogpb.Batch{Node: b.Node, Site: valid(b.Site), Incarnation: b.Incarnation, Number: b.Number}
	if b.Number > 1 {
		pb.After = previous[:hashPrefixBytes]
	} else if previous != ([32]byte{}) {
		return nil, fault.New(fault.Invalid, "catalog: nothing precedes the first batch")
	}
	var study *catalogpb.StudyFacts
	before, arrived := "", int64(0)
	for _, f := range b.Facts {
		if f.Origin != b.Node || f.Site != b.Site {
			return nil, fault.New(fault.Invalid, "catalog: a fact of another node")
		}
		as, err := f.attrs()
		if err != nil {
			return nil, err
		}
		if study == nil || study.Study != f.Study {
			study = &catalogpb.StudyFacts{Study: f.Study}
			pb.Studies = append(pb.Studies, study)
			before = f.Study
		}
		shared := commonPrefix(before, f.Series)
		study.Series = append(study.Series, &catalogpb.SeriesFact{
			Shared: uint32(shared), Series: f.Series[shared:], AsOf: f.AsOf, Instances: f.Instances, Bytes: f.Bytes,
			UidHash: f.UIDHash[:uidHashBytes], Arrived: f.Arrived - arrived, Attributes: appendAttrs(nil, as),
			Issuer: valid(f.Issuer), Classes: f.Classes, Reserved: f.Reserved,
		})
		before, arrived = f.Series, f.Arrived
	}
	return pb, nil
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func batchFromProto(pb *catalogpb.Batch) (*Batch, error) {
	bad := func() (*Batch, error) {
		return nil, fault.New(fault.Invalid, "catalog: batch %d of incarnation %d cannot be read", pb.Number, pb.Incarnation)
	}
	if !isName(pb.Node) || len(pb.Site) > maxName || pb.Incarnation == 0 || pb.Number == 0 {
		return bad()
	}
	if pb.Number == 1 && len(pb.After) != 0 || pb.Number > 1 && len(pb.After) != hashPrefixBytes {
		return bad()
	}
	b := &Batch{Node: pb.Node, Site: pb.Site, Incarnation: pb.Incarnation, Number: pb.Number}
	arrived := int64(0)
	for _, study := range pb.Studies {
		before := study.GetStudy()
		for _, s := range study.GetSeries() {
			if len(b.Facts) == MaxBatchFacts || int(s.GetShared()) > len(before) || len(s.UidHash) != uidHashBytes {
				return bad()
			}
			d := &decoder{b: s.Attributes}
			as := d.attrs()
			if err := d.done("fact"); err != nil || !as.bounded() {
				return bad()
			}
			arrived += s.Arrived
			f := &SeriesFact{
				Origin: b.Node, Site: b.Site, AsOf: s.AsOf, Study: study.Study, Series: before[:s.Shared] + s.Series,
				Issuer: s.Issuer, parsed: as, isParsed: true, Instances: s.Instances, Bytes: s.Bytes,
				Classes: s.Classes, Reserved: s.Reserved, Arrived: arrived,
			}
			copy(f.UIDHash[:], s.UidHash)
			b.Facts = append(b.Facts, f)
			before = f.Series
			if len(before) > maxUID { // else a few bytes could name gigabytes
				return bad()
			}
		}
	}
	return b, nil
}

// attrs returns the attributes of a fact.
func (f *SeriesFact) attrs() (attrs, error) {
	if f.isParsed {
		return f.parsed, nil
	}
	return parseAttributes(f.Attributes)
}

func commandToProto(c Command) (*catalogpb.Command, error) {
	switch c := c.(type) {
	case *TombstoneFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Tombstone{Tombstone: &catalogpb.TombstoneFact{
			Study: c.Study, Series: c.Series, Instance: c.Instance, Tick: c.Tick, By: valid(c.By),
		}}}, nil
	case *RestoreFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Restore{Restore: &catalogpb.RestoreFact{
			Study: c.Study, Series: c.Series, Instance: c.Instance, Tick: c.Tick, By: valid(c.By),
		}}}, nil
	case *RegistryFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Registry{Registry: &catalogpb.RegistryFact{
			Kind: c.Kind, Name: c.Name, Value: c.Value,
		}}}, nil
	}
	return nil, fault.New(fault.Unsupported, "catalog: no encoding for command %T", c)
}

// valid returns text as protobuf takes it: what is no UTF-8 as U+FFFD.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func commandFromProto(pb *catalogpb.Command) (Command, error) {
	switch k := pb.GetKind().(type) {
	case *catalogpb.Command_Tombstone:
		t := k.Tombstone
		return &TombstoneFact{t.GetStudy(), t.GetSeries(), t.GetInstance(), t.GetTick(), t.GetBy()}, nil
	case *catalogpb.Command_Restore:
		r := k.Restore
		return &RestoreFact{r.GetStudy(), r.GetSeries(), r.GetInstance(), r.GetTick(), r.GetBy()}, nil
	case *catalogpb.Command_Registry:
		r := k.Registry
		return &RegistryFact{r.GetKind(), r.GetName(), r.GetValue()}, nil
	}
	return nil, fault.New(fault.Unsupported, "catalog: a command of unknown type: a newer version wrote it")
}
