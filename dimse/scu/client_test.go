package scu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
)

const (
	ctClass = "1.2.840.10008.5.1.4.1.1.2"
	mrClass = "1.2.840.10008.5.1.4.1.1.4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is the other end of a client: it accepts every context in its first
// syntax and answers as the test says.
type script struct {
	t *testing.T
	*assoc.Association
}

// pair returns a client and its scripted peer over a pipe.
func pair(t *testing.T, proposal scu.Proposal, response time.Duration) (*scu.Client, script) {
	t.Helper()
	return pairOf(t, scu.Target{Response: response}, proposal)
}

// pairOf is pair with more of the target.
func pairOf(t *testing.T, target scu.Target, proposal scu.Proposal) (*scu.Client, script) {
	t.Helper()
	l := dimsetest.Listen()
	accepted := make(chan *assoc.Association, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			close(accepted)
			return
		}
		a, err := assoc.Accept(t.Context(), conn, assoc.Config{}, acceptAll)
		if err != nil {
			t.Error(err)
		}
		accepted <- a
	}()
	target.Addr, target.Called, target.Calling = "pipe", "PEER", "CLIENT"
	target.Dialer = func(ctx context.Context, _ string) (net.Conn, error) { return l.Dial(ctx) }
	c, err := scu.Dial(t.Context(), target, proposal)
	if err != nil {
		t.Fatal(err)
	}
	peer := script{t, <-accepted}
	t.Cleanup(func() { c.Abort(); peer.Abort() })
	return c, peer
}

func acceptAll(_ context.Context, r *assoc.Request) assoc.Decision {
	d := assoc.Decision{Contexts: r.Contexts, MaxInvoked: r.MaxInvoked, MaxPerformed: r.MaxPerformed}
	for i, c := range r.Contexts {
		d.Contexts[i].Syntax = c.Syntaxes[0]
	}
	return d
}

// request receives the next request and its data.
func (s script) request() (byte, *command.Set, []byte) {
	s.t.Helper()
	m, err := s.Receive(s.t.Context())
	if err != nil {
		s.t.Fatalf("Receive: %v", err)
	}
	set, err := command.Parse(m.Command)
	if err != nil {
		s.t.Fatal(err)
	}
	var data []byte
	if m.Data != nil {
		if data, err = io.ReadAll(m.Data); err != nil {
			s.t.Fatal(err)
		}
	}
	return m.ContextID, set, data
}

// answer sends a message.
func (s script) answer(context byte, set *command.Set, data []byte) {
	s.t.Helper()
	var r io.Reader
	if set.HasData {
		r = bytes.NewReader(data)
	}
	if err := s.Send(s.t.Context(), context, set.Encode(nil), r); err != nil {
		s.t.Errorf("Send: %v", err)
	}
}

func storeOf(n int) scu.StoreRequest {
	return scu.StoreRequest{Class: ctClass, Instance: fmt.Sprintf("1.2.%d", n), Syntax: dict.ExplicitLittleEndian, Data: strings.NewReader("data")}
}

func proposeStore(window uint16) scu.Proposal {
	return scu.Proposal{
		Contexts: []assoc.Context{{Abstract: ctClass, Syntaxes: []string{dict.ExplicitLittleEndian}}}, Window: window,
	}
}

func TestStoresArePipelinedWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, proposeStore(3), 0)
		if c.Window() != 3 {
			t.Fatalf("window %d", c.Window())
		}
		var work sync.WaitGroup
		var mu sync.Mutex
		done := map[string]command.Status{}
		for n := range 5 {
			work.Go(func() {
				status, err := c.Store(t.Context(), storeOf(n))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				done[storeOf(n).Instance] = status
			})
		}
		var outstanding []*command.Set
		for range 3 {
			_, set, _ := peer.request()
			outstanding = append(outstanding, set)
		}
		waiting := make(chan *command.Set)
		go func() {
			for range 2 {
				_, set, _ := peer.request()
				waiting <- set
			}
		}()
		synctest.Wait()
		select {
		case set := <-waiting:
			t.Fatalf("a fourth request before any response: %+v", set)
		default:
		}
		// Responses may come in any order; each frees a place.
		for _, i := range []int{2, 0} {
			reply := outstanding[i].Reply(0xB000)
			peer.answer(1, reply, nil)
			outstanding = append(outstanding, <-waiting)
		}
		for _, i := range []int{1, 4, 3} {
			peer.answer(1, outstanding[i].Reply(0), nil)
		}
		work.Wait()
		for _, i := range []int{2, 0} {
			if done[outstanding[i].Instance] != 0xB000 {
				t.Errorf("%s got the status of another", outstanding[i].Instance)
			}
		}
	})
}

