package recall_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// plainOf is a plaintext of so many segments, the last of them short.
func plainOf(segments int64) int64 { return segments*seal.SegmentBytes - 1000 }

func open(t testing.TB, c *recall.Client, s *striped, places []recall.Place) *recall.Pack {
	t.Helper()
	p, err := c.Pack(s.head, places)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check reads a range and compares it.
func check(t testing.TB, p *recall.Pack, s *striped, off, length int64) {
	t.Helper()
	b := make([]byte, length)
	if _, err := p.ReadAt(t.Context(), b, off); err != nil {
		t.Fatalf("%v: [%d, +%d): %v", s.head.Code, off, length, err)
	}
	if !bytes.Equal(b, s.ciphertext[off:off+length]) {
		t.Fatalf("%v: [%d, +%d): other bytes", s.head.Code, off, length)
	}
}

func TestAnyLossOfUpToMIsReadByteForByte(t *testing.T) {
	for _, code := range []shard.Code{{K: 1, M: 1}, {K: 1, M: 2}, {K: 2, M: 2}, {K: 3, M: 3}, {K: 5, M: 4}, {K: 8, M: 4}, {K: 10, M: 4}} {
		s := encode(t, code, plainOf(int64(2*code.K+1)), 9000, uint64(code.K))
		t.Run(code.String(), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(code.K)))
			var losses []uint
			for pattern := range uint(1) << code.N() {
				if bits.OnesCount(pattern) <= code.M && (code.N() <= 9 && !quick || random.IntN(24) == 0) {
					losses = append(losses, pattern)
				}
			}
			for _, kind := range []ill{refusing, dead} {
				for _, pattern := range losses {
					synctest.Test(t, func(t *testing.T) { readWithout(t, s, pattern, kind) })
				}
			}
			t.Logf("%d patterns", len(losses))
		})
	}
}

func readWithout(t *testing.T, s *striped, pattern uint, kind ill) {
	w := newWorld(t, s.head.Code.N(), time.Millisecond, s)
	for i := range s.head.Code.N() {
		if pattern>>i&1 == 1 {
			w.set(i, kind)
		}
	}
	c := w.client(nil)
	p := open(t, c, s, s.places())
	check(t, p, s, 0, int64(len(s.ciphertext)))
	at := s.head.Size / 2
	check(t, p, s, at, min(40_000, s.head.Size-at))
	check(t, p, s, s.head.Size-1, 1)
	opened, err := c.Open(t.Context(), s.sealed(), s.places())
	if err != nil {
		t.Fatalf("without %b: %v", pattern, err)
	}
	from, length := s.head.TailRange()
	if !bytes.Equal(opened.Tail, s.ciphertext[from:from+length]) || opened.Head.Root() != s.head.Root() {
		t.Fatalf("without %b: another head or tail", pattern)
	}
	if n := c.Counters().Rotten.Load(); n != 0 {
		t.Fatalf("%d rotten answers of nodes that gave none", n)
	}
}

func TestMoreLossesThanMAreAnErrorAndSoon(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(7), 9000, 1)
	for kind, want := range map[ill]fault.Kind{
		refusing: fault.Unavailable, dead: fault.Unavailable, rotten: fault.Corrupt, lost: fault.Corrupt, without: fault.NotFound,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 4, time.Millisecond, s)
			for i := range 3 {
				w.set(i, kind)
			}
			c := w.client(nil)
			begun := time.Now()
			_, err := open(t, c, s, s.places()).ReadAt(t.Context(), make([]byte, 100), 0)
			if !fault.Is(err, want) {
				t.Errorf("kind %d: %v, not %v", kind, err, want)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("kind %d: an error after %v", kind, took)
			}
			w.set(3, kind)
			if _, err = c.Open(t.Context(), s.sealed(), s.places()); !fault.Is(err, want) {
				t.Errorf("kind %d: open: %v, not %v", kind, err, want)
			}
		})
	}
}

// Whatever a node sends, at whatever place, the reader gets what was sealed, and
// who sent other bytes is told of.
func TestEveryFaultAtEveryPlaceIsReadAround(t *testing.T) {
	code := shard.Code{K: 3, M: 3}
	s, another := encode(t, code, plainOf(13), 30_000, 1), encode(t, code, plainOf(13), 30_000, 2)
	for kind := dead; kind < faultKinds; kind++ {
		for at := range code.N() {
			for and := at; and < code.N(); and++ {
				synctest.Test(t, func(t *testing.T) { readAround(t, s, another, kind, at, and) })
			}
		}
	}
}

