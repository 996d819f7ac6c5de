package far_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/node/far"
	"pelago/shard/seal"
)

// through lets n bytes of an answer's body pass, changed by change, and then does
// what after says.
type through struct {
	http.ResponseWriter
	left   int
	change func([]byte)
	after  func()
}

func (w *through) Write(b []byte) (int, error) {
	if w.change != nil {
		b = append([]byte(nil), b...)
		w.change(b)
	}
	if w.after != nil && len(b) > w.left {
		if _, err := w.ResponseWriter.Write(b[:w.left]); err != nil {
			return 0, err
		}
		w.after()
		return 0, io.ErrClosedPipe
	}
	w.left -= len(b)
	return w.ResponseWriter.Write(b)
}

func (w *through) Flush() {}

// ranges lets only requests for ranges through do.
func ranges(do http.HandlerFunc) func(*http.Request, http.Handler) http.Handler {
	return func(r *http.Request, h http.Handler) http.Handler {
		if r.URL.Path == "/archive/open" {
			return h
		}
		return do
	}
}

func tearing(n int) func(*http.Request, http.Handler) http.Handler {
	return func(r *http.Request, h http.Handler) http.Handler {
		return ranges(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&through{ResponseWriter: w, left: n, after: func() { panic(http.ErrAbortHandler) }}, r)
		})(r, h)
	}
}

func lying(r *http.Request, h http.Handler) http.Handler {
	return ranges(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&through{ResponseWriter: w, change: func(b []byte) { b[len(b)/2] ^= 1 }}, r)
	})(r, h)
}

func refusing(r *http.Request, h http.Handler) http.Handler {
	if r.URL.Path == "/archive/open" {
		return h
	}
	return nil
}

// readAll reads all instances of a manifest and returns the first error.
func readAll(ctx context.Context, s *far.Series, m *far.Manifest) error {
	for i := range m.Instances {
		b, err := readInstance(ctx, s, m, i)
		if err != nil {
			return err
		}
		if int64(len(b)) != m.Instances[i].Record.Bytes {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

func TestOtherHoldersAreAskedWhereOneFails(t *testing.T) {
	s := newShelf(t, 30, 256, 1<<20)
	for _, test := range []struct {
		name    string
		trouble func(*http.Request, http.Handler) http.Handler
		alone   fault.Kind
	}{
		{"breaks off", tearing(100 << 10), fault.Unavailable},
		{"sends other bytes", lying, fault.Corrupt},
		{"is gone", refusing, fault.Unavailable},
		{"has nothing", ranges(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Pelago-Fault", "5")
			w.WriteHeader(http.StatusNotFound)
		}), fault.NotFound},
		{"answers another range", ranges(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-0/1")
			w.WriteHeader(http.StatusPartialContent)
		}), fault.Corrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			net := newNetwork()
			origin, other, asker := net.plain(t, "A", s), net.plain(t, "B", s), net.plain(t, "C", nil)
			c := asker.client(nil)
			m, err := c.Series(t.Context(), origin.self.ID(), s.holdings[0].Record.Study, s.holdings[0].Record.Series)
			if err != nil {
				t.Fatal(err)
			}
			net.between(origin.self.ID(), test.trouble)
			// Its answer that breaks off gets a little further each time it is asked.
			err = readAll(t.Context(), asker.client(nil).Read(m), m)
			if test.name != "breaks off" && !fault.Is(err, test.alone) || test.name == "breaks off" && err != nil {
				t.Errorf("alone: %v, want %v", err, test.alone)
			}
			if err := readAll(t.Context(), c.Read(m, other.self.ID()), m); err != nil {
				t.Errorf("with another holder: %v", err)
			}
			net.between(origin.self.ID(), nil)
			net.between(other.self.ID(), test.trouble)
			if err := readAll(t.Context(), asker.client(nil).Read(m, other.self.ID()), m); err != nil {
				t.Errorf("with another holder in front that fails: %v", err)
			}
		})
	}
}