func TestAPeerThatNeverAnswersLosesTheAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, proposeStore(1), time.Minute)
		go peer.Receive(t.Context()) //nolint:errcheck // the request comes and is never answered
		start := time.Now()
		_, err := c.Store(t.Context(), storeOf(1))
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("error %v", err)
		}
		if waited := time.Since(start); waited < time.Minute || waited > time.Minute+5*time.Second {
			t.Errorf("waited %v", waited)
		}
		<-c.Done()
		if _, err := c.Store(t.Context(), storeOf(2)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("the next: %v", err)
		}
	})
}

func TestACallGivenUpFreesItsPlaceWithTheLateResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, proposeStore(1), 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan *command.Set, 1)
		go func() { _, set, _ := peer.request(); first <- set }()
		if _, err := c.Store(ctx, storeOf(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		result := make(chan error, 1)
		go func() { _, err := c.Store(t.Context(), storeOf(2)); result <- err }()
		synctest.Wait()
		peer.answer(1, (<-first).Reply(0xC000), nil) // must not be taken for the second's
		_, second, _ := peer.request()
		if second.Instance != "1.2.2" {
			t.Errorf("second request %+v", second)
		}
		peer.answer(1, second.Reply(0), nil)
		if err := <-result; err != nil {
			t.Errorf("second: %v", err)
		}
	})
}

func TestAnAbortEndsEveryWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, proposeStore(1), 0)
		results := make(chan error, 2)
		for n := range 2 { // one waits for its response, one for the window
			go func() { _, err := c.Store(t.Context(), storeOf(n)); results <- err }()
		}
		peer.request()
		synctest.Wait()
		if err := peer.Abort(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var aborted *assoc.Aborted
			if err := <-results; !fault.Is(err, fault.Unavailable) || !errors.As(err, &aborted) {
				t.Errorf("error %v", err)
			}
		}
	})
}

func TestAnUnknownRequestIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, peer := pair(t, proposeStore(1), 0)
		for _, tt := range []struct {
			set  command.Set
			want command.Status
		}{
			{command.Set{Field: command.CFindRQ, MessageID: 1, Class: ctClass, HasData: true}, 0x0211},
			{command.Set{Field: command.CStoreRQ, MessageID: 2, Class: ctClass, Instance: "1", HasData: true}, 0x0211},
			{command.Set{Field: command.NEventReportRQ, MessageID: 3, Class: dimse.StorageCommitment, HasData: true}, 0x0118},
			{command.Set{Field: command.CEchoRQ, MessageID: 4, Class: dimse.Verification}, 0},
		} {
			peer.answer(1, &tt.set, []byte("some data"))
			_, got, _ := peer.request()
			if got.Status != tt.want || got.RespondedTo != tt.set.MessageID || !got.Field.IsResponse() {
				t.Errorf("%v: %+v", tt.set.Field, got)
			}
		}
	})
}

func TestAFindThatIsLeftSendsCancelAndWaitsForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}), 0)
		d := dicom.NewDataset()
		d.Set(0x00100020, dict.LO, "1")
		syntax, _ := dict.Syntax(dict.ExplicitLittleEndian)
		body, err := d.Encode(nil, syntax)
		if err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() {
			_, set, data := peer.request()
			if set.Field != command.CFindRQ || !bytes.Contains(data, []byte("STUDY")) {
				t.Errorf("request %+v %q", set, data)
			}
			pending := set.Reply(command.Pending)
			pending.HasData = true
			for range 3 {
				peer.answer(1, pending, body)
			}
			_, cancel, _ := peer.request()
			if cancel.Field != command.CCancelRQ || cancel.RespondedTo != set.MessageID {
				t.Errorf("expected a cancel: %+v", cancel)
			}
			peer.answer(1, pending, body) // it was on its way
			peer.answer(1, set.Reply(command.Cancel), nil)
			_, echo, _ := peer.request()
			peer.answer(1, echo.Reply(0), nil)
		})
		for range c.Find(t.Context(), scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}) {
			break
		}
		// The association is still good for another operation.
		for _, err := range c.Find(t.Context(), scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}) {
			t.Errorf("the next: %v", err)
		}
		work.Wait()
	})
}

func TestAPeerThatIgnoresCancelIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, scu.ProposeMove(dimse.StudyRoot), 0)
		go func() {
			_, set, _ := peer.request()
			peer.answer(1, set.Reply(command.Pending), nil)
			peer.request() // the cancel
			_, _ = peer.Receive(context.WithoutCancel(t.Context()))
		}()
		start := time.Now()
		for range c.Move(t.Context(), "X", scu.Query{Root: dimse.StudyRoot, Identifier: dicom.NewDataset()}) {
			break
		}
		if waited := time.Since(start); waited < 10*time.Second || waited > 15*time.Second {
			t.Errorf("waited %v", waited)
		}
		<-c.Done()
	})
}

func TestOneGetAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: ctClass, Syntax: dict.ExplicitLittleEndian}}), 0)
		var work sync.WaitGroup
		defer work.Wait()
		work.Go(func() {
			_, set, _ := peer.request()
			peer.answer(1, set.Reply(command.Pending), nil)
			_, _, _ = peer.request()
			peer.answer(1, set.Reply(command.Cancel), nil)
		})
		query := scu.Query{Root: dimse.StudyRoot, Identifier: dicom.NewDataset()}
		handle := func(context.Context, *scu.Incoming) error { return nil }
		for range c.Get(t.Context(), query, handle) {
			for _, err := range c.Get(t.Context(), query, handle) {
				if !fault.Is(err, fault.Conflict) {
					t.Errorf("the second: %v", err)
				}
			}
			break
		}
	})
}

// storer counts stores.
type storer struct {
	mu     sync.Mutex
	stored map[string]int
}

func (s *storer) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Store: s}, nil
}

func (s *storer) Store(_ context.Context, r *scp.StoreRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored == nil {
		s.stored = map[string]int{}
	}
	s.stored[r.Class]++
	return nil
}

func TestASenderOpensAnAssociationPerPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &storer{}
		server := &scp.Server{Admit: s}
		l := dimsetest.Listen()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- server.Serve(ctx, l) }()
		var kinds []scu.Kind
		for n := range 100 { // 200 contexts
			kinds = append(kinds, scu.Kind{Class: fmt.Sprintf("1.2.3.%d", n), Syntax: dict.ExplicitLittleEndian})
		}
		sender := scu.NewSender(scu.Target{
			Addr: "pipe", Called: "A", Calling: "B",
			Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return l.Dial(ctx) },
		}, kinds, 0)
		for _, k := range kinds {
			in := scu.Instance{Class: k.Class, UID: "1", Syntax: k.Syntax, Open: func(context.Context, string) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("data")), nil
			}}
			if _, err := sender.Store(t.Context(), in, scu.Originator{}); err != nil {
				t.Fatalf("%s: %v", k.Class, err)
			}
		}
		if n := server.Associations(); n != 2 {
			t.Errorf("%d associations, want 2", n)
		}
		if len(s.stored) != 100 {
			t.Errorf("%d classes stored", len(s.stored))
		}
		if _, err := sender.Store(t.Context(), scu.Instance{Class: mrClass}, scu.Originator{}); !fault.Is(err, fault.Unsupported) {
			t.Errorf("a class outside the plan: %v", err)
		}
		if err := sender.Close(t.Context()); err != nil {
			t.Error(err)
		}
		cancel()
		<-served
	})
}

func TestDialTellsWhyItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := dimsetest.Listen()
		target := scu.Target{Addr: "pipe", Called: "A", Calling: "B", Connect: 3 * time.Second,
			Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return l.Dial(ctx) }}
		for name, tt := range map[string]struct {
			accept func(net.Conn)
			kind   fault.Kind
		}{
			"rejected": {func(conn net.Conn) {
				_, _ = assoc.Accept(t.Context(), conn, assoc.Config{}, func(context.Context, *assoc.Request) assoc.Decision {
					return assoc.Decision{Reject: &assoc.Reject{Result: 1, Source: 1, Reason: 7}}
				})
			}, fault.Denied},
			"congested": {func(conn net.Conn) {
				_, _ = assoc.Accept(t.Context(), conn, assoc.Config{}, func(context.Context, *assoc.Request) assoc.Decision {
					return assoc.Decision{Reject: &assoc.Reject{Result: 2, Source: 3, Reason: 2}}
				})
			}, fault.Unavailable},
			"no context": {func(conn net.Conn) {
				a, err := assoc.Accept(t.Context(), conn, assoc.Config{}, func(_ context.Context, r *assoc.Request) assoc.Decision {
					d := assoc.Decision{Contexts: r.Contexts}
					for i := range d.Contexts {
						d.Contexts[i].Result = assoc.AbstractSyntaxUnsupported
					}
					return d
				})
				if err == nil {
					_, _ = a.Receive(t.Context())
				}
			}, fault.Unsupported},
			"hung up": {func(conn net.Conn) { conn.Close() }, fault.Unavailable},
			"silent":  {func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, fault.Unavailable},
			"babble": {func(conn net.Conn) {
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				_, _ = conn.Write(bytes.Repeat([]byte("HTTP/1.1 400 "), 10))
			}, fault.Protocol},
		} {
			accepting := make(chan struct{})
			go func() {
				defer close(accepting)
				if conn, err := l.Accept(); err == nil {
					tt.accept(conn)
				}
			}()
			c, err := scu.Dial(t.Context(), target, proposeStore(1))
			if err == nil {
				c.Abort()
			}
			if !fault.Is(err, tt.kind) {
				t.Errorf("%s: %v of kind %v, want %v", name, err, fault.KindOf(err), tt.kind)
			}
			<-accepting
		}
		if _, err := scu.Dial(t.Context(), target, scu.Proposal{}); !fault.Is(err, fault.Unsupported) {
			t.Errorf("nothing proposed: %v", err)
		}
	})
}

func TestAResponseToAnotherOperationIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, proposeStore(1), 0)
		var work sync.WaitGroup
		work.Go(func() {
			_, set, _ := peer.request()
			peer.answer(1, &command.Set{Field: command.CFindRSP, RespondedTo: set.MessageID, Status: 0xC001}, nil)
			peer.answer(1, &command.Set{Field: command.CStoreRSP, RespondedTo: set.MessageID + 1, Status: 0xC001}, nil)
			peer.answer(1, set.Reply(0), nil)
		})
		if status, err := c.Store(t.Context(), storeOf(1)); err != nil || status != 0 {
			t.Errorf("store: %v %v", status, err)
		}
		work.Wait()
	})
}

// Whoever is told of a storage commitment's result may release at once: the report
// is answered before.
func TestAReleaseWaitsForTheAnswerToAReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, release := make(chan struct{}), make(chan struct{})
		c, peer := pairOf(t, scu.Target{Committed: func(context.Context, *dimse.CommitmentResult) error {
			close(told)
			<-release
			return nil
		}}, scu.ProposeCommitment())
		result := &dimse.CommitmentResult{Transaction: "1.2.3", Committed: []dimse.Reference{{Class: ctClass, Instance: "1.2"}}}
		syntax, _ := dict.Syntax(c.Contexts()[0].Syntax)
		data, err := result.Dataset().Encode(nil, syntax)
		if err != nil {
			t.Fatal(err)
		}
		report := command.Set{
			Field: command.NEventReportRQ, MessageID: 9, Class: dimse.StorageCommitment, Instance: dimse.StorageCommitmentInstance,
			EventType: result.EventType(), HasData: true,
		}
		peer.answer(1, &report, data)
		<-told
		released := make(chan error, 1)
		go func() { released <- c.Release(t.Context()) }()
		synctest.Wait()
		close(release)
		if _, got, _ := peer.request(); got.RespondedTo != 9 || got.Status != command.Success {
			t.Errorf("answer %+v", got)
		}
		if _, err := peer.Receive(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("after the answer: %v, want a release", err)
		}
		if err := <-released; err != nil {
			t.Error(err)
		}
	})
}

func TestAPanickingHandlerEndsItsAssociationOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: ctClass, Syntax: dict.ExplicitLittleEndian}}), 0)
		go func() {
			peer.request()
			peer.answer(3, &command.Set{Field: command.CStoreRQ, MessageID: 1, Class: ctClass, Instance: "1", HasData: true}, []byte("data"))
		}()
		handle := func(context.Context, *scu.Incoming) error { panic("handler") }
		for _, err := range c.Get(t.Context(), scu.Query{Root: dimse.StudyRoot, Identifier: dicom.NewDataset()}, handle) {
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("error %v", err)
			}
		}
		<-c.Done()
	})
}
