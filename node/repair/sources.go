package repair

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/stripe"
)

// here is the name of this node among sources: what is read from its own disk.
const here = ""

// sources are where the shards of one stripe are read from, while one of them is
// rebuilt. Whoever fails is left out from then on; rot of a range leaves out that
// node for that range alone. Safe for concurrent use.
type sources struct {
	r    *Repair
	p    *plan
	seal *catalog.SealFact
	head *stripe.Head
	g    shard.Geometry

	mu      sync.Mutex
	nodes   [][]string // by shard, in the order in which to ask
	strikes map[strike]int
	quiet   []strike                // of these, those of who did not answer
	parts   map[span]map[int][]byte // verified leaves of others, of ranges too few of them came for
	all     bool                    // those that are thought to be down are asked, too
	asked   bool                    // everybody was asked what he has
	silent  bool                    // somebody who may have one, and is not declared lost, does not answer
	rotten  bool
}

// strike is a shard at a node that failed to give it.
type strike struct {
	index int
	node  string
}

// span is a range of leaves of a shard that is made.
type span struct{ first, count int64 }

// maxStrikes is how many ranges of a shard may be rotten before its node is not asked
// for it any more; out is that of a node that has it not, or does not answer.
const (
	maxStrikes = 8
	out        = maxStrikes
)

// find lists where a stripe's shards may be: those of the one that is wanted first
// from who holds the same shard, then from the origin, which cuts any from its copy.
func (r *Repair) find(p *plan, seal *catalog.SealFact, want int) (*sources, error) {
	g, err := shard.NewGeometry(seal.Code, seal.Size)
	if err != nil {
		return nil, err
	}
	s := &sources{r: r, p: p, seal: seal, g: g, nodes: make([][]string, seal.Code.N()), strikes: map[strike]int{}, parts: map[span]map[int][]byte{}}
	for _, place := range r.o.Places.State().Places(seal) {
		if place.Index < len(s.nodes) {
			s.add(place.Index, place.Node)
		}
	}
	s.add(want, seal.Origin)
	s.add(seal.Code.K-1, seal.Origin) // which the tail lies in
	for i := range s.nodes {
		if s.isHere(i, want) {
			s.nodes[i] = append(s.nodes[i], here)
		}
		// Who is there before who is not; who was declared lost may be there none the less.
		slices.SortStableFunc(s.nodes[i], func(a, b string) int { return s.rank(a) - s.rank(b) })
	}
	return s, nil
}

// isHere reports whether a shard can be read at this node: held, or, of the one that
// is wanted alone, which may cost reading the whole pack, cut from a copy.
func (s *sources) isHere(i, want int) bool {
	if i == want {
		one, err := s.r.o.Local.Shard(s.name(i))
		return err == nil && one.Head().Root() == s.seal.Root
	}
	st, err := s.r.o.Held.Status(s.name(i))
	return err == nil && st.State == held.Held && st.Root == s.seal.Root
}

func (s *sources) rank(node string) int {
	switch {
	case node == here:
		return 0
	case s.p.lost(node):
		return 3
	case s.p.away(node):
		return 2
	}
	return 1
}

// add names a node as one that may have a shard.
func (s *sources) add(i int, node string) {
	if node != "" && node != s.r.o.Self && !slices.Contains(s.nodes[i], node) {
		s.nodes[i] = append(s.nodes[i], node)
	}
}

func (s *sources) name(i int) held.Name { return held.Name{Stripe: s.seal.Stripe, Index: i} }

// of lists who may have a shard and has not failed.
func (s *sources) of(i int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []string
	for _, node := range s.nodes[i] {
		switch {
		case s.strikes[strike{i, node}] >= maxStrikes:
		case node != here && s.r.bad.is(node):
			s.silent = s.silent || !s.p.lost(node)
		case !s.all && s.rank(node) > 1:
		default:
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// askAll has those asked, too, who are thought to be down; false if they are already.
func (s *sources) askAll() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.all
	s.all = true
	return !before
}

// failed notes why a node did not give what it was asked for.
func (s *sources) failed(i int, node string, err error) {
	rotten := fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid)
	if rotten && node != here {
		s.r.Doubt(s.name(i), node)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := strike{i, node}
	switch {
	case rotten:
		s.rotten = true
		s.strikes[at]++
	case fault.Is(err, fault.NotFound):
		s.strikes[at] = out
	default:
		s.strikes[at] = out
		s.quiet = append(s.quiet, at)
		if node != here {
			s.silent = s.silent || !s.p.lost(node)
			s.r.bad.note(node)
		}
	}
}

// forgive has those asked again who did not answer.
func (s *sources) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.quiet {
		delete(s.strikes, at)
	}
	s.quiet = nil
}

// errHopeless is the error of a shard that nobody has enough for, all of whom answered
// or are declared lost.
var errHopeless = errors.New("repair: too few shards are left, of all who could have them")

// lacking is why a range cannot be had.
func (s *sources) lacking() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		return fault.New(fault.Unavailable, "repair: too few of those that hold shards of %v answer", s.seal.Stripe)
	}
	return fault.New(fault.Corrupt, "%w: stripe %v", errHopeless, s.seal.Stripe)
}

