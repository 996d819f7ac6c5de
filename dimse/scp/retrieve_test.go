package scp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

const mrClass = "1.2.840.10008.5.1.4.1.1.4"

var studyGet = dimse.StudyRoot.Class(dimse.Get)

// instance is a CT that opens to its UID and the syntax asked for.
func instance(n int) scu.Instance {
	uid := fmt.Sprintf("1.2.3.%d", n)
	return scu.Instance{
		Class: ctClass, UID: uid, Syntax: dict.ExplicitLittleEndian,
		Open: func(_ context.Context, syntax string) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(uid + " in " + syntax)), nil
		},
	}
}

// instances yields the instances 1 to n.
func instances(n int) iter.Seq2[scu.Instance, error] {
	return func(yield func(scu.Instance, error) bool) {
		for i := range n {
			if !yield(instance(i+1), nil) {
				return
			}
		}
	}
}

// getter returns a provider that sends a retrieval.
func getter(r *Retrieval) *provider {
	give := func(context.Context, *RetrieveRequest) (*Retrieval, error) { return r, nil }
	return &provider{get: give, move: give}
}

func proposeGet() scu.Proposal {
	return scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: ctClass, Syntax: dict.ExplicitLittleEndian}})
}

func query() scu.Query {
	return scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: identifier()}
}

// last ranges over a retrieval and returns its final response.
func last(progress iter.Seq2[scu.Progress, error]) (final scu.Progress, err error) {
	for p, e := range progress {
		final, err = p, e
	}
	return final, err
}

func TestGetSendsEveryInstanceOnTheSameAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outcome Outcome
		r := &Retrieval{Total: 5, Instances: instances(5), Finished: func(o Outcome) { outcome = o }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		got := map[string]string{}
		final, err := last(c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error {
			b, err := io.ReadAll(in.Data)
			got[in.Instance] = string(b)
			if in.Class != ctClass || in.Syntax != dict.ExplicitLittleEndian {
				t.Errorf("came as %s in %s", in.Class, in.Syntax)
			}
			return err
		}))
		if err != nil || final.Status != 0 || final.Completed != 5 || final.Failed != 0 || !final.Final {
			t.Errorf("final %+v, %v", final, err)
		}
		if len(got) != 5 || got["1.2.3.4"] != "1.2.3.4 in "+dict.ExplicitLittleEndian {
			t.Errorf("got %v", got)
		}
		if outcome != (Outcome{Completed: 5}) {
			t.Errorf("outcome %+v", outcome)
		}
		// The client takes no instances outside a C-GET.
		release(t, c)
	})
}

func TestWhatWasNotNegotiatedCountsAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mr, jpeg, implicit, broken := instance(2), instance(3), instance(4), instance(5)
		mr.Class = mrClass
		jpeg.Syntax = jpeg2000
		implicit.Syntax = dict.ImplicitLittleEndian // convertible to explicit
		broken.Open = func(context.Context, string) (io.ReadCloser, error) {
			return nil, fault.New(fault.Corrupt, "rotten")
		}
		gone := scu.Instance{UID: "1.2.3.6"}
		r := &Retrieval{Total: 6, Instances: func(yield func(scu.Instance, error) bool) {
			_ = yield(instance(1), nil) && yield(mr, nil) && yield(jpeg, nil) && yield(implicit, nil) && yield(broken, nil) &&
				yield(gone, fault.New(fault.Unavailable, "its site is away"))
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		var got []string
		final, err := last(c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error {
			b, err := io.ReadAll(in.Data)
			got = append(got, string(b))
			return err
		}))
		if err != nil || final.Status != 0xB000 || final.Completed != 2 || final.Failed != 4 {
			t.Errorf("final %+v, %v", final, err)
		}
		slices.Sort(final.FailedUIDs)
		if want := []string{"1.2.3.2", "1.2.3.3", "1.2.3.5", "1.2.3.6"}; fmt.Sprint(final.FailedUIDs) != fmt.Sprint(want) {
			t.Errorf("failed %v, want %v", final.FailedUIDs, want)
		}
		if want := "[1.2.3.1 in 1.2.840.10008.1.2.1 1.2.3.4 in 1.2.840.10008.1.2.1]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
		release(t, c)
	})
}

func TestTheReceiversStatusIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]error{
			"1.2.3.1": nil,
			"1.2.3.2": &dimse.StatusError{Status: 0xB000},
			"1.2.3.3": fault.New(fault.Full, "no room"),
		}
		r := &Retrieval{Total: 3, Instances: instances(3)}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		final, err := last(c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error {
			return answers[in.Instance] // the data set is left unread
		}))
		if err != nil || final.Status != 0xB000 || final.Completed != 1 || final.Warning != 1 || final.Failed != 1 {
			t.Errorf("final %+v, %v", final, err)
		}
		release(t, c)
	})
}

