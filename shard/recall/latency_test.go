package recall_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/seal"
)

const ms = time.Millisecond

// timed reads a range and returns what that took.
func timed(t testing.TB, p *recall.Pack, s *striped, off, length int64) time.Duration {
	t.Helper()
	begun := time.Now()
	check(t, p, s, off, length)
	return time.Since(begun)
}

// An answer that is later than those of the node were is hedged if there is budget;
// without, it is given up later. Who loses twice is avoided, and tried again.
func TestLateAnswersAreHedgedWithinTheBudget(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(100), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 20*ms, s)
		w.own.rate = 0
		for _, n := range w.nodes {
			n.link.rate = 0 // what follows counts round trips
		}
		peers := recall.NewPeers(nil)
		c := recall.New(recall.Options{Holders: w, Peers: peers, Coder: coder()})
		p := open(t, c, s, s.places())
		const frame = 16 * seal.LeafBytes
		first := w.nodes[name(0)]
		w.nodes[name(2)].rtt, w.nodes[name(3)].rtt = 21*ms, 21*ms // so that others never come at the same time
		var asked, hedged int64
		expect := func(what string, took, want time.Duration, requests, hedges int64) {
			t.Helper()
			asked, hedged = asked+requests, hedged+hedges
			if took.Round(ms) != want {
				t.Fatalf("%s: %v, not %v", what, took, want)
			}
			if n := c.Counters(); n.Asked.Load() != asked || n.Hedged.Load() != hedged || n.HedgedBytes.Load() != hedged*frame {
				t.Fatalf("%s: %d requests and %d hedges of %d bytes, not %d and %d", what, n.Asked.Load(), n.Hedged.Load(), n.HedgedBytes.Load(), asked, hedged)
			}
		}
		for range 38 {
			expect("healthy", timed(t, p, s, 0, frame), 20*ms, 1, 0)
		}
		if d := peers.Patience(name(0)); d != 25*ms {
			t.Fatalf("patience of %v", d)
		}
		first.stalled = 200 * ms // 39 frames earn less than the two that a hedge takes
		expect("late, without budget", timed(t, p, s, 0, frame), 3*25*ms+21*ms, 3, 0)
		expect("healthy again", timed(t, p, s, 0, frame), 20*ms, 1, 0)
		first.stalled = 200 * ms // what was asked for instead has earned the rest
		expect("late, hedged", timed(t, p, s, 0, frame), 25*ms+21*ms, 3, 2)
		first.stalled = 30 * ms // the budget is spent
		expect("late, and waited for", timed(t, p, s, 0, frame), 50*ms, 1, 0)

		for range 70 { // so that the p95 forgets
			expect("healthy again", timed(t, p, s, 0, frame), 20*ms, 1, 0)
		}
		first.stalled = 200 * ms
		expect("late once", timed(t, p, s, 0, frame), 25*ms+21*ms, 3, 2)
		first.stalled = 200 * ms
		expect("late twice", timed(t, p, s, 0, frame), 3*25*ms+21*ms, 3, 0)
		for range 40 {
			expect("avoided", timed(t, p, s, 0, frame), 21*ms, 2, 0)
		}
		time.Sleep(time.Second)
		first.stalled = 200 * ms // it is tried again, beside the others
		expect("still late", timed(t, p, s, 0, frame), 21*ms, 3, 0)
		time.Sleep(1900 * ms)
		expect("avoided for longer", timed(t, p, s, 0, frame), 21*ms, 2, 0)
		time.Sleep(100 * ms)
		expect("tried again", timed(t, p, s, 0, frame), 20*ms, 3, 0)
		expect("healthy", timed(t, p, s, 0, frame), 20*ms, 1, 0)
	})
}

// hints is what gossip says.
type hints map[string]bool // who is down

func (h hints) Hint(node string) (bool, time.Duration) { return !h[node], 20 * ms }

