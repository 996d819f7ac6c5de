package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// source is a node's instances in memory. It survives crashes, as what was
// acknowledged does.
type source struct {
	mu     sync.Mutex
	count  map[seriesName]uint64
	log    []seriesName // by local number, from 1
	broken map[seriesName]error
	asked  int

	scanner bool // attributes are as many as a scanner's
}

func newSource() *source {
	return &source{count: map[seriesName]uint64{}, broken: map[seriesName]error{}}
}

// store adds an instance and returns its local number.
func (s *source) store(study, series string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := seriesName{study, series}
	s.count[name]++
	s.log = append(s.log, name)
	return uint64(len(s.log))
}

// cut forgets the instances above a local number, as a restored backup does.
func (s *source) cut(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.log[number:] {
		s.count[name]--
	}
	s.log = s.log[:number:number]
}

func (s *source) SeriesFact(_ context.Context, study, series string) (*catalog.SeriesFact, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	name := seriesName{study, series}
	if err := s.broken[name]; err != nil {
		return nil, err
	}
	if s.count[name] == 0 {
		return nil, fault.New(fault.NotFound, "nothing of it")
	}
	return &catalog.SeriesFact{
		Origin: "n", Site: "s", AsOf: uint64(len(s.log)), Study: study, Series: series, Instances: s.count[name],
		Attributes: catalogtest.Dataset(s.attributes(study, series)),
	}, nil
}

// attributes are few, unless the source is of a real scanner.
func (s *source) attributes(study, series string) map[dict.Tag]string {
	few := map[dict.Tag]string{dict.PatientID: study, dict.Modality: "CT"}
	if s.scanner {
		maps.Copy(few, map[dict.Tag]string{
			dict.PatientName: "MUELLER^HANNELORE^^^", dict.PatientID: "40018273", dict.PatientBirthDate: "19530612", dict.PatientSex: "F",
			dict.StudyDate: "20240501", dict.StudyTime: "101530.250", dict.AccessionNumber: "A2024050100412", dict.ReferringPhysicianName: "SCHNEIDER^ANDREAS^^DR",
			dict.StudyDescription: "CT ABDOMEN AND PELVIS WITH CONTRAST", dict.StudyID: "20451", dict.PatientAge: "070Y", dict.PatientWeight: "71.5",
			dict.SeriesDate: "20240501", dict.SeriesTime: "1017" + series[len(series)-2:] + ".120", dict.Manufacturer: "GE MEDICAL SYSTEMS",
			dict.InstitutionName: "NORTH UNIVERSITY HOSPITAL", dict.StationName: "CT01", dict.SeriesDescription: "PORTAL VENOUS " + series[len(series)-1:] + ".0 MM SOFT",
			dict.OperatorsName: "KLEIN^JULIA", dict.ManufacturerModelName: "Revolution CT", dict.BodyPartExamined: "ABDOMEN", dict.ProtocolName: "5.12 Abdomen Pelvis Routine",
			dict.PatientPosition: "FFS", dict.SeriesNumber: series[len(series)-1:], dict.PerformedProcedureStepStartDate: "20240501",
			dict.PerformedProcedureStepStartTime: "101530.250", dict.PerformedProcedureStepID: "PPS20451", dict.PerformedProcedureStepDescription: "CT ABDOMEN PELVIS",
		})
	}
	return few
}

func (s *source) After(_ context.Context, after uint64, yield func(uint64, string, string) error) error {
	s.mu.Lock()
	log := slices.Clone(s.log)
	s.mu.Unlock()
	for i := after; i < uint64(len(log)); i++ {
		if err := yield(i+1, log[i].study, log[i].series); err != nil {
			return err
		}
	}
	return nil
}

// upTo is the source as it was when it held so many instances.
func (s *source) upTo(number int) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := newSource()
	for _, name := range s.log[:number] {
		was.store(name.study, name.series)
	}
	return was
}

// studies returns how many instances of each study there are.
func (s *source) studies() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]uint64{}
	for name, count := range s.count {
		all[name.study] += count
	}
	return all
}

// fortune is what becomes of a proposal.
type fortune uint8

const (
	committed fortune = iota
	refused           // it is not committed, and the proposer knows
	lost              // it is not committed, and the proposer does not know
	unheard           // it is committed, and the proposer does not know
	late              // it is committed after the next one, and the proposer does not know
	fortunes
)

// order is the network: what it has agreed on survives every node.
type order struct {
	mu        sync.Mutex
	entries   [][]byte
	delayed   [][]byte
	fortune   func() fortune // nil: committed
	delay     time.Duration  // of every answer
	proposals int
	bytes     int // of proposals that were not refused

	judge  func(from string, entry []byte) (bool, error) // a leader's admission; nil: none
	judged int                                           // refused by it

	// seen is what the order was last, for who cannot wait for mu.
	seen atomic.Pointer[agreed]
}

// agreed is an order at a moment.
type agreed struct{ entries, delayed [][]byte }

func (o *order) publishLocked() {
	o.seen.Store(&agreed{slices.Clip(o.entries), slices.Clone(o.delayed)})
}

// newOrder founds a network in which n is a member.
func newOrder(t testing.TB) *order {
	o := &order{}
	o.decide(t, catalogtest.Member("founder", "s"))
	o.decide(t, catalogtest.Member("n", "s"))
	return o
}

// decide commits a decision of the founder.
func (o *order) decide(t testing.TB, commands ...catalog.Command) {
	t.Helper()
	entry, err := catalog.EncodeDecision(catalogtest.SignerOf("founder"), "founder", nil, commands)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries = append(o.entries, entry)
	o.publishLocked()
}

