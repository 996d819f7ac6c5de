package catalog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// answers is what a catalogue answers about the studies and records that
// randomChange names.
func answers(t tester, c *catalog.Catalog) string {
	t.Helper()
	var b strings.Builder
	view := c.View()
	defer view.Close()
	for i := range 5 {
		uid := fmt.Sprintf("1.%d", i)
		s, err := c.Study(uid)
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
		if s != nil {
			fmt.Fprintf(&b, "%s: %v %d %d %t %d %v %v %v %d\n", uid, s.Patients, s.Series, s.Instances, s.Approximate, s.Bytes, s.Modalities, s.Classes, s.Sites, s.Arrived)
			for _, e := range s.Attributes.Elements {
				fmt.Fprintf(&b, " %v %q", e.Tag, e.Value)
			}
		}
		for x, err := range c.Series(context.Background(), uid) {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "\n %s: %d %t %d %v %v %t %d", x.UID, x.Instances, x.Approximate, x.Bytes, x.Classes, x.Sites, x.Reserved, x.Arrived)
			for _, e := range x.Attributes.Elements {
				fmt.Fprintf(&b, " %v %q", e.Tag, e.Value)
			}
		}
		holders, err := view.Holders(uid, "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n %v\n", holders)
	}
	for f, err := range c.Tombstones(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%+v\n", *f)
	}
	b.WriteString(sealedAnswers(t, c))
	return fmt.Sprintf("%s%+v", b.String(), c.Totals())
}

// member is a node of a network in a test: its catalogue, and its journal.
type member struct {
	name   string
	fs     *vfs.MemFS
	c      *catalog.Catalog
	queued []said // batches that are not in the log yet
	number uint64
	hash   [32]byte
	full   []said   // queued, as they would be told in full
	whole  [32]byte // hash of the chain that tells them so
}

// said are the facts of a batch.
type said struct {
	facts []*catalog.SeriesFact
	keys  []*catalog.KeyFact
	seals []*catalog.SealFact
}

// network is members and the log that they share.
type network struct {
	t       tester
	members []*member
	log     []replication.Entry
	full    []replication.Entry // the same, every fact told in full
}

func newNetwork(t tester, names ...string) *network {
	n := &network{t: t}
	for _, name := range names {
		m := &member{name: name, fs: vfs.NewMem()}
		m.open(t)
		n.members = append(n.members, m)
	}
	commands := make([]catalog.Command, len(names))
	for i, name := range names {
		commands[i] = catalogtest.Member(name, "site-"+name)
	}
	n.decide(names[0], commands...)
	return n
}

func (m *member) open(t tester) {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: m.fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
	if err != nil {
		t.Fatal(err)
	}
	m.c = c
}

func (m *member) restart(t tester) {
	t.Helper()
	if err := m.c.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
}

func (n *network) close() {
	for _, m := range n.members {
		m.c.Close()
	}
}

func (n *network) append(data, full []byte) {
	n.log = append(n.log, replication.Entry{Index: uint64(len(n.log) + 1), Term: 1, Data: data})
	n.full = append(n.full, replication.Entry{Index: uint64(len(n.log)), Term: 1, Data: full})
}

func (n *network) decide(by string, commands ...catalog.Command) {
	entry, err := catalog.EncodeDecision(catalogtest.SignerOf(by), by, nil, commands)
	if err != nil {
		n.t.Fatal(err)
	}
	n.append(entry, entry)
}

// say lets a member see facts of its own ahead of the log.
func (n *network) say(m *member, facts ...*catalog.SeriesFact) {
	n.t.Helper()
	short := facts
	if len(m.queued) == 0 && m.c.Applied() == uint64(len(n.log)) {
		var err error
		if short, err = m.c.Shorten(facts); err != nil {
			n.t.Fatal(err)
		}
	}
	m.queued, m.full = append(m.queued, said{facts: short}), append(m.full, said{facts: facts})
	if err := m.c.Ahead(short); err != nil {
		n.t.Fatal(err)
	}
}