// Who is suspected is asked last, and now and then, without which it could not be
// found to be up.
func TestSuspectedNodesAreAskedLast(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(100), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 20*ms, s)
		suspects := hints{}
		c := recall.New(recall.Options{Holders: w, Peers: recall.NewPeers(suspects), Coder: coder()})
		p := open(t, c, s, s.places())
		check(t, p, s, 0, 1000)
		suspects[name(0)] = true
		w.set(0, dead)
		for range 100 {
			if d := timed(t, p, s, 0, 1000); d > 25*ms {
				t.Errorf("a read of %v beside a node that is suspected", d)
			}
		}
		if n := w.nodes[name(0)].asked; n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		time.Sleep(10 * time.Second)
		if d := timed(t, p, s, 0, 1000); d > 25*ms {
			t.Errorf("a read of %v beside a node that is tried", d)
		}
		if n := w.nodes[name(0)].asked; n != 2 {
			t.Errorf("it was asked %d times", n)
		}
		w.set(0, well)
		w.set(2, refusing)
		w.set(3, refusing)
		check(t, p, s, 0, 1000) // gossip is wrong, and nobody else has it
	})
}

// A node that is slow for long is tried ever more seldom, and used again soon after
// it is well.
func TestSlowNodesAreTriedAgain(t *testing.T) {
	s := encode(t, shard.Code{K: 3, M: 3}, plainOf(200), 9000, 1)
	for what, slow := range map[string]func(n *node){
		"round trip": func(n *node) { n.rtt *= 10 }, "bandwidth": func(n *node) { n.link.rate /= 10 }, "dead": func(n *node) { n.ill = dead },
		"refusing": func(n *node) { n.ill = refusing }, "stuck": func(n *node) { n.ill = stuck }, "both": func(n *node) { n.slow = 10 },
	} {
		if quick && what != "both" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 6, 20*ms, s)
			c := recall.New(recall.Options{Holders: w, Peers: recall.NewPeers(hints{}), Coder: coder()})
			p := open(t, c, s, s.places())
			const frame = 30 * seal.LeafBytes
			for range 40 {
				check(t, p, s, 0, frame)
			}
			first := w.nodes[name(0)]
			rtt, rate := first.rtt, first.link.rate
			slow(first)
			before := first.asked
			var all []time.Duration
			for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(200 * ms) {
				all = append(all, timed(t, p, s, 0, frame))
			}
			tries := first.asked - before
			slices.Sort(all)
			p50, p95 := all[len(all)/2], all[len(all)*95/100]
			t.Logf("%s: p50 %v, p95 %v, max %v, %d of %d reads tried it", what, p50, p95, all[len(all)-1], tries, len(all))
			// Alone it takes 24 ms. Who fails is tried after pauses of 1, 2, 4, 8, 16 and 32 s. Who
			// is slow by its link alone now and then answers in time, by which the pauses begin
			// again, until its rate is known (`answered`): how often is not given by them, but by
			// the order in which answers end. It stays less than a tenth of the reads, which hedges
			// keep from the reader, as p95 shows.
			most := 8
			if what == "bandwidth" {
				most = len(all) / 10
			}
			if p50 > 35*ms || p95 > 60*ms || tries > most || tries < 5 {
				t.Errorf("%s: not as it should be", what)
			}
			first.ill, first.rtt, first.slow, first.link.rate = well, rtt, 0, rate
			time.Sleep(time.Minute)
			check(t, p, s, 0, frame)
			before, degraded := first.asked, c.Counters().Degraded.Load()
			for range 10 {
				check(t, p, s, 0, frame)
			}
			if first.asked-before != 10 || c.Counters().Degraded.Load() != degraded {
				t.Errorf("%s: well again, and asked by %d of 10", what, first.asked-before)
			}
		})
	}
}

