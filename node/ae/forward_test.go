package ae

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
)

// sites are two sites that share a registry: an AE of "there" is sent to by the
// node of "there".
type sites struct {
	t       *testing.T
	rows    *records
	ledger  ledger // of the node there
	audited chan struct{}
	clients *http.Transport
	nodes   []string
	down    map[string]bool
	here    *Face

	mu     sync.Mutex // guards what follows
	stored []scp.StoreRequest
	slow   chan struct{} // if not nil, each store waits for a token
	asked  chan struct{}
}

// Store implements [scp.Storer]: it is the AE there.
func (s *sites) Store(ctx context.Context, r *scp.StoreRequest) error {
	if s.asked != nil {
		s.asked <- struct{}{}
	}
	if s.slow != nil {
		select {
		case <-s.slow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, err := io.Copy(io.Discard, r.Data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = append(s.stored, *r)
	if strings.HasSuffix(r.Instance, ".2.2") {
		return fault.New(fault.Full, "no room")
	}
	return nil
}

// Of implements [Peers].
func (s *sites) Of(site string) []string {
	if site != "there" {
		s.t.Errorf("asked for site %s", site)
	}
	return s.nodes
}

// Send implements [Peers].
func (s *sites) Send(r *http.Request) (*http.Response, error) {
	if s.down[r.URL.Host] {
		return nil, fault.New(fault.Unavailable, "%s does not answer", r.URL.Host)
	}
	r.URL.Scheme = "http"
	return call.NewClient(s.clients).Send(r)
}

func newSites(t *testing.T, there Archive) *sites {
	s := &sites{t: t, rows: newRecords(), down: map[string]bool{}, nodes: []string{"t1"}, audited: make(chan struct{}, 64)}
	destination := serve(t, &scp.Server{Admit: admitAll{&scp.Session{Store: s}}})
	registries := map[string]*Registry{}
	for _, site := range []string{"here", "there"} {
		registries[site] = NewRegistry(site, s.rows, s.rows)
	}
	for _, ae := range []AE{
		{Title: "VIEWER", Hosts: []string{"10.0.0.1"}, Port: 104, Alias: "VIEWER_THERE"},
		{Title: "DEAF", Hosts: []string{"10.0.0.1"}, Alias: "DEAF_THERE"},
	} {
		if err := registries["there"].Put(context.Background(), ae); err != nil {
			t.Fatal(err)
		}
	}
	face := New(Options{
		Title: "THERE", Archive: there, Registry: registries["there"], Dialer: dialer(destination), Audit: func(e Event) { s.ledger.add(e); s.audited <- struct{}{} },
		At: func(_ context.Context, node, study, series string) iter.Seq2[archive.Ref, error] {
			if node != "h1" || study != "3" {
				return func(yield func(archive.Ref, error) bool) { yield(archive.Ref{}, fault.New(fault.NotFound, "nothing")) }
			}
			return wing().Select(context.Background(), study, series, "")
		},
	})
	listener := dimsetest.Listen()
	server := &http.Server{Handler: face.Forwarded(func(*http.Request) (string, error) { return "h1", nil })}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	s.clients = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.Dial(ctx) }}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		s.clients.CloseIdleConnections()
	})
	s.here = New(Options{Title: "HERE", Node: "h1", Archive: wing(), Engine: &answers{}, Registry: registries["here"], Peers: s})
	return s
}

// move asks the node here for a C-MOVE of studies, as a client would.
func (s *sites) move(ctx context.Context, destination string, studies ...string) (scu.Progress, error) {
	s.t.Helper()
	session := sessionOf(s.here, AE{Title: "ASKER"})
	listener := serve(s.t, &scp.Server{Admit: admitAll{&scp.Session{Move: session}}})
	client, err := scu.Dial(ctx, target(listener, "ASKER"), scu.ProposeMove(dimse.StudyRoot))
	if err != nil {
		s.t.Fatal(err)
	}
	var last scu.Progress
	for p, err := range client.Move(ctx, destination, scu.Query{
		Root: dimse.StudyRoot, Level: "STUDY", Identifier: identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: studies}),
	}) {
		var status *dimse.StatusError
		if err != nil && !errors.As(err, &status) {
			return p, errors.Join(err, client.Abort())
		}
		last = p
	}
	return last, client.Release(context.WithoutCancel(ctx))
}