// seal queues keys and seals of a member, seals as news where its catalogue has them.
func (n *network) seal(m *member, keys []*catalog.KeyFact, seals []*catalog.SealFact) {
	n.t.Helper()
	short := said{keys: keys}
	for _, f := range seals {
		news, err := m.c.News(f)
		if err != nil {
			n.t.Fatal(err)
		}
		if news == nil {
			news = f
		}
		short.seals = append(short.seals, news)
	}
	m.queued, m.full = append(m.queued, short), append(m.full, said{keys: keys, seals: seals})
}

// commit puts a member's next batch into the log.
func (n *network) commit(m *member) {
	if len(m.queued) == 0 {
		return
	}
	m.number++
	b := catalog.Batch{Node: m.name, Site: "site-" + m.name, Incarnation: 1, Number: m.number}
	b.Facts, b.Keys, b.Seals = m.queued[0].facts, m.queued[0].keys, m.queued[0].seals
	entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf(m.name), b, m.hash)
	if err != nil {
		n.t.Fatal(err)
	}
	b.Facts, b.Keys, b.Seals = m.full[0].facts, m.full[0].keys, m.full[0].seals
	full, whole, err := catalog.EncodeBatch(catalogtest.SignerOf(m.name), b, m.whole)
	if err != nil {
		n.t.Fatal(err)
	}
	m.hash, m.queued = hash, m.queued[1:]
	m.whole, m.full = whole, m.full[1:]
	n.append(entry, full)
}

// catchUp applies at most so many entries.
func (n *network) catchUp(m *member, most int) {
	rest := n.log[m.c.Applied():]
	rest = rest[:min(most, len(rest))]
	if len(rest) == 0 {
		return
	}
	if err := m.c.Apply(rest, replication.Position{Index: rest[len(rest)-1].Index, Term: 1}); err != nil {
		n.t.Fatal(err)
	}
}

// plain returns a catalogue that has applied a log up to an index, and was never
// told anything else.
func (n *network) plain(log []replication.Entry, index uint64) *catalog.Catalog {
	m := &member{fs: vfs.NewMem()}
	m.open(n.t)
	if index > 0 {
		if err := m.c.Apply(log[:index], replication.Position{Index: index, Term: 1}); err != nil {
			n.t.Fatal(err)
		}
	}
	return m.c
}

// Whatever nodes know ahead of the log, and whenever they stop: what is committed
// is the same everywhere at equal indexes, and so are all answers in the end.
func TestWhatIsSaidAheadNeverShowsElsewhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNetwork(rt, "a", "b")
		defer n.close()
		hashes := map[uint64][32]byte{}
		facts := rapid.SliceOfN(rapid.Custom(randomChange), 1, 3)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			m := n.members[rapid.IntRange(0, 1).Draw(rt, "member")]
			switch rapid.IntRange(0, 7).Draw(rt, "step") {
			case 0, 1, 2:
				var batch []*catalog.SeriesFact
				var keys []*catalog.KeyFact
				var seals []*catalog.SealFact
				for _, change := range facts.Draw(rt, "changes") {
					switch change := change.(type) {
					case *catalog.SeriesFact:
						change.Origin, change.Site = m.name, "site-"+m.name
						batch = append(batch, change)
					case *catalog.KeyFact:
						change.Origin = m.name
						keys = append(keys, change)
					case *catalog.SealFact:
						change.By = m.name
						seals = append(seals, change)
					case catalog.Command:
						n.decide(m.name, change)
					}
				}
				if len(batch) > 0 {
					n.say(m, batch...)
				}
				if len(keys)+len(seals) > 0 {
					n.seal(m, keys, seals)
				}
			case 3, 4:
				n.commit(m)
			case 5, 6:
				n.catchUp(m, rapid.IntRange(1, 5).Draw(rt, "entries"))
			case 7:
				m.restart(rt)
			}
			hash, index := m.c.StateHash()
			if known, ok := hashes[index]; ok && known != hash {
				rt.Fatalf("two hashes at %d", index)
			}
			hashes[index] = hash
		}
		for _, m := range n.members {
			verify(rt, m.c)
		}
		for _, m := range n.members {
			for len(m.queued) > 0 {
				n.commit(m)
			}
		}
		plain := n.plain(n.log, uint64(len(n.log)))
		defer plain.Close()
		want := answers(rt, plain)
		wantHash, _ := plain.StateHash()
		full := n.plain(n.full, uint64(len(n.full)))
		defer full.Close()
		if got := answers(rt, full); got != want {
			rt.Errorf("facts told in full give\n%s\nin short\n%s", got, want)
		}
		for _, m := range n.members {
			if at, _, err := plain.Cursor(m.name); err != nil || at.Number != m.number {
				rt.Errorf("%s stands at %+v (%v), told %d batches", m.name, at, err, m.number)
			}
		}
		for _, e := range n.log {
			results, ok := plain.Results(e.Index)
			if !ok || slices.ContainsFunc(catalog.OfSeries(e.Data, results), func(err error) bool { return fault.Is(err, fault.NotFound) }) {
				rt.Errorf("entry %d: %v, %t", e.Index, results, ok)
			}
		}
		for _, m := range n.members {
			n.catchUp(m, len(n.log))
			verify(rt, m.c)
			if marks := catalog.Marks(m.c); marks != 0 {
				rt.Errorf("%d series of %s are still ahead of the log", marks, m.name)
			}
			if got := answers(rt, m.c); got != want {
				rt.Errorf("%s answers\n%s\nwho only read the log\n%s", m.name, got, want)
			}
			if got, _ := m.c.StateHash(); got != wantHash {
				rt.Errorf("%s has another state hash", m.name)
			}
		}
	})
}