func TestAPeerThatSaysNothingIsGivenUp(t *testing.T) {
	s := newShelf(t, 10, 128, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, other, asker := net.plain(t, "A", s), net.plain(t, "B", s), net.plain(t, "C", nil)
		c := asker.client(nil)
		m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
		if err != nil {
			t.Fatal(err)
		}
		silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		net.between(origin.self.ID(), ranges(silent))
		started := time.Now()
		if _, err := c.Read(m).Pack(0).ReadAt(t.Context(), make([]byte, 1), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("alone: %v", err)
		}
		if took := time.Since(started); took > time.Minute {
			t.Errorf("given up after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Read(m).Pack(0).ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a reader who gave up: %v", err)
		}
		net.between(origin.self.ID(), func(r *http.Request, h http.Handler) http.Handler {
			return ranges(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(&through{ResponseWriter: w, left: 1000, after: func() { <-r.Context().Done() }}, r)
			})(r, h)
		})
		if _, err := asker.client(nil).Read(m).Pack(0).ReadAt(t.Context(), make([]byte, 1), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("alone, after a few bytes: %v", err)
		}
		started = time.Now()
		if err := readAll(t.Context(), asker.client(nil).Read(m, other.self.ID()), m); err != nil {
			t.Errorf("with another holder in front: %v", err)
		}
		if time.Since(started) > time.Second {
			t.Errorf("the other holder was asked after %v", time.Since(started))
		}
		net.between(origin.self.ID(), func(*http.Request, http.Handler) http.Handler { return http.HandlerFunc(silent) })
		if _, err := asker.client(nil).Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop); !fault.Is(err, fault.Unavailable) {
			t.Errorf("an opening that is not answered: %v", err)
		}
		closing := asker.client(nil)
		failed := make(chan error)
		go func() {
			_, err := closing.Read(m).Pack(0).ReadAt(context.Background(), make([]byte, 1), 0)
			failed <- err
		}()
		synctest.Wait()
		closing.Close()
		if err := <-failed; !fault.Is(err, fault.Unavailable) {
			t.Errorf("a reader of a client that is closed: %v", err)
		}
		c.Close()
	})
}

// hangingUp is a connection that is closed before an answer, or within it.
type hangingUp struct {
	size int64
	body io.Reader // nil: before
}

func (h hangingUp) Send(r *http.Request) (*http.Response, error) {
	if h.body == nil {
		return nil, fault.New(fault.Unavailable, "call: %w", io.EOF)
	}
	ranged := strings.Replace(r.Header.Get("Range"), "=", " ", 1)
	header := http.Header{"Content-Range": {fmt.Sprintf("%s/%d", ranged, h.size)}}
	return &http.Response{StatusCode: http.StatusPartialContent, Header: header, Body: io.NopCloser(h.body), Request: r}, nil
}

// Layers above look for the end of bytes: that of a connection is another matter.
func TestTheEndOfAConnectionIsNoEndOfBytes(t *testing.T) {
	p := far.Pack{Bytes: seal.Size(1000), Plaintext: 1000}
	for name, body := range map[string]io.Reader{
		"before the answer": nil, "within it": iotest.ErrReader(io.ErrUnexpectedEOF), "in order": strings.NewReader("short"),
	} {
		c := far.NewClient(far.Options{Calls: hangingUp{p.Bytes, body}, Self: naive{}})
		r := c.Read(&far.Manifest{Node: "peer", Packs: []far.Pack{p}}).Pack(0)
		_, err := r.ReadAt(t.Context(), make([]byte, 1), 0)
		if !fault.Is(err, fault.Unavailable) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

// A peer that now and then takes ten times as long as usual costs its readers
// little, and others few bytes.
func TestSlowAnswersAreHedged(t *testing.T) {
	s := newShelf(t, 400, 128, 64<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, other, asker := net.plain(t, "A", s), net.plain(t, "B", s), net.plain(t, "C", nil)
		c := asker.client(nil)
		m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
		if err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int64
		net.between(origin.self.ID(), func(r *http.Request, h http.Handler) http.Handler {
			return ranges(func(w http.ResponseWriter, r *http.Request) {
				wait := 50 * time.Millisecond
				if n := asked.Add(1); n%50 == 0 {
					wait = 5 * time.Second
				}
				select {
				case <-time.After(wait):
					h.ServeHTTP(w, r)
				case <-r.Context().Done():
				}
			})(r, h)
		})
		net.between(other.self.ID(), func(r *http.Request, h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(80 * time.Millisecond)
				h.ServeHTTP(w, r)
			})
		})
		// Out of any order, so that each read is a fetch of its own. The manifest's
		// node is asked last: the reader is told of it in front.
		series := c.Read(m, origin.self.ID(), other.self.ID())
		slow := 0
		for k := range m.Instances {
			started := time.Now()
			if _, err := readInstance(t.Context(), series, m, k*181%len(m.Instances)); err != nil {
				t.Fatal(err)
			}
			if time.Since(started) > time.Second {
				slow++
			}
		}
		if slow > 2 { // those before there was anything to go by, and to spend
			t.Errorf("%d reads took over a second", slow)
		}
		if sent := other.sentOf("pack"); sent == 0 || sent*20 > s.bytes()+s.bytes()/10 {
			t.Errorf("the other holder sent %d of %d bytes", sent, s.bytes())
		}
		c.Close()
	})
}

