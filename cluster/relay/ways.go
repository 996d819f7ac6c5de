package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/cluster/port"
)

const (
	// directTime bounds the direct way's dial, where there is another: ten round trips of
	// the longest links.
	directTime = 5 * time.Second
	// relayTime bounds what a relay takes to connect.
	relayTime = helloTime + connectTime
	// maxRelays is how many relays are asked for one connection.
	maxRelays = 3
	// relayRest is how long a relay that did not connect to a node is not asked again.
	relayRest = 30 * time.Second
	// tryEvery is how often direct ways that are cut are tried again, triesAtOnce how many
	// beside each other.
	tryEvery, triesAtOnce = 15 * time.Second, 8
	// maxCut and maxFailed bound what is remembered, above the largest network; beyond,
	// all is forgotten and found out anew.
	maxCut, maxFailed = 4096, 4096
)

// Options are what ways are made of.
type Options struct {
	Port *port.Port
	// Locate returns the address of a node's port.
	Locate func(ctx context.Context, node string) (address string, err error)
	// Relays are nodes that are believed to reach both this one and a node, which is
	// believed to answer, the nearest first; a hint. It must not block.
	Relays func(node string) []string
	Log    *slog.Logger // nil is silent
}

// Ways call other nodes: directly, or by a relay where that is known not to work. They
// are an http.RoundTripper of peer calls (cluster/call). Make them by [New].
type Ways struct {
	o       Options
	log     *slog.Logger
	direct  *http.Transport
	relayed *http.Transport

	mu     sync.Mutex           // guards what follows
	cut    map[string]bool      // nodes that could not be dialled
	failed map[detour]time.Time // when relays did not connect
	moved  chan struct{}        // holds a token after a node was found cut
}

// detour is a relay on the way to a node.
type detour struct{ node, relay string }

// New returns ways, of which nothing is cut yet.
func New(o Options) *Ways {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &Ways{o: o, log: o.Log, cut: map[string]bool{}, failed: map[detour]time.Time{}, moved: make(chan struct{}, 1)}
	w.direct, w.relayed = port.TransportOver(w.dial), port.TransportOver(w.dialRelayed)
	return w
}

// Direct carries calls the direct way only, over the connections that [Ways.RoundTrip]
// uses too, and tells these whom it cannot dial.
func (w *Ways) Direct() *http.Transport { return w.direct }

// CloseIdleConnections closes those.
func (w *Ways) CloseIdleConnections() {
	w.direct.CloseIdleConnections()
	w.relayed.CloseIdleConnections()
}

// Cut reports whether a node could not be dialled the last time, though it is believed
// to answer others: what it has is to be had by a detour.
func (w *Ways) Cut(node string) bool { return w.isCut(node) && len(w.o.Relays(node)) > 0 }

// Detours is how many nodes Cut is true of.
func (w *Ways) Detours() (n int) {
	for _, node := range w.allCut() {
		if w.Cut(node) {
			n++
		}
	}
	return n
}

func (w *Ways) isCut(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[node]
}

// undialled is a failure before anything was sent.
type undialled struct{ error }

func (u undialled) Unwrap() error { return u.error }

// RoundTrip implements [http.RoundTripper]. A call goes by a relay if its node could not
// be dialled, before or now: nothing was sent then.
func (w *Ways) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.Cut(r.URL.Host) {
		if again, ok := repeat(r); ok {
			response, err := w.relayed.RoundTrip(again)
			if err == nil || !errors.As(err, new(undialled)) || r.Context().Err() != nil {
				closeBody(r)
				return response, err
			}
		}
	}
	next, repeats := repeat(r)
	response, err := w.direct.RoundTrip(r)
	if err == nil || !repeats || !errors.As(err, new(undialled)) || r.Context().Err() != nil || !w.Cut(r.URL.Host) {
		if next != r {
			closeBody(next)
		}
		return response, err
	}
	response, failed := w.relayed.RoundTrip(next)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return response, nil
}

// repeat returns a request that can be sent in the place of one, whose body it leaves
// alone; false if there is none.
func repeat(r *http.Request) (*http.Request, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again := r.Clone(r.Context())
	again.Body = body
	return again, true
}

