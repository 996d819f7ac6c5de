package sites

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"pelago/chaos/check"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/query/plan"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/catalog/catalogtest"
	"pelago/replication/group"
	"pelago/replication/journal"
)

// archive is what a site has taken in: a journal's Source.
type archive struct {
	site *site

	mu     sync.Mutex
	counts map[catalogtest.Study]uint64
	names  map[string]catalogtest.Study // by study UID
	log    []catalogtest.Study          // by local number, from 1
}

func (a *archive) add(s catalogtest.Study) (number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[s]++
	a.names[s.UID] = s
	a.log = append(a.log, s)
	return uint64(len(a.log))
}

// SeriesFact implements journal.Source.
func (a *archive) SeriesFact(_ context.Context, study, _ string) (*catalog.SeriesFact, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.names[study]
	if !ok {
		return nil, fault.New(fault.NotFound, "nothing of it")
	}
	f := s.Fact(uint64(len(a.log)))
	f.Origin, f.Site, f.Instances = a.site.id(), a.site.name, a.counts[s]
	return f, nil
}

// After implements journal.Source.
func (a *archive) After(_ context.Context, after uint64, yield func(uint64, string, string) error) error {
	a.mu.Lock()
	log := slices.Clone(a.log)
	a.mu.Unlock()
	for i := after; i < uint64(len(log)); i++ {
		if err := yield(i+1, log[i].UID, log[i].Series); err != nil {
			return err
		}
	}
	return nil
}

// total returns how many instances of how many studies there are.
func (a *archive) total() (instances, studies int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.log), len(a.names)
}

// site is a node at a site of its own.
type site struct {
	w       *world
	ip      string
	name    string
	port    *porttest.Member
	fs      *vfs.MemFS
	db      *pebble.DB
	catalog *catalog.Catalog
	group   *group.Group
	journal *journal.Journal
	archive *archive
	rt      *http.Transport

	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

func (s *site) id() string { return s.port.ID() }

// world is many sites in one bubble.
type world struct {
	t       *testing.T
	cluster *porttest.Cluster
	sites   []*site
	traffic traffic

	states check.States
	fresh  check.Staleness
	known  map[string]uint64 // versions of facts
	owners map[string]*site  // of studies
}

// traffic counts what nodes sent, TLS included.
type traffic struct {
	mu   sync.Mutex
	sent map[string]int64 // by IP
}

func (t *traffic) add(ip string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[ip] += int64(n)
}

// counted is a connection as its dialler has it.
type counted struct {
	net.Conn
	traffic  *traffic
	from, to string
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.traffic.add(c.to, n)
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.traffic.add(c.from, n)
	return n, err
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, cluster: porttest.NewCluster(t, "north"), traffic: traffic{sent: map[string]int64{}},
		known: map[string]uint64{}, owners: map[string]*site{},
	}
}

// add opens a site that does not run yet.
func (w *world) add(delay time.Duration) *site {
	w.t.Helper()
	number := len(w.sites) + 1
	s := &site{w: w, ip: fmt.Sprint("10.0.0.", number), name: fmt.Sprint("Site ", number), fs: vfs.NewMem()}
	host := w.cluster.Host(s.ip)
	for _, o := range w.sites {
		w.cluster.Delay(s.ip, o.ip, delay)
		w.cluster.Delay(o.ip, s.ip, delay)
	}
	s.port = w.cluster.Start(w.t, s.ip, s.name, func(c *port.Config) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := host.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			to, _, err := net.SplitHostPort(address)
			return counted{conn, &w.traffic, s.ip, to}, err
		}
	})
	s.rt = s.port.Transport(w.locate)
	s.archive = &archive{site: s, counts: map[catalogtest.Study]uint64{}, names: map[string]catalogtest.Study{}}
	w.sites = append(w.sites, s)
	var err error
	if s.db, err = pebble.Open("store", &pebble.Options{FS: s.fs, Logger: quiet{}}); err != nil {
		w.t.Fatal(err)
	}
	if s.catalog, err = catalog.Open(catalog.Options{FS: s.fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}}); err != nil {
		w.t.Fatal(err)
	}
	s.group, err = group.Open(group.Options{
		ID: s.id(), Address: s.port.Address, FS: s.fs, Dir: "data", Catalogue: s.catalog, Signer: s.port.Self,
		Peers: call.NewClient(s.rt), Port: s.port.Port,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if s.journal, err = journal.Open(s.db, s.catalog, journal.Options{Node: s.id(), Site: s.name, Signer: s.port.Self}); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) locate(_ context.Context, node string) (string, error) {
	for _, s := range w.sites {
		if s.id() == node {
			return s.port.Address, nil
		}
	}
	return "", fault.New(fault.NotFound, "no such node")
}

// record is the site's record of membership.
func (s *site) record(founder bool) catalog.Command {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&catalogpb.Member{
		Site: s.name, PublicKey: s.port.Self.Public(), Address: s.port.Address, Founder: founder,
	})
	if err != nil {
		s.w.t.Fatal(err)
	}
	return &catalog.RegistryFact{Kind: catalog.KindMember, Name: s.id(), Value: value}
}