func readAround(t *testing.T, s, another *striped, kind ill, at, and int) {
	w := newWorld(t, s.head.Code.N(), time.Millisecond, s)
	w.another = another
	w.set(at, kind)
	w.set(and, kind)
	told := map[string]bool{}
	c := w.client(func(r recall.Rot) {
		if !fault.Is(r.Err, fault.Corrupt) || r.Stripe != s.head.Stripe || name(r.Index) != r.Node {
			t.Errorf("told of %v: %v", r.Place, r.Err)
		}
		told[r.Node] = true
	})
	p := open(t, c, s, s.places())
	for i := range s.head.Code.K {
		off, length := column(t, s, i)
		check(t, p, s, off, length)
	}
	if _, err := c.Open(t.Context(), s.sealed(), s.places()); err != nil {
		t.Errorf("kind %d at %d and %d: open: %v", kind, at, and, err)
	}
	lies := kind == lost || kind == rotten || kind == unproven || kind == confused || kind == short || kind == long || kind == endless || kind == other
	for node := range told {
		if !lies || node != name(at) && node != name(and) {
			t.Errorf("kind %d at %d and %d: %s was told of", kind, at, and, node)
		}
	}
	for _, i := range []int{at, and} {
		if lies && i < s.head.Code.K && !told[name(i)] {
			t.Errorf("kind %d: shard %d was read and not told of", kind, i)
		}
	}
}

func column(t testing.TB, s *striped, i int) (off, length int64) {
	t.Helper()
	g, err := s.head.Geometry()
	if err != nil {
		t.Fatal(err)
	}
	return g.Column(i)
}

// A range in one column is one request, one over a border two, and degraded ones
// fetch k times as much and a little.
func TestBytesAndRequestsAreAsFewAsTheyCanBe(t *testing.T) {
	s := encode(t, shard.Code{K: 3, M: 3}, plainOf(400), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, 20*time.Millisecond, s)
		c := w.client(nil)
		p := open(t, c, s, s.places())
		last := 0
		expect := func(what string, requests int) {
			t.Helper()
			n, _ := w.requests()
			if n-last != requests {
				t.Errorf("%s: %d requests, not %d", what, n-last, requests)
			}
			last = n
		}
		off, length := column(t, s, 1)
		check(t, p, s, off+20_000, 300_000)
		expect("in a column", 1)
		check(t, p, s, off, length)
		expect("a column", 1)
		check(t, p, s, off-1, 2)
		expect("over a border", 2)
		check(t, p, s, 0, s.head.Size)
		expect("all", 3)

		w.set(1, refusing)
		check(t, p, s, off, 100) // finds that out
		check(t, p, s, off, 100)
		expect("without its node", 2*3+1)
		_, before := w.requests()
		proofs := w.proofs()
		for i := range int64(5) {
			check(t, p, s, off+i*400_000+7, 450_000)
		}
		_, after := w.requests()
		expect("without its node, 5 frames", 5*3)
		whole := int64((7+450_000+seal.LeafBytes-1)/seal.LeafBytes+1) * seal.LeafBytes
		if got, most := after-before+w.proofs()-proofs, 5*3*whole*102/100; got > most {
			t.Errorf("%d bytes for 5 frames, at most %d", got, most)
		}
		if c.Counters().Hedged.Load() != 0 {
			t.Error("a hedge where nobody was slow")
		}
	})
}

// Rot is met once; other leaves of the same node are read as before.
func TestOnlyWhatIsRottenIsDoubted(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(64), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, time.Millisecond, s)
		first := w.nodes[name(0)]
		first.rot[5] = true
		told := 0
		p := open(t, w.client(func(recall.Rot) { told++ }), s, s.places())
		rotten := func(want int) {
			t.Helper()
			before := first.asked
			check(t, p, s, 4*seal.LeafBytes, 3*seal.LeafBytes)
			if first.asked-before != want || told != first.asked-before {
				t.Errorf("asked %d times for what is rotten, not %d; told %d times", first.asked-before, want, told)
			}
			told = 0
		}
		rotten(1)
		for range 5 {
			rotten(0)
		}
		before, _ := w.requests()
		check(t, p, s, 7*seal.LeafBytes, 3*seal.LeafBytes)
		if n, _ := w.requests(); n-before != 1 {
			t.Errorf("%d requests for leaves that are sound", n-before)
		}
		time.Sleep(time.Minute)
		delete(first.rot, 5)
		check(t, p, s, 4*seal.LeafBytes, 3*seal.LeafBytes) // it was repaired
		before, _ = w.requests()
		check(t, p, s, 4*seal.LeafBytes, 3*seal.LeafBytes)
		if n, _ := w.requests(); n-before != 1 {
			t.Errorf("%d requests for leaves that were repaired", n-before)
		}
	})
}

