package catalog

import (
	"bytes"
	"math/bits"
	"slices"

	"pelago/cluster/fault"
	"pelago/shard"
)

// SealFact binds a pack to a stripe of it: what it is made of, which is fixed, and
// where its shards are, which is news each time that it is told with a higher
// Revision. All values are absolute.
type SealFact struct {
	By            string // node that says it
	Study, Series string
	Stripe        shard.Stripe

	// Of the pack: the same for all of its stripes.
	Origin    string   // node that packed it; By, unless that one is gone
	Key       [16]byte // id of the study key that opens it, by a KeyFact of the origin
	Size      int64    // bytes of the ciphertext
	Instances uint64   // that have all or part of their bytes in it

	// Of the stripe.
	Code shard.Code
	Root [32]byte // of the head, which describes the rest

	// What may change. Revision rises with each change, from 0, and may skip some that
	// were not told. Base is the revision that By had read when it last went on from
	// what another node had told: if such a one was told meanwhile, the fact is refused.
	Revision  uint64
	Base      uint64
	Layout    uint64 // version of the layout that the shards were placed by
	Receipts  uint16 // bit i, from the lowest: shard i is at its holder, by its receipt; of the virtual one, by the origin's word
	Virtual   int    // index of the shard that is cut from the origin's copy; NoShard: none is
	Elsewhere []Elsewhere
	// Withdrawn is the generation up to which stripes of the pack are withdrawn, since
	// this one is in their place and survives the loss of so many sites; 0: none is.
	Withdrawn uint32
	Survives  int

	news bool // it is told as what may change of a stripe that is committed
}

// Elsewhere is a shard that another node holds than the layout says.
type Elsewhere struct {
	Shard int
	Node  string
}

// NoShard is an index of none.
const NoShard = -1

// maxStripes bounds the stripes of a pack that are not withdrawn.
const maxStripes = 8

// Spare is how many shards with receipts the stripe has beyond those that it takes
// to read it; below 0, so many are lacking.
func (f *SealFact) Spare() int { return bits.OnesCount16(f.Receipts) - f.Code.K }

// checkNames returns fault.Invalid if the fact names what cannot be.
func (f *SealFact) checkNames() error {
	if !isUID(f.Study) || !isUID(f.Series) || !isName(f.By) || f.Stripe.Pack == [16]byte{} || f.Stripe.Generation == 0 {
		return fault.New(fault.Invalid, "catalog: a seal names what cannot be")
	}
	return nil
}

// check returns fault.Invalid if the fact says what cannot be. It is complete.
func (f *SealFact) check() error {
	if !isName(f.Origin) || f.Key == [16]byte{} || f.Root == [32]byte{} {
		return fault.New(fault.Invalid, "catalog: a seal names no origin, key or root")
	}
	if _, err := shard.NewGeometry(f.Code, f.Size); err != nil {
		return fault.New(fault.Invalid, "catalog: a seal: %w", err)
	}
	n := f.Code.N()
	if bits.Len16(f.Receipts) > n || f.Virtual < NoShard || f.Virtual >= n || len(f.Elsewhere) > n ||
		f.Withdrawn >= f.Stripe.Generation || f.Survives < 0 {
		return fault.New(fault.Invalid, "catalog: a seal of %v says what such a stripe cannot have", f.Code)
	}
	last := -1
	for _, e := range f.Elsewhere {
		if e.Shard <= last || e.Shard >= n || !isName(e.Node) {
			return fault.New(fault.Invalid, "catalog: a seal names shards elsewhere that its stripe has not, or not in their order")
		}
		last = e.Shard
	}
	return nil
}

// stripe is what the fact says of its stripe alone.
func (f *SealFact) stripe() stripe {
	return stripe{
		generation: f.Stripe.Generation, by: f.By, revision: f.Revision, code: f.Code, root: f.Root,
		layout: f.Layout, receipts: f.Receipts, virtual: f.Virtual, elsewhere: f.Elsewhere,
	}
}