// run starts what a node runs.
func (s *site) run() {
	s.w.t.Helper()
	l, err := s.port.Listen(port.Peer)
	if err != nil {
		s.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	server := port.NewServer(s.group.Handler(), slog.New(slog.DiscardHandler))
	task := func(name string, do func() error) {
		s.tasks.Go(func() {
			if err := do(); err != nil {
				s.w.t.Errorf("%s of %s: %v", name, s.name, err)
			}
		})
	}
	task("calls", func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	task("raft", func() error { return s.group.Run(ctx) })
	task("journal", func() error { return s.journal.Run(ctx, s.archive, s.group) })
	context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // connections that nobody needs any more
}

// close ends everything.
func (w *world) close() {
	for _, s := range w.sites {
		if s.cancel != nil {
			s.cancel()
		}
	}
	for _, s := range w.sites {
		s.tasks.Wait()
		s.rt.CloseIdleConnections()
		if err := errors.Join(s.group.Close(), s.catalog.Close(), s.db.Close()); err != nil {
			w.t.Errorf("close %s: %v", s.name, err)
		}
	}
}

// store takes an instance of a study in at a site.
func (w *world) store(s *site, study catalogtest.Study) {
	w.owners[study.UID] = s
	s.journal.Dirty(s.archive.add(study), study.UID, study.Series)
}

// until waits on virtual time.
func (w *world) until(what string, limit time.Duration, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for ; !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
	}
	return time.Since(start)
}

// look asks a site for everything, and keeps what it says.
func (w *world) look(s *site) {
	w.t.Helper()
	hash, index := s.catalog.StateHash()
	w.states = append(w.states, check.State{Node: check.Node(s.name), Index: index, Hash: check.Hash(hash)})
	a := check.Answer{Node: check.Node(s.name), Asked: time.Now(), Versions: map[string]uint64{}}
	a.Staleness, a.Known = s.group.Staleness()
	for study, owner := range w.owners {
		found, err := s.catalog.Study(study)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			w.t.Fatal(err)
		}
		a.Versions[study] = found.Instances
		if owner != s && found.Instances > w.known[study] {
			w.known[study] = found.Instances
			w.fresh.Facts = append(w.fresh.Facts, check.Fact{Key: study, Version: found.Instances, Committed: time.Now()})
		}
	}
	w.fresh.Answers = append(w.fresh.Answers, a)
}

// leader is the site that leads a network of those, nil when they do not agree.
func leader(of []*site) *site {
	var leads *site
	for _, s := range of {
		id := s.group.Leader()
		if id == "" || leads != nil && id != leads.id() {
			return nil
		}
		for _, o := range of {
			if o.id() == id {
				leads = o
			}
		}
		if leads == nil {
			return nil
		}
	}
	return leads
}

// votes returns how many voters and members a site knows of.
func (s *site) votes() (voters, all int) {
	for _, m := range s.group.Members() {
		all++
		if m.Suffrage == replication.Voter {
			voters++
		}
	}
	return voters, all
}

type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
