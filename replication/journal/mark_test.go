package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// marked is a node that others ask for the end of its journal.
type marked struct{ http.Handler }

func (m marked) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w.Result(), nil
}

// Who waits for what a node has acknowledged reads it at another one, however often
// the series grew lately, and as soon as the network has it.
func TestWhatWasAcknowledgedIsReadElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		far := o.observe(t)
		defer far.Close()
		asker := &Journal{o: Options{Node: "m"}, catalog: far}
		ctx, cancel := context.WithCancel(t.Context())
		applied := make(chan struct{})
		go func() { // what is committed reaches the other node a little later
			defer close(applied)
			for ctx.Err() == nil {
				time.Sleep(70 * time.Millisecond)
				if err := o.bring(far); err != nil {
					t.Error(err)
				}
			}
		}()
		defer func() { cancel(); <-applied }()
		for i := range 40 {
			n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
			study := fmt.Sprint("1.3.", i)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			began := time.Now()
			if err := asker.After(t.Context(), "n", call.NewClient(marked{n.j.Handler()})); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			if got, want := instances(t, far, "1.2"), uint64(i+1); got != want {
				t.Fatalf("%d instances of the series that grows, want %d", got, want)
			}
			if got := instances(t, far, study); got != 1 {
				t.Fatalf("%d instances of a new one", got)
			}
		}
		before := n.j.Status().Logged
		if err := asker.After(t.Context(), "n", call.NewClient(marked{n.j.Handler()})); err != nil {
			t.Fatal(err)
		}
		if after := n.j.Status().Logged; after != before {
			t.Errorf("asked again, with nothing new, it logged %d batches", after-before)
		}
	})
}

func TestWhatCannotBeReadElsewhereIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		cut := false
		o.fortune = func() fortune {
			if cut {
				return lost
			}
			return committed
		}
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		far := o.observe(t)
		defer far.Close()
		asker := &Journal{o: Options{Node: "m"}, catalog: far}
		after := func(peer http.Handler) error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return asker.After(ctx, "n", call.NewClient(marked{peer}))
		}
		n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
		if err := after(n.j.Handler()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("who does not apply it: %v", err)
		}
		s.mu.Lock()
		s.broken[seriesName{"1.4", "1.4.1"}] = fault.New(fault.Corrupt, "broken")
		s.mu.Unlock()
		n.j.Dirty(s.store("1.4", "1.4.1"), "1.4", "1.4.1")
		if err := after(n.j.Handler()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a series that cannot be told: %v", err)
		}
		s.mu.Lock()
		clear(s.broken)
		s.mu.Unlock()
		n.drained(t)
		cut = true
		for i := range maxBacklog + 2 {
			study := fmt.Sprint("1.5.", i)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			time.Sleep(time.Second)
		}
		if m, err := n.j.Mark(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("with no room in the log: %+v, %v", m, err)
		}
		cut = false
		n.drained(t)
		if m, err := n.j.Mark(t.Context()); err != nil || m.Number != n.j.Status().Logged || m.Incarnation != 1 {
			t.Errorf("with room again: %+v, %v", m, err)
		}
		for name, answer := range map[string]string{"no JSON": "{", "too long": fmt.Sprintf("{%2000d", 1)} {
			err := after(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
			if !fault.Is(err, fault.Protocol) && !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// held is a source of which a fact may take its time.
type held struct {
	*source
	hold func()
}

func (s *held) SeriesFact(ctx context.Context, study, series string) (*catalog.SeriesFact, error) {
	s.hold()
	return s.source.SeriesFact(ctx, study, series)
}

// A series that grows all the time is being told to a query here when somebody asks
// for the mark: it is logged at once all the same, and not when it is its turn.
func TestAMarkDoesNotWaitForWhatIsOnlyTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t, vfs.NewMem(), newOrder(t))
		defer n.close(t)
		s := &held{newSource(), func() {}}
		defer n.run(t, s)()
		for range 8 { // so that it is logged ever more rarely
			n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
			n.drained(t)
		}
		n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
		flies, lands := make(chan struct{}), make(chan struct{})
		s.hold = sync.OnceFunc(func() { close(flies); <-lands })
		ended := make(chan error)
		go func() { ended <- n.j.Settle(t.Context()) }()
		<-flies
		began := time.Now()
		go func() {
			_, err := n.j.Mark(t.Context())
			ended <- err
		}()
		synctest.Wait()
		close(lands)
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > minGap {
			t.Errorf("it took %v", took)
		}
	})
}

// The first batches of a new incarnation do not have what those of the one before had.
func TestAMarkOfAnIncarnationThatIsOverIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		var last [hashBytes]byte
		for number := range uint64(3) {
			study := fmt.Sprint("1.2.", number)
			f := &catalog.SeriesFact{Origin: "n", Site: "s", AsOf: asOf(2, number+1), Study: study, Series: study + ".1", Instances: 1}
			entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf("n"), catalog.Batch{
				Node: "n", Site: "s", Incarnation: 2, Number: number + 1, Facts: []*catalog.SeriesFact{f},
			}, last)
			if err != nil {
				t.Fatal(err)
			}
			o.entries, last = append(o.entries, entry), hash
		}
		all := o.entries
		o.entries = all[:len(all)-2]
		far := o.observe(t)
		defer far.Close()
		o.entries = all
		marks := []Mark{{1, 5}, {1, 5}, {2, 3}}
		peer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(marks[0]); err != nil {
				t.Error(err)
			}
			marks = marks[1:]
		})
		began := time.Now()
		time.AfterFunc(5*time.Second, func() {
			if err := o.bring(far); err != nil {
				t.Error(err)
			}
		})
		asker := &Journal{o: Options{Node: "m"}, catalog: far}
		if err := asker.After(t.Context(), "n", call.NewClient(marked{peer})); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 5*time.Second || len(marks) != 0 {
			t.Errorf("known after %v, %d marks were not asked for", took, len(marks))
		}
	})
}