// sealing changes the transaction by the keys and seals of a batch, and appends their
// results. A witness has neither, and is trusted with nobody's.
func (t *txn) sealing(b *Batch, results []error) ([]error, error) {
	if len(b.Keys)+len(b.Seals) == 0 {
		return results, nil
	}
	member, refusal, err := records(t.read).member(b.Node)
	if err != nil {
		return nil, err
	}
	if refusal == nil && member.Witness && !member.Founder {
		refusal = fault.New(fault.Denied, "catalog: a witness has no keys and no packs")
	}
	if refusal != nil {
		return append(results, all(len(b.Keys)+len(b.Seals), refusal)...), nil
	}
	for _, f := range b.Keys {
		result, err := t.keyFact(f)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	for _, f := range b.Seals {
		result, err := t.sealFact(f)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// sealFact is keyFact for a seal. Of what is fixed the first committed counts, and
// who says otherwise is told: the shards of two stripes under one name would not make
// a pack.
func (t *txn) sealFact(f *SealFact) (result, err error) {
	if bad := f.checkNames(); bad != nil {
		return bad, nil
	}
	p, refusal, err := t.pack(f)
	if err != nil || refusal != nil {
		return refusal, err
	}
	if f.news {
		if f, refusal = p.complete(f); refusal != nil {
			return refusal, nil
		}
	}
	if bad := f.check(); bad != nil {
		return bad, nil
	}
	isNew := p == nil
	if isNew {
		if refusal, err := t.opened(f); refusal != nil || err != nil {
			return refusal, err
		}
		p = &pack{id: f.Stripe.Pack, study: f.Study, series: f.Series, origin: f.Origin, key: f.Key, size: f.Size, instances: f.Instances}
	}
	before, key, noted := p.spare(), packKey(p.study, p.series, p.id), len(t.slots)
	t.slot(p, key, -1) // nothing of a new one
	changed, refusal := p.take(f)
	if refusal != nil || !changed {
		t.slots = t.slots[:noted]
		return refusal, nil
	}
	t.slot(p, key, +1)
	if isNew {
		t.small[string(spreadKey(p.id))] = placeIn(key)
		t.small[string(key)] = nil // as its place says: agree needs not look
	} else {
		t.sealed.count(p.size, before, -1)
	}
	t.sealed.count(p.size, p.spare(), +1)
	return nil, t.agree(key, p.encode())
}

// placeIn is what the row of a pack's place holds, of the key of its seals: which
// series it is of.
func placeIn(key []byte) []byte { return key[1 : 1+2*hashBytes] }

// pack returns the pack of a fact, nil when it is unknown: fault.Conflict when it is
// of another series.
func (t *txn) pack(f *SealFact) (p *pack, refusal, err error) {
	where, err := t.read(spreadKey(f.Stripe.Pack))
	if err != nil {
		return nil, nil, err
	}
	if where == nil {
		refusal, err := t.wasPurged(f.Stripe.Pack)
		return nil, refusal, err
	}
	key := packKey(f.Study, f.Series, f.Stripe.Pack)
	refusal = fault.New(fault.Conflict, "catalog: a pack of one series is told of another")
	if !bytes.Equal(placeIn(key), where) {
		return nil, refusal, nil
	}
	row, err := t.read(key)
	if err == nil {
		p, err = decodePack(key, row)
	}
	if err != nil {
		return nil, nil, err
	}
	if p.study != f.Study || p.series != f.Series {
		return nil, refusal, nil
	}
	return p, nil, nil
}

// opened refuses a pack that nobody could open, for its key is not known, or is
// another origin's or study's.
func (t *txn) opened(f *SealFact) (refusal, err error) {
	k, err := t.key(f.Key)
	switch {
	case err != nil:
		return nil, err
	case k == nil:
		return fault.New(fault.NotFound, "catalog: the key of a pack is not known"), nil
	case k.Study != f.Study || k.Origin != f.Origin:
		return fault.New(fault.Conflict, "catalog: the key of a pack is another study's or node's"), nil
	}
	return nil, nil
}

// complete returns news with what is known of its stripe, and is otherwise as take. A
// nil pack knows nothing.
func (p *pack) complete(f *SealFact) (*SealFact, error) {
	if p == nil {
		return nil, fault.New(fault.NotFound, "catalog: news of a pack that is not known")
	}
	i, known := p.find(f.Stripe.Generation)
	switch {
	case f.Stripe.Generation <= p.withdrawn:
		return nil, p.gone(f.Stripe.Generation)
	case !known:
		return nil, fault.New(fault.NotFound, "catalog: news of a stripe that is not known")
	}
	whole := *f
	whole.news = false
	whole.Origin, whole.Key, whole.Size, whole.Instances = p.origin, p.key, p.size, p.instances
	whole.Code, whole.Root = p.stripes[i].code, p.stripes[i].root
	return &whole, nil
}

func (p *pack) gone(generation uint32) error {
	return fault.New(fault.Conflict, "catalog: generation %d of a pack is withdrawn, as all up to %d", generation, p.withdrawn)
}

// take lets a pack have what a fact says, and reports whether that changes anything.
// It is refused with fault.Conflict, and nothing changes, if it contradicts what is
// fixed, is no news, or withdraws what is not replaced.
func (p *pack) take(f *SealFact) (changed bool, refusal error) {
	i, known := p.find(f.Stripe.Generation)
	next := f.stripe()
	switch {
	case !p.fixes(f):
		return false, fault.New(fault.Conflict, "catalog: another pack has this id")
	case f.Stripe.Generation <= p.withdrawn:
		return false, p.gone(f.Stripe.Generation)
	case !known && len(p.stripes) == maxStripes:
		return false, fault.New(fault.Conflict, "catalog: a pack has %d stripes: some must be withdrawn", maxStripes)
	case !known:
	case p.stripes[i].code != f.Code || p.stripes[i].root != f.Root:
		return false, fault.New(fault.Conflict, "catalog: another stripe has this name")
	case p.has(f):
		return false, nil
	case f.Revision <= p.stripes[i].revision:
		return false, fault.New(fault.Conflict, "catalog: revision %d of a stripe is told, %d is known", f.Revision, p.stripes[i].revision)
	case f.By != p.stripes[i].by && f.Base != p.stripes[i].revision:
		return false, fault.New(fault.Conflict, "catalog: a stripe is told by who has read revision %d, another node's %d is known", f.Base, p.stripes[i].revision)
	}
	kept, refusal := p.replaced(f)
	if refusal != nil {
		return false, refusal
	}
	if known {
		p.stripes[i] = next
	} else {
		p.stripes = slices.Insert(p.stripes, i, next)
	}
	p.stripes = p.stripes[kept:]
	p.withdrawn = max(p.withdrawn, f.Withdrawn)
	return true, nil
}

// fixes reports whether a fact says of the pack what is known.
func (p *pack) fixes(f *SealFact) bool {
	return p.study == f.Study && p.series == f.Series && p.origin == f.Origin && p.key == f.Key && p.size == f.Size && p.instances == f.Instances
}

// has reports whether a fact says what is known.
func (p *pack) has(f *SealFact) bool {
	i, known := p.find(f.Stripe.Generation)
	said := f.stripe()
	return known && p.stripes[i].equal(&said) && f.Withdrawn <= p.withdrawn
}

// replaced returns how many stripes, from the first, a fact withdraws. Its stripe must
// then survive the loss of as many sites as the fact says, and of as many as any
// of those does, unless all its shards are there.
func (p *pack) replaced(f *SealFact) (count int, refusal error) {
	if f.Withdrawn <= p.withdrawn {
		return 0, nil
	}
	least := f.Survives
	for i := range p.stripes {
		s := &p.stripes[i]
		if s.generation > f.Withdrawn {
			break
		}
		least = max(least, min(s.spare(), f.Code.M))
		count++
	}
	if f.Spare() < least {
		return 0, fault.New(fault.Conflict, "catalog: a stripe with receipts for the loss of %d sites is to replace one for %d", f.Spare(), least)
	}
	return count, nil
}
