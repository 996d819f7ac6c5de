package protect

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/shard/held"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// lookTime bounds a look: who has not answered by then has not confirmed anything.
const lookTime = 10 * time.Second

// headAsks is how many heads are asked for at once.
const headAsks = 8

// assess asks, of all stripes at once and each node once, for what the row of DESIGN
// §2 wants: receipts and proofs of shards from who holds them, and from members that
// the seal is applied and the key opens. What is found is in the candidates; the error
// is of all of them.
func (p *Protect) assess(ctx context.Context, all []*candidate) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	// Who is cut off from the network may go by an old layout, and a t that was lower.
	if err := p.o.Current(ctx); err != nil && p.bug != bugOwnView {
		return fault.New(fault.Unavailable, "what the network has agreed on is not known: %w", err)
	}
	st := all[0].mark.state
	if now := p.o.Placement.State(); now != st {
		return fault.New(fault.Unavailable, "the layout is changing")
	}
	p.heads(ctx, st, all)
	asks := p.asks(st, all)
	var mu sync.Mutex // guards the candidates' evidence
	var each sync.WaitGroup
	for _, a := range asks {
		each.Go(func() {
			a.ask(ctx, p)
			a.spoil(p)
			mu.Lock()
			defer mu.Unlock()
			a.note()
		})
	}
	each.Wait()
	for _, c := range all {
		if c.head == nil {
			c.why = fault.New(fault.Unavailable, "the head of %v is not to be had", c.seal.Stripe)
			continue
		}
		if c.why = lacks(&c.seal.SealFact, c.head.Carries, c.survives, c.evidence, p.bug); c.why == nil {
			c.why = p.copyIsWhole(whole, c)
		}
		for index, node := range c.absent() {
			p.doubt(held.Name{Stripe: c.seal.Stripe, Index: index}, node)
		}
	}
	return nil
}

// copyFor is how long it counts that this node's copy of a pack was read whole, unless
// rot is met in it: reading it may take longer than the rest stays fresh.
const copyFor = 10 * time.Minute

// copyIsWhole reads this node's copy of a pack again if a shard that is cut from it
// was counted. It comes last, because it reads all of it.
func (p *Protect) copyIsWhole(ctx context.Context, c *candidate) error {
	if !slices.ContainsFunc(c.evidence.shards, func(s proof) bool { return s.cut && s.node == p.o.Self }) || time.Since(c.copied) < copyFor || p.bug == bugCopyUnread {
		return nil
	}
	began := time.Now()
	if err := p.o.Copy.Verify(ctx, c.seal.Stripe); err != nil {
		return fault.New(fault.Unavailable, "this node's copy of %v is not as it was sealed: %w", c.seal.Stripe, err)
	}
	c.copied = began
	return nil
}

// absent are the shards that none of those who may have them has, and who should.
func (c *candidate) absent() map[int]string {
	absent := map[int]string{}
	for index, f := range c.found {
		if !f.unsure && f.lacking != "" && !slices.ContainsFunc(c.evidence.shards, func(s proof) bool { return s.index == index }) {
			absent[index] = f.lacking
		}
	}
	return absent
}

// heads gets the heads that are not here, each from the first that has it.
func (p *Protect) heads(ctx context.Context, st *placement.State, all []*candidate) {
	places := make(chan struct{}, headAsks)
	var each sync.WaitGroup
	for _, c := range all {
		if c.head != nil {
			continue
		}
		if c.seal.Origin == p.o.Self {
			if head, err := p.o.Spread.Head(c.seal.Stripe); err == nil && head.Root() == c.seal.Root {
				c.head = head
				continue
			}
		}
		places <- struct{}{}
		each.Go(func() {
			defer func() { <-places }()
			c.head = p.headFromAny(ctx, c, st.Places(&c.seal.SealFact))
		})
	}
	each.Wait()
}