// closeBody closes the body of a request that is not sent.
func closeBody(r *http.Request) {
	if r != nil && r.Body != nil {
		r.Body.Close()
	}
}

// dial goes the direct way, and remembers whether it is one.
func (w *Ways) dial(ctx context.Context, node string) (net.Conn, error) {
	address, err := w.o.Locate(ctx, node)
	if err != nil {
		return nil, err
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if len(w.o.Relays(node)) > 0 {
		limited, cancel = context.WithTimeout(ctx, directTime)
	}
	defer cancel()
	conn, err := w.o.Port.Dial(limited, node, address, port.Peer)
	switch {
	case err == nil:
		w.note(node, false)
		return conn, nil
	case ctx.Err() != nil: // nobody waits any more: it may have been on its way
		return nil, err
	case fault.Is(err, fault.Unavailable):
		w.note(node, true)
	}
	return nil, undialled{err}
}

// note remembers whether a node could be dialled.
func (w *Ways) note(node string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[node] == cut {
		return
	}
	if !cut {
		delete(w.cut, node)
		w.log.Info("a node is reached the direct way again", "node", node)
		return
	}
	if len(w.cut) >= maxCut {
		clear(w.cut)
	}
	w.cut[node] = true
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// dialRelayed goes by the first relay that connects. Nobody who is cut off is asked.
func (w *Ways) dialRelayed(ctx context.Context, node string) (net.Conn, error) {
	failed := fault.New(fault.Unavailable, "relay: nobody is known who reaches node %s", node)
	tries := 0
	for _, relay := range w.o.Relays(node) {
		if relay == node || w.isCut(relay) || w.rests(detour{node, relay}) {
			continue
		}
		if tries++; tries > maxRelays || ctx.Err() != nil {
			break
		}
		conn, err := w.by(ctx, relay, node)
		if err == nil {
			w.log.Info("a node is reached by way of another", "node", node, "relay", relay)
			return conn, nil
		}
		if ctx.Err() == nil {
			w.rest(detour{node, relay})
		}
		failed = errors.Join(failed, err)
	}
	return nil, undialled{failed}
}

// by connects to a node by a relay. It is authenticated when this returns.
func (w *Ways) by(ctx context.Context, relay, node string) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	address, err := w.o.Locate(limited, relay)
	if err != nil {
		return nil, err
	}
	conn, err := w.o.Port.Dial(limited, relay, address, port.Relay)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(limited, func() { conn.Close() })
	if err = writeHello(conn, node); err == nil {
		err = readAnswer(conn, relay, node)
	}
	if !stop() && err == nil {
		err = fault.New(fault.Unavailable, "relay: node %s does not connect in time", relay)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return w.o.Port.DialOver(ctx, conn, node, port.Peer)
}

// rests reports whether a relay has just not connected.
func (w *Ways) rests(d detour) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.failed[d]
	return ok && time.Since(at) < relayRest
}

func (w *Ways) rest(d detour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failed) >= maxFailed {
		clear(w.failed)
	}
	w.failed[d] = time.Now()
}

// Run tries direct ways that are cut again, until the context ends. While nothing is
// cut it does nothing.
func (w *Ways) Run(ctx context.Context) error {
	for {
		cut := w.allCut()
		if len(cut) == 0 {
			select {
			case <-w.moved:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if !pause.For(ctx, tryEvery) {
			return nil
		}
		var group errgroup.Group
		group.SetLimit(triesAtOnce)
		for _, node := range cut {
			group.Go(func() error {
				w.tryAgain(ctx, node)
				return nil
			})
		}
		_ = group.Wait() // they answer for themselves
	}
}

func (w *Ways) allCut() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]string, 0, len(w.cut))
	for node := range w.cut {
		all = append(all, node)
	}
	slices.Sort(all)
	return all
}

// tryAgain dials a node that is cut. One that has no address any more is forgotten.
func (w *Ways) tryAgain(ctx context.Context, node string) {
	conn, err := w.dial(ctx, node)
	switch {
	case err == nil:
		conn.Close()
	case ctx.Err() == nil && !fault.Is(err, fault.Unavailable):
		w.mu.Lock()
		delete(w.cut, node)
		w.mu.Unlock()
	}
}
