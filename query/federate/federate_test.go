package federate_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/federate"
)

// prober finds what it is told to, and takes its time.
type prober struct {
	sops  []string // of every series
	pause time.Duration
	fails error         // after the first series
	each  func(n int)   // before instance n of all
	long  int           // bytes of comments in every header
	take  chan struct{} // not nil: every probe waits for it

	mu    sync.Mutex
	asked []query.Probe
	about [][]query.Candidate
}

func (p *prober) Probe(ctx context.Context, q query.Probe, candidates []query.Candidate) iter.Seq2[query.Found, error] {
	p.mu.Lock()
	p.asked, p.about = append(p.asked, q), append(p.about, candidates)
	p.mu.Unlock()
	return func(yield func(query.Found, error) bool) {
		if p.take != nil {
			<-p.take
		}
		n := 0
		for i, c := range candidates {
			if i == 1 && p.fails != nil {
				yield(query.Found{}, p.fails)
				return
			}
			for _, sop := range p.sops {
				if sop <= c.After {
					continue
				}
				if n++; p.each != nil {
					p.each(n)
				}
				select {
				case <-time.After(p.pause):
				case <-ctx.Done():
					yield(query.Found{}, ctx.Err())
					return
				}
				f := query.Found{Candidate: i, Availability: query.Online, Instance: query.Instance{
					Study: c.Study, Series: c.Series, SOP: sop, Class: "1.2.3", Syntax: dict.ExplicitLittleEndian, Number: uint64(n), Bytes: 100,
				}}
				if len(q.Return) > 0 {
					ds := dicom.NewDataset()
					ds.Set(dict.SpecificCharacterSet, dict.CS, "ISO_IR 192")
					ds.Set(dict.ImageComments, dict.LT, "très bien "+c.Series+strings.Repeat("x", p.long))
					f.Header = &dicom.Header{Dataset: ds}
				}
				if !yield(f, nil) {
					return
				}
				if c.First {
					break
				}
			}
		}
	}
}

func (p *prober) Locate(_ context.Context, sops []string) ([]query.Instance, error) {
	var found []query.Instance
	for _, sop := range sops {
		if slices.Contains(p.sops, sop) {
			found = append(found, query.Instance{Study: "1", Series: "1.1", SOP: sop})
		}
	}
	return found, p.fails
}

// pair is two nodes of which one asks the other, on virtual time.
type pair struct {
	*porttest.Cluster
	asker, owner *porttest.Member
	client       *federate.Client

	mu    sync.Mutex
	asked []federate.Asked
}

// told is what the owner was told of questions so far.
func (c *pair) told() []federate.Asked {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func newPair(t *testing.T, p *prober, o federate.Options, h federate.HandlerOptions) *pair {
	t.Helper()
	c := &pair{Cluster: porttest.NewCluster(t, "north")}
	c.asker, c.owner = c.Start(t, "10.0.0.1", "Mercy", nil), c.Start(t, "10.0.0.2", "Grace", nil)
	l, err := c.owner.Listen(port.Peer)
	if err != nil {
		t.Fatal(err)
	}
	h.Local, h.Asked = p, func(a federate.Asked) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, a)
	}
	handler := federate.NewHandler(h)
	var serving sync.WaitGroup
	server := port.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		handler.ServeHTTP(w, r)
	}), slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() { server.Close(); <-done; serving.Wait() })
	transport := c.asker.Transport(func(context.Context, string) (string, error) { return c.owner.Address, nil })
	t.Cleanup(transport.CloseIdleConnections)
	o.Call = call.NewClient(transport)
	o.Nodes = func() []query.Node { return []query.Node{{ID: c.owner.ID(), Site: "Grace"}} }
	c.client = federate.NewClient(o)
	return c
}

// ask runs a probe to its end and returns candidate/instance of all that was found.
func (c *pair) ask(t *testing.T, p query.Probe, candidates []query.Candidate) (found []query.Found, err error) {
	for f, err := range c.client.Probe(t.Context(), c.owner.ID(), p, candidates) {
		if err != nil {
			return found, err
		}
		found = append(found, f)
	}
	return found, nil
}

func names(found []query.Found) []string {
	var all []string
	for _, f := range found {
		all = append(all, fmt.Sprintf("%d/%s", f.Candidate, f.Instance.SOP))
	}
	return all
}

var two = []query.Candidate{{Study: "1", Series: "1.1"}, {Study: "1", Series: "1.2"}}

func TestWhatIsFoundComesAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{sops: []string{"5", "6"}}
		c := newPair(t, p, federate.Options{}, federate.HandlerOptions{})
		keys := dicom.NewDataset()
		keys.Set(dict.ImageComments, dict.LT, "*bien*")
		candidates := append(slices.Clone(two), query.Candidate{Study: "2", Series: "2.1", First: true, Return: []dict.Tag{dict.StudyDescription}})
		q := query.Probe{
			Keys: keys, Match: []dict.Tag{dict.ImageComments}, Return: []dict.Tag{dict.ImageComments, dict.Rows}, Fuzzy: true, CombinedDateTime: true,
			Timezone: true, FoldText: true, All: true, Instances: []string{"5", "6"},
		}
		found, err := c.ask(t, q, candidates)
		if err != nil || !slices.Equal(names(found), []string{"0/5", "0/6", "1/5", "1/6", "2/5"}) {
			t.Fatalf("%v, %v", names(found), err)
		}
		f := found[4]
		if want := (query.Instance{Study: "2", Series: "2.1", SOP: "5", Class: "1.2.3", Syntax: dict.ExplicitLittleEndian, Origin: c.owner.ID(), Number: 5, Bytes: 100}); f.Instance != want {
			t.Errorf("%+v, want %+v", f.Instance, want)
		}
		if s := f.Header.Dataset.String(dict.ImageComments); s != "très bien 2.1" || f.Availability != query.Online {
			t.Errorf("%q, %s", s, f.Availability)
		}
		got := p.asked[0]
		if k := got.Keys.String(dict.ImageComments); k != "*bien*" {
			t.Errorf("key %q", k)
		}
		got.Keys, q.Keys = nil, nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", q) || fmt.Sprintf("%+v", p.about[0]) != fmt.Sprintf("%+v", candidates) {
			t.Errorf("asked %+v about %+v", got, p.about[0])
		}
		told := c.told()
		if len(told) != 1 || told[0].By.Site != "Mercy" || told[0].Series != 3 || told[0].Instances != 5 || len(told[0].Keys) == 0 || told[0].Err != nil {
			t.Errorf("the owner was told %+v", told)
		}
	})
}

func TestManyAndLongAnswersComeWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{long: 9000}
		for i := range 500 {
			p.sops = append(p.sops, fmt.Sprintf("1.%04d", i))
		}
		c := newPair(t, p, federate.Options{}, federate.HandlerOptions{})
		found, err := c.ask(t, query.Probe{Return: []dict.Tag{dict.ImageComments}}, two)
		if err != nil || len(found) != 1000 || len(found[999].Header.Dataset.String(dict.ImageComments)) < 9000 {
			t.Fatalf("%d, %v", len(found), err)
		}
	})
}

func TestASlowSearchIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{sops: []string{"5", "6"}, pause: 20 * time.Second}
		c := newPair(t, p, federate.Options{}, federate.HandlerOptions{})
		found, err := c.ask(t, query.Probe{}, two)
		if err != nil || len(found) != 4 || len(p.asked) != 1 {
			t.Errorf("%d found in %d probes, %v", len(found), len(p.asked), err)
		}
	})
}

func TestWhoSaysNothingIsSilentInTime(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reach query.Availability
		want  time.Duration
	}{{"a node that should be there", query.Online, 5 * time.Second}, {"one that is thought to be away", query.Unavailable, time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newPair(t, &prober{sops: []string{"5"}}, federate.Options{Reach: func(string) query.Availability { return tt.reach }}, federate.HandlerOptions{})
				c.Part([]string{"10.0.0.1"}, []string{"10.0.0.2"})
				for range 2 { // to be dialled
					start := time.Now()
					_, err := c.ask(t, query.Probe{}, two)
					if took := time.Since(start); !fault.Is(err, fault.Unavailable) || took != tt.want {
						t.Errorf("%v after %v, want silence after %v", err, took, tt.want)
					}
					start = time.Now()
					_, err = c.client.Locate(t.Context(), c.owner.ID(), []string{"5"})
					if took := time.Since(start); !fault.Is(err, fault.Unavailable) || took != tt.want {
						t.Errorf("locate: %v after %v, want silence after %v", err, took, tt.want)
					}
				}
				c.Join([]string{"10.0.0.1"}, []string{"10.0.0.2"})
				if found, err := c.ask(t, query.Probe{}, two); err != nil || len(found) != 2 {
					t.Errorf("after the healing: %d found, %v", len(found), err)
				}
			})
		})
	}
}

