package recall_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	links "pelago/chaos/world"
	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/recall"
	"pelago/shard/seal"
)

const reader links.Site = "reader"

// oneShard is the only shard of a holder.
type oneShard struct{ of held.Shard }

// Shard implements [held.Source].
func (o oneShard) Shard(n held.Name) (held.Shard, error) {
	if n.Stripe != o.of.Head().Stripe || n.Index != o.of.Index() {
		return nil, fault.New(fault.NotFound, "another shard")
	}
	return o.of, nil
}

// linked are holders of a stripe's shards behind links, over HTTP/2 with the windows
// and times of the port.
type linked struct {
	t      *testing.T
	world  *links.World
	client *held.Client
	end    func()
}

// dial carries calls of the reader.
type dial map[string]*http.Transport

// RoundTrip implements [http.RoundTripper].
func (d dial) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return d[r.URL.Host].RoundTrip(r)
}

func overLinks(t *testing.T, s *striped, of links.Link) *linked {
	t.Helper()
	ctx := context.Background()
	memory := links.NewMemory()
	w, err := links.New(links.Options{Network: memory, Link: of, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	ways := dial{}
	var ends []func() error
	for i, one := range s.shards {
		l, err := memory.Listen(ctx)
		if err != nil {
			t.Fatal(err)
		}
		gate, err := w.Gate(ctx, links.Site(name(i)), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server := port.NewServer(held.NewHandler(held.HandlerOptions{Source: oneShard{one},
			Peer: func(*http.Request) (authority.Name, error) { return authority.Name{Node: "reader"}, nil }}), slog.New(slog.DiscardHandler))
		server.Protocols = &http2
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		way := new(port.Port).Transport(nil)
		way.Protocols, way.DialTLSContext = &http2, nil
		way.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return memory.Dial(ctx, reader, gate.Addr())
		}
		ways[name(i)] = way
		ends = append(ends, func() error {
			way.CloseIdleConnections()
			err := server.Close()
			if serving := <-ended; !errors.Is(serving, http.ErrServerClosed) {
				err = errors.Join(err, serving)
			}
			return err
		})
	}
	return &linked{t, w, held.NewClient(call.NewClient(ways), nil), func() {
		for _, end := range ends {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
		w.Close()
	}}
}

// A holder whose packets were swallowed, and are not any more, is read from again
// within the longest pause for which a node is avoided, and the time in which its
// connection is found to be dead.
func TestAHealedHolderIsReadFromAgain(t *testing.T) {
	const frame, most = 8 * seal.LeafBytes, time.Minute + 30*time.Second
	s := encode(t, shard.Code{K: 3, M: 3}, plainOf(200), 9000, 1)
	for _, hole := range []time.Duration{5 * time.Second, 3 * time.Minute} {
		for _, how := range []links.Cut{links.BlackHole, links.Refuse} {
			t.Run(fmt.Sprintf("%v for %v", how, hole), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := overLinks(t, s, links.Both(20*ms, links.Gbps))
					defer n.end()
					c := recall.New(recall.Options{Holders: held.Holders{Client: n.client}, Peers: recall.NewPeers(nil), Coder: coder()})
					p := open(t, c, s, s.places())
					came := func() int64 { return n.world.Traffic(links.Site(name(0)), reader).Sent }
					read := func() (own bool) { // of the first holder
						before := came()
						check(t, p, s, 0, frame)
						return came()-before >= frame
					}
					for range 40 {
						if !read() {
							t.Fatal("a holder that is well is not read from")
						}
					}
					cut := func(how links.Cut) {
						if err := n.world.Part(how, []links.Site{reader}, []links.Site{links.Site(name(0))}); err != nil {
							t.Fatal(err)
						}
					}
					cut(how)
					for began := time.Now(); time.Since(began) < hole; time.Sleep(time.Second) {
						check(t, p, s, 0, frame)
					}
					n.world.Heal()
					healed := time.Now()
					for row := 0; row < 10; time.Sleep(500 * ms) {
						if row++; !read() {
							row = 0
						}
						if time.Since(healed) > most+10*time.Second {
							t.Fatalf("not read from %v after it was well again", time.Since(healed))
						}
					}
					t.Logf("read from again after %v", time.Since(healed))
				})
			})
		}
	}
}