func TestAnAEOfAnotherSiteIsSentToByANodeOfThatSite(t *testing.T) {
	s := newSites(t, wing())
	s.nodes, s.down["t0"] = []string{"t0", "t1"}, true // the first does not answer
	final, err := s.move(t.Context(), "VIEWER_THERE", "1")
	if err != nil || final.Status != dimse.SubsCompleteWithFailures || final.Completed != 3 || final.Failed != 1 ||
		!slices.Equal(final.FailedUIDs, []string{"1.2.2"}) {
		t.Errorf("final %+v, %v", final, err)
	}
	var got []string
	for _, r := range s.stored {
		got = append(got, r.Instance)
		if r.MoveOriginator != "ASKER" || r.MoveOriginatorMessage == 0 {
			t.Errorf("originator %q %d", r.MoveOriginator, r.MoveOriginatorMessage)
		}
	}
	if want := []string{"1.1.1", "1.1.2", "1.2.1", "1.2.2"}; !slices.Equal(got, want) {
		t.Errorf("stored %v", got)
	}
	for late := time.After(time.Minute); len(s.ledger.of(Sent)) == 0; {
		select {
		case <-s.audited: // the requestor knows of the last instance before the order has ended
			continue
		case <-late:
		}
		break
	}
	sent := s.ledger.of(Sent)
	if len(sent) != 1 || sent[0].Remote != "h1" || sent[0].Destination != "VIEWER" || sent[0].Study != "1" || !sent[0].Failed {
		t.Errorf("audited there as %+v", sent)
	}
}

func TestWhatTheOtherSiteDoesNotKnowYetIsTakenWhereItIs(t *testing.T) {
	s := newSites(t, behind{wing()})
	final, err := s.move(t.Context(), "VIEWER_THERE", "3")
	if err != nil || final.Failed != 1 || final.Completed != 3 { // 3.2.2 is refused
		t.Errorf("final %+v, %v", final, err)
	}
	final, err = s.move(t.Context(), "VIEWER_THERE", "2")
	if err != nil || final.Status != dimse.UnableToPerformSubs || final.Failed != 4 || len(final.FailedUIDs) != 4 {
		t.Errorf("what nobody has: final %+v, %v", final, err)
	}
}

func TestMoveDestinationsOfOtherSites(t *testing.T) {
	s := newSites(t, wing())
	for _, test := range []struct {
		name, destination string
		change            func()
		status            command.Status
		failed            int
	}{
		{"a title of another site", "VIEWER", nil, dimse.MoveDestinationUnknown, 0},
		{"one that does not listen", "DEAF_THERE", nil, dimse.MoveDestinationUnknown, 0},
		{"nobody", "NOBODY", nil, dimse.MoveDestinationUnknown, 0},
		{"no node of its site answers", "VIEWER_THERE", func() { s.down["t1"] = true }, dimse.UnableToPerformSubs, 4},
		{"no node of its site is known", "VIEWER_THERE", func() { s.nodes = nil }, dimse.UnableToPerformSubs, 4},
		{"two sites gave the same alias", "VIEWER_THERE", func() {
			s.rows.rows["elsewhere/OTHER"] = slices.Clone(s.rows.rows["there/VIEWER"])
			s.rows.applied++
		}, dimse.MoveDestinationUnknown, 0},
	} {
		if test.change != nil {
			test.change()
		}
		final, err := s.move(t.Context(), test.destination, "1")
		if err != nil || final.Status != test.status || len(final.FailedUIDs) != test.failed || final.Completed > 0 {
			t.Errorf("%s: %+v, %v", test.name, final, err)
		}
	}
	if len(s.stored) > 0 {
		t.Errorf("%d instances were stored", len(s.stored))
	}
}

func TestAnOrderHasOneBatchForASeriesAtANode(t *testing.T) {
	var refs []archive.Ref
	for i := range 6 { // half of a series is here, every other one
		refs = append(refs, archive.Ref{Study: "1", Series: "1.1", SOP: fmt.Sprintf("1.1.%d", i), Origin: []string{"", "h2"}[i%2]})
	}
	o := newOrder("VIEWER", &scp.RetrieveRequest{}, refs, "h1")
	if len(o.Batches) != 2 || o.Batches[0].Node != "h1" || !slices.Equal(o.Batches[1].Instances, []string{"1.1.1", "1.1.3", "1.1.5"}) {
		t.Errorf("%+v", o.Batches)
	}
}