// Opening takes a round trip to one node, of those that have the tail.
func TestOpeningIsOneRoundTrip(t *testing.T) {
	s := encode(t, shard.Code{K: 5, M: 4}, plainOf(100), 200_000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9, 20*ms, s)
		c := w.client(nil)
		opening := func(of recall.Sealed) (time.Duration, error) {
			begun := time.Now()
			opened, err := c.Open(t.Context(), of, s.places())
			if err == nil {
				from, length := s.head.TailRange()
				if !bytes.Equal(opened.Tail, s.ciphertext[from:from+length]) {
					t.Error("another tail")
				}
			}
			return time.Since(begun), err
		}
		if took, err := opening(s.sealed()); err != nil || took > 23*ms {
			t.Errorf("%v, %v", took, err)
		}
		if n, _ := w.requests(); n != 1 {
			t.Errorf("%d requests", n)
		}
		for i := range 4 { // of the five that have it
			w.set(i, without)
		}
		if took, err := opening(s.sealed()); err != nil || took > 5*23*ms {
			t.Errorf("%v, %v", took, err)
		}
		w.set(4, without)
		if _, err := opening(s.sealed()); !fault.Is(err, fault.NotFound) {
			t.Errorf("of those that have none: %v", err)
		}
		for i := 5; i < 9; i++ {
			if n := w.nodes[name(i)].asked; n != 0 {
				t.Errorf("shard %d was asked for a tail that it has not", i)
			}
		}
		for i := range 4 {
			w.set(i, rotten)
		}
		w.set(4, well)
		for range 5 {
			if _, err := opening(s.sealed()); err != nil {
				t.Errorf("beside rotten ones: %v", err)
			}
		}
		w.set(4, rotten)
		if _, err := opening(s.sealed()); !fault.Is(err, fault.Corrupt) || c.Counters().Rotten.Load() < 5 {
			t.Errorf("of rotten ones: %v, %d of them told of", err, c.Counters().Rotten.Load())
		}
		for i := range 5 {
			w.set(i, well)
		}
		sealed := s.sealed()
		sealed.Root[0] ^= 1
		if _, err := opening(sealed); !fault.Is(err, fault.Corrupt) {
			t.Errorf("a head of another root: %v", err)
		}
	})
}

// However it goes, what is asked for twice is at most a twentieth of the rest.
func TestHedgesAreAtMostATwentieth(t *testing.T) {
	s := encode(t, shard.Code{K: 2, M: 2}, plainOf(400), 9000, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 20*ms, s)
		for _, n := range w.nodes {
			n.spread = 200 * ms
		}
		c := w.client(nil)
		p := open(t, c, s, s.places())
		random := rand.New(rand.NewPCG(5, 5))
		for range 2000 {
			check(t, p, s, random.Int64N(s.head.Size-50_000), 50_000)
			n := c.Counters()
			if rest := n.AskedBytes.Load() - n.HedgedBytes.Load(); n.HedgedBytes.Load()*20 > rest {
				t.Fatalf("%d bytes hedged beside %d", n.HedgedBytes.Load(), rest)
			}
		}
		if c.Counters().Hedged.Load() < 50 {
			t.Errorf("%d hedges", c.Counters().Hedged.Load())
		}
		t.Logf("%d requests, %d of them hedges, %d reads degraded", c.Counters().Asked.Load(), c.Counters().Hedged.Load(), c.Counters().Degraded.Load())
	})
}

// A holder's answer may be anything: nothing else than was sealed is returned.
func FuzzNothingUnprovenIsReturned(f *testing.F) {
	s := encode(f, shard.Code{K: 2, M: 1}, plainOf(5), 9000, 1)
	data, proof, err := s.shards[0].Range(1, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, bytes.Join(flat(proof), nil))
	f.Add(data[:100], []byte{})
	f.Add(append(data, 1), []byte{1})
	f.Fuzz(func(t *testing.T, data, proof []byte) {
		h := says{data: data}
		for ; len(proof) >= 32; proof = proof[32:] {
			h.proof = append(h.proof, [32]byte(proof))
		}
		c := recall.New(recall.Options{Holders: h, Peers: recall.NewPeers(nil), Coder: coder()})
		p := open(t, c, s, s.places()[:1])
		b := make([]byte, seal.LeafBytes)
		if _, err := p.ReadAt(context.Background(), b, seal.LeafBytes); err == nil && !bytes.Equal(b, s.ciphertext[seal.LeafBytes:2*seal.LeafBytes]) {
			t.Error("other bytes")
		}
		if _, err := c.Open(context.Background(), s.sealed(), s.places()[:1]); err == nil {
			t.Error("a head of fuzz")
		}
	})
}

func flat(proof [][32]byte) (all [][]byte) {
	for _, h := range proof {
		all = append(all, h[:])
	}
	return all
}

// says answers always the same.
type says struct {
	data  []byte
	proof [][32]byte
}

func (s says) Leaves(context.Context, recall.Place, shard.Stripe, int64, int64) (recall.Leaves, error) {
	return recall.Leaves{Proof: func() ([][32]byte, int64, error) { return s.proof, 1, nil }, Body: io.NopCloser(bytes.NewReader(s.data))}, nil
}

func (s says) Opening(context.Context, recall.Place, shard.Stripe) (recall.Opening, error) {
	return recall.Opening{Head: s.data, Body: io.NopCloser(bytes.NewReader(s.data))}, nil
}
