package relay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/cluster/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The addresses of the nodes of a test.
const ipA, ipB, ipC = "10.0.0.1", "10.0.0.2", "10.0.0.3"

// trio is three nodes: a reads what c has, and b reaches both.
type trio struct {
	*porttest.Cluster
	t       *testing.T
	a, b, c *porttest.Member
	server  *relay.Server // of b
	ways    *relay.Ways   // of a
	calls   *call.Client
	relays  atomic.Pointer[[]string]
	served  atomic.Int64 // calls at c
	strange atomic.Pointer[string]
}

func newTrio(t *testing.T) *trio {
	c := porttest.NewCluster(t, "north")
	n := &trio{
		Cluster: c, t: t,
		a: c.Start(t, ipA, "Mercy", nil), b: c.Start(t, ipB, "Grace", nil), c: c.Start(t, ipC, "Faith", nil),
	}
	n.relays.Store(&[]string{n.b.ID()})
	n.strange.Store(new(string))
	n.serve(port.Peer, func(ctx context.Context, l net.Listener) error {
		s := port.NewServer(http.HandlerFunc(n.echo), slog.New(slog.DiscardHandler))
		defer context.AfterFunc(ctx, func() { s.Close() })()
		return s.Serve(l)
	}, n.c)
	n.server = relay.NewServer(relay.ServerOptions{
		Self: n.b.ID(), Port: n.b.Port, Locate: n.locate, Member: func(node string) bool { return node != *n.strange.Load() },
	})
	n.serve(port.Relay, n.server.Serve, n.b)
	n.ways = relay.New(relay.Options{
		Port: n.a.Port, Locate: n.locate, Relays: func(string) []string { return *n.relays.Load() },
	})
	n.calls = call.NewClient(n.ways)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.ways.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		n.ways.CloseIdleConnections()
	})
	return n
}

// serve runs a service of a node until the test ends.
func (n *trio) serve(s port.Service, run func(context.Context, net.Listener) error, at *porttest.Member) {
	n.t.Helper()
	l, err := at.Listen(s)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx, l); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) && n.t.Context().Err() == nil {
			n.t.Errorf("%s: %v", s, err)
		}
	}()
	n.t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func (n *trio) locate(_ context.Context, node string) (string, error) {
	for _, m := range []*porttest.Member{n.a, n.b, n.c} {
		if m.ID() == node {
			return m.Address, nil
		}
	}
	return "", fault.New(fault.NotFound, "no such node")
}

// echo says who calls, and sends much.
func (n *trio) echo(w http.ResponseWriter, r *http.Request) {
	n.served.Add(1)
	name, err := port.PeerOf(*r.TLS)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		call.Refuse(w, fault.New(fault.Unavailable, "%w", err))
		return
	}
	fmt.Fprintf(w, "%s %x ", name.Node, sha256.Sum256(body))
	_, _ = w.Write(much)
}

var much = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

// ask has a ask c.
func (n *trio) ask(body []byte) error {
	r, err := n.calls.Do(n.t.Context(), n.c.ID(), http.MethodPost, "/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if want := append(fmt.Appendf(nil, "%s %x ", n.a.ID(), sha256.Sum256(body)), much...); !bytes.Equal(got, want) {
		n.t.Errorf("%d bytes that begin with %q", len(got), got[:min(len(got), 100)])
	}
	return nil
}

func (n *trio) cut()  { n.Part([]string{ipA}, []string{ipC}) }
func (n *trio) heal() { n.Join([]string{ipA}, []string{ipC}) }

// passed is how many connections b has passed on.
func (n *trio) passed() uint64 { return n.server.Counters().Connections.Load() }

// A node that cannot be dialled is asked by way of another, as the node that asks; and
// directly again when the link is whole.
func TestACutLinkIsGoneAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		n.cut()
		for i := range 3 {
			began := time.Now()
			if err := n.ask(bytes.Repeat([]byte{byte(i)}, 100_000)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 6*time.Second || i > 0 && took > 0 {
				t.Errorf("call %d took %v", i, took)
			}
		}
		if n.passed() != 1 || !n.ways.Cut(n.c.ID()) || n.server.Counters().Bytes.Load() < 3*uint64(len(much)) {
			t.Errorf("%d connections passed on, cut %t", n.passed(), n.ways.Cut(n.c.ID()))
		}
		n.heal()
		time.Sleep(time.Minute) // of virtual time: it is tried now and then
		if n.ways.Cut(n.c.ID()) {
			t.Error("a link that is whole again is not found")
		}
		n.Part([]string{ipA}, []string{ipB})
		if err := n.ask(nil); err != nil {
			t.Errorf("directly again: %v", err)
		}
	})
}

func TestNobodyGoesAroundALinkThatIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		for range 3 {
			if err := n.ask([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if n.passed() != 0 || n.ways.Cut(n.c.ID()) {
			t.Errorf("%d connections passed on", n.passed())
		}
	})
}