// everybody asks all nodes, once, what they have of the stripe: shards may be where no
// layout that is known says.
func (s *sources) everybody(ctx context.Context) bool {
	s.mu.Lock()
	if s.asked {
		s.mu.Unlock()
		return false
	}
	s.asked = true
	s.mu.Unlock()
	entries := make([]held.Entry, len(s.nodes))
	for i := range entries {
		entries[i] = held.Entry{Name: s.name(i), Root: s.seal.Root}
	}
	found := false
	for _, node := range s.r.o.Others() {
		if s.r.bad.is(node) {
			s.mu.Lock()
			s.silent = s.silent || !s.p.lost(node)
			s.mu.Unlock()
			continue
		}
		landed, err := s.r.o.Peers.Receipts(ctx, node, entries)
		if ctx.Err() != nil {
			return false
		}
		s.mu.Lock()
		if err != nil {
			s.silent = s.silent || !s.p.lost(node)
			s.r.bad.note(node)
		} else {
			for i, o := range landed.Outcomes {
				if o.Here() && !slices.Contains(s.nodes[i], node) {
					s.nodes[i] = append(s.nodes[i], node)
					found = true
				}
			}
		}
		s.mu.Unlock()
	}
	return found
}

// findHead gets the stripe's head from anybody who has a shard of it.
func (s *sources) findHead(ctx context.Context, want int) error {
	for _, i := range s.order(want) {
		for _, node := range s.of(i) {
			head, err := s.headFrom(ctx, i, node)
			if err == nil {
				s.head = head
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.failed(i, node, err)
		}
	}
	if s.askAll() || s.everybody(ctx) {
		return s.findHead(ctx, want)
	}
	return errors.Join(ctx.Err(), s.lacking())
}

func (s *sources) headFrom(ctx context.Context, i int, node string) (*stripe.Head, error) {
	if s.r.bug == bugTrustsSource {
		b, _, err := s.r.o.Peers.Opening(ctx, node, s.name(i))
		if err != nil {
			return nil, err
		}
		return stripe.ParseHead(b)
	}
	if node != here {
		return s.r.o.Peers.Head(ctx, node, held.Entry{Name: s.name(i), Root: s.seal.Root})
	}
	one, err := s.r.o.Local.Shard(s.name(i))
	if err != nil {
		return nil, err
	}
	if one.Head().Root() != s.seal.Root {
		return nil, fault.New(fault.NotFound, "repair: another stripe is here under the name of %v", s.seal.Stripe)
	}
	return one.Head(), nil
}

// order is the order in which shards are turned to: the one that is wanted, then the
// others, beginning anywhere, so that all who hold them are asked alike.
func (s *sources) order(want int) []int {
	n := len(s.nodes)
	from := int(maphash.Bytes(s.r.seed, append(s.seal.Stripe.Pack[:], byte(want))) % uint64(n)) //nolint:gosec // below n
	all := []int{want}
	for i := range n {
		if j := (from + i) % n; j != want {
			all = append(all, j)
		}
	}
	// What is here, and who is there, first.
	slices.SortStableFunc(all[1:], func(a, b int) int { return s.best(a) - s.best(b) })
	return all
}

// best is the rank of the best source of a shard.
func (s *sources) best(i int) int {
	nodes := s.of(i)
	if len(nodes) == 0 {
		return 4
	}
	return s.rank(nodes[0])
}

// leaves are how many leaves from first on shard i has, of count.
func (s *sources) leaves(i int, first, count int64) int64 {
	all := (s.g.ShardBytes(i) + shard.LeafBytes - 1) / shard.LeafBytes
	return max(0, min(count, all-first))
}

// one reads leaves of a shard as somebody holds it, verified.
func (s *sources) one(ctx context.Context, i int, first, count int64) ([]byte, error) {
	if count = s.leaves(i, first, count); count == 0 {
		return nil, nil
	}
	for _, node := range s.of(i) {
		data, err := s.from(ctx, i, node, first, count)
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.failed(i, node, err)
	}
	return nil, fault.New(fault.NotFound, "repair: nobody gives leaves %d+%d of shard %v", first, count, s.name(i))
}

func (s *sources) from(ctx context.Context, i int, node string, first, count int64) ([]byte, error) {
	bytes := count * shard.LeafBytes
	if node != here {
		if err := s.r.pace.take(ctx, node, bytes); err != nil {
			return nil, err
		}
		end, err := s.r.ways.begin(ctx, node, bytes)
		if err != nil {
			return nil, err
		}
		data, err := s.r.o.Peers.Range(ctx, node, s.head, i, first, count, nil)
		end(s.r.pace.beside(), err)
		if err == nil {
			s.r.stats.Fetched.Add(uint64(len(data)))
		}
		return data, err
	}
	one, err := s.r.o.Local.Shard(s.name(i))
	if err != nil {
		return nil, err
	}
	data, proof, err := one.Range(first, count)
	if err != nil {
		return nil, err
	}
	return data, s.head.VerifyRange(i, first, data, proof)
}

// read returns leaves of a shard: from who holds it, else made from k others. Each
// leaf of what it is made from has led to its root. Where no k others have all of
// them the range is halved, so that rot in different places of many loses nothing.
func (s *sources) read(ctx context.Context, want int, first, count int64) ([]byte, error) {
	data, err := s.one(ctx, want, first, count)
	if err == nil || ctx.Err() != nil {
		return data, err
	}
	data, err = s.decode(ctx, want, first, count)
	if err == nil || ctx.Err() != nil {
		return data, err
	}
	if s.askAll() || s.everybody(ctx) {
		return s.read(ctx, want, first, count)
	}
	if count == 1 || ctx.Err() != nil || !s.mayHalve() {
		return nil, errors.Join(ctx.Err(), err)
	}
	half := count / 2
	a, err := s.read(ctx, want, first, half)
	if err != nil {
		return nil, err
	}
	b, err := s.read(ctx, want, first+half, count-half)
	return append(a, b...), err
}

// mayHalve: less of it may be had only where rot was met.
func (s *sources) mayHalve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rotten
}