// A copy of another node's catalogue knows nothing that only that node knew.
func TestAdoptedCopyHasWhatIsCommitted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNetwork(rt, "a", "b")
		defer n.close()
		donor := n.members[0]
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			m := n.members[rapid.IntRange(0, 1).Draw(rt, "member")]
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1, 2:
				if f, ok := randomChange(rt).(*catalog.SeriesFact); ok {
					f.Origin, f.Site = m.name, "site-"+m.name
					n.say(m, f)
				}
			case 3:
				n.commit(m)
			default:
				n.catchUp(donor, 2)
			}
		}
		n.catchUp(donor, 1)
		if err := donor.c.Checkpoint("copy"); err != nil {
			rt.Fatal(err)
		}
		self := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "self")
		if err := catalog.Adopt(donor.fs, "copy", self); err != nil {
			rt.Fatal(err)
		}
		c, err := catalogtest.Open(catalog.Options{FS: donor.fs, Dir: "copy", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
		if err != nil {
			rt.Fatal(err)
		}
		defer c.Close()
		verify(rt, c)
		want := answers(rt, donor.c)
		if self == "b" {
			plain := n.plain(n.log, donor.c.Applied())
			defer plain.Close()
			want = answers(rt, plain)
		}
		if got := answers(rt, c); got != want {
			rt.Errorf("the copy of %s answers\n%s\nwant\n%s", self, got, want)
		}
		if a, i := c.StateHash(); true {
			if b, j := donor.c.StateHash(); a != b || i != j {
				rt.Errorf("the copy has another hash, at %d, the donor stands at %d", i, j)
			}
		}
	})
}

func TestAheadIsSeenUntilItIsCommitted(t *testing.T) {
	n := newNetwork(t, "a", "b")
	defer n.close()
	a, b := n.members[0], n.members[1]
	n.catchUp(a, 9)
	n.catchUp(b, 9)
	changed := a.c.Changed()
	v := values{dict.PatientID: "P1", dict.StudyDescription: "of a", dict.Modality: "CT"}
	n.say(a, fact("a", "1.1", "1.1.1", 1, 3, v))
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the change")
	}
	if got := a.c.Totals().Instances; got != 3 {
		t.Errorf("%d instances ahead of the log, want 3", got)
	}
	// The series that b committed first comes first, although a had its own.
	n.say(b, fact("b", "1.1", "1.1.2", 1, 2, values{dict.PatientID: "P1", dict.StudyDescription: "of b", dict.Modality: "MR"}))
	n.commit(b)
	n.catchUp(a, 9)
	description := func(want string) {
		t.Helper()
		s, err := a.c.Study("1.1")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Attributes.String(dict.StudyDescription); got != want || s.Instances != 5 {
			t.Errorf("description %q of %d instances, want %q of 5", got, s.Instances, want)
		}
	}
	description("of b")
	n.commit(a)
	n.catchUp(a, 9)
	description("of b")
	// What was said after the batch that is committed goes on to count.
	n.say(a, fact("a", "1.1", "1.1.1", 2, 7, v))
	n.say(a, fact("a", "1.1", "1.1.1", 2, 6, v)) // one was deleted
	n.commit(a)
	n.catchUp(a, 9)
	if got := a.c.Totals().Instances; got != 6+2 {
		t.Errorf("%d instances, want 8", got)
	}
	verify(t, a.c)
}

