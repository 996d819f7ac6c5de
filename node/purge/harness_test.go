package purge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
)

// network is some nodes with a catalogue each, which apply the same entries, and whose
// bytes are names in maps. Time passes when a test says so.
type network struct {
	t         *testing.T
	mu        sync.Mutex    // where tasks run: all that nodes do, one after the other
	pace      time.Duration // how often nodes do their work
	log       []replication.Entry
	nodes     []*site
	now       time.Duration
	heads     map[string]*head // of the journals
	steps     int              // durable steps so far
	crash     int              // the node that does this one ends there
	bug       bug
	recovered uint64 // how often the network was recovered
	wall      bool   // the deliberate bug of a clock that is set by hand
	jump      time.Duration
}

type head struct {
	number uint64
	hash   [32]byte
}

// site is a node: what it has on disk, and a purger that runs until it ends.
type site struct {
	*network
	name   string
	c      *catalog.Catalog
	down   bool
	reads  uint32 // what its program reads, as it says
	at     int    // entries that it has applied
	packs  map[pack.ID]*archive.Parting
	shards map[held.Name]bool
	copies map[pack.ID]bool
	ring   map[[16]byte]string // origin; of its own none
	rows   map[string][]byte
	lost   map[pack.ID]bool // packs that it had and that are not to be found
	p      *Purger
}

const grace = time.Hour

func newNetwork(t *testing.T, names ...string) *network {
	n := &network{t: t, heads: map[string]*head{}, pace: 5 * time.Minute}
	for _, name := range names {
		c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s := &site{network: n, name: name, c: c, packs: map[pack.ID]*archive.Parting{}, shards: map[held.Name]bool{},
			copies: map[pack.ID]bool{}, ring: map[[16]byte]string{}, rows: map[string][]byte{}, lost: map[pack.ID]bool{}, reads: catalog.EntryVersion}
		n.nodes = append(n.nodes, s)
	}
	for i, name := range names {
		n.must(n.nodes[0], alone.Member(name, "site-"+name))
		n.nodes[i].start()
	}
	n.terms(3 * grace)
	return n
}

// terms has the network agree on when a member does not count any more.
func (n *network) terms(away time.Duration) {
	n.t.Helper()
	n.must(n.nodes[0], &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: grace, Away: away}.Encode()})
}

func (s *site) start() {
	o := Options{
		Node: s.name, Catalog: s.c, Decide: s, Leader: func() string { return s.leader() }, Generation: func() uint64 { return 1 + s.recovered },
		Archive: s, Held: holder{s}, Copies: copies{s}, Ring: s, Rows: rows{s},
		Monotonic: func() time.Duration { return s.now }, Reads: s.heard, bug: s.bug,
	}
	if s.wall {
		o.Monotonic = func() time.Duration { return s.now + s.jump }
	}
	s.p = New(o)
}

// heard is what a node says of itself while it runs.
func (n *network) heard(node string) (uint32, bool) {
	for _, s := range n.nodes {
		if s.name == node && !s.down {
			return s.reads, true
		}
	}
	return 0, false
}

// leader is the first node that is up.
func (n *network) leader() string {
	for _, s := range n.nodes {
		if !s.down {
			return s.name
		}
	}
	return ""
}

func (n *network) put(entry []byte) uint64 {
	e := replication.Entry{Index: uint64(len(n.log) + 1), Term: 1, Data: entry}
	n.log = append(n.log, e)
	for _, s := range n.nodes {
		if !s.down {
			s.apply()
		}
	}
	return e.Index
}

func (s *site) apply() {
	if s.at == len(s.log) {
		return
	}
	part := s.log[s.at:]
	if err := s.c.Apply(part, replication.Position{Index: part[len(part)-1].Index, Term: 1}); err != nil {
		s.t.Fatal(err)
	}
	s.at = len(s.log)
}

func (n *network) must(by *site, commands ...catalog.Command) {
	n.t.Helper()
	results, err := by.decide(nil, commands...)
	if err := errors.Join(append(results, err)...); err != nil {
		n.t.Fatal(err)
	}
}

func (s *site) decide(conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	entry, err := catalog.EncodeDecision(alone.SignerOf(s.name), s.name, conditions, commands)
	if err != nil {
		return nil, err
	}
	index := s.put(entry)
	results, ok := s.c.Results(index)
	if !ok {
		return nil, fault.New(fault.Unavailable, "no results")
	}
	return results, nil
}

var errCrash = errors.New("crash")

// step is where a node may end.
func (n *network) step() error {
	n.steps++
	if n.steps == n.crash {
		return errCrash
	}
	return nil
}