// take returns what came of a range before, verified.
func (s *sources) take(of span) map[int][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.parts[of]
	delete(s.parts, of)
	if have == nil {
		have = map[int][]byte{}
	}
	return have
}

// keep keeps what came of a range, for when the rest may be had: it is in the memory
// that the window took.
func (s *sources) keep(of span, have map[int][]byte) {
	if len(have) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[of] = have
}

// decode makes leaves of a shard from the same leaves of k others.
func (s *sources) decode(ctx context.Context, want int, first, count int64) ([]byte, error) {
	of := span{first, count}
	have := s.take(of)
	others := slices.DeleteFunc(s.order(want)[1:], func(i int) bool { return have[i] != nil })
	for len(have) < s.g.K && len(others) > 0 {
		// As many as are lacking, beside each other.
		now := others[:min(s.g.K-len(have), len(others))]
		others = others[len(now):]
		got := make([][]byte, len(now))
		errs := make([]error, len(now))
		var all sync.WaitGroup
		for j, i := range now {
			all.Go(func() { got[j], errs[j] = s.one(ctx, i, first, count) })
		}
		all.Wait()
		for j, i := range now {
			if errs[j] == nil {
				have[i] = got[j]
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if len(have) < s.g.K {
		s.keep(of, have)
		return nil, s.lacking()
	}
	return s.r.o.Coder.Recover(s.g, want, first, s.leaves(want, first, count), have)
}

// body reads a shard's body, in order, ahead of who reads it.
type body struct {
	s     *sources
	ctx   context.Context //nolint:containedctx // of one rebuild
	want  int
	size  int64
	ahead []*window // that is read, and those after it
	next  int64     // leaf that the next window begins at
	all   sync.WaitGroup
	last  atomic.Int64 // Unix nanoseconds: when a window came; 0: none has
}

const (
	// patience is how long the rest of a large shard is waited for once none of it comes
	// any more, so that what is here need not come again; askAgain how often it is asked for.
	patience = 3 * time.Minute
	askAgain = 5 * time.Second
)

// fetch reads a window. What nobody answers for is asked for again for a while.
func (b *body) fetch(first, leaves int64) ([]byte, error) {
	for {
		data, err := b.s.read(b.ctx, b.want, first, leaves)
		if err == nil {
			b.last.Store(time.Now().UnixNano())
			return data, nil
		}
		last := b.last.Load()
		if b.size <= held.MaxSmall || last == 0 || time.Since(time.Unix(0, last)) > patience || !fault.Is(err, fault.Unavailable) || !pause.For(b.ctx, askAgain) {
			return nil, err
		}
		b.s.forgive()
	}
}

type window struct {
	offset, size int64
	ready        chan struct{}
	data         []byte
	err          error
	memory       int64
}

// body begins to read the body of a shard; close must be called.
func (s *sources) body(ctx context.Context, want int) *body {
	return &body{s: s, ctx: ctx, want: want, size: s.g.ShardBytes(want)}
}

// begin reads the next window in the background. Its memory is that of what it may be
// made from. Only the first one waits for memory.
func (b *body) begin(wait bool) (bool, error) {
	leaves := b.s.leaves(b.want, b.next, b.s.r.window())
	if leaves == 0 {
		return false, nil
	}
	w := &window{offset: b.next * shard.LeafBytes, ready: make(chan struct{}), memory: leaves * shard.LeafBytes * int64(b.s.g.K+1)}
	w.size = min(leaves*shard.LeafBytes, b.size-w.offset)
	w.memory = min(w.memory, b.s.r.o.Memory)
	if !wait {
		if !b.s.r.memory.TryAcquire(w.memory) {
			return false, nil
		}
	} else if err := b.s.r.memory.Acquire(b.ctx, w.memory); err != nil {
		return false, err
	}
	first := b.next
	b.next += leaves
	b.ahead = append(b.ahead, w)
	b.all.Go(func() {
		defer close(w.ready)
		w.data, w.err = b.fetch(first, leaves)
		if w.err == nil && int64(len(w.data)) != w.size {
			w.err = fault.New(fault.Corrupt, "repair: %d bytes of %d of shard %v", len(w.data), w.size, b.s.name(b.want))
		}
	})
	return true, nil
}

func (b *body) release(w *window) { b.s.r.memory.Release(w.memory) }

// ReadAt implements io.ReaderAt for who reads everything once, from the beginning.
func (b *body) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		if off+int64(n) >= b.size {
			return n, io.EOF
		}
		w, err := b.at(off + int64(n))
		if err != nil {
			return n, err
		}
		n += copy(p[n:], w.data[off+int64(n)-w.offset:])
	}
	return n, nil
}

// at returns the window of an offset, once it is here.
func (b *body) at(off int64) (*window, error) {
	for len(b.ahead) > 0 && off >= b.ahead[0].offset+b.ahead[0].size {
		b.release(b.ahead[0])
		b.ahead = b.ahead[1:]
	}
	if len(b.ahead) == 0 {
		if ok, err := b.begin(true); err != nil || !ok {
			return nil, errors.Join(err, b.ctx.Err())
		}
	}
	for len(b.ahead) < windowsAhead {
		if ok, err := b.begin(false); err != nil || !ok {
			break
		}
	}
	w := b.ahead[0]
	if off < w.offset {
		return nil, fault.New(fault.Invalid, "repair: a body is read in order")
	}
	select {
	case <-w.ready:
		return w, w.err
	case <-b.ctx.Done():
		return nil, b.ctx.Err()
	}
}

// close waits for what is under way; the context should have ended, unless all was
// read.
func (b *body) close() {
	b.all.Wait()
	for _, w := range b.ahead {
		b.release(w)
	}
	b.ahead = nil
}

// tail reads the stripe's tail from the columns that it lies in.
type tail struct {
	s   *sources
	ctx context.Context //nolint:containedctx // of one rebuild
	at  int64           // of the tail in the ciphertext
}

// ReadAt implements io.ReaderAt.
func (t *tail) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := t.at + off + int64(n)
		if at >= t.s.g.Size {
			return n, io.EOF
		}
		column, inside := t.s.g.Locate(at)
		first := inside / shard.LeafBytes
		count := min((inside+int64(len(p)-n)+shard.LeafBytes-1)/shard.LeafBytes-first, windowLeaves)
		data, err := t.s.read(t.ctx, column, first, max(1, t.s.leaves(column, first, count)))
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[inside-first*shard.LeafBytes:])
	}
	return n, nil
}