// Readers at several nodes of a few sites drain an origin about once a site: it
// sends the others of a site to the one that has the pack.
func TestAnOriginIsDrainedOnceASite(t *testing.T) {
	s := newShelf(t, 40, 256, 2<<20)
	net := newNetwork()
	origin := net.plain(t, "A", s)
	for _, site := range []string{"B", "C", "D", "E"} {
		first := net.plain(t, site, s) // keeps what it reads: it serves the same packs
		second := net.plain(t, site, nil)
		for _, one := range []*node{first, second} {
			c := one.client(nil)
			m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
			if err != nil {
				t.Fatal(err)
			}
			series := c.Read(m)
			for i := range m.Packs {
				r := series.Pack(i)
				if _, err := io.Copy(io.Discard, io.NewSectionReader(r.With(t.Context()), 0, r.Size())); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
		if sent := first.sentOf("pack"); sent < s.bytes()*9/10 {
			t.Errorf("site %s: its own node sent %d of %d bytes", site, sent, s.bytes())
		}
	}
	if sent := origin.sentOf("pack"); sent > 4*s.bytes()+s.bytes()/10 {
		t.Errorf("the origin sent %d bytes of %d to 4 sites", sent, s.bytes())
	}
	// Who is sent to a node that no longer has it comes back.
	gone, late := net.plain(t, "F", &shelf{}), net.plain(t, "F", nil)
	for _, one := range []*node{gone, late} {
		c := one.client(nil)
		m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
		if err != nil {
			t.Fatal(err)
		}
		if err := readAll(t.Context(), c.Read(m), m); err != nil {
			t.Errorf("sent in vain: %v", err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := newShelf(t, 120, 512, 8<<20) // 63 MB
	net := newNetwork()
	origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
	c := asker.client(func(o *far.Options) { o.Memory = 1 }) // the least there may be
	m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var most atomic.Int64
	var watch, readers sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				most.Store(max(most.Load(), c.Resident()))
			}
		}
	})
	for r := range 4 {
		readers.Go(func() {
			series := c.Read(m)
			for k := range 25 {
				if _, err := readInstance(t.Context(), series, m, (k+r*30)%len(m.Instances)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	watch.Wait()
	if most.Load() > far.MinMemory || most.Load() == 0 {
		t.Errorf("%d bytes resident", most.Load())
	}
	// With so little, demands push out what others have not read yet: a little.
	if sent := origin.sentOf("pack"); sent > s.bytes()*100/120*3/2 {
		t.Errorf("%d bytes sent for 100 of 120 images of %d", sent, s.bytes())
	}
	c.Close()
	if c.Resident() != 0 || c.Objects() != 0 {
		t.Errorf("after closing: %d bytes, %d objects", c.Resident(), c.Objects())
	}
}

func TestAnswersUnderWayAreBounded(t *testing.T) {
	s := newShelf(t, 4, 64, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, a, b := net.plain(t, "A", s), net.plain(t, "B", nil), net.plain(t, "C", nil)
		hold := make(chan struct{})
		origin.handler = far.NewHandler(far.HandlerOptions{
			Source: slow{s, hold}, Members: net, Peer: net.peer, Streams: 3, StreamsPerPeer: 2,
		})
		open := func(from *node) chan error {
			done := make(chan error, 1)
			go func() {
				c := far.NewClient(far.Options{Calls: call.NewClient(wire{from}), Self: from.self})
				defer c.Close()
				_, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first, second, third := open(a), open(a), open(a)
		fourth := open(b)
		time.Sleep(6 * time.Second)
		if err := <-third; !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "too many") {
			t.Errorf("a third of the same node: %v", err)
		}
		close(hold)
		for i, done := range []chan error{first, second, fourth} {
			if err := <-done; err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}

// Of series that are opened at once, those on top of what memory allows wait.
func TestOpeningsOnTopWait(t *testing.T) {
	s := newShelf(t, 1, 64, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
		hold := make(chan struct{})
		const most = far.MaxOpenings
		origin.handler = far.NewHandler(far.HandlerOptions{
			Source: slow{s, hold}, Members: net, Peer: net.peer, Streams: 2 * most, StreamsPerPeer: 2 * most,
		})
		c := asker.client(nil)
		find := func(ctx context.Context, answers chan error) {
			go func() {
				_, err := c.Find(ctx, origin.self.ID(), s.holdings[0].Record.Sop)
				answers <- err
			}()
		}
		answers := make(chan error, most+1)
		for range most + 1 {
			find(t.Context(), answers)
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		find(ctx, left)
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who gives up waiting: %v", err)
		}
		close(hold)
		for range most + 1 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		c.Close()
		if _, err := c.Find(t.Context(), origin.self.ID(), "1"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("of a client that is closed: %v", err)
		}
	})
}

// A peer that says next to nothing, again and again, is given up in the end.
func TestAnAnswerThatNeverEndsIsGivenUp(t *testing.T) {
	whole := honest().encode(t)
	begun := whole[:len(whole)-len(endOf(t))]
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, asker := net.plain(t, "A", nil), net.plain(t, "B", nil)
		net.between(origin.self.ID(), func(*http.Request, http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for b := begun; r.Context().Err() == nil; b = far.AppendMessage(nil, far.MessageFrame) {
					if _, err := w.Write(b); err != nil {
						return
					}
					select {
					case <-time.After(10 * time.Second):
					case <-r.Context().Done():
					}
				}
			})
		})
		c := far.NewClient(far.Options{Calls: call.NewClient(wire{asker}), Self: naive{}})
		defer c.Close()
		o, err := c.Open(t.Context(), origin.self.ID(), far.Want{Study: "1.2", Series: "1.2.3"})
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := o.Manifest(ctx); !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			t.Errorf("%v after %v", err, time.Since(started))
		}
	})
}

func TestMemoryIsGivenBackWhenNothingIsRead(t *testing.T) {
	s := newShelf(t, 10, 256, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
		c := asker.client(nil)
		m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
		if err != nil {
			t.Fatal(err)
		}
		if err := readAll(t.Context(), c.Read(m), m); err != nil || c.Resident() == 0 {
			t.Fatalf("%d bytes resident, %v", c.Resident(), err)
		}
		time.Sleep(6 * time.Minute)
		if c.Resident() != 0 || c.Objects() != 0 {
			t.Errorf("%d bytes of %d objects resident", c.Resident(), c.Objects())
		}
		if err := readAll(t.Context(), c.Read(m), m); err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

// slow is a source that waits.
type slow struct {
	*shelf
	hold chan struct{}
}

func (s slow) StudyKey(id [16]byte) (seal.Key, error) {
	<-s.hold
	return s.shelf.StudyKey(id)
}

// Hashing and writing a pack takes the cores and the disk of those who read: it
// waits for them, unless what waits takes half of the memory.
func TestWhatIsKeptWaitsForReaders(t *testing.T) {
	s := newShelf(t, 20, 512, 64<<20) // one pack of 10 MB
	for name, test := range map[string]struct {
		memory int64
		waits  bool
	}{"plenty of memory": {256 << 20, true}, "little memory": {1, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newNetwork()
				origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
				k := kept{came: make(chan struct{}, 1)}
				c := asker.client(func(o *far.Options) { o.Keep, o.Memory = &k, test.memory })
				m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
				if err != nil {
					t.Fatal(err)
				}
				series := c.Read(m)
				if err := readAll(t.Context(), series, m); err != nil {
					t.Fatal(err)
				}
				for range 20 {
					time.Sleep(100 * time.Millisecond)
					if _, err := series.Pack(0).ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
						t.Fatal(err)
					}
				}
				if was := len(k.came) > 0; was == test.waits {
					t.Errorf("kept while it is read: %v", was)
				}
				time.Sleep(2 * time.Second)
				if len(k.came) == 0 {
					t.Error("not kept when nobody reads")
				}
			})
		})
	}
}
