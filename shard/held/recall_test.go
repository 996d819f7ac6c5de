package held

import (
	"bytes"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/shard/recall"
	"pelago/shard/stripe"
)

// nodes carries calls to the holder that a request names.
type nodes map[string]*link

func (n nodes) RoundTrip(r *http.Request) (*http.Response, error) {
	l := n[r.URL.Host]
	if l == nil {
		return nil, fault.New(fault.Unavailable, "no such node")
	}
	return l.RoundTrip(r)
}

// A pack is read back from nodes over HTTP/2, byte for byte, when some are gone,
// have not what they should, or send other bytes.
func TestPacksAreReadBackFromHolders(t *testing.T) {
	for _, m := range []*made{encode(t, 1, larger, 9<<20), encode(t, 2, small, 300_000)} {
		net := nodes{}
		var places []recall.Place
		for i := range m.shards {
			h := open(t, vfs.NewMem(), nil)
			defer h.close()
			h.land(m.offer(i))
			_, l := connect(t, h, HandlerOptions{})
			name := string(rune('a' + i))
			net[name] = l
			places = append(places, recall.Place{Index: i, Node: name})
		}
		var rotten atomic.Int64
		var c *recall.Client
		read := func(what string) {
			t.Helper()
			c = recall.New(recall.Options{ // one that does not know who was slow before
				Holders: Holders{NewClient(call.NewClient(net), nil)}, Peers: recall.NewPeers(nil), Coder: stripe.NewCoder(),
				Rotten: func(recall.Rot) { rotten.Add(1) },
			})
			opened, err := c.Open(t.Context(), recall.Sealed{Stripe: m.head.Stripe, Code: m.head.Code, Root: m.head.Root()}, places)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			from, _ := m.head.TailRange()
			p, err := c.Pack(opened.Head, places)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, p.Size())
			if _, err := p.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, m.ciphertext) || !bytes.Equal(opened.Tail, got[from:]) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		read("healthy")
		if n := rotten.Load(); n != 0 {
			t.Errorf("%v: %d rotten answers of healthy nodes", m.head.Code, n)
		}
		net["a"].change = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter { return twisting{w} }
		for n := 0; rotten.Load() == 0; n++ { // on a busy machine others may have answered sooner
			read("one sends other bytes")
			if n == 50 {
				t.Fatalf("%v: nobody was told of rot", m.head.Code)
			}
		}
		delete(net, "b")
		read("and one is gone")
		for i := range places {
			places[i].Via = "a"
		}
		if _, err := c.Open(t.Context(), recall.Sealed{Stripe: m.head.Stripe, Code: m.head.Code, Root: m.head.Root()}, places); !fault.Is(err, fault.Unsupported) {
			t.Errorf("by way of others: %v", err)
		}
	}
}

// twisting sends a wrong bit in the middle of what is long.
type twisting struct{ http.ResponseWriter }

func (f twisting) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (f twisting) Write(p []byte) (int, error) {
	if len(p) > 10_000 {
		p = bytes.Clone(p)
		p[len(p)/2] ^= 8
	}
	return f.ResponseWriter.Write(p)
}