// A connection that was cut while it was in use is found out by pings.
func TestALinkThatIsCutInUseIsGoneAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		if err := n.ask(nil); err != nil {
			t.Fatal(err)
		}
		n.cut()
		if err := n.ask(nil); err == nil { // it was sent, and nobody knows whether it came
			t.Error("over a cut link")
		}
		if err := n.ask(nil); err != nil || n.passed() != 1 {
			t.Errorf("%v, %d passed on", err, n.passed())
		}
	})
}

// What nobody can pass on fails as it would without relays.
func TestWithoutARelayACutLinkIsUnavailable(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*trio)
	}{
		{"nobody is known", func(n *trio) { n.relays.Store(&[]string{}) }},
		{"the relay is cut off, too", func(n *trio) { n.Part([]string{ipA}, []string{ipB}) }},
		{"the relay does not reach the node", func(n *trio) { n.Part([]string{ipB}, []string{ipC}) }},
		{"a relay that is the node itself", func(n *trio) { n.relays.Store(&[]string{n.c.ID()}) }},
		{"who asks is no member at the relay", func(n *trio) { id := n.a.ID(); n.strange.Store(&id) }},
		{"the node is no member at the relay", func(n *trio) { id := n.c.ID(); n.strange.Store(&id) }},
		{"the node was removed", func(n *trio) { n.Ledger.Remove(n.c.ID()) }},
		{"who asks was removed", func(n *trio) { n.Ledger.Remove(n.a.ID()) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTrio(t)
				n.cut()
				test.prepare(n)
				began := time.Now()
				err := n.ask(nil)
				if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Denied) || n.served.Load() > 0 {
					t.Errorf("%v, %d calls came through", err, n.served.Load())
				}
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				if err := n.ask(nil); err == nil {
					t.Error("the second time it works")
				}
			})
		})
	}
}

// dialRelay opens a connection to b's relay and names a node.
func (n *trio) dialRelay(node string) (net.Conn, byte) {
	n.t.Helper()
	conn, err := n.a.Dial(n.t.Context(), n.b.ID(), n.b.Address, port.Relay)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := conn.Write(append([]byte{byte(len(node))}, node...)); err != nil {
		n.t.Fatal(err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return conn, 0xff
	}
	return conn, answer[0]
}

// A relay connects to other members and to nobody else: not to itself, nor back.
func TestARelayConnectsToMembersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		for _, test := range []struct {
			node string
			want byte
		}{
			{n.b.ID(), 1 + byte(fault.Invalid)},
			{n.a.ID(), 1 + byte(fault.Invalid)},
			{"10.0.0.3:7700", 1 + byte(fault.NotFound)},
			{"nobody", 1 + byte(fault.NotFound)},
			{"", 1 + byte(fault.Invalid)},
			{string(bytes.Repeat([]byte("a"), 65)), 1 + byte(fault.Invalid)},
			{n.c.ID(), 0},
		} {
			conn, got := n.dialRelay(test.node)
			conn.Close()
			if got != test.want {
				t.Errorf("%q: answer %d, want %d", test.node, got, test.want)
			}
		}
	})
}

// One node has so many connections passed on and no more, until one ends; what says
// nothing is ended.
func TestWhatARelayPassesOnIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		open := 0
		var last net.Conn
		for range 20 {
			conn, answer := n.dialRelay(n.c.ID())
			defer conn.Close()
			switch answer {
			case 0:
				open++
				last = conn
			case 1 + byte(fault.Full):
			default:
				t.Errorf("answer %d", answer)
			}
		}
		if open != 16 {
			t.Errorf("%d are passed on at one time", open)
		}
		last.Close()
		synctest.Wait()
		conn, answer := n.dialRelay(n.c.ID())
		defer conn.Close()
		if answer != 0 {
			t.Errorf("in the place of one that ended: %d", answer)
		}
		time.Sleep(2 * time.Minute) // c has ended what proved nothing, the relay what stands still
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("what says nothing goes on")
		}
		if conn, answer = n.dialRelay(n.c.ID()); answer != 0 {
			t.Errorf("after all have ended: %d", answer)
		}
		conn.Close()
	})
}

// What is under way ends with the membership of who asked.
func TestARelayEndsWhatIsOfARemovedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		n.cut()
		if err := n.ask(nil); err != nil {
			t.Fatal(err)
		}
		n.Ledger.Remove(n.a.ID())
		n.b.Drop(n.a.ID())
		synctest.Wait()
		if err := n.ask(nil); err == nil {
			t.Error("a removed node is passed on")
		}
	})
}

// Who waits for no answer longer than a moment finds out all the same that a link is cut.
func TestImpatientCallersGoAroundACutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTrio(t)
		n.cut()
		for range 8 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			r, err := n.calls.Do(ctx, n.c.ID(), http.MethodGet, "/", nil)
			if err == nil {
				r.Body.Close()
			}
			<-ctx.Done()
			cancel()
		}
		if err := n.ask(nil); err != nil || n.passed() != 1 {
			t.Errorf("%v, %d passed on", err, n.passed())
		}
	})
}
