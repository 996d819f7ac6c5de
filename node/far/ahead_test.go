package far_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"pelago/chaos/world"
	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
)

// behindTheEnd has what follows a manifest go wrong, from so many bytes of the
// answer on.
func behindTheEnd(n int, change func([]byte)) func(*http.Request, http.Handler) http.Handler {
	return func(r *http.Request, h http.Handler) http.Handler {
		if r.URL.Path != "/archive/open" {
			return h
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t := &through{ResponseWriter: w, left: n, after: func() { panic(http.ErrAbortHandler) }}
			if change != nil {
				t.after, t.change = nil, func(b []byte) {
					if t.left < 0 {
						change(b)
					}
				}
			}
			h.ServeHTTP(t, r)
		})
	}
}

func TestWhatFollowsAManifestIsNotAskedFor(t *testing.T) {
	const ahead = 4 << 20
	s := newShelf(t, 40, 512, 8<<20) // 21 MB in 3 packs
	for _, test := range []struct {
		name    string
		trouble func(*http.Request, http.Handler) http.Handler
		least   int64 // that comes ahead, and need not be asked for
	}{
		{"all of it", nil, ahead * 9 / 10},
		{"breaks off", behindTheEnd(2<<20, nil), 1 << 20},
		{"breaks off at once", behindTheEnd(200<<10, nil), 0},
		{"other bytes", behindTheEnd(2<<20, func(b []byte) { b[len(b)/2] ^= 1 }), 1 << 20},
		{"other places", behindTheEnd(2<<20, func(b []byte) { b[10] ^= 1 }), 1 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			net := newNetwork()
			origin, other, asker := net.plain(t, "A", s), net.plain(t, "B", s), net.plain(t, "C", nil)
			net.between(origin.self.ID(), test.trouble)
			c := asker.client(nil)
			r := s.holdings[0].Record
			o, err := c.Open(t.Context(), origin.self.ID(), far.Want{Study: r.Study, Series: r.Series, Bytes: ahead})
			if err != nil {
				t.Fatal(err)
			}
			m, err := o.Manifest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			series := c.Read(m, other.self.ID())
			series.Whole()
			if err := readAll(t.Context(), series, m); err != nil {
				t.Fatal(err)
			}
			asked := origin.sentOf("pack") + other.sentOf("pack")
			if most := s.bytes() - test.least; asked > most || asked < s.bytes()-ahead {
				t.Errorf("%d bytes of %d asked for, want %d at most", asked, s.bytes(), most)
			}
			if opened := origin.sentOf("open"); opened > ahead+1<<20 {
				t.Errorf("%d bytes came with the manifest", opened)
			}
		})
	}
}

