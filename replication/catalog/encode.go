package catalog

import (
	"strings"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
)

// batchToProto groups facts of one study that stand together.
func batchToProto(b Batch, previous [32]byte) (*catalogpb.Batch, error) {
	if !isName(b.Node) || len(b.Site) > maxName || b.Incarnation == 0 || b.Number == 0 || b.Len() > MaxBatchFacts {
		return nil, fault.New(fault.Invalid, "catalog: batch %d of incarnation %d with %d facts is none", b.Number, b.Incarnation, b.Len())
	}
	pb := &catalogpb.Batch{Node: b.Node, Site: valid(b.Site), Incarnation: b.Incarnation, Number: b.Number}
	if b.Number > 1 {
		pb.After = previous[:hashPrefixBytes]
	} else if previous != ([32]byte{}) {
		return nil, fault.New(fault.Invalid, "catalog: nothing precedes the first batch")
	}
	w := factWriter{batch: pb}
	for _, f := range b.Facts {
		if f.Origin != b.Node || f.Site != b.Site {
			return nil, fault.New(fault.Invalid, "catalog: a fact of another node")
		}
		if err := w.add(f); err != nil {
			return nil, err
		}
	}
	return pb, sealsToProto(pb, b)
}

// factWriter encodes facts one after the other.
type factWriter struct {
	batch   *catalogpb.Batch
	study   *catalogpb.StudyFacts
	uid     string  // before the next
	said    *saying // by the fact before in the study, if a reader of the batch alone knows it
	arrived int64
}

func (w *factWriter) add(f *SeriesFact) error {
	if w.study == nil || w.study.Study != f.Study {
		w.study = &catalogpb.StudyFacts{Study: f.Study}
		w.batch.Studies = append(w.batch.Studies, w.study)
		w.uid, w.said = f.Study, nil
	}
	as, err := f.attrs()
	if err != nil {
		return err
	}
	s := &saying{issuer: valid(f.Issuer), attrs: as, classes: f.Classes, reserved: f.Reserved}
	shared := commonPrefix(w.uid, f.Series)
	pb := &catalogpb.SeriesFact{
		Shared: uint32(shared), Series: f.Series[shared:], AsOf: f.AsOf, Instances: f.Instances, Bytes: f.Bytes,
		UidHash: f.UIDHash[:uidHashBytes], Arrived: f.Arrived - w.arrived,
	}
	var more attrs
	switch {
	case f.leans != nil: // it was told so, and is told again
		more, pb.Base, pb.Dropped, pb.Classes = as, f.leans.hash[:], f.leans.dropped, f.Classes
		s = nil
	case f.support != nil:
		hash := f.support.description()
		s.anonymous()
		more, pb.Dropped, pb.Classes = s.leaned(f.support)
		pb.Base, s = hash[:], nil
	case w.said != nil && s.mayLean(w.said):
		pb.Follows = true
		more, pb.Dropped, pb.Classes = s.leaned(w.said)
	default:
		more, pb.Issuer, pb.Classes, pb.Reserved = as, s.issuer, s.classes, s.reserved
	}
	if len(more) > 0 {
		pb.Attributes = appendAttrs(nil, more)
	}
	w.study.Series = append(w.study.Series, pb)
	w.uid, w.said, w.arrived = f.Series, s, f.Arrived
	return nil
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
		if b.Len()+len(study.GetSeries())+len(study.GetKeys())+len(study.GetSeals()) > MaxBatchFacts || !b.sealsFromProto(study) {
			return bad()
		}
		uid, before := study.GetStudy(), (*SeriesFact)(nil)
		for _, s := range study.GetSeries() {
			if int(s.GetShared()) > len(uid) {
				return bad()
			}
			f, ok := factFromProto(s, before)
			if !ok {
				return bad()
			}
			arrived += s.Arrived
			f.Origin, f.Site, f.Study, f.Series, f.Arrived = b.Node, b.Site, study.Study, uid[:s.Shared]+s.Series, arrived
			b.Facts = append(b.Facts, f)
			uid, before = f.Series, f
			if len(uid) > maxUID { // else a few bytes could name gigabytes
				return bad()
			}
		}
	}
	return b, nil
}

// factFromProto reads a fact, all but its names, beside the one before it in its
// study.
func factFromProto(s *catalogpb.SeriesFact, before *SeriesFact) (*SeriesFact, bool) {
	var as attrs
	if len(s.Attributes) > 0 {
		d := &decoder{b: s.Attributes}
		if as = d.attrs(); d.done("fact") != nil {
			return nil, false
		}
	}
	f := &SeriesFact{
		AsOf: s.AsOf, Instances: s.Instances, Bytes: s.Bytes, Issuer: s.Issuer, Classes: s.Classes, Reserved: s.Reserved, isParsed: true,
	}
	switch {
	case len(s.Base) == leanBytes && !s.Follows:
		f.leans = &lean{hash: [leanBytes]byte(s.Base), dropped: s.Dropped}
	case len(s.Base) != 0 || s.Follows && (before == nil || before.leans != nil):
		return nil, false
	case s.Follows:
		told := saying{attrs: as, classes: s.Classes}
		told.restore(&saying{issuer: before.Issuer, attrs: before.parsed, classes: before.Classes, reserved: before.Reserved}, s.Dropped)
		as, f.Issuer, f.Classes, f.Reserved = told.attrs, told.issuer, told.classes, told.reserved
	}
	f.parsed = as
	return f, copy(f.UIDHash[:], s.UidHash) == len(s.UidHash) && len(s.UidHash) == uidHashBytes && as.bounded()
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
	case *TickFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Tick{Tick: &catalogpb.TickFact{From: c.From, To: c.To}}}, nil
	case *SeenFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Seen{Seen: &catalogpb.SeenFact{Applied: c.Applied, Dropped: c.Dropped}}}, nil
	case *PurgeFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Purge{Purge: &catalogpb.PurgeFact{
			Pack: c.Pack[:], Study: c.Study, Series: c.Series, Instances: c.Instances,
		}}}, nil
	case *ForgetFact:
		return &catalogpb.Command{Kind: &catalogpb.Command_Forget{Forget: &catalogpb.ForgetFact{Key: c.Key[:]}}}, nil
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
	case *catalogpb.Command_Tick:
		return &TickFact{k.Tick.GetFrom(), k.Tick.GetTo()}, nil
	case *catalogpb.Command_Seen:
		return &SeenFact{k.Seen.GetApplied(), k.Seen.GetDropped()}, nil
	case *catalogpb.Command_Purge:
		f := &PurgeFact{Study: k.Purge.GetStudy(), Series: k.Purge.GetSeries(), Instances: k.Purge.GetInstances()}
		return f, idFromProto(&f.Pack, k.Purge.GetPack())
	case *catalogpb.Command_Forget:
		f := &ForgetFact{}
		return f, idFromProto(&f.Key, k.Forget.GetKey())
	}
	return nil, fault.New(fault.Unsupported, "catalog: a command of unknown type: a newer version wrote it")
}

func idFromProto(id *[16]byte, b []byte) error {
	if copy(id[:], b) != len(b) || len(b) != len(id) {
		return fault.New(fault.Invalid, "catalog: a command with an id of %d bytes", len(b))
	}
	return nil
}