// bringTo applies to a catalogue what it lacks of the order, of which it may take
// no more than some entries.
func (o *order) bringTo(c *catalog.Catalog, most int) error {
	from := c.Position().Index
	for i := from; i < uint64(min(len(o.entries), most)); i++ {
		e := replication.Entry{Index: i + 1, Term: 1, Data: o.entries[i]}
		if err := c.Apply([]replication.Entry{e}, replication.Position{Index: i + 1, Term: 1}); err != nil {
			return err
		}
	}
	return nil
}

func (o *order) bring(c *catalog.Catalog) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bringTo(c, len(o.entries))
}

// line is the order as one node reaches it.
type line struct {
	*order
	c *catalog.Catalog
}

var errCut = fault.New(fault.Unavailable, "no leader")

func (l line) Propose(ctx context.Context, entry []byte) (uint64, error) {
	l.mu.Lock()
	f, delay := committed, l.delay
	if l.fortune != nil {
		f = l.fortune()
	}
	l.proposals++
	l.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			f = lost
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.judge != nil {
		if err := l.bringTo(l.c, len(l.entries)); err != nil {
			return 0, err
		}
		if _, err := l.judge("n", entry); err != nil {
			l.judged++
			return l.c.Applied(), err
		}
	}
	switch f {
	case refused:
		return 0, errCut
	case lost:
		return 0, fault.New(fault.Unavailable, "the outcome is not known")
	case late:
		l.delayed = append(l.delayed, entry)
		l.publishLocked()
		return 0, fault.New(fault.Unavailable, "the outcome is not known")
	}
	l.bytes += len(entry)
	l.entries = append(l.entries, entry)
	index := uint64(len(l.entries))
	l.entries = append(l.entries, l.delayed...)
	l.delayed = nil
	l.publishLocked()
	if f == unheard {
		return 0, fault.New(fault.Unavailable, "the outcome is not known")
	}
	return index, l.bringTo(l.c, len(l.entries))
}

// node is what a journal stands between.
type node struct {
	db *pebble.DB
	c  *catalog.Catalog
	j  *Journal
	o  *order
}

func tryOpen(fs vfs.FS, o *order) (*node, error) { return tryOpenWith(fs, o, nil) }

func tryOpenWith(fs vfs.FS, o *order, p Packs) (*node, error) {
	db, err := pebble.Open("store", &pebble.Options{FS: fs, Logger: silent{}})
	if err != nil {
		return nil, err
	}
	c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	j, err := Open(db, c, Options{Node: "n", Site: "s", Signer: catalogtest.SignerOf("n"), Packs: p})
	if err != nil {
		return nil, errors.Join(err, c.Close(), db.Close())
	}
	return &node{db, c, j, o}, nil
}

func openNode(t testing.TB, fs vfs.FS, o *order) *node {
	t.Helper()
	return openPacker(t, fs, o, nil)
}

// openPacker opens a node that has packs.
func openPacker(t testing.TB, fs vfs.FS, o *order, p Packs) *node {
	t.Helper()
	n, err := tryOpenWith(fs, o, p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(n.c.Close(), n.db.Close()); err != nil {
		t.Error(err)
	}
}

// run starts the journal and returns what ends it.
func (n *node) run(t testing.TB, s Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.j.Run(ctx, s, line{n.o, n.c}) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// drained waits until the network has everything.
func (n *node) drained(t testing.TB) {
	t.Helper()
	end := time.Now().Add(time.Hour) // of virtual time, where it passes by itself
	for n.j.Pending() > 0 || !n.announced() {
		if time.Now().After(end) {
			t.Fatalf("the journal does not drain: %+v", n.j.Status())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// announced reports whether the journal has named all that the source holds.
func (n *node) announced() bool {
	n.j.mu.Lock()
	defer n.j.mu.Unlock()
	return n.j.announced && n.j.renumber == nil && n.j.left == 0
}

// observe returns the catalogue of another node, which knows what is committed.
func (o *order) observe(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.bring(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// agree checks that the network knows just what a source holds.
func (o *order) agree(t testing.TB, s *source, when string) {
	t.Helper()
	c := o.observe(t)
	defer c.Close()
	for study, want := range s.studies() {
		if got := instances(t, c, study); got != want {
			t.Fatalf("%s: the network knows %d instances of study %s, want %d", when, got, study, want)
		}
	}
	var total uint64
	for _, want := range s.studies() {
		total += want
	}
	if got := c.Totals().Instances; got != total {
		t.Fatalf("%s: the network knows %d instances, want %d", when, got, total)
	}
}

// knows checks that the catalogue here knows just what a source holds.
func (n *node) knows(t testing.TB, s *source, when string) {
	t.Helper()
	for study, want := range s.studies() {
		if got := instances(t, n.c, study); got != want {
			t.Fatalf("%s: %d instances of study %s are known here, want %d", when, got, study, want)
		}
	}
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func instances(t testing.TB, c *catalog.Catalog, study string) uint64 {
	t.Helper()
	s, err := c.Study(study)
	if fault.Is(err, fault.NotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Instances
}

func randomly(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// forge returns a batch as another node would have signed it.
func forge(t testing.TB, b catalog.Batch, previous [hashBytes]byte) (entry []byte, hash [hashBytes]byte) {
	t.Helper()
	entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf("another"), b, previous)
	if err != nil {
		t.Fatal(err)
	}
	return entry, hash
}
