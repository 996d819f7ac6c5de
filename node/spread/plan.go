package spread

import (
	"fmt"
	"slices"
	"time"

	"pelago/cluster/layout"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/stripe"
)

// job is a pack in a round: a stripe of it, and what it lacks.
type job struct {
	it   *item
	pack *archivepb.Pack
	from *source
	head *stripe.Head // only its plan, until it is encoded
	root [32]byte     // that the catalogue has for it; zeros: any

	state   *placement.State // by which it is placed
	at      []string         // by shard, who holds it; "": nobody yet
	got     []bool           // by shard, whether that came to be in this round
	virtual int              // shard that is cut from this node's copy
	resumed bool             // shards may be at their holders by an earlier attempt
	read    *catalog.SealFact

	// before are the seals of the pack that are committed, and what earlier
	// generations survive at the most, of them and of what was told.
	before  []catalog.Seal
	earlier int

	broken error // why this node cannot give its shards
}

func (w *job) of() shard.Stripe { return w.head.Stripe }

// encoded reports whether the stripe's head is complete.
func (w *job) encoded() bool { return w.head.Roots != nil }

// lacks are the shards that nobody holds.
func (w *job) lacks() (all []int) {
	for i, node := range w.at {
		if node == "" {
			all = append(all, i)
		}
	}
	return all
}

// gets notes who holds a shard.
func (w *job) gets(i int, node string) {
	if w.got == nil {
		w.got = make([]bool, len(w.at))
	}
	w.at[i], w.got[i] = node, true
}

// maxStanding is how many stripes a pack may have before it grows no more until some
// are withdrawn: the catalogue takes 8.
const maxStanding = 6

// plan finds out what is to be done with a pack; nil: nothing. Errors that [gone]
// reports are of packs of which this node has no copy any more.
func (s *Spread) plan(state *placement.State, it *item) (*job, error) {
	p, from, err := s.o.Packs.Ciphertext(it.id)
	if err != nil {
		return nil, err
	}
	if err := s.reconcile(it.id); err != nil {
		return nil, err
	}
	seals, err := s.sealsOf(it.id)
	if err != nil {
		return nil, err
	}
	rows, err := s.ledger.stripes(it.id)
	if err != nil {
		return nil, err
	}
	w := &job{it: it, pack: p, from: &source{from: from, size: p.BlobBytes}, state: state, virtual: catalog.NoShard, before: seals}
	want := state.Code.For(p.BlobBytes)
	r, top, standing := latest(rows), it.taken, len(seals)
	for _, row := range rows {
		top = max(top, row.seal.Stripe.Generation)
	}
	if len(seals) > 0 {
		top = max(top, seals[0].Stripe.Generation, seals[0].Withdrawn)
	}
	switch {
	case r != nil && r.seal.Stripe.Generation == top && top > it.taken && (standing > maxStanding || !outgrown(r.seal.Code, want, state)):
		w.resume(r)
	case r == nil && len(seals) > 0 && seals[0].Stripe.Generation == top && top > it.taken && (standing > maxStanding || !outgrown(seals[0].Code, want, state)):
		w.adopt(s.o.Self, &seals[0].SealFact)
	default:
		w.begin(s.o.Self, shard.Stripe{Pack: it.id, Generation: top + 1}, want)
	}
	w.uncut()
	for _, row := range rows {
		if g := row.seal.Stripe.Generation; g < w.of().Generation {
			w.earlier = max(w.earlier, min(row.seal.Spare(), w.head.Code.M))
		}
	}
	for i := range seals {
		if seals[i].Stripe.Generation < w.of().Generation {
			w.earlier = max(w.earlier, min(seals[i].Spare(), w.head.Code.M))
		}
	}
	if _, err := w.head.Geometry(); err != nil {
		return nil, fmt.Errorf("spread: %w", err)
	}
	if r != nil && w.of() == r.seal.Stripe && len(w.lacks()) == 0 && r.number > 0 && r.told == r.seal.Revision && !w.withdraws(&r.seal) {
		return nil, nil
	}
	return w, nil
}

// latest is the row of the last generation that this node has encoded; nil: none.
func latest(rows []*record) (last *record) {
	for _, r := range rows {
		if r.head != nil {
			last = r
		}
	}
	return last
}

