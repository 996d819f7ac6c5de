package recall_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/seal"
)

// figures are what the frames of a series took, one after the other.
type figures struct {
	p50, p99, patience time.Duration
	bytes, requests    float64 // a frame: bytes of shards and proofs, over those of its leaves
}

// series reads the frames of the first columns of a stripe over links of 1 Gb/s, after
// warm reads of it.
func series(t testing.TB, s *striped, columns int, rtt, jitter time.Duration, hurt func(*world)) (f figures) {
	w := newWorld(t, s.head.Code.N(), rtt, s)
	for _, n := range w.nodes {
		n.spread = jitter
	}
	peers := recall.NewPeers(near(rtt))
	c := recall.New(recall.Options{Holders: w, Peers: peers, Coder: coder()})
	p := open(t, c, s, s.places())
	const frame = 16*seal.LeafBytes - 20_000
	last, length := column(t, s, columns-1)
	end := last + length
	read := func() (all []time.Duration) {
		for off := int64(1000); off+frame < end; off += frame {
			all = append(all, timed(t, p, s, off, frame))
		}
		return all
	}
	for range 3 {
		read()
	}
	f.patience = peers.Patience(name(s.head.Code.K - 1)) // it is well
	hurt(w)
	read() // which finds that out
	requests, bytes := w.requests()
	bytes += w.proofs()
	all := read()
	for range 4 {
		all = append(all, read()...)
	}
	n, sent := w.requests()
	sent += w.proofs()
	slices.Sort(all)
	f.p50, f.p99 = all[len(all)/2], all[len(all)*99/100]
	f.requests = float64(n-requests) / float64(len(all))
	f.bytes = float64(sent-bytes) / float64(len(all)) / frame
	return f
}

// near is a distance that gossip has measured.
type near time.Duration

func (n near) Hint(string) (bool, time.Duration) { return true, time.Duration(n) }

// What a series takes from its shards, whole, with dead and with slow holders, on
// virtual time: go test -v -run Figures ./shard/recall. Nodes answer at once but for
// a jitter with a long tail, as those of a hospital's link.
func TestFiguresOfReading(t *testing.T) {
	if quick {
		t.Skip("it is about time")
	}
	for _, c := range []struct {
		code shard.Code
		rtt  time.Duration
	}{
		{shard.Code{K: 2, M: 2}, 20 * ms}, {shard.Code{K: 3, M: 3}, 20 * ms},
		{shard.Code{K: 3, M: 3}, 80 * ms}, {shard.Code{K: 5, M: 4}, 80 * ms},
	} {
		s := encode(t, c.code, 16<<20, 200_000, 3)
		var healthy figures
		run := func(what string, columns int, hurt func(*world)) {
			synctest.Test(t, func(t *testing.T) {
				f := series(t, s, columns, c.rtt, c.rtt/4, hurt)
				t.Logf("%v, %v: %-20s p50 %5.1f ms  p99 %5.1f ms  hedge delay %5.1f ms  %.2f requests and %.3f times the bytes of a frame",
					c.code, c.rtt, what, f.p50.Seconds()*1e3, f.p99.Seconds()*1e3, f.patience.Seconds()*1e3, f.requests, f.bytes)
				if healthy.p50 == 0 {
					healthy = f
				}
				if f.p50 > 2*healthy.p50 {
					t.Errorf("p50 %v, healthy %v", f.p50, healthy.p50)
				}
				if most := float64(c.code.K) * healthy.bytes * 1.02; f.bytes > most {
					t.Errorf("%.3f times the bytes of a frame, at most %.3f", f.bytes, most)
				}
				if most := healthy.p99 + healthy.patience*12/10; f.p99 > most {
					t.Errorf("p99 %v, at most %v", f.p99, most)
				}
			})
		}
		k := c.code.K
		run("healthy", k, func(*world) {})
		run("one dead", k, func(w *world) { w.set(0, dead) })
		run("of them its column", 1, func(w *world) { w.set(0, dead) })
		run("one dead, one slow", k, func(w *world) {
			w.set(0, dead)
			w.nodes[name(1)].slow = 10
		})
	}
}

// What reading costs in processor time beside the network, healthy and decoded.
func BenchmarkReading(b *testing.B) {
	s := encode(b, shard.Code{K: 5, M: 4}, 16<<20, 200_000, 3)
	for what, hurt := range map[string]func(*world){"healthy": func(*world) {}, "decoded": func(w *world) { w.set(0, without) }} {
		b.Run(what, func(b *testing.B) {
			w := newWorld(b, 9, 0, s)
			w.own.rate = 0
			for _, n := range w.nodes {
				n.link.rate = 0
			}
			hurt(w)
			p := open(b, w.client(nil), s, s.places())
			frame := make([]byte, 16*seal.LeafBytes)
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.ReadAt(b.Context(), frame, 3*seal.LeafBytes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