// openWarm opens a whole series over a connection that is there already, and returns
// its manifest and when it was asked for.
func (l *linked) openWarm(t *testing.T, r *archivepb.Instance) (*far.Manifest, time.Time) {
	t.Helper()
	if _, err := l.client.Find(t.Context(), l.origin, "1.2.3"); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	started := time.Now()
	o, err := l.client.Open(t.Context(), l.origin, far.Want{Study: r.Study, Series: r.Series, Bytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m, err := o.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m, started
}

// Its first bytes are here a round trip after a series was asked for, and all of it
// when the link has carried it.
func TestAWholeSeriesTakesOneRoundTripMore(t *testing.T) {
	s := newShelf(t, 100, 512, 64<<20)
	overLink(t, s, world.Link{Delay: delay, Rate: world.Gbps}, func(t *testing.T, l *linked) {
		m, started := l.openWarm(t, s.holdings[0].Record)
		series := l.client.Read(m)
		series.Whole()
		series.Begin(0)
		if err := readAll(t.Context(), series, m); err != nil {
			t.Fatal(err)
		}
		took, least := time.Since(started), 2*delay+world.Gbps.Time(s.bytes())
		t.Logf("%d bytes in %v, at least %v", s.bytes(), took, least)
		if took > least+delay {
			t.Errorf("%v, at best %v", took, least)
		}
	})
}

// Who reads a series as it rests needs few requests, however the names of its
// instances are ordered, and those that are sent ahead are the first of them.
func TestASeriesIsReadInFewRequestsAsItRests(t *testing.T) {
	const ahead = 4 << 20
	s := newShelf(t, 100, 512, 16<<20) // 53 MB in 4 packs
	net := newNetwork()
	origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
	c := asker.client(nil)
	r := s.holdings[0].Record
	m, err := c.Open(t.Context(), origin.self.ID(), far.Want{Study: r.Study, Series: r.Series, Bytes: ahead})
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rest := asTheyRest(t, all)
	series := c.Read(all)
	series.Whole()
	series.Begin(rest[0])
	for n, i := range rest {
		if _, err := readInstance(t.Context(), series, all, i); err != nil {
			t.Fatal(err)
		}
		if asked := origin.sentOf("pack"); n == 0 && asked > s.bytes()-ahead {
			t.Errorf("%d bytes of %d were asked for, of which %d came ahead", asked, s.bytes(), ahead)
		}
	}
	if n, most := origin.requestsFor("pack"), int(s.bytes()/(2<<20))+len(s.packs); n > most {
		t.Errorf("%d requests for %d bytes in %d packs, want %d at most", n, s.bytes(), len(s.packs), most)
	}
	if asked := origin.sentOf("pack"); asked > s.bytes()-ahead*9/10 {
		t.Errorf("%d bytes of %d were asked for, of which %d came ahead", asked, s.bytes(), ahead)
	}
}

// asTheyRest are a manifest's instances in the order of their arrival.
func asTheyRest(t *testing.T, m *far.Manifest) []int {
	t.Helper()
	rest := make([]int, len(m.Instances))
	for i := range rest {
		rest[i] = i
	}
	slices.SortFunc(rest, func(a, b int) int {
		return cmp.Compare(m.Instances[a].Record.Number, m.Instances[b].Record.Number)
	})
	if slices.IsSorted(rest) {
		t.Fatal("the order of names is that of arrival")
	}
	return rest
}

// What is read ahead comes in its order: who decodes it meanwhile has little left to
// do when the last of it is here.
func TestWhatIsReadAheadComesInOrder(t *testing.T) {
	s := newShelf(t, 120, 512, 20<<20) // 63 MB in 4 packs
	overLink(t, s, world.Link{Delay: delay, Rate: world.Gbps}, func(t *testing.T, l *linked) {
		m, started := l.openWarm(t, s.holdings[0].Record)
		rest := asTheyRest(t, m)
		series := l.client.Read(m)
		series.Whole()
		series.Begin(rest[0])
		var read int64
		var late time.Duration // the most that one instance was
		for _, i := range rest {
			b, err := readInstance(t.Context(), series, m, i)
			if err != nil {
				t.Fatal(err)
			}
			read += int64(len(b))
			late = max(late, time.Since(started)-2*delay-world.Gbps.Time(read))
		}
		t.Logf("%d bytes, instances %v late at most", read, late)
		if most := 60 * time.Millisecond; late > most { // streams side by side: 100 ms
			t.Errorf("an instance was %v late, want %v at most", late, most)
		}
	})
}

func TestWhatFollowsIsBoundedAndOfThePack(t *testing.T) {
	whole := honest().encode(t)
	tail := endOf(t)
	begun := whole[:len(whole)-len(tail)]
	run := func(id byte, first uint64, units uint32) []byte {
		b := slices.Repeat([]byte{id}, 16)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, first), units)
	}
	for _, test := range []struct {
		name  string
		want  far.Want
		ahead []byte
		bad   bool
	}{
		{"honest", far.Want{Bytes: 1 << 20}, run(1, 0, 1), false},
		{"not asked for", far.Want{}, run(1, 0, 1), true},
		{"another pack", far.Want{Bytes: 1 << 20}, run(2, 0, 1), true},
		{"behind the pack", far.Want{Bytes: 1 << 20}, run(1, 1, 1), true},
		{"longer than the pack", far.Want{Bytes: 1 << 20}, run(1, 0, 2), true},
		{"far behind the pack", far.Want{Bytes: 1 << 20}, run(1, 1<<63, 1), true},
		{"nothing", far.Want{Bytes: 1 << 20}, run(1, 0, 0), true},
		{"half a run", far.Want{Bytes: 1 << 20}, run(1, 0, 1)[:20], true},
		{"too many", far.Want{Bytes: 1 << 20}, slices.Repeat(run(1, 0, 1), 2000), true},
	} {
		test.want.Study, test.want.Series = "1.2", "1.2.3"
		stream := append(far.AppendMessage(slices.Clone(begun), far.MessageAhead, test.ahead), tail...)
		_, err := hear(t.Context(), stream, test.want) // nothing follows: readers would ask
		if bad := fault.Is(err, fault.Invalid); bad != test.bad || !bad && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// endOf is the message that ends an honest manifest.
func endOf(t *testing.T) []byte {
	t.Helper()
	whole := honest().encode(t)
	for at := len(far.StreamMagic); ; {
		next := at + 5 + int(binary.BigEndian.Uint32(whole[at+1:]))
		if whole[at] == far.MessageEnd {
			return whole[at:]
		}
		if next >= len(whole) {
			t.Fatal(fmt.Errorf("no end: %w", io.ErrUnexpectedEOF))
		}
		at = next
	}
}