// reconcile takes in what is committed of a pack's stripes: others may have told of
// them, and a later one may have taken their place.
func (s *Spread) reconcile(id [16]byte) error {
	rows, err := s.ledger.stripes(id)
	if err != nil || len(rows) == 0 {
		return err
	}
	seals, err := s.sealsOf(id)
	if err != nil || len(seals) == 0 {
		return err
	}
	state := s.o.Placement.State()
	of := make([]shard.Stripe, 0, len(rows))
	for _, r := range rows {
		if r.head != nil {
			of = append(of, r.seal.Stripe)
		}
	}
	_, err = s.ledger.change(of, func(_ int, r *record) (*record, verdict, error) { return s.settle(state, r, seals, false) })
	return err
}

// outgrown reports whether a stripe's code is to be replaced: it survives less than
// the network does, or the network has more sites by now, or fewer than it needs. A
// code that an operator has lowered is for new packs.
func outgrown(have, want shard.Code, state *placement.State) bool {
	switch {
	case have == want:
		return false
	case have.M < min(state.Survives, want.M) || want.N() > have.N():
		return true
	}
	width := state.View.New.Width()
	return have.N() > width && want.N() <= width
}

// plan of a stripe's head.
func (w *job) plan(self string, of shard.Stripe, code shard.Code) {
	w.head = &stripe.Head{
		Stripe: of, Code: code, Size: w.pack.BlobBytes, Plaintext: w.pack.Plaintext, Manifest: w.pack.Manifest, Origin: self,
	}
	copy(w.head.Key[:], w.pack.Key)
	copy(w.head.Pack[:], w.pack.Root)
	w.at = make([]string, code.N())
}

// begin plans a stripe that there is nothing of.
func (w *job) begin(self string, of shard.Stripe, code shard.Code) { w.plan(self, of, code) }

// resume goes on with a stripe that was encoded.
func (w *job) resume(r *record) {
	w.head, w.at, w.virtual, w.resumed = r.head, r.holders(w.state), r.seal.Virtual, true
}

// adopt goes on with a stripe that is committed and has no row here: this node's
// store/ is from a backup, or another node has striped the pack.
func (w *job) adopt(self string, c *catalog.SealFact) {
	w.plan(self, c.Stripe, c.Code)
	w.root, w.read, w.resumed, w.virtual = c.Root, c, true, c.Virtual
	w.at = holdersOf(w.state, c, w.at)
}

// holders are who holds the shards now. Of a layout that is not known any more all
// shards are where the one after it has them: it was complete before that one went.
func (r *record) holders(state *placement.State) []string {
	at := slices.Clone(r.at)
	if rowOf(state, &r.seal) != nil {
		return at
	}
	for i, node := range at {
		elsewhere := slices.ContainsFunc(r.seal.Elsewhere, func(e catalog.Elsewhere) bool { return e.Shard == i })
		if owner, ok := state.Owner(r.seal.Stripe, i); ok && node != "" && !elsewhere && r.seal.Virtual != i {
			at[i] = owner.ID
		}
	}
	return at
}

// holdersOf are the nodes that hold a stripe's shards by a seal: those of the row of
// its layout, if that is still known, and of before, what was known.
func holdersOf(state *placement.State, f *catalog.SealFact, before []string) []string {
	at := make([]string, f.Code.N())
	for i := range at {
		if f.Receipts>>i&1 == 0 {
			continue
		}
		if i < len(before) {
			at[i] = before[i]
		}
		if row := rowOf(state, f); i < len(row) && (at[i] == "" || row[i].ID != at[i]) {
			at[i] = row[i].ID
		}
		if f.Virtual == i {
			at[i] = f.Origin
		}
		for _, e := range f.Elsewhere {
			if e.Shard == i {
				at[i] = e.Node
			}
		}
	}
	return at
}

// rowOf is the row that a seal names; none if its layout is not known any more.
func rowOf(state *placement.State, f *catalog.SealFact) []layout.Node {
	for _, l := range []*layout.Layout{state.View.New, state.View.Old} {
		if l != nil && l.Version == f.Layout {
			return l.Row(l.Group(shard.Spread(f.Stripe.Pack)))
		}
	}
	return nil
}