// Two shards with rot in different leaves are as good as one with both.
func TestRotInDifferentLeavesLosesNothing(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 1}, plainOf(64), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, time.Millisecond, s)
		w.nodes[name(0)].rot[5] = true
		w.nodes[name(1)].rot[20] = true
		w.nodes[name(2)].rot[30] = true
		told := map[string]bool{}
		p := open(t, w.client(func(r recall.Rot) {
			for leaf := range r.Count {
				told[fmt.Sprint(r.Node, r.First+leaf)] = true
			}
		}), s, s.places())
		check(t, p, s, 0, s.head.Size)
		for _, want := range []string{name(0) + "5", name(1) + "20"} {
			if !told[want] {
				t.Errorf("not told of %s: %v", want, told)
			}
		}
		w.nodes[name(1)].rot[5] = true // now leaf 5 is lost, and no other
		b := make([]byte, 2*seal.LeafBytes)
		if _, err := p.ReadAt(t.Context(), b, 4*seal.LeafBytes); !fault.Is(err, fault.Corrupt) {
			t.Errorf("two rotten shards of a leaf, k = 2 of 3: %v", err)
		}
		check(t, p, s, 0, 5*seal.LeafBytes)
		check(t, p, s, 6*seal.LeafBytes, 10*seal.LeafBytes)
	})
}

func TestReadersOfOneRangeShareOneFetch(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(200), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 20*time.Millisecond, s)
		c := w.client(nil)
		p := open(t, c, s, s.places())
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { check(t, p, s, 100, 300_000) })
			all.Go(func() { check(t, p, s, 200_000, 300_000) }) // half of it another's
		}
		all.Wait()
		n, got := w.requests()
		if leaves := int64(500_000/seal.LeafBytes+1) * seal.LeafBytes; n != 2 || got != leaves {
			t.Errorf("%d requests of %d bytes, not 2 of %d", n, got, leaves)
		}
		if shared := c.Counters().Shared.Load(); shared < 98 {
			t.Errorf("%d ranges were shared", shared)
		}
	})
}

// Who leaves does not take the fetch along while others wait; the last does, and at
// once.
func TestAFetchLastsAsLongAsAnybodyWaits(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(200), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 20*time.Millisecond, s)
		p := open(t, w.client(nil), s, s.places())
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		var all sync.WaitGroup
		all.Go(func() {
			begun := time.Now()
			if _, err := p.ReadAt(ctx, make([]byte, 1000), 0); !errors.Is(err, gone) || time.Since(begun) != 5*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
		synctest.Wait()
		all.Go(func() { check(t, p, s, 0, 1000) })
		time.Sleep(5 * time.Millisecond)
		cancel(gone)
		all.Wait()
		if n, _ := w.requests(); n != 1 {
			t.Errorf("%d requests", n)
		}

		ctx, cancel = context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Millisecond, func() { cancel(gone) })
		begun := time.Now()
		_, err := p.ReadAt(ctx, make([]byte, s.head.Size), 0)
		if !errors.Is(err, gone) || time.Since(begun) != 5*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		for range 50 { // readers who leave say nothing against a node
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			if _, err := p.ReadAt(ctx, make([]byte, 1000), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			cancel()
		}
		before, _ := w.requests()
		check(t, p, s, 0, 1000)
		if n, _ := w.requests(); n-before != 1 {
			t.Errorf("%d requests", n-before)
		}
	})
}

func TestManyReadersOfAllRanges(t *testing.T) {
	s := encode(t, shard.Code{K: 3, M: 3}, plainOf(97), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, 10*time.Millisecond, s)
		w.set(0, rotten)
		w.set(4, dead)
		w.nodes[name(2)].slow = 10
		p := open(t, w.client(nil), s, s.places())
		var all sync.WaitGroup
		for i := range 40 {
			random := rand.New(rand.NewPCG(3, uint64(i)))
			all.Go(func() {
				for range 8 {
					off := random.Int64N(s.head.Size)
					check(t, p, s, off, 1+random.Int64N(s.head.Size-off))
				}
			})
		}
		all.Wait()
	})
}