// Position, records and hash stay together wherever a crash cuts.
func TestCrashAtEveryOperationKeepsPositionAndRecordsTogether(t *testing.T) {
	n := newNetwork(t, "a", "b")
	defer n.close()
	b := n.members[1]
	for i := range 40 {
		f := fact("b", fmt.Sprintf("1.%d", i%4), fmt.Sprintf("1.%d.%d", i%4, i%3), uint64(i), uint64(i+1), values{dict.PatientID: "P1", dict.Modality: "CT"})
		n.say(b, f)
		n.commit(b)
		n.seal(b, []*catalog.KeyFact{keyOf("b", f.Study, byte(1+i%4), uint32(1+i/8))}, []*catalog.SealFact{sealOf("b", f.Study, f.Series, byte(1+i%12), byte(1+i%4), func(f *catalog.SealFact) {
			f.Revision, f.Receipts = uint64(i/12), uint16(1)<<min(i/8, 4)-1
		})})
		n.commit(b)
		if i%5 == 4 {
			n.decide("a", &catalog.TombstoneFact{Study: fmt.Sprintf("1.%d", i%4), Tick: 1})
		}
	}
	want := map[uint64][2]string{}
	plain := n.plain(nil, 0)
	defer plain.Close()
	note := func() {
		hash, index := plain.StateHash()
		want[index] = [2]string{string(hash[:]), answers(t, plain)}
	}
	note()
	for i, e := range n.log {
		if err := plain.Apply(n.log[i:i+1], replication.Position{Index: e.Index, Term: 1}); err != nil {
			t.Fatal(err)
		}
		note()
	}
	mem := vfs.NewCrashableMem()
	random := rand.New(rand.NewPCG(1, 7))
	type crash struct {
		fs     *vfs.MemFS
		synced uint64
	}
	var crashes []crash
	var synced atomic.Uint64
	var armed atomic.Bool
	var mu sync.Mutex // Pebble writes from goroutines of its own
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random}), synced.Load()})
		}
	}
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			cut()
		}
		return nil
	}))
	c := openMem(t, fs)
	armed.Store(true)
	steps := rand.New(rand.NewPCG(2, 7))
	for i := 0; i < len(n.log); {
		run := min(1+steps.IntN(3), len(n.log)-i)
		i += run
		if err := c.Apply(n.log[i-run:i], replication.Position{Index: uint64(i), Term: 1}); err != nil {
			t.Fatal(err)
		}
		if cut(); steps.IntN(2) == 0 {
			if err := c.Sync(); err != nil {
				t.Fatal(err)
			}
			synced.Store(uint64(i))
			cut()
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	armed.Store(false)
	if len(crashes) < 150 {
		t.Fatalf("%d crashes prove little", len(crashes))
	}
	seen := map[uint64]bool{}
	every := 1
	if testing.Short() {
		every = 10
	}
	for i, crash := range crashes {
		if i%every > 0 {
			continue
		}
		c := openMem(t, crash.fs)
		hash, index := c.StateHash()
		seen[index] = true
		if index < crash.synced {
			t.Fatalf("at %d, although %d was synced", index, crash.synced)
		}
		if w, ok := want[index]; !ok || w != [2]string{string(hash[:]), answers(t, c)} {
			t.Fatalf("at %d the records are of another position", index)
		}
		verify(t, c)
		rest := n.log[index:]
		if err := c.Apply(rest, replication.Position{Index: uint64(len(n.log)), Term: 1}); err != nil {
			t.Fatal(err)
		}
		if answers(t, c) != want[uint64(len(n.log))][1] {
			t.Fatalf("from %d on, the rest gives another catalogue", index)
		}
		c.Close()
	}
	if len(seen) < 5 {
		t.Errorf("crashes at %d positions only", len(seen))
	}
}
