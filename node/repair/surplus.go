package repair

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/stripe"
)

const (
	// surplusBatch is how many shards a node is asked to prove at once, and
	// surplusAll how many may be waiting for that.
	surplusBatch = held.MaxChallenges
	surplusAll   = 4 * held.MaxChallenges
	// surplusPause lies between two passes that a walk asks for.
	surplusPause = time.Minute
)

// candidate is a shard that is here and belongs to another.
type candidate struct {
	held.Entry
	head *stripe.Head
}

// giveUp drops what is surplus, after each walk.
func (r *Repair) giveUp(ctx context.Context, progress *work.Progress) error {
	for {
		select {
		case <-r.walked:
		case <-ctx.Done():
			return nil
		}
		if err := r.surplus(ctx); err != nil {
			return err
		}
		timer := time.NewTimer(surplusPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// pass is one look at all that is held here.
type pass struct {
	r        *Repair
	p        *plan
	survives int
	moved    map[string][]candidate // by who is to hold them
	count    int
	old      []withdrawn
}

// withdrawn is a shard of a stripe that another has taken the place of.
type withdrawn struct {
	held.Name
	by *catalog.SealFact
}

// surplus looks at all that is held here, and drops what another node proves to hold
// by the committed seal, and what a later stripe stands for.
func (r *Repair) surplus(ctx context.Context) error {
	state := r.o.Places.State()
	s := &pass{r: r, p: r.plan(), survives: state.Survives, moved: map[string][]candidate{}}
	if s.p.view.New == nil || s.p.view.Old != nil && r.bug != bugDuringChange {
		return nil // while it changes nothing goes
	}
	var after *held.Name
	for {
		var page []held.Status
		err := r.o.Held.List(0, 1<<64-1, after, func(st held.Status) (bool, error) {
			page = append(page, st)
			return len(page) < viewPacks, nil
		})
		if err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		if err := s.look(ctx, page); err != nil {
			return err
		}
		if len(page) < viewPacks {
			return s.flush(ctx)
		}
		after = &page[len(page)-1].Name
	}
}

func (s *pass) look(ctx context.Context, page []held.Status) error {
	var behind []candidateOf
	view := s.r.o.Catalog.View()
	for _, st := range page {
		seals, err := view.Pack(st.Pack)
		if err != nil {
			view.Close()
			return err
		}
		if c, ok := s.judge(st, seals); ok {
			behind = append(behind, c)
		}
	}
	if err := view.Close(); err != nil {
		return err
	}
	for _, c := range behind {
		if err := s.keep(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// candidateOf is a shard that may go, if the holder proves it or a seal stands for it.
type candidateOf struct {
	held.Status
	holder string
	by     *catalog.SealFact
}

// judge says whether a shard that is here may go, and for what: never because its pack
// is not known.
func (s *pass) judge(st held.Status, seals []catalog.Seal) (candidateOf, bool) {
	if st.State != held.Held {
		return candidateOf{}, false
	}
	i := slices.IndexFunc(seals, func(seal catalog.Seal) bool { return seal.Stripe == st.Stripe })
	if len(seals) == 0 && s.r.bug == bugUnreferenced {
		by := &catalog.SealFact{Stripe: st.Stripe, Root: st.Root}
		by.Stripe.Generation++
		return candidateOf{Status: st, by: by}, true
	}
	if i < 0 || s.r.bug == bugGenerations {
		by, ok := s.p.superseder(seals, st.Generation, s.survives)
		return candidateOf{Status: st, by: by}, ok
	}
	seal := &seals[i].SealFact
	if seal.Root != st.Root || st.Index >= seal.Code.N() {
		return candidateOf{}, false
	}
	holder, ok := s.p.surplus(seal, st.Index, s.survives)
	return candidateOf{Status: st, holder: holder}, ok
}

// keep remembers a candidate until there are enough to ask for together.
func (s *pass) keep(ctx context.Context, c candidateOf) error {
	if c.by != nil {
		if s.old = append(s.old, withdrawn{c.Name, c.by}); len(s.old) >= surplusBatch {
			return s.supersede(ctx)
		}
		return nil
	}
	one, err := s.r.o.Held.Shard(c.Name)
	if err != nil {
		return nil //nolint:nilerr // rotten, or gone: the store has noted it
	}
	s.moved[c.holder] = append(s.moved[c.holder], candidate{c.Entry, one.Head()})
	if s.count++; len(s.moved[c.holder]) >= surplusBatch {
		return s.move(ctx, c.holder)
	}
	if s.count >= surplusAll {
		return s.flush(ctx)
	}
	return nil
}

func (s *pass) flush(ctx context.Context) error {
	for node := range s.moved {
		if err := s.move(ctx, node); err != nil {
			return err
		}
	}
	return s.supersede(ctx)
}

// move drops the shards that a node says, and proves now, to hold. A node that does
// not answer is asked another time.
func (s *pass) move(ctx context.Context, node string) error {
	all := s.moved[node]
	delete(s.moved, node)
	s.count -= len(all)
	if s.r.bug == bugNoReceipt {
		for _, c := range all {
			_ = s.drop(ctx, held.Superseded{Generation: c.Generation + 1, Root: c.Root}, []held.Name{c.Name})
		}
		return nil
	}
	slices.SortFunc(all, func(a, b candidate) int { return compare(a.Name, b.Name) })
	entries := make([]held.Entry, len(all))
	for i, c := range all {
		entries[i] = c.Entry
	}
	landed, err := s.r.o.Peers.Receipts(ctx, node, entries)
	if err != nil || landed.Receipt == nil {
		s.r.stats.Refused.Add(uint64(len(all)))
		return ctx.Err()
	}
	var audits []held.Audit
	var asked []candidate
	for _, c := range all {
		if landed.Receipt.Covers(c.Entry) && c.head.Root() == c.Root {
			audits, asked = append(audits, held.Audit{Head: c.head, Index: c.Index}), append(asked, c)
		}
	}
	if len(asked) == 0 {
		s.r.stats.Refused.Add(uint64(len(all)))
		return nil
	}
	errs, err := s.r.o.Peers.Prove(ctx, node, audits)
	if err != nil {
		s.r.stats.Refused.Add(uint64(len(all)))
		return ctx.Err()
	}
	var names []held.Name
	for i, c := range asked {
		switch {
		case errs[i] == nil:
			names = append(names, c.Name)
		case fault.Is(errs[i], fault.Corrupt):
			s.r.Doubt(c.Name, node)
		}
	}
	s.r.stats.Refused.Add(uint64(len(all) - len(names)))
	key, err := s.r.o.Members.SigningKey(node)
	if err != nil || len(names) == 0 || !s.stands() {
		return nil //nolint:nilerr // it is no member any more: what it says counts for nothing
	}
	return s.drop(ctx, held.Moved{Receipt: landed.Receipt, Key: key}, names)
}

// stands reports whether the layout is still the one that the pass goes by. The store
// asks it again when its locks are held (held.While).
func (s *pass) stands() bool {
	now := s.r.o.Places.State().View
	return now.New == s.p.view.New && (now.Old == nil || s.r.bug == bugDuringChange)
}

func (s *pass) drop(ctx context.Context, why held.Reason, names []held.Name) error {
	n, err := s.r.o.Held.Drop(ctx, held.While{Reason: why, Stands: s.stands}, names...)
	s.r.stats.Dropped.Add(uint64(n))
	if fault.Is(err, fault.Unavailable) && !s.stands() { // a change began while it waited
		s.r.stats.Refused.Add(uint64(len(names)))
		return ctx.Err()
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("repair: %w", err)
	}
	return ctx.Err()
}

// supersede drops shards of withdrawn stripes, once as many holders of the one in
// their place say now that they have its shards as the network promises.
func (s *pass) supersede(ctx context.Context) error {
	all := s.old
	s.old = nil
	if len(all) == 0 {
		return nil
	}
	asked := map[string]map[held.Name]held.Entry{}
	for _, w := range all {
		for i := range w.by.Code.N() {
			if node := s.p.counted(w.by, i); node != "" {
				if asked[node] == nil {
					asked[node] = map[held.Name]held.Entry{}
				}
				name := held.Name{Stripe: w.by.Stripe, Index: i}
				asked[node][name] = held.Entry{Name: name, Root: w.by.Root}
			}
		}
	}
	has := map[held.Name]bool{}
	for node, entries := range asked {
		if err := s.confirm(ctx, node, entries, has); err != nil {
			return err
		}
	}
	for _, w := range all {
		if s.r.bug != bugUnreferenced && s.r.bug != bugGenerations && s.confirmed(w.by, has) < w.by.Code.K+min(s.survives, w.by.Code.M) || !s.stands() {
			s.r.stats.Refused.Add(1)
			continue
		}
		if err := s.drop(ctx, held.Superseded{Generation: w.by.Stripe.Generation, Root: w.by.Root}, []held.Name{w.Name}); err != nil {
			return err
		}
	}
	return nil
}

// confirm asks a node which shards it holds.
func (s *pass) confirm(ctx context.Context, node string, entries map[held.Name]held.Entry, has map[held.Name]bool) error {
	if s.p.away(node) {
		return nil
	}
	list := make([]held.Entry, 0, len(entries))
	for _, e := range entries {
		list = append(list, e)
	}
	held.SortEntries(list)
	var landed *held.Landed
	var err error
	if node == s.p.self {
		landed, err = s.r.o.Held.Ask(list)
	} else {
		landed, err = s.r.o.Peers.Receipts(ctx, node, list)
	}
	if err != nil {
		return ctx.Err()
	}
	for i, o := range landed.Outcomes {
		if o.Here() {
			has[list[i].Name] = true
		}
	}
	return nil
}

// confirmed counts the sites that said so; the origin's own shard, which it cuts from
// its copy, by the seal, if it is there.
func (s *pass) confirmed(by *catalog.SealFact, has map[held.Name]bool) int {
	sites := map[string]bool{}
	for i := range by.Code.N() {
		node := s.p.counted(by, i)
		if node == "" || !has[held.Name{Stripe: by.Stripe, Index: i}] && (by.Virtual != i || s.p.away(node)) {
			continue
		}
		site := s.p.site(node)
		if site == "" {
			site = "\x00" + node
		}
		sites[site] = true
	}
	return len(sites)
}