// durable does something that is durable when it is done, and may end before or after.
func (n *network) durable(do func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.step(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return n.step()
}

// Decide implements [Decider].
func (s *site) Decide(_ context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error) {
	return results, s.durable(func() error {
		results, err = s.decide(conditions, commands...)
		return err
	})
}

// Parting implements [Archive].
func (s *site) Parting(id pack.ID, over func(*catalog.Tombstone) (bool, error)) (*archive.Parting, error) {
	s.mu.Lock()
	part := s.packs[id]
	s.mu.Unlock()
	if part == nil {
		return nil, fault.New(fault.NotFound, "no such pack")
	}
	found := &archive.Parting{Study: part.Study, Series: part.Series}
	stones, err := s.c.Covering(part.Study, part.Series, "")
	for _, stone := range stones {
		done, err := over(stone)
		if err != nil {
			return nil, err
		}
		found.ByStudy = found.ByStudy || done
	}
	if err != nil || !found.ByStudy || part.BySeries { // a pack in which something waits
		return nil, err
	}
	return found, nil
}

// DropPurged implements [Archive].
func (s *site) DropPurged(_ context.Context, ids ...pack.ID) error {
	return s.durable(func() error {
		for _, id := range ids {
			s.purgedOnly(id)
			delete(s.packs, id)
		}
		// As archive.forget has it: nothing is left under its keys.
		if len(s.packs) == 0 {
			maps.DeleteFunc(s.ring, func(_ [16]byte, origin string) bool { return origin == "" })
		}
		return nil
	})
}

// KeepsStudy implements [Archive].
func (s *site) KeepsStudy(study string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range s.packs {
		if part.Study == study {
			return true, nil
		}
	}
	return false, nil
}

// purgedOnly holds what every drop must: the pack was purged, by an entry of the log,
// and its grace was over by time that has really passed.
func (s *site) purgedOnly(id pack.ID) {
	s.t.Helper()
	if index, err := s.c.Purged(id); err != nil || index == 0 {
		s.fail("pack %x is dropped at %s, and was not purged (%v)", id[:1], s.name, err)
	}
}

func (n *network) fail(format string, args ...any) { panic(broken(fmt.Sprintf(format, args...))) }

// broken is what holds no more.
type broken string

// caught runs a scenario and returns what it found broken, "" for nothing.
func caught(run func()) (what string) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			what = string(b)
		}
	}()
	run()
	return ""
}

type holder struct{ *site }

func (h holder) List(lo, hi uint64, after *held.Name, visit func(held.Status) (bool, error)) error {
	h.mu.Lock()
	names := slices.SortedFunc(maps.Keys(h.shards), compare)
	h.mu.Unlock()
	for _, n := range names {
		if spread := shard.Spread(n.Pack); spread < lo || spread > hi || after != nil && compare(n, *after) <= 0 {
			continue
		}
		if more, err := visit(held.Status{Entry: held.Entry{Name: n}}); err != nil || !more {
			return err
		}
	}
	return nil
}

func compare(a, b held.Name) int {
	return slices.Compare([]uint64{shard.Spread(a.Pack), uint64(a.Generation), uint64(a.Index)}, []uint64{shard.Spread(b.Pack), uint64(b.Generation), uint64(b.Index)})
}

func (h holder) Drop(_ context.Context, why held.Reason, names ...held.Name) (int, error) {
	return len(names), h.durable(func() error {
		for _, n := range names {
			h.purgedOnly(n.Pack)
			if index, _ := h.c.Purged(n.Pack); why != (held.Purged{Index: index}) {
				h.fail("dropped as %v, it is purged by %d", why, index)
			}
			delete(h.shards, n)
		}
		return nil
	})
}

type copies struct{ *site }

func (c copies) Forget(ids ...pack.ID) error {
	return c.durable(func() error {
		for _, id := range ids {
			delete(c.site.copies, id)
		}
		return nil
	})
}

// Wrapped implements [Ring].
func (s *site) Wrapped(id [16]byte) (keys.StudyKey, error) {
	s.mu.Lock()
	origin, ok := s.ring[id]
	s.mu.Unlock()
	if !ok {
		return keys.StudyKey{}, fault.New(fault.NotFound, "no such key")
	}
	return keys.StudyKey{ID: id, Origin: origin}, nil
}

// ForgetKeys implements [Ring]: a key goes when all that was under it is gone, wherever
// a node counts.
func (s *site) ForgetKeys(ids ...[16]byte) error {
	return s.durable(func() error {
		for _, id := range ids {
			if _, ok := s.ring[id]; !ok {
				continue
			}
			if gone, err := s.c.Forgotten(id); err != nil || !gone {
				s.fail("key %x is forgotten at %s, and was not given up", id[:1], s.name)
			}
			for _, other := range s.nodes {
				for n := range other.shards {
					if !other.down && keyOf(n.Pack) == id {
						s.fail("key %x is forgotten at %s, and %s has a shard under it", id[:1], s.name, other.name)
					}
				}
			}
			delete(s.ring, id)
		}
		return nil
	})
}