func TestReadAtIsThatOfTheStandardLibrary(t *testing.T) {
	s := encode(t, shard.Code{K: 3, M: 1}, plainOf(11), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, time.Millisecond, s)
		p := open(t, w.client(nil), s, s.places())
		r := io.NewSectionReader(p.With(t.Context()), 0, p.Size()+10)
		all, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(all, s.ciphertext) {
			t.Errorf("%d bytes: %v", len(all), err)
		}
		b := make([]byte, 100)
		if n, err := p.ReadAt(t.Context(), b, p.Size()-60); n != 60 || err != io.EOF || !bytes.Equal(b[:60], s.ciphertext[p.Size()-60:]) {
			t.Errorf("beyond the end: %d, %v", n, err)
		}
		if n, err := p.ReadAt(t.Context(), b, p.Size()); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
		if n, err := p.ReadAt(t.Context(), nil, 5); n != 0 || err != nil {
			t.Errorf("nothing: %d, %v", n, err)
		}
		if _, err := p.ReadAt(t.Context(), b, -1); !fault.Is(err, fault.Invalid) {
			t.Errorf("before the beginning: %v", err)
		}
	})
}

// Any place of an index will do, by relay too, and of a repeated pack any index.
func TestPlacesOfOneIndexStandForEachOther(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(9), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8, time.Millisecond, s)
		w.set(0, without)
		w.set(1, without)
		w.set(2, dead)
		c := w.client(nil)
		places := s.places()[:3]
		places = append(places, recall.Place{Index: 0, Node: name(6)}, recall.Place{Index: 1, Node: name(7), Via: name(3)})
		p := open(t, c, s, places)
		check(t, p, s, 0, s.head.Size)
		if n := c.Counters().Degraded.Load(); n != 0 {
			t.Errorf("decoded %d times", n)
		}
		before, _ := w.requests()
		check(t, p, s, 0, s.head.Size) // who had it not is not asked again
		if n, _ := w.requests(); n-before != 2 {
			t.Errorf("%d requests", n-before)
		}
	})
	if _, err := newWorld(t, 1, 0).client(nil).Pack(s.head, []recall.Place{{Index: 4, Node: "x"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a place of no shard: %v", err)
	}
}

// A long range is asked of all columns beside each other, and takes what our link
// takes.
func TestALongRangeFillsTheLink(t *testing.T) {
	s := encode(t, shard.Code{K: 5, M: 4}, 40<<20, 9000, 1)
	for what, lose := range map[string]func(*world){"healthy": func(*world) {}, "nodes of 200 Mb/s": func(w *world) {
		for _, n := range w.nodes {
			n.link.rate = gigabit / 5
		}
	}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 9, 50*time.Millisecond, s)
			lose(w)
			peers := recall.NewPeers(nil)
			c := recall.New(recall.Options{Holders: w, Peers: peers, Coder: coder()})
			p := open(t, c, s, s.places())
			begun := time.Now()
			check(t, p, s, 0, s.head.Size)
			took, least := time.Since(begun), time.Duration(float64(s.head.Size)/gigabit*1e9)
			n, bytes := w.requests()
			t.Logf("%s: %v, the link alone %v; %d requests, %d bytes of %d, degraded %d", what, took, least, n, bytes, s.head.Size, c.Counters().Degraded.Load())
			if took > least*13/10+50*time.Millisecond {
				t.Errorf("%s: %v", what, took)
			}
			for i := range s.head.Code.K { // that they shared our link is not held against them
				if rate := peers.Rate(name(i)); what == "healthy" && rate < 50e6 {
					t.Errorf("%s: node %d is believed to send %.0f bytes a second", what, i, rate)
				}
			}
		})
	}
}

// However many decode, their memory is bounded.
func TestDecodingTakesBoundedMemory(t *testing.T) {
	s := encode(t, shard.Code{K: 5, M: 4}, 24<<20, 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9, 5*time.Millisecond, s)
		for i := range 4 {
			w.set(i, refusing)
		}
		const memory = 32 << 20
		p := open(t, recall.New(recall.Options{Holders: w, Peers: recall.NewPeers(nil), Coder: coder(), Memory: memory}), s, s.places())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { check(t, p, s, 0, s.head.Size) })
		}
		all.Wait()
		if w.most > memory {
			t.Errorf("%d bytes on their way", w.most)
		}
	})
}

func coder() *stripe.Coder { return stripe.NewCoder() }