// seal is what is to be told of a stripe as it is now. before is what was; nil:
// nothing.
func (w *job) seal(self string, before *catalog.SealFact) catalog.SealFact {
	w.uncut()
	l := w.state.View.New
	f := catalog.SealFact{
		By: self, Study: w.pack.Study, Series: w.pack.Series, Stripe: w.of(),
		Origin: w.head.Origin, Key: w.head.Key, Size: w.head.Size, Instances: uint64(w.pack.Instances),
		Code: w.head.Code, Root: w.head.Root(), Layout: l.Version, Virtual: catalog.NoShard,
	}
	switch {
	case before != nil:
		f.Revision, f.Base, f.Withdrawn, f.Survives = before.Revision, before.Base, before.Withdrawn, before.Survives
	case w.read != nil:
		f.Revision, f.Base = w.read.Revision, w.read.Revision
	}
	row := l.Row(l.Group(shard.Spread(f.Stripe.Pack)))
	for i, node := range w.at {
		switch {
		case node == "":
			continue
		case w.virtual == i && node == self:
			f.Virtual = i
		case i >= len(row) || row[i].ID != node:
			f.Elsewhere = append(f.Elsewhere, catalog.Elsewhere{Shard: i, Node: node})
		}
		f.Receipts |= 1 << i
	}
	if w.withdraws(&f) {
		f.Withdrawn, f.Survives = f.Stripe.Generation-1, w.state.Survives
	}
	return f
}

// withdraws reports whether a stripe takes the place of the earlier ones, which it
// does not yet by what is told of it: it survives what the network does, and what they
// do.
func (w *job) withdraws(f *catalog.SealFact) bool {
	g := f.Stripe.Generation
	if g == 1 || f.Withdrawn >= g-1 || len(w.before) > 0 && w.before[0].Withdrawn >= g-1 {
		return false
	}
	spare := f.Spare()
	for i, node := range w.at {
		if f.Receipts>>i&1 == 1 && w.state.Lost(node) {
			spare--
		}
	}
	return spare >= max(w.state.Survives, w.earlier, 0)
}

// siteOf is the site of a node; "": it is not known.
func siteOf(state *placement.State, node string) string {
	if site := state.Site(node); site != "" {
		return site
	}
	for _, l := range []*layout.Layout{state.View.New, state.View.Old} {
		if l == nil {
			continue
		}
		for i := range l.Nodes {
			if l.Nodes[i].ID == node {
				return l.Nodes[i].Site
			}
		}
	}
	return ""
}

// place is a shard of a work.
type place struct {
	w     *job
	index int
}

// assign decides where the shards go that a work lacks: each to the node of the row,
// or to one that stands in for it. One that is to be this node's is cut from its copy,
// if there is one.
// It returns who would be asked and is not, for now.
func (s *Spread) assign(w *job, now time.Time, to map[string][]place) (needs []string) {
	sites := map[string]bool{}
	for _, node := range w.at {
		if node != "" {
			sites[siteOf(w.state, node)] = true
		}
	}
	give := func(i int, n layout.Node) {
		sites[n.Site] = true
		if n.ID == s.o.Self && w.cuts() {
			w.gets(i, n.ID)
			w.virtual = i
			return
		}
		to[n.ID] = append(to[n.ID], place{w, i})
	}
	var lacking []int
	for _, i := range w.lacks() {
		owner, ok := w.state.Owner(w.of(), i)
		switch {
		case !ok: // there are not so many sites
		case sites[owner.Site], owner.ID == s.o.Self && w.virtual != catalog.NoShard:
			lacking = append(lacking, i)
		case owner.ID == s.o.Self && w.cuts() || !w.state.Lost(owner.ID) && s.peers.usable(owner.ID, now):
			give(i, owner)
		default:
			lacking = append(lacking, i)
		}
	}
	for _, i := range lacking {
		owner, _ := w.state.Owner(w.of(), i)
		needs = append(needs, owner.ID)
		if !w.it.hurried.Load() && !w.state.Lost(owner.ID) && s.peers.failing(owner.ID, now) < substituteAfter && !sites[owner.Site] {
			continue
		}
		for _, n := range w.state.Substitutes(w.of(), w.head.Code.N()) {
			if sites[n.Site] || n.ID == s.o.Self && w.virtual != catalog.NoShard || (n.ID != s.o.Self || !w.cuts()) && (w.state.Lost(n.ID) || !s.peers.usable(n.ID, now)) {
				continue
			}
			give(i, n)
			break
		}
	}
	return needs
}