func TestAllFailedIsA702(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Retrieval{Total: 1500, Instances: func(yield func(scu.Instance, error) bool) {
			for n := range 1500 { // more than an explicit UI value of 65,534 bytes holds
				in := scu.Instance{UID: fmt.Sprintf("1.2.826.0.1.3680043.10.9998.1234567890.1234567890.%08d", n)}
				if !yield(in, fault.New(fault.Unavailable, "away")) {
					return
				}
			}
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		final, err := last(c.Get(t.Context(), query(), func(context.Context, *scu.Incoming) error { return nil }))
		var status *dimse.StatusError
		if !errors.As(err, &status) || status.Status != 0xA702 || !fault.Is(err, fault.Full) {
			t.Errorf("error %v", err)
		}
		if final.Failed != 1500 || len(final.FailedUIDs) != 1500 {
			t.Errorf("%d failed, %d listed", final.Failed, len(final.FailedUIDs))
		}
		release(t, c)
	})
}

func TestAPeerThatNeverAnswersSubOperationsIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		session := sessionOf(getter(&Retrieval{Total: 3, Instances: instances(3)}))
		session.Closed = func(err error) { ended <- err }
		l := serve(t, &Server{Admit: admitAll{session}, Response: 17 * time.Second})
		r := dialRaw(t, l, assoc.Request{
			Contexts: append(contexts(studyGet), assoc.Context{ID: 3, Abstract: ctClass, Syntaxes: []string{dict.ExplicitLittleEndian}}),
			Roles:    []assoc.Role{{Class: ctClass, SCP: true}},
		})
		set := command.Set{Field: command.CGetRQ, MessageID: 1, Class: studyGet, HasData: true}
		start := time.Now()
		if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		if got := r.response(); got.Field != command.CStoreRQ || got.Instance != "1.2.3.1" {
			t.Fatalf("first message %+v", got)
		}
		for n := 1; n <= 3; n++ { // pending every 5 s, though nothing moves
			got := r.response()
			if got.Status != command.Pending || *got.Remaining != 3 || *got.Completed != 0 {
				t.Errorf("pending %d: %+v", n, got)
			}
			if at := time.Since(start); at != time.Duration(n)*5*time.Second {
				t.Errorf("pending %d after %v", n, at)
			}
		}
		var aborted *assoc.Aborted
		if _, err := r.Receive(t.Context()); !errors.As(err, &aborted) {
			t.Errorf("after the pending responses: %v", err)
		}
		if at := time.Since(start); at < 17*time.Second || at > 20*time.Second {
			t.Errorf("aborted after %v", at)
		}
		if err := <-ended; err == nil {
			t.Error("the session ended without an error")
		}
	})
}

func TestCancelOfAGetIsFE00WithCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outcome Outcome
		r := &Retrieval{Total: 1000, Instances: instances(1000), Finished: func(o Outcome) { outcome = o }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		seen := 0
		for p, err := range c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error {
			seen++
			time.Sleep(100 * time.Millisecond)
			return in.Data.Discard()
		}) {
			if err != nil {
				t.Fatal(err)
			}
			if p.Completed > 10 {
				break
			}
		}
		if outcome.Status != command.Cancel || outcome.Completed != seen || outcome.Completed+outcome.Remaining != 1000 || seen > 30 {
			t.Errorf("outcome %+v after %d instances", outcome, seen)
		}
		release(t, c)
	})
}

// destination serves a second archive that C-MOVE sends to.
func destination(t *testing.T, p *provider) func(context.Context) (Destination, error) {
	l := serve(t, &Server{Admit: admitAll{sessionOf(p)}})
	kinds := []scu.Kind{{Class: ctClass, Syntax: dict.ExplicitLittleEndian}}
	return func(ctx context.Context) (Destination, error) {
		s := scu.NewSender(target(l), kinds, 0)
		return s, s.Connect(ctx)
	}
}