type rows struct{ *site }

func (r rows) Get(key string) ([]byte, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.site.rows[key]
	return v, ok, nil
}

func (r rows) Commit(all map[string][]byte) error {
	return r.durable(func() error {
		maps.Copy(r.site.rows, all)
		return nil
	})
}

// keyOf is the key of a pack in these tests: one for each study, of which packs 0x10 to
// 0x1F are the first, and so on.
func keyOf(id [16]byte) [16]byte { return [16]byte{id[0] >> 4, 15: 1} }

func studyOf(id byte) string { return fmt.Sprintf("1.%d", id>>4) }

// seal stores a pack at a node, with a shard at each other one.
func (n *network) seal(origin *site, id byte) {
	n.t.Helper()
	packID := [16]byte{id, 15: 2}
	key, study := keyOf(packID), studyOf(id)
	b := catalog.Batch{Seals: []*catalog.SealFact{{
		By: origin.name, Study: study, Series: study + ".1", Stripe: shard.Stripe{Pack: packID, Generation: 1},
		Origin: origin.name, Key: key, Size: 40_000, Instances: 10, Code: shard.Code{K: 1, M: 2}, Root: [32]byte{id, 1}, Layout: 1, Receipts: 7, Virtual: 0,
	}}}
	b.Keys = []*catalog.KeyFact{{Origin: origin.name, Study: study, ID: key, Epoch: 1}}
	h := n.heads[origin.name]
	if h == nil {
		h = &head{}
		n.heads[origin.name] = h
	}
	h.number++
	b.Node, b.Site, b.Incarnation, b.Number = origin.name, "site-"+origin.name, 1, h.number
	entry, hash, err := catalog.EncodeBatch(alone.SignerOf(origin.name), b, h.hash)
	if err != nil {
		n.t.Fatal(err)
	}
	h.hash = hash
	results, _ := origin.c.Results(n.put(entry))
	if err := errors.Join(results...); err != nil {
		n.t.Fatal(err)
	}
	origin.packs[pack.ID(packID)] = &archive.Parting{Study: study, Series: study + ".1"}
	for i, s := range n.nodes {
		s.ring[key] = origin.name
		if s == origin {
			s.ring[key] = ""
			continue
		}
		s.copies[pack.ID(packID)] = true
		s.shards[held.Name{Stripe: shard.Stripe{Pack: packID, Generation: 1}, Index: i}] = true
	}
}

// turn lets a node do once all that its tasks do. A node that ends begins again, with what
// is durable.
func (s *site) turn() {
	s.t.Helper()
	if s.down {
		return
	}
	s.apply()
	if s.reads < catalog.EntryVersion {
		return // an older program has nothing of this
	}
	ctx := context.Background()
	terms, err := s.c.Terms()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, duty := range []func() error{
		func() error { return s.p.Sweep(ctx) },
		func() error { return s.p.CatchUp(ctx) },
		func() error { return s.p.tick(ctx, terms) },
		func() error { return s.p.tell(ctx, terms) },
		func() error { return s.p.Round(ctx, s.p.leads()) },
	} {
		if err := duty(); errors.Is(err, errCrash) {
			s.start()
		} else if err != nil && !passing(err) {
			s.t.Fatal(err)
		}
	}
}

// pass lets time pass, in which nodes do their work.
func (n *network) pass(d time.Duration) {
	for end := n.now + d; n.now < end; {
		n.now += min(n.pace, end-n.now)
		for _, s := range n.nodes {
			s.turn()
		}
	}
}

func (n *network) delete(study string) {
	n.t.Helper()
	n.must(n.nodes[0], &catalog.TombstoneFact{Study: study, Tick: 1})
}

// left counts what there is of a study: shards, packs, copies, keys.
func (n *network) left(study byte) string {
	var shards, packs, kept, ring int
	for _, s := range n.nodes {
		for name := range s.shards {
			if name.Pack[0]>>4 == study {
				shards++
			}
		}
		for id := range s.packs {
			if id[0]>>4 == study {
				packs++
			}
		}
		for id := range s.copies {
			if id[0]>>4 == study {
				kept++
			}
		}
		for id := range s.ring {
			if id[0] == study {
				ring++
			}
		}
	}
	return fmt.Sprintf("%d shards, %d packs, %d copies, %d keys", shards, packs, kept, ring)
}
