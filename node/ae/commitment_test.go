package ae

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
)

func TestAResultGoesOverTheRequestsAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModality(t)
		c := runCommitments(t, newRows(), &statuses{}, m)
		listener := serve(t, &scp.Server{Admit: c.Face})
		results := make(chan *dimse.CommitmentResult, 2)
		to := target(listener, "CT1")
		to.Committed = func(_ context.Context, r *dimse.CommitmentResult) error { results <- r; return nil }
		client, err := scu.Dial(t.Context(), to, scu.ProposeCommitment())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := client.RequestCommitment(t.Context(), &dimse.CommitmentRequest{Transaction: "1.2.3", References: references("a", "b")}); err != nil {
			t.Fatal(err)
		}
		r := <-results
		if len(r.Committed) != 2 || r.RetrieveAE != "PELAGO" || time.Since(began) > sameAssoc {
			t.Errorf("after %s: %+v", time.Since(began), r)
		}
		synctest.Wait() // until the client has answered the report
		if err := client.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if len(results) != 0 || len(m.got()) != 0 || c.Pending() != 0 {
			t.Errorf("more than one result: %d and %d, %d pending", len(results), len(m.got()), c.Pending())
		}
	})
}

func TestAResultForARequestorThatHasGoneGoesOverANewAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rows := newModality(t), newRows()
		c := runCommitments(t, rows, &statuses{}, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := m.got(); len(got) != 1 || got[0].Transaction != "1.2.3" || len(got[0].Committed) != 1 {
			t.Errorf("results %+v", got)
		}
		if c.Pending() != 0 || rows.count() != 0 {
			t.Errorf("%d are pending, %d rows are left", c.Pending(), rows.count())
		}
	})
}

func TestAnAssociationThatStaysOpenTooLongIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, status := newModality(t), &statuses{}
		status.set("late", fault.New(fault.NotFound, "unknown"))
		c := runCommitments(t, newRows(), status, m)
		same := 0
		if err := c.ask("CT1", "1.2.3", func(context.Context, *dimse.CommitmentResult) error { same++; return nil }, references("late")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sameAssoc + time.Second)
		status.set("late", nil) // it has come
		time.Sleep(2 * lastLook)
		if same != 0 || len(m.got()) != 1 || len(m.got()[0].Committed) != 1 {
			t.Errorf("%d over the request's association, %+v over new ones", same, m.got())
		}
	})
}

func TestReasonsOfFailure(t *testing.T) {
	unavailable := fault.New(fault.Unavailable, "too few sites")
	for _, test := range []struct {
		name   string
		ref    dimse.Reference
		err    error
		reason uint16 // 0: committed
		after  time.Duration
	}{
		{"committed", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, nil, 0, 0},
		{"unknown", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, fault.New(fault.NotFound, "unknown"), 0x0112, 10 * time.Minute},
		{"deleted", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, fault.New(fault.NotFound, "%w", archive.ErrDeleted), 0x0112, 0},
		{"another class", dimse.Reference{Class: dimsetest.MRImageStorage, Instance: "a"}, fault.New(fault.Mismatch, "a CT"), 0x0119, 0},
		{"no storage class", dimse.Reference{Class: dimse.Verification, Instance: "a"}, nil, 0x0122, 0},
		{"a private class", dimse.Reference{Class: "1.3.46.670589.5.0.1", Instance: "a"}, nil, 0, 0},
		{"quarantined", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, fault.New(fault.Conflict, "another"), 0x0110, 0},
		{"corrupt", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, fault.New(fault.Corrupt, "rot"), 0x0110, 0},
		{"not safe at the deadline", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, unavailable, 0x0213, 24 * time.Hour},
		{"unknown failures wait too", dimse.Reference{Class: dimsetest.CTImageStorage, Instance: "a"}, errors.New("?"), 0x0213, 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, status := newModality(t), &statuses{}
				status.set("a", test.err)
				c := runCommitments(t, newRows(), status, m)
				if err := c.ask("CT1", "1.2.3", gone, test.ref); err != nil {
					t.Fatal(err)
				}
				if test.after > 0 {
					time.Sleep(test.after - time.Second)
					if n := len(m.got()); n != 0 {
						t.Fatalf("%d results before %s", n, test.after)
					}
				}
				time.Sleep(2*lastLook + firstRetry)
				got := m.got()
				if len(got) != 1 {
					t.Fatalf("results %+v", got)
				}
				if test.reason == 0 {
					if len(got[0].Committed) != 1 || len(got[0].Failed) != 0 {
						t.Errorf("%+v", got[0])
					}
				} else if len(got[0].Failed) != 1 || got[0].Failed[0].Reason != test.reason || got[0].EventType() != 2 {
					t.Errorf("%+v", got[0])
				}
			})
		})
	}
}

func TestWhatIsSettledIsNotReadBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, status := newModality(t), &statuses{}
		status.set("z", fault.New(fault.NotFound, "unknown"))
		c := runCommitments(t, newRows(), status, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a", "b", "z")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(unknownGrace + 2*lastLook)
		if len(m.got()) != 1 || len(m.got()[0].Committed) != 2 || len(m.got()[0].Failed) != 1 {
			t.Fatalf("%+v", m.got())
		}
		status.mu.Lock()
		defer status.mu.Unlock()
		if status.asked["a"] != 1 || status.asked["b"] != 1 || status.asked["z"] > 20 {
			t.Errorf("asked %v times", status.asked)
		}
	})
}

func TestDeliveryIsTriedForSevenDaysWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rows := newModality(t), newRows()
		listens := m.listen(nil)
		c := runCommitments(t, rows, &statuses{}, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * 24 * time.Hour)
		m.mu.Lock()
		calls := slices.Clone(m.calls)
		m.mu.Unlock()
		if len(calls) < 5 || calls[1].Sub(calls[0]) < firstRetry || calls[1].Sub(calls[0]) > 2*firstRetry {
			t.Fatalf("called %d times", len(calls))
		}
		for i := 1; i < len(calls); i++ {
			if pause := calls[i].Sub(calls[i-1]); pause > lastRetry+time.Minute {
				t.Fatalf("a pause of %s", pause)
			}
		}
		if n := int(6*24*time.Hour/lastRetry) + 20; len(calls) > n {
			t.Errorf("called %d times in six days", len(calls))
		}
		m.listen(listens) // it is switched on again
		time.Sleep(lastRetry + time.Minute)
		if len(m.got()) != 1 || c.Pending() != 0 {
			t.Errorf("after it came back: %+v, %d pending", m.got(), c.Pending())
		}
		m.listen(nil)
		if err := c.ask("CT1", "1.2.4", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(deliverFor + 2*lastRetry)
		if c.Pending() != 0 || rows.count() != 0 {
			t.Errorf("after seven days %d are pending, %d rows are left", c.Pending(), rows.count())
		}
	})
}

func TestRequestsSurviveARestartBeforeAndAfterTheirResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rows, status := newModality(t), newRows(), &statuses{}
		listens := m.listen(nil)
		status.set("late", fault.New(fault.NotFound, "unknown"))
		c := runCommitments(t, rows, status, m)
		if err := errors.Join(
			c.ask("CT1", "1", gone, references("late")...),
			c.ask("CT1", "2", gone, references("a")...),
		); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the second has its result, and nobody to take it
		c.stop()
		m.listen(listens)
		status.set("late", nil)
		status.set("a", fault.New(fault.Corrupt, "since")) // a result that was given stands
		c = runCommitments(t, rows, status, m)
		if c.Pending() > 2 {
			t.Errorf("%d pending", c.Pending())
		}
		time.Sleep(lastRetry)
		got := map[string]int{}
		for _, r := range m.got() {
			got[r.Transaction] += len(r.Committed)
		}
		if len(m.got()) != 2 || got["1"] != 1 || got["2"] != 1 {
			t.Errorf("results %+v", m.got())
		}
	})
}

func TestTransactionUIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, status := newModality(t), &statuses{}
		status.set("late", fault.New(fault.NotFound, "unknown"))
		c := runCommitments(t, newRows(), status, m)
		if err := c.ask("CT1", "1.2.3", gone, references("late")...); err != nil {
			t.Fatal(err)
		}
		if err := c.ask("CT1", "1.2.3", gone, references("late")...); err != nil {
			t.Errorf("the same request again: %v", err)
		}
		var status131 *dimse.StatusError
		if err := c.ask("CT1", "1.2.3", gone, references("late", "other")...); !errors.As(err, &status131) || status131.Status != 0x0131 {
			t.Errorf("for other instances: %v", err)
		}
		if err := c.ask("CT2", "1.2.3", gone, references("late")...); err != nil {
			t.Errorf("of another AE: %v", err)
		}
		if c.Pending() != 2 {
			t.Errorf("%d pending", c.Pending())
		}
		status.set("late", nil)
		time.Sleep(2 * lastLook)
		if len(m.got()) != 2 {
			t.Errorf("%d results for two transactions", len(m.got()))
		}
		if err := c.ask("CT1", "1.2.3", gone, references("other")...); err != nil {
			t.Errorf("once it is over: %v", err)
		}
	})
}

func TestARequestIsAnsweredOnlyOnceItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rows := newModality(t), newRows()
		rows.failing = fault.New(fault.Full, "no room")
		c := runCommitments(t, rows, &statuses{}, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); !fault.Is(err, fault.Full) {
			t.Errorf("not durable: %v", err)
		}
		time.Sleep(time.Hour)
		if len(m.got()) != 0 || c.Pending() != 0 {
			t.Errorf("a refused request has %d results, %d pending", len(m.got()), c.Pending())
		}
		rows.mu.Lock()
		rows.failing = nil
		rows.mu.Unlock()
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCommitments(t, newRows(), &statuses{}, newModality(t))
		if err := c.ask("CT1", "big", gone, make([]dimse.Reference, maxReferences+1)...); !fault.Is(err, fault.Full) {
			t.Errorf("too many references: %v", err)
		}
		c.commits.mu.Lock()
		c.commits.references = maxOpenReferences
		c.commits.mu.Unlock()
		if err := c.ask("CT1", "1", gone, references("a")...); !fault.Is(err, fault.Full) {
			t.Errorf("too many references of all: %v", err)
		}
		if c.Pending() != 0 {
			t.Errorf("%d pending", c.Pending())
		}
	})
}

func TestABrokenRowKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rows := newModality(t), newRows()
		rows.all["CT1\x00broken"] = []byte("{")
		rows.all["CT1\x00newer"] = []byte(`{"version": 9}`)
		rows.all["CT1\x00lying"] = []byte(`{"version": 1, "ae": "CT2", "uid": "7"}`)
		c := runCommitments(t, rows, &statuses{}, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if len(m.got()) != 1 || rows.count() != 3 {
			t.Errorf("%d results, %d rows", len(m.got()), rows.count())
		}
	})
}

func TestAnAEThatDoesNotAnswerKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModality(t)
		answering := m.listens
		f := New(Options{
			Title: "PELAGO", Rows: newRows(), Status: &statuses{}, Arrivals: &endings{},
			Registry: registry(t, AE{Title: "DEAD", Hosts: []string{"10.0.0.1"}, Port: 104}, AE{Title: "CT2", Hosts: []string{"10.0.0.2"}, Port: 104}),
			Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
				if strings.HasPrefix(addr, "10.0.0.2") {
					return answering.Dial(ctx)
				}
				<-ctx.Done() // packets fall on the floor
				return nil, ctx.Err()
			},
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, nil) }()
		c := committing{Face: f}
		for i := range 50 {
			if err := c.ask("DEAD", fmt.Sprint("1.", i), gone, references("a")...); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.ask("CT2", "2", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if len(m.got()) != 1 {
			t.Errorf("%d results at the AE that answers", len(m.got()))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAResultThatIsRefusedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModality(t)
		m.refuses = fault.New(fault.Other, "not now")
		c := runCommitments(t, newRows(), &statuses{}, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.mu.Lock()
		m.refuses = nil
		m.mu.Unlock()
		time.Sleep(time.Hour)
		if len(m.got()) != 1 || c.Pending() != 0 {
			t.Errorf("%d results, %d pending", len(m.got()), c.Pending())
		}
	})
}

func TestWhatWasNotYetCommittedIsAskedAboutAgainWhenThatMayHaveChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModality(t)
		s := &changing{changed: make(chan struct{})}
		notYet := fault.New(fault.Unavailable, "not yet")
		s.set("a", notYet)
		s.set("b", notYet)
		c := runCommitments(t, newRows(), s, m)
		if err := c.ask("CT1", "1.2.3", gone, references("a", "b")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second) // by time alone it is looked at again after a minute or so
		for i, sop := range []string{"a", "b"} {
			if got := len(m.got()); got != 0 {
				t.Fatalf("%d results before %s is committed", got, sop)
			}
			s.set(sop, nil)
			s.notify()
			time.Sleep(500 * time.Millisecond)
			s.mu.Lock()
			looks := s.asked["b"]
			s.mu.Unlock()
			if i == 0 {
				for range 1000 { // changes by the hundred cost no more looks than time for them
					s.notify()
					time.Sleep(time.Millisecond)
				}
				s.mu.Lock()
				if more := s.asked["b"] - looks; more < 1 || more > 25 {
					t.Errorf("a second of changes: %d looks", more)
				}
				s.mu.Unlock()
			}
		}
		if got := m.got(); len(got) != 1 || len(got[0].Committed) != 2 {
			t.Errorf("%+v", got)
		}
	})
}