func (p *Protect) headFromAny(ctx context.Context, c *candidate, places []recall.Place) *stripe.Head {
	slices.SortStableFunc(places, func(a, b recall.Place) int { // who seems to be there first
		return cmp.Compare(p.rank(a.Node), p.rank(b.Node))
	})
	for _, at := range places {
		name := held.Name{Stripe: c.seal.Stripe, Index: at.Index}
		if at.Node == p.o.Self {
			if s, err := p.o.Held.Shard(name); err == nil && s.Head().Root() == c.seal.Root {
				return s.Head()
			}
			continue
		}
		if head, err := p.o.Shards.Head(ctx, at.Node, held.Entry{Name: name, Root: c.seal.Root}); err == nil {
			return head
		}
	}
	return nil
}

func (p *Protect) rank(node string) int {
	switch {
	case node == p.o.Self:
		return 0
	case p.o.Alive(node):
		return 1
	}
	return 2
}

// ask is what one node is asked.
type ask struct {
	node, site string
	shards     []wanted
	seals      []*candidate

	receipts []error // of shards
	proofs   []error
	seen     []Confirmed // of seals; nil: it did not say
}

// wanted is a shard that a node may have.
type wanted struct {
	of    *candidate
	index int
	cut   bool // from its copy
}

func (w wanted) entry() held.Entry {
	return held.Entry{Name: held.Name{Stripe: w.of.seal.Stripe, Index: w.index}, Root: w.of.seal.Root}
}

// asks lists what each node is asked: for the shards that it may have, and whether it
// knows the seals of the stripes that it has any of.
func (p *Protect) asks(st *placement.State, all []*candidate) []*ask {
	by := map[string]*ask{}
	at := func(node string) *ask {
		a := by[node]
		if site, counts := p.siteOf(st, node); a == nil && counts {
			a = &ask{node: node, site: site}
			by[node] = a
		}
		return a
	}
	for _, c := range all {
		if c.head == nil {
			continue
		}
		own := false
		for _, place := range st.Places(&c.seal.SealFact) {
			a := at(place.Node)
			if a == nil || c.seal.Receipts&(1<<place.Index) == 0 {
				continue
			}
			w := wanted{of: c, index: place.Index, cut: place.Index == c.seal.Virtual && place.Node == c.seal.Origin}
			a.shards = append(a.shards, w)
			own = own || place.Node == p.o.Self
			if len(a.seals) == 0 || a.seals[len(a.seals)-1] != c {
				a.seals = append(a.seals, c)
			}
		}
		if a := at(p.o.Self); !own && a != nil {
			a.seals = append(a.seals, c)
		}
	}
	list := make([]*ask, 0, len(by))
	for _, a := range by {
		slices.SortFunc(a.shards, func(x, y wanted) int { return compareEntries(x.entry(), y.entry()) })
		list = append(list, a)
	}
	return list
}

// compareEntries is the order in which shards are asked for.
func compareEntries(a, b held.Entry) int {
	if a == b {
		return 0
	}
	two := []held.Entry{a, b}
	if held.SortEntries(two); two[0] == a {
		return -1
	}
	return +1
}

// ask asks a node everything at once, in calls beside each other.
func (a *ask) ask(ctx context.Context, p *Protect) {
	a.receipts, a.proofs = unknown(len(a.shards)), unknown(len(a.shards))
	var calls sync.WaitGroup
	defer calls.Wait()
	calls.Go(func() { a.askReceipts(ctx, p) })
	calls.Go(func() { a.askProofs(ctx, p) })
	calls.Go(func() {
		var seen []Confirmed
		for some := range slices.Chunk(a.seals, maxConfirm) {
			claims := make([]claim, len(some))
			for i, c := range some {
				claims[i] = claimOf(&c.seal.SealFact)
			}
			got, err := p.confirm(ctx, a.node, claims)
			if err != nil {
				return
			}
			seen = append(seen, got...)
		}
		a.seen = seen
	})
}

// errUnanswered is what is known of a shard that nobody answered for.
var errUnanswered = fault.New(fault.Unavailable, "no answer")

func unknown(n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = errUnanswered
	}
	return errs
}