func TestAnAliasIsGivenOnce(t *testing.T) {
	rows := newRecords()
	here, there := NewRegistry("here", rows, rows), NewRegistry("there", rows, rows)
	viewer := AE{Title: "VIEWER", Hosts: []string{"10.0.0.1"}, Port: 104, Alias: "V"}
	if err := there.Put(context.Background(), viewer); err != nil {
		t.Fatal(err)
	}
	if err := there.Put(context.Background(), viewer); err != nil { // changed in place
		t.Error(err)
	}
	if err := here.Put(context.Background(), viewer); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same alias at another site: %v", err)
	}
	if placed, err := here.Resolve("V"); err != nil || placed.Site != "there" || placed.Title != "VIEWER" {
		t.Errorf("%+v, %v", placed, err)
	}
	// A title of one's own site counts first.
	if err := here.Put(context.Background(), AE{Title: "V", Hosts: []string{"10.0.0.2"}, Port: 104}); err != nil {
		t.Fatal(err)
	}
	if placed, err := here.Resolve("V"); err != nil || placed.Site != "here" {
		t.Errorf("%+v, %v", placed, err)
	}
	viewer.Alias = "seventeen letters"
	if err := there.Put(context.Background(), viewer); !fault.Is(err, fault.Invalid) {
		t.Errorf("an alias that is no title: %v", err)
	}
}

func TestACancelReachesTheNodeThatSends(t *testing.T) {
	s := newSites(t, wing())
	s.slow, s.asked = make(chan struct{}), make(chan struct{}, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan scu.Progress, 1)
	go func() {
		final, _ := s.move(ctx, "VIEWER_THERE", "1")
		ended <- final
	}()
	<-s.asked // the first is on its way
	cancel()
	s.slow <- struct{}{} // it ends by itself
	select {
	case final := <-ended:
		if final.Status != command.Cancel && final.Status != 0 {
			t.Errorf("final %+v", final)
		}
	case <-time.After(time.Minute):
		t.Fatal("the C-MOVE goes on")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stored) > 2 {
		t.Errorf("%d instances were stored after the cancel", len(s.stored))
	}
}

func TestInstancesKnownByNumberAreFailedSubOperations(t *testing.T) {
	f := New(Options{Archive: partial{wing()}, Engine: &answers{}, Registry: registry(t)})
	listener := serve(t, &scp.Server{Admit: admitAll{&scp.Session{Get: sessionOf(f, AE{Title: "X"})}}})
	client, err := scu.Dial(t.Context(), target(listener, "X"), scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: dimsetest.CTImageStorage, Syntax: dict.ExplicitLittleEndian}}))
	if err != nil {
		t.Fatal(err)
	}
	get := func(level string, keys map[dict.Tag][]string) (final scu.Progress) {
		for p, err := range client.Get(t.Context(), scu.Query{Root: dimse.StudyRoot, Level: level, Identifier: identifier(level, keys)},
			func(_ context.Context, in *scu.Incoming) error { _, err := io.Copy(io.Discard, in.Data); return err }) {
			var status *dimse.StatusError
			if err != nil && !errors.As(err, &status) {
				t.Fatal(err)
			}
			final = p
		}
		return final
	}
	if final := get("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {"1"}}); final.Status != dimse.SubsCompleteWithFailures ||
		final.Completed != 4 || final.Failed != 3 || len(final.FailedUIDs) != 0 {
		t.Errorf("some are known by number: %+v", final)
	}
	if final := get("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {"9"}}); final.Status != dimse.UnableToPerformSubs || final.Failed != 3 {
		t.Errorf("all are known by number: %+v", final)
	}
	if final := get("IMAGE", map[dict.Tag][]string{dict.SOPInstanceUID: {"1.1.1", "9.9"}}); final.Completed != 1 || !slices.Equal(final.FailedUIDs, []string{"9.9"}) {
		t.Errorf("one is asked for by its UID: %+v", final)
	}
	if err := client.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// behind knows of study 1 only.
type behind struct{ *memory }

func (b behind) Select(ctx context.Context, study, series, instance string) iter.Seq2[archive.Ref, error] {
	if study != "1" {
		return func(yield func(archive.Ref, error) bool) { yield(archive.Ref{}, fault.New(fault.NotFound, "nothing")) }
	}
	return b.memory.Select(ctx, study, series, instance)
}

// partial knows of three more instances in every study.
type partial struct{ *memory }

func (p partial) Select(ctx context.Context, study, series, instance string) iter.Seq2[archive.Ref, error] {
	return func(yield func(archive.Ref, error) bool) {
		for ref, err := range p.memory.Select(ctx, study, series, instance) {
			if fault.Is(err, fault.NotFound) {
				break
			}
			if !yield(ref, err) {
				return
			}
			if instance != "" {
				return
			}
		}
		missing := &archive.Missing{Study: study, Instances: 3}
		if instance != "" {
			missing = &archive.Missing{SOP: instance, Instances: 1}
		}
		yield(archive.Ref{}, fault.New(fault.Unavailable, "%w", missing))
	}
}
