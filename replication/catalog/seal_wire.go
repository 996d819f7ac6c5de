package catalog

import (
	"math"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogpb"
	"pelago/shard"
	"pelago/shard/seal"
)

// sealsToProto adds a batch's keys and seals, under the studies that its other facts
// are under as far as their order allows.
func sealsToProto(pb *catalogpb.Batch, b Batch) error {
	if len(b.Keys)+len(b.Seals) == 0 {
		return nil
	}
	w := sealWriter{batch: pb, last: map[string]int{}}
	for i, s := range pb.Studies {
		w.last[s.Study] = i
	}
	for _, f := range b.Keys {
		if f.Origin != b.Node {
			return fault.New(fault.Invalid, "catalog: a key of another node")
		}
		study := w.under(f.Study)
		study.Keys = append(study.Keys, &catalogpb.KeyFact{Id: f.ID[:], Epoch: f.Epoch, Wrapped: f.Wrapped[:]})
	}
	w.at = 0
	for _, f := range b.Seals {
		if f.By != b.Node {
			return fault.New(fault.Invalid, "catalog: a seal that another node says")
		}
		if !f.fits() {
			return fault.New(fault.Invalid, "catalog: a seal says what cannot be")
		}
		w.add(f)
	}
	return nil
}

// sealWriter encodes keys, then seals, one after the other.
type sealWriter struct {
	batch *catalogpb.Batch
	last  map[string]int // place of the last that is of a study
	at    int            // what is told next stands here or later, so that the order stays

	study *catalogpb.StudyFacts // of the seal before
	chain sealChain
}

// sealChain is what a seal leaves out: what it has of the one before it in the study.
type sealChain struct {
	series string
	key    [16]byte
}

// chainOf begins in a study whose keys are known.
func chainOf(study *catalogpb.StudyFacts) sealChain {
	c := sealChain{series: study.Study}
	if n := len(study.Keys); n > 0 {
		copy(c.key[:], study.Keys[n-1].GetId())
	}
	return c
}

// under returns where to put what is told next of a study.
func (w *sealWriter) under(study string) *catalogpb.StudyFacts {
	i, ok := w.last[study]
	if !ok || i < w.at {
		i = len(w.batch.Studies)
		w.batch.Studies, w.last[study] = append(w.batch.Studies, &catalogpb.StudyFacts{Study: study}), i
	}
	w.at = i
	return w.batch.Studies[i]
}

func (w *sealWriter) add(f *SealFact) {
	if study := w.under(f.Study); study != w.study {
		w.study, w.chain = study, chainOf(study)
	}
	shared := commonPrefix(w.chain.series, f.Series)
	w.chain.series = f.Series
	pb := &catalogpb.SealFact{
		Shared: uint32(shared), Series: f.Series[shared:], Pack: f.Stripe.Pack[:], Generation: f.Stripe.Generation,
		Layout: f.Layout, Receipts: uint32(f.Receipts), Virtual: uint32(f.Virtual + 1), Revision: f.Revision,
		Withdrawn: f.Withdrawn, Survives: uint32(f.Survives),
	}
	for _, e := range f.Elsewhere {
		pb.Elsewhere = append(pb.Elsewhere, &catalogpb.Elsewhere{Shard: uint32(e.Shard), Node: e.Node})
	}
	w.study.Seals = append(w.study.Seals, pb)
	if f.news {
		return
	}
	pb.Code, pb.Size, pb.Root, pb.Instances = uint32(f.Code.K<<codeBits|f.Code.M), uint64(f.Size), f.Root[:], f.Instances
	if f.Key != w.chain.key {
		pb.Key, w.chain.key = f.Key[:], f.Key
	}
	if f.Origin != f.By {
		pb.Origin = f.Origin
	}
}

// codeBits is how many bits of a code its parity shards have.
const codeBits = 4

// fits reports whether the numbers of a fact can be told.
func (f *SealFact) fits() bool {
	number := func(v int) bool { return v >= 0 && v < math.MaxInt32>>codeBits }
	ok := f.Size >= 0 && number(f.Code.K) && number(f.Code.M) && f.Code.M < 1<<codeBits && number(f.Virtual+1) && number(f.Survives)
	for _, e := range f.Elsewhere {
		ok = ok && number(e.Shard)
	}
	return ok
}

// sealsFromProto reads the keys and seals of a study, whose facts are no more than a
// batch may have. It reports whether they are any.
func (b *Batch) sealsFromProto(study *catalogpb.StudyFacts) bool {
	for _, k := range study.GetKeys() {
		f := &KeyFact{Origin: b.Node, Study: study.Study, Epoch: k.GetEpoch()}
		if len(k.GetId()) != len(f.ID) || len(k.GetWrapped()) != seal.WrappedBytes {
			return false
		}
		copy(f.ID[:], k.Id)
		copy(f.Wrapped[:], k.Wrapped)
		b.Keys = append(b.Keys, f)
	}
	if len(study.GetSeals()) == 0 {
		return true
	}
	chain := chainOf(study)
	for _, s := range study.Seals {
		f, ok := chain.fact(s)
		if !ok {
			return false
		}
		if f.Study, f.By = study.Study, b.Node; !f.news && f.Origin == "" {
			f.Origin = b.Node
		}
		b.Seals = append(b.Seals, f)
	}
	return true
}

// fact reads a seal, all but its study and who says it. One that is news leaves out
// everything that is fixed.
func (c *sealChain) fact(s *catalogpb.SealFact) (*SealFact, bool) {
	if int(s.GetShared()) > len(c.series) || len(s.GetPack()) != 16 || s.GetReceipts() > math.MaxUint16 || s.GetSize() > math.MaxInt64 {
		return nil, false
	}
	f := &SealFact{
		Series: c.series[:s.Shared] + s.Series, Stripe: shard.Stripe{Pack: [16]byte(s.Pack), Generation: s.Generation},
		Origin: s.Origin, Size: int64(s.Size), Instances: s.Instances,
		Code:     shard.Code{K: int(s.Code >> codeBits), M: int(s.Code & (1<<codeBits - 1))},
		Revision: s.Revision, Layout: s.Layout, Receipts: uint16(s.Receipts), Virtual: int(s.Virtual) - 1,
		Withdrawn: s.Withdrawn, Survives: int(s.Survives), news: len(s.Root) == 0,
	}
	if len(f.Series) > maxUID { // else a few bytes could name gigabytes
		return nil, false
	}
	c.series = f.Series
	for _, e := range s.Elsewhere {
		f.Elsewhere = append(f.Elsewhere, Elsewhere{int(e.GetShard()), e.GetNode()})
	}
	if f.news {
		return f, f.fits() && f.Size == 0 && f.Instances == 0 && s.Code == 0 && len(s.Key) == 0 && f.Origin == ""
	}
	switch len(s.Key) {
	case 0:
	case len(c.key):
		c.key = [16]byte(s.Key)
	default:
		return nil, false
	}
	f.Key = c.key
	return f, f.fits() && copy(f.Root[:], s.Root) == len(s.Root) && len(s.Root) == len(f.Root)
}