// askReceipts asks for the receipts of shards that rest at a node.
func (a *ask) askReceipts(ctx context.Context, p *Protect) {
	var rest []int // cut ones have none
	for i, w := range a.shards {
		if w.cut {
			a.receipts[i] = nil
		} else {
			rest = append(rest, i)
		}
	}
	for some := range slices.Chunk(rest, held.MaxBatch) {
		entries := make([]held.Entry, len(some))
		for j, i := range some {
			entries[j] = a.shards[i].entry()
		}
		var landed *held.Landed
		var err error
		if a.node == p.o.Self {
			landed, err = p.o.Held.Ask(entries)
		} else {
			landed, err = p.o.Shards.Receipts(ctx, a.node, entries)
		}
		for j, i := range some {
			if err != nil {
				a.receipts[i] = err
			} else {
				a.receipts[i] = receiptFor(landed, j, entries[j], p.bug)
			}
		}
	}
}

// receiptFor returns nil if a node's answer has a receipt for the shard of just this
// stripe root and generation.
func receiptFor(l *held.Landed, i int, e held.Entry, b bug) error {
	if i >= len(l.Outcomes) || !l.Outcomes[i].Here() || l.Receipt == nil || !l.Receipt.Covers(e) && b != bugAnyReceipt {
		return fault.New(fault.NotFound, "no receipt for shard %v", e.Name)
	}
	return nil
}

// askProofs asks for a leaf of each shard, chosen now.
func (a *ask) askProofs(ctx context.Context, p *Protect) {
	if a.node == p.o.Self {
		for i, w := range a.shards {
			a.proofs[i] = p.proveOwn(w)
		}
		return
	}
	for first := 0; first < len(a.shards); first += held.MaxChallenges {
		some := a.shards[first:min(first+held.MaxChallenges, len(a.shards))]
		audits := make([]held.Audit, len(some))
		for i, w := range some {
			audits[i] = held.Audit{Head: w.of.head, Index: w.index}
		}
		errs, err := p.o.Shards.Prove(ctx, a.node, audits)
		for i, w := range some {
			switch {
			case err != nil:
				a.proofs[first+i] = err
			case i < len(errs):
				if a.proofs[first+i] = errs[i]; fault.Is(errs[i], fault.Corrupt) {
					p.doubt(w.entry().Name, a.node)
				}
			}
		}
	}
}

// proveOwn reads a leaf of a shard that rests here. Of one that is cut from this node's
// copy all of that is read, at the end.
func (p *Protect) proveOwn(w wanted) error {
	if w.cut {
		return nil
	}
	s, err := p.o.Held.Shard(w.entry().Name)
	if err != nil {
		return err
	}
	if s.Head().Root() != w.of.seal.Root {
		return fault.New(fault.Corrupt, "shard %v is of another stripe", w.entry().Name)
	}
	g, err := w.of.head.Geometry()
	if err != nil {
		return err
	}
	leaf := anyOf((g.ShardBytes(w.index) + seal.LeafBytes - 1) / seal.LeafBytes)
	data, proof, err := s.Range(leaf, 1)
	if err == nil {
		err = w.of.head.VerifyRange(w.index, leaf, data, proof)
	}
	return err
}

// anyOf is a number below n that nobody can foresee.
func anyOf(n int64) int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:]) % uint64(max(n, 1))) //nolint:gosec // below 2⁶³
}

func (p *Protect) doubt(name held.Name, node string) {
	if p.o.Doubt != nil {
		p.o.Doubt(name, node)
	}
}

// note adds to the candidates what a node has confirmed.
func (a *ask) note() {
	for i, w := range a.shards {
		f := &w.of.found[w.index]
		switch {
		case a.receipts[i] == nil && a.proofs[i] == nil:
			w.of.evidence.shards = append(w.of.evidence.shards, proof{index: w.index, node: a.node, site: a.site, cut: w.cut})
		case fault.Is(a.receipts[i], fault.NotFound) || fault.Is(a.proofs[i], fault.NotFound):
			f.lacking = a.node
		default:
			f.unsure = true
		}
	}
	for i, c := range a.seals {
		if i < len(a.seen) && a.seen[i].Sealed && a.seen[i].Opens {
			c.evidence.keepers = append(c.evidence.keepers, a.site)
		}
	}
}
