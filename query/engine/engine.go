package engine

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/match"
	"pelago/query/plan"
	"pelago/replication/catalog"
)

// Options are what the engine stands on.
type Options struct {
	Catalog   *catalog.Catalog // opened with plan.Indexer
	Instances query.Instances
	Issuer    string // the site's issuer of Patient ID
	// Node is this node's id, and Peers are the others. nil: nobody is ever asked.
	Node  string
	Peers query.Peers
	// Memory is what they told before; nil: nothing.
	Memory query.Memory
	// Alone reports whether nobody but this node holds, or ever held, anything: then
	// nobody is asked either. nil: it is not.
	Alone func() bool
	// Identities knows which ids are of one person; nil: each is of its own.
	Identities Identities
	// Staleness is how old the catalogue may be, false if nobody can tell; nil: it
	// has all there is.
	Staleness func() (time.Duration, bool)
	// Unheard names, ascending, the sites of which the catalogue may lack what they
	// have stored lately; nil: it has heard of all.
	Unheard func() []string
}

// Identities is what was decided about patients' ids. *patients.Patients is one,
// as seen from a site.
type Identities interface {
	// Timeline returns the ids that are of the same person as one, itself included;
	// nil: no other is.
	Timeline(key catalog.PatientKey) ([]catalog.PatientKey, error)
	// Issuer returns the issuer behind a local name of it.
	Issuer(local string) (string, error)
}

// Engine answers queries. It may be used by many goroutines.
type Engine struct {
	catalog   *catalog.Catalog
	instances query.Instances
	issuer    string
	node      string
	peers     query.Peers
	memory    query.Memory
	alone     func() bool
	ids       Identities
	staleness func() (time.Duration, bool)
	unheard   func() []string
	gate      *semaphore.Weighted // header reads under way
	started   time.Time
	settled   atomic.Int64 // since started: when the catalogue last had all that was acknowledged
}

var _ query.Engine = (*Engine)(nil)

// settleTimeout bounds how long a query waits for what has just been stored;
// after it the answer says how stale it may be.
const settleTimeout = 2 * time.Second

// New returns an engine. It panics if the catalogue was opened without
// plan.Indexer: plans would find nothing.
func New(o Options) *Engine {
	if have, want := o.Catalog.IndexerVersion(), (plan.Indexer{}).Version(); have != want {
		panic(fmt.Sprintf("engine: the catalogue is indexed by version %d, plans need %d", have, want))
	}
	if o.Staleness == nil {
		o.Staleness = func() (time.Duration, bool) { return 0, true }
	}
	if o.Unheard == nil {
		o.Unheard = func() []string { return nil }
	}
	if o.Alone == nil {
		o.Alone = func() bool { return false }
	}
	return &Engine{
		node: o.Node, peers: o.Peers, memory: o.Memory, alone: o.Alone, ids: o.Identities,
		staleness: o.Staleness, unheard: o.Unheard,
		catalog: o.Catalog, instances: o.Instances, issuer: o.Issuer, started: time.Now(),
		gate: semaphore.NewWeighted(int64(max(2, runtime.NumCPU()))),
	}
}

// Find answers a query. fault.Mismatch for keys that cannot be used, and for a
// level that does not exist. Errors of the search itself come with the matches.
func (e *Engine) Find(ctx context.Context, q query.Query) (*query.Answer, error) {
	if q.Level > query.Image || q.Limit < 0 || q.Offset < 0 {
		return nil, fault.New(fault.Mismatch, "query: no such level, limit or offset")
	}
	if q.Keys == nil {
		q.Keys = dicom.NewDataset()
	}
	q, err := e.universal(q)
	if err != nil {
		return nil, err
	}
	options := match.Options{Fuzzy: q.Fuzzy, CombinedDateTime: q.CombinedDateTime, Timezone: q.Timezone, FoldText: q.FoldText}
	matcher, err := match.Compile(q.Keys, options)
	if err != nil {
		return nil, err
	}
	s, err := newSearch(e, q, matcher)
	if err != nil {
		return nil, err
	}
	others, known := e.staleness() // before own facts: they are no older than these
	unheard := e.unheard()
	if !known {
		others = query.StalenessUnknown
	}
	own, err := e.settle(ctx)
	if err != nil {
		return nil, err
	}
	answer := &query.Answer{Matches: s.matches(ctx), Staleness: max(own, others), Lags: own > 0, Unheard: unheard, Ignored: s.ignored}
	if s.asks != nil && s.asks.told {
		answer.Silent = s.asks.sites
	}
	return answer, nil
}

// settle waits until the catalogue has what was acknowledged before now, and
// returns how old it may be when that took too long.
func (e *Engine) settle(ctx context.Context) (time.Duration, error) {
	asked := time.Since(e.started)
	limited, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := e.instances.Settle(limited); err == nil {
		for {
			last := e.settled.Load()
			if int64(asked) <= last || e.settled.CompareAndSwap(last, int64(asked)) {
				return 0, nil
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, fault.New(fault.KindOf(err), "query: %w", err)
	}
	return time.Since(e.started) - time.Duration(e.settled.Load()), nil
}

// search is one query compiled.
type search struct {
	engine  *Engine
	q       query.Query
	matcher *match.Matcher
	plan    plan.Plan
	keys    keySets
	want    []wanted // what to answer
	wantOf  scopes   // whose attributes those are
	// wantsSites and wantsCounts tell of those that who holds an object decides.
	wantsSites, wantsCounts bool

	ignored []dict.Tag

	issuer      string // that a Patient ID key is of
	checkIssuer bool
	timeline    []catalog.PatientKey // of the patient whose id is asked for, where links say that there are more
	sops        []string             // SOP Instance UIDs asked for, if any

	asks *asks // nil: no other node is ever asked
}

func newSearch(e *Engine, q query.Query, m *match.Matcher) (*search, error) {
	s := &search{engine: e, q: q, matcher: m}
	keys := m.Keys()
	s.keys, s.ignored = sortKeys(keys)
	anyIssuer := s.qualify(keys)
	if err := s.link(keys, anyIssuer); err != nil {
		return nil, err
	}
	s.plan = plan.For(keys, plan.Options{
		Issuer: s.issuer, Timeline: s.timeline, AnyIssuer: anyIssuer, WildName: strings.ContainsAny(strings.Join(q.Keys.Strings(dict.PatientName), ""), "*?"),
	})
	for _, k := range keys {
		if k.Tag == dict.SOPInstanceUID && (k.Kind == match.Single || k.Kind == match.List) {
			s.sops = k.Values
		}
	}
	s.want = wantedOf(q)
	for _, w := range s.want {
		s.wantOf |= w.scope
		switch w.tag {
		case query.TagSites:
			s.wantsSites = true
		case query.TagApproximate, dict.NumberOfStudyRelatedInstances, dict.NumberOfSeriesRelatedInstances, dict.NumberOfPatientRelatedInstances:
			s.wantsCounts = true
		}
	}
	s.asks = s.newAsks()
	return s, nil
}

// qualify decides which issuer a Patient ID key is of: the query's own, else
// the asking AE's, else the site's. An issuer of `*`, or any pattern, means all
// issuers that match it.
func (s *search) qualify(keys []match.Key) (anyIssuer bool) {
	s.issuer = s.q.Issuer
	id, named := false, s.q.Keys.String(dict.IssuerOfPatientID) != ""
	for _, k := range keys {
		switch {
		case k.Tag == dict.PatientID:
			id = true
		case k.Tag == dict.IssuerOfPatientID && k.Kind == match.Single:
			s.issuer, named = k.Values[0], false
		}
	}
	s.checkIssuer = id && !named
	return named
}
