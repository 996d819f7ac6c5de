package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/chaos/world"
	"pelago/cluster/fault"
	"pelago/dimse/dimsetest"
)

// over lays a link between two sites, on virtual time, and returns what ends it.
func (n *network) over(link world.Link, from, to string) (end func()) {
	n.t.Helper()
	ctx := context.Background()
	memory := world.NewMemory()
	w, err := world.New(world.Options{Network: memory, Link: link, Seed: 1})
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := memory.Listen(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	gate, err := w.Gate(ctx, world.Site(to), listener.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: n.sites[to].handler, Protocols: &http2}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	before := n.sites[to].dialer
	n.sites[to].dialer = &http.Transport{Protocols: &http2, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return memory.Dial(ctx, world.Site(from), gate.Addr())
	}}
	return func() {
		n.sites[to].dialer.CloseIdleConnections()
		n.sites[to].dialer = before
		err := server.Close()
		if serving := <-ended; !errors.Is(serving, http.ErrServerClosed) {
			err = errors.Join(err, serving)
		}
		w.Close()
		if err != nil {
			n.t.Error(err)
		}
	}
}

// The figure of DESIGN §7 through the web face: the first frame of a series takes,
// on a warm connection, at most 1.3 times a round trip and the time of its bytes;
// so does the first image of a series that is sent whole. The next image is there
// when it is asked for.
func TestAFirstFrameTakesOneRoundTrip(t *testing.T) {
	const roundTrip, count = 50 * time.Millisecond, 12
	for _, rate := range []world.Rate{100 * world.Mbps, world.Gbps} {
		for _, what := range []string{"frame", "instance", "series"} {
			t.Run(fmt.Sprintf("%s at %d Mb/s", what, rate/world.Mbps), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNetwork(t, "a", "b")
					a, b := n.sites["a"], n.sites["b"]
					all := make([]dimsetest.Instance, count)
					for i := range all {
						all[i] = dimsetest.CT(1, i)
					}
					study, series := uids(all)
					a.store(all...)
					a.pack()
					a.announce(study, series, "b")
					usage, err := a.archive.Usage()
					if err != nil {
						t.Fatal(err)
					}
					f := b.faces()
					defer n.over(world.Both(roundTrip, rate), "b", "a")()
					if _, failed := b.read("", "", "1.2.3"); len(failed) != 1 || !fault.Is(failed[0], fault.NotFound) {
						t.Fatal(failed) // the connection is warm
					}
					least := roundTrip + rate.Time(usage.Bulk/count) // as it travels
					var took time.Duration
					began := time.Now()
					first := sync.OnceFunc(func() { took = time.Since(began) })
					switch what {
					case "frame":
						f.get(t, path(all[5])+"/frames/1", acceptFrames, first)
					case "instance":
						f.get(t, path(all[5]), acceptDICOM, first)
					case "series":
						if got := f.parts(t, study+"/series/"+series, first); got != count {
							t.Errorf("%d instances", got)
						}
					}
					t.Logf("%v, %.2f of the least, for %d bytes", took, float64(took)/float64(least), usage.Bulk/count)
					if took == 0 || float64(took) > 1.3*float64(least) {
						t.Errorf("%v, at best %v", took, least)
					}
					time.Sleep(10 * roundTrip) // somebody looks at it
					began = time.Now()
					f.get(t, path(all[6])+"/frames/1", acceptFrames, func() {})
					if took := time.Since(began); took > 0 {
						t.Errorf("the next takes %v", took)
					}
					b.reader.work.Wait()
				})
			})
		}
	}
}