func TestAnAnswerThatBreaksOffIsTakenUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(c *pair, n int) // before the owner's instance n of a probe
		want int                  // instances of 6
		kind fault.Kind
	}{
		{"a connection that breaks now and then", func(c *pair, n int) {
			if n == 3 {
				c.Reset("10.0.0.1", "10.0.0.2")
			}
		}, 6, 0},
		{"one that breaks before anything came", func(c *pair, n int) {
			if n == 1 {
				c.Reset("10.0.0.1", "10.0.0.2")
			}
		}, 0, fault.Unavailable},
		{"a link that goes for good", func(c *pair, n int) {
			if n == 3 {
				c.Part([]string{"10.0.0.1"}, []string{"10.0.0.2"})
			}
		}, 2, fault.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *pair
				p := &prober{sops: []string{"5", "6", "7"}, pause: 2 * time.Second}
				p.each = func(n int) {
					time.Sleep(1500 * time.Millisecond) // so that what was found before is on its way
					tt.cut(c, n)
				}
				c = newPair(t, p, federate.Options{}, federate.HandlerOptions{})
				found, err := c.ask(t, query.Probe{}, two)
				all := []string{"0/5", "0/6", "0/7", "1/5", "1/6", "1/7"}
				if !slices.Equal(names(found), all[:tt.want]) || fault.KindOf(err) != tt.kind {
					t.Errorf("%v, %v; want %v", names(found), err, all[:tt.want])
				}
			})
		})
	}
}

func TestFailuresOfASearchKeepTheirKind(t *testing.T) {
	for _, kind := range fault.Kinds() {
		synctest.Test(t, func(t *testing.T) {
			c := newPair(t, &prober{sops: []string{"5"}, fails: fault.New(kind, "because")}, federate.Options{}, federate.HandlerOptions{})
			found, err := c.ask(t, query.Probe{}, two)
			if len(found) != 1 || fault.KindOf(err) != kind || !strings.Contains(err.Error(), "because") {
				t.Errorf("%v: %d found, %v", kind, len(found), err)
			}
			if _, err := c.client.Locate(t.Context(), c.owner.ID(), []string{"5"}); fault.KindOf(err) != kind {
				t.Errorf("locate: %v, want %v", err, kind)
			}
		})
	}
}

func TestAnAskerThatLeavesEndsTheSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{sops: []string{"5", "6"}, pause: time.Second}
		c := newPair(t, p, federate.Options{}, federate.HandlerOptions{})
		for range c.client.Probe(t.Context(), c.owner.ID(), query.Probe{}, two) {
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var last error
		for _, err := range c.client.Probe(ctx, c.owner.ID(), query.Probe{}, two) {
			last = err
		}
		if !fault.Is(last, fault.Canceled) && !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("%v", last)
		}
		time.Sleep(10 * time.Second)
		if n := len(c.told()); n != 2 {
			t.Errorf("%d searches have ended", n)
		}
	})
}

func TestTooManyQuestionsAtOnceAreToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{sops: []string{"5"}, take: make(chan struct{})}
		c := newPair(t, p, federate.Options{}, federate.HandlerOptions{AtOnce: 2})
		results := make(chan error)
		for range 3 {
			go func() { _, err := c.ask(t, query.Probe{}, two); results <- err }()
		}
		if err := <-results; !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v", err)
		}
		close(p.take)
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	h := federate.NewHandler(federate.HandlerOptions{Local: &prober{}})
	for _, path := range []string{"/query/find", "/query/locate"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestLocating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newPair(t, &prober{sops: []string{"5", "6"}}, federate.Options{}, federate.HandlerOptions{})
		ask := []string{"6"}
		for i := range query.MaxCandidates { // more than one call takes
			ask = append(ask, fmt.Sprintf("9.%d", i))
		}
		found, err := c.client.Locate(t.Context(), c.owner.ID(), append(ask, "5"))
		want := []query.Instance{{Study: "1", Series: "1.1", SOP: "6", Origin: c.owner.ID()}, {Study: "1", Series: "1.1", SOP: "5", Origin: c.owner.ID()}}
		if err != nil || !slices.Equal(found, want) {
			t.Errorf("%+v, %v", found, err)
		}
	})
}
