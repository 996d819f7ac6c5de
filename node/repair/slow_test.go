package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"pelago/chaos/world"
	"pelago/cluster/authority"
	"pelago/cluster/port"
	"pelago/shard/held"
)

// wires carry the calls between nodes over HTTP/2 with the windows of the port, and
// links of a world.
type wires struct {
	w     *network
	world *world.World
	ways  map[[2]string]*http.Transport
	ends  []func() error
}

// asker names who asks, as no certificate does here.
const asker = "X-Asker"

// wire lays links between all nodes, each a site of its own.
func (w *network) wire(link world.Link) *wires {
	w.t.Helper()
	ctx := context.Background()
	memory := world.NewMemory()
	ws := &wires{w: w, ways: map[[2]string]*http.Transport{}}
	var err error
	if ws.world, err = world.New(world.Options{Network: memory, Link: link, Seed: 1}); err != nil {
		w.t.Fatal(err)
	}
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	for _, id := range w.names {
		l, err := memory.Listen(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		gate, err := ws.world.Gate(ctx, world.Site(id), l.Addr().String())
		if err != nil {
			w.t.Fatal(err)
		}
		server := port.NewServer(w.nodes[id].handler(), slog.New(slog.DiscardHandler))
		server.Protocols = &http2
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		ws.ends = append(ws.ends, func() error {
			err := server.Close()
			if serving := <-ended; !errors.Is(serving, http.ErrServerClosed) {
				err = errors.Join(err, serving)
			}
			return err
		})
		for _, from := range w.names {
			way := new(port.Port).Transport(nil)
			way.Protocols, way.DialTLSContext = &http2, nil
			way.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return memory.Dial(ctx, world.Site(from), gate.Addr())
			}
			ws.ways[[2]string{from, id}] = way
		}
	}
	w.wires = ws
	return ws
}

func (ws *wires) close() {
	ws.w.wires = nil
	for _, way := range ws.ways {
		way.CloseIdleConnections()
	}
	for _, end := range ws.ends {
		if err := end(); err != nil {
			ws.w.t.Error(err)
		}
	}
	ws.world.Close()
}

// send sends a call of a node.
func (ws *wires) send(from string, r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	r.Header.Set(asker, from)
	return ws.ways[[2]string{from, r.URL.Host}].RoundTrip(r)
}

// handler answers what other nodes ask.
func (d *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/held/", held.NewHandler(held.HandlerOptions{Held: d.store, Source: local{d},
		Peer: func(r *http.Request) (authority.Name, error) { return authority.Name{Node: r.Header.Get(asker)}, nil }}))
	mux.HandleFunc("/repair/", func(rw http.ResponseWriter, r *http.Request) {
		d.repair.Handler(func(r *http.Request) (string, error) { return r.Header.Get(asker), nil }).ServeHTTP(rw, r)
	})
	return mux
}

// received is what came to a node over all links.
func (ws *wires) received(id string) (bytes int64) {
	for _, from := range ws.w.names {
		bytes += ws.world.Traffic(world.Site(from), world.Site(id)).Sent
	}
	return bytes
}

// Large shards come over narrow links, several at a time, each byte once.
func TestLargeShardsComeOverNarrowLinks(t *testing.T) {
	for _, one := range []struct {
		shards int
		bytes  int64 // of each
		rate   world.Rate
		cut    time.Duration // how long nothing comes, every minute
	}{
		{1, 20 << 20, 4 * world.Mbps, 0},
		{4, 5 << 20, world.Mbps, 0},
		{4, 5 << 20, world.Mbps / 4, 0},
		{2, 5 << 20, world.Mbps, 40 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d of %d MiB at %d kb/s, cut for %v", one.shards, one.bytes>>20, one.rate/world.Kbps, one.cut), func(t *testing.T) {
			onNetwork(t, 4, 4, 2, func(w *network) {
				to := w.names[3]
				d := w.nodes[to]
				var left int64
				for range one.shards {
					m := w.sealed(large, 2*one.bytes, nil)
					for i := range 4 {
						if w.owner(m, i) == d {
							d.lose(m, i)
							left += 2 * int64(len(m.shards[i])) // made of two others
						}
					}
				}
				ws := w.wire(world.Both(40*time.Millisecond, 100*world.Mbps))
				defer ws.close()
				if err := ws.world.SetAccess(world.Site(to), world.Access{Up: one.rate, Down: one.rate}); err != nil {
					t.Fatal(err)
				}
				d.start()
				began := time.Now()
				done := func() bool { s := d.repair.Status(); return s.Queued+s.Running == 0 }
				for passes(15 * time.Second); !done() && time.Since(began) < 4*one.rate.Time(left)+time.Hour; {
					if one.cut > 0 {
						passes(time.Minute)
						ws.cut(to, world.BlackHole)
						passes(one.cut)
						ws.cut(to, world.Open)
					}
					passes(5 * time.Second)
				}
				d.end()
				w.whole()
				if got := ws.received(to); float64(got) > 1.1*float64(left) {
					t.Errorf("%d bytes came for %d", got, left)
				} else {
					t.Logf("%.3f of the bytes, in %.2f of the time, %d failed", float64(got)/float64(left), float64(time.Since(began))/float64(one.rate.Time(left)), d.repair.Counters().Failed.Load())
				}
			})
		})
	}
}

// cut changes what a node's links do.
func (ws *wires) cut(id string, how world.Cut) {
	for _, other := range ws.w.names {
		if other == id {
			continue
		}
		if err := errors.Join(ws.world.Cut(world.Site(id), world.Site(other), how), ws.world.Cut(world.Site(other), world.Site(id), how)); err != nil {
			ws.w.t.Fatal(err)
		}
	}
}