func TestMoveStoresAtTheDestination(t *testing.T) {
	for _, parallel := range []int{0, 8} {
		synctest.Test(t, func(t *testing.T) {
			receiver := &provider{}
			r := &Retrieval{Total: 20, Instances: instances(20), Connect: destination(t, receiver), Parallel: parallel}
			var asked *RetrieveRequest
			p := &provider{move: func(_ context.Context, rq *RetrieveRequest) (*Retrieval, error) {
				asked = rq
				return r, nil
			}}
			c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeMove(dimse.StudyRoot))
			final, err := last(c.Move(t.Context(), "ELSEWHERE", query()))
			if err != nil || final.Status != 0 || final.Completed != 20 {
				t.Errorf("final %+v, %v", final, err)
			}
			if asked.Destination != "ELSEWHERE" || asked.Identifier.String(tagLevel) != "STUDY" {
				t.Errorf("asked %+v", asked)
			}
			taken := receiver.taken()
			if len(taken) != 20 {
				t.Fatalf("%d instances arrived", len(taken))
			}
			for _, in := range taken {
				if in.originator != "TESTER" || string(in.data) != in.instance+" in "+in.syntax {
					t.Errorf("arrived %+v", in)
				}
			}
			release(t, c)
		})
	}
}

func TestAMoveDestinationThatIsUnknownOrAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *Retrieval
		var fails error
		p := &provider{move: func(context.Context, *RetrieveRequest) (*Retrieval, error) { return r, fails }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeMove(dimse.StudyRoot))
		move := func() (scu.Progress, command.Status) {
			final, err := last(c.Move(t.Context(), "ELSEWHERE", query()))
			var status *dimse.StatusError
			if err != nil && !errors.As(err, &status) {
				t.Fatalf("move: %v", err)
			}
			return final, final.Status
		}
		fails = dimse.DestinationUnknown()
		if _, status := move(); status != 0xA801 {
			t.Errorf("unknown: %v", status)
		}
		fails = fault.New(fault.NotFound, "nothing matches")
		if final, status := move(); status != 0 || final.Completed != 0 {
			t.Errorf("nothing to send: %+v", final)
		}
		fails = nil
		r = &Retrieval{Total: 3, Instances: instances(3), Connect: func(ctx context.Context) (Destination, error) {
			s := scu.NewSender(scu.Target{Addr: "away", Dialer: func(context.Context, string) (net.Conn, error) {
				return nil, errors.New("no route")
			}}, []scu.Kind{{Class: ctClass, Syntax: dict.ExplicitLittleEndian}}, 0)
			return s, s.Connect(ctx)
		}}
		if final, status := move(); status != 0xA702 || final.Failed != 3 || len(final.FailedUIDs) != 3 {
			t.Errorf("away: %+v", final)
		}
		r = &Retrieval{Instances: instances(3), Connect: func(context.Context) (Destination, error) {
			return nil, dimse.DestinationUnknown()
		}}
		if _, status := move(); status != 0xA801 {
			t.Errorf("unknown when connecting: %v", status)
		}
		release(t, c)
	})
}

func TestALostRequestorCancelsItsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finished := make(chan Outcome, 1)
		receiver := &provider{store: func(_ context.Context, r *StoreRequest) error {
			time.Sleep(time.Second)
			return r.Data.Discard()
		}}
		r := &Retrieval{Total: 1000, Instances: instances(1000), Connect: destination(t, receiver), Finished: func(o Outcome) { finished <- o }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), scu.ProposeMove(dimse.StudyRoot))
		for range c.Move(t.Context(), "ELSEWHERE", query()) {
			c.Abort()
		}
		if o := <-finished; o.Completed+o.Failed > 5 || o.Status == 0 {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestADestinationThatBreaksIsConnectedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receiver := &provider{}
		var mu sync.Mutex
		stored := 0
		receiver.store = func(_ context.Context, r *StoreRequest) error {
			mu.Lock()
			defer mu.Unlock()
			if stored++; stored == 3 {
				panic("broken")
			}
			return r.Data.Discard()
		}
		r := &Retrieval{Total: 6, Instances: instances(6), Connect: destination(t, receiver)}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), scu.ProposeMove(dimse.StudyRoot))
		final, err := last(c.Move(t.Context(), "ELSEWHERE", query()))
		if err != nil || final.Status != 0 || final.Completed != 6 || stored != 7 {
			t.Errorf("final %+v, %v; %d stores", final, err, stored)
		}
		release(t, c)
	})
}

func TestAnEnumerationThatBreaksCountsTheRestAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Retrieval{Total: 4, Instances: func(yield func(scu.Instance, error) bool) {
			if yield(instance(1), nil) {
				yield(scu.Instance{}, fault.New(fault.Corrupt, "the index is rotten"))
			}
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), proposeGet())
		final, err := last(c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error { return in.Data.Discard() }))
		if err != nil || final.Status != 0xB000 || final.Completed != 1 || final.Failed != 3 {
			t.Errorf("final %+v, %v", final, err)
		}
		release(t, c)
	})
}

func TestAStoreWaitsForTheGetOfItsAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := getter(&Retrieval{Total: 50, Instances: instances(50)})
		proposal := proposeGet()
		proposal.Roles[0].SCU = true
		proposal.Window = 4
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), proposal)
		if n := c.Window(); n != 1 {
			t.Errorf("window %d on an association that stores both ways, want 1", n)
		}
		var work sync.WaitGroup
		work.Go(func() {
			for n := range 20 {
				if _, err := c.Store(t.Context(), storeRequest(fmt.Sprint(n), "abc")); err != nil {
					t.Error(err)
				}
			}
		})
		final, err := last(c.Get(t.Context(), query(), func(_ context.Context, in *scu.Incoming) error {
			time.Sleep(time.Millisecond)
			return in.Data.Discard()
		}))
		work.Wait()
		if err != nil || final.Completed != 50 || len(p.taken()) != 20 {
			t.Errorf("final %+v, %v; %d stored", final, err, len(p.taken()))
		}
		release(t, c)
	})
}

func TestAStoreBesideAGetIsRefusedWhenTheWindowIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t, &Server{Admit: admitAll{sessionOf(getter(&Retrieval{Total: 1, Instances: instances(1)}))}})
		r := dialRaw(t, l, assoc.Request{
			Contexts: append(contexts(studyGet), assoc.Context{ID: 3, Abstract: ctClass, Syntaxes: []string{dict.ExplicitLittleEndian}}),
			Roles:    []assoc.Role{{Class: ctClass, SCU: true, SCP: true}},
		})
		set := command.Set{Field: command.CGetRQ, MessageID: 1, Class: studyGet, HasData: true}
		if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		sub := r.response()
		store := command.Set{Field: command.CStoreRQ, MessageID: 2, Class: ctClass, Instance: "1", HasData: true}
		if err := r.Send(t.Context(), 3, store.Encode(nil), strings.NewReader("data")); err != nil {
			t.Fatal(err)
		}
		if got := r.response(); got.RespondedTo != 2 || got.Status != 0x0213 {
			t.Errorf("the store: %+v", got)
		}
		if err := r.Send(t.Context(), 3, sub.Reply(0).Encode(nil), nil); err != nil {
			t.Fatal(err)
		}
		got := r.response()
		for got.Status.IsPending() {
			got = r.response()
		}
		if got.RespondedTo != 1 || got.Status != 0 || *got.Completed != 1 {
			t.Errorf("the C-GET: %+v", got)
		}
	})
}

func TestPendingResponsesComeWhileTheProviderStillLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{move: func(context.Context, *RetrieveRequest) (*Retrieval, error) {
			time.Sleep(12 * time.Second)
			return nil, fault.New(fault.NotFound, "none")
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeMove(dimse.StudyRoot))
		pending := 0
		for progress, err := range c.Move(t.Context(), "X", query()) {
			if err != nil {
				t.Error(err)
			}
			if !progress.Final {
				pending++
			}
		}
		if pending != 2 {
			t.Errorf("%d pending responses in 12 s, want 2", pending)
		}
		release(t, c)
	})
}

func TestNoSubOperationStartsAfterTheCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outcome Outcome
		stored := 0
		receiver := &provider{store: func(_ context.Context, r *StoreRequest) error {
			stored++
			time.Sleep(3 * time.Second)
			return r.Data.Discard()
		}}
		// The second and last waits for its turn when the cancel comes.
		r := &Retrieval{Total: 2, Instances: instances(2), Connect: destination(t, receiver), Finished: func(o Outcome) { outcome = o }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), scu.ProposeMove(dimse.StudyRoot))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := last(c.Move(ctx, "X", query())); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("move: %v", err)
		}
		if want := (Outcome{Status: command.Cancel, Remaining: 1, Completed: 1}); outcome != want || stored != 1 {
			t.Errorf("outcome %+v after %d stores, want %+v", outcome, stored, want)
		}
		release(t, c)
	})
}

func TestAnUnresponsiveDestinationEndsSoonAfterTheCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		receiver := &provider{store: func(ctx context.Context, _ *StoreRequest) error {
			<-hang
			return nil
		}}
		r := &Retrieval{Total: 2, Instances: instances(2), Connect: destination(t, receiver)}
		finished := make(chan Outcome, 1)
		r.Finished = func(o Outcome) { finished <- o }
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(getter(r))}}), scu.ProposeMove(dimse.StudyRoot))
		start := time.Now()
		for range c.Move(t.Context(), "X", query()) {
			break // after the first pending response: 5 s
		}
		o := <-finished
		if waited := time.Since(start); waited > 25*time.Second || o.Status != command.Cancel || o.Failed != 1 {
			t.Errorf("after %v: %+v", waited, o)
		}
		close(hang)
	})
}
