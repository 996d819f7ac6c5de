package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"pelago/chaos/world"
	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/held/volatile"
	"pelago/shard/recall"
	"pelago/shard/stripe"
)

// reader is the site that reads, and holds nothing.
const reader world.Site = "reader"

// holders are sites that hold the shards of a stripe, one each, and one that reads
// them, with a world between: stores on disk, ports with certificates, and HTTP/2, as
// nodes have them, in this process.
type holders struct {
	world  *world.World
	client *held.Client
	ids    []string // by index of the shard
	keys   map[string]ed25519.PublicKey
	cancel context.CancelFunc
	group  *errgroup.Group
	stores []io.Closer
	dirs   []string
	idle   func()
}

// holderSite is where a shard is.
func holderSite(i int) world.Site { return world.Site(fmt.Sprintf("site%d", i+1)) }

// SigningKey implements held.Members.
func (h *holders) SigningKey(node string) (ed25519.PublicKey, error) {
	key, ok := h.keys[node]
	if !ok {
		return nil, fault.New(fault.Denied, "no member")
	}
	return key, nil
}

// holders starts so many, for as long as they are used.
func (b *bench) holders(ctx context.Context, n int, link world.Link, use func(*holders) error) error {
	h := &holders{keys: map[string]ed25519.PublicKey{}}
	run, cancel := context.WithCancel(ctx)
	h.cancel = cancel
	h.group, run = errgroup.WithContext(run)
	err := h.start(run, b.fresh(), n, link)
	if err == nil {
		err = use(h)
	}
	return errors.Join(err, h.close())
}

func (h *holders) close() error {
	h.cancel()
	if h.idle != nil {
		h.idle()
	}
	err := h.group.Wait()
	if h.world != nil {
		h.world.Close()
	}
	for _, s := range h.stores {
		err = errors.Join(err, s.Close())
	}
	for _, dir := range h.dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (h *holders) start(ctx context.Context, dir string, n int, link world.Link) (err error) {
	signer, err := authority.Found("bench", time.Now().Add(-time.Hour))
	if err != nil {
		return err
	}
	if h.world, err = world.New(world.Options{Link: link}); err != nil {
		return err
	}
	gates := map[string]string{}
	for i := range n {
		id, listens, err := h.hold(ctx, signer, fmt.Sprintf("%s-%d", dir, i), string(holderSite(i)))
		if err != nil {
			return err
		}
		gate, err := h.world.GateFrom(ctx, reader, holderSite(i), listens)
		if err != nil {
			return err
		}
		h.ids, gates[id] = append(h.ids, id), gate.Addr()
	}
	_, p, err := member(signer, string(reader))
	if err != nil {
		return err
	}
	calls := p.Transport(func(_ context.Context, node string) (string, error) {
		address, ok := gates[node]
		if !ok {
			return "", fault.New(fault.NotFound, "no node %s", node)
		}
		return address, nil
	})
	h.idle = calls.CloseIdleConnections
	h.client = held.NewClient(call.NewClient(calls), h)
	return nil
}

// member makes a node's identity, and its port.
func member(signer *authority.Signer, site string) (*identity.Node, *port.Port, error) {
	self, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		return nil, nil, err
	}
	der, err := authority.NewRequest(self, signer.Root().Network(), site)
	if err != nil {
		return nil, nil, err
	}
	request, err := authority.ParseRequest(der)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := signer.Issue(request, time.Now())
	if err != nil {
		return nil, nil, err
	}
	credentials, err := authority.NewCredentials(signer.Root(), self, certificate)
	if err != nil {
		return nil, nil, err
	}
	silent := slog.New(slog.DiscardHandler)
	return self, port.New(port.Config{Credentials: credentials, Revoked: func(string) bool { return false }, Log: silent}), nil
}

// hold starts a holder, and returns its id and where it listens.
func (h *holders) hold(ctx context.Context, signer *authority.Signer, dir, site string) (id, listens string, err error) {
	self, p, err := member(signer, site)
	if err != nil {
		return "", "", err
	}
	h.keys[self.ID()] = self.Public()
	h.dirs = append(h.dirs, dir)
	rests, err := bulk.Open(bulk.Options{FS: vfs.Default, Dir: dir})
	if err != nil {
		return "", "", err
	}
	h.stores = append(h.stores, rests)
	store, err := held.Open(held.Options{Self: self, Bulk: rests, Rows: &volatile.Rows{}})
	if err != nil {
		return "", "", err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	peers, err := p.Listen(port.Peer)
	if err != nil {
		return "", "", errors.Join(err, l.Close())
	}
	server := port.NewServer(held.NewHandler(held.HandlerOptions{Held: store, Source: store}), slog.New(slog.DiscardHandler))
	h.group.Go(func() error { return p.Run(ctx, l) })
	h.group.Go(func() error {
		if err := server.Serve(peers); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	context.AfterFunc(ctx, func() { _ = server.Close() }) // its connections are the port's
	return self.ID(), l.Addr().String(), nil
}

// place lands each shard of a stripe at its holder.
func (h *holders) place(ctx context.Context, head *stripe.Head, shards [][]byte) error {
	for i, body := range shards {
		name := held.Name{Stripe: head.Stripe, Index: i}
		landed, err := h.client.Upload(ctx, h.ids[i], []held.Offer{{
			Claim: held.Claim{Entry: held.Entry{Name: name, Root: head.Root()}, Bytes: int64(len(body))},
			Write: func(_ context.Context, to io.Writer) error {
				_, err := io.Copy(to, bytes.NewReader(body))
				return err
			},
		}})
		if err == nil && landed.Outcomes[0] != held.Stored {
			err = fmt.Errorf("shard %d: %v", i, landed.Outcomes[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// places are where the shards are.
func (h *holders) places() (all []recall.Place) {
	for i, id := range h.ids {
		all = append(all, recall.Place{Index: i, Node: id})
	}
	return all
}

// cost is what was asked for, and what came over the links.
type cost struct {
	requests int
	sites    int
	bytes    int64 // that were sent over the links to the reader: TLS, HTTP and proofs included
}

// watched counts what is asked of holders, and how soon they begin to answer.
type watched struct {
	recall.Holders

	mu    sync.Mutex
	asked map[string]int             // requests since the last look
	began map[string][]time.Duration // by node, of answers that came
}

func watching(of recall.Holders) *watched {
	return &watched{Holders: of, asked: map[string]int{}, began: map[string][]time.Duration{}}
}

// Leaves implements recall.Holders.
func (w *watched) Leaves(ctx context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	w.mu.Lock()
	w.asked[at.Node]++
	w.mu.Unlock()
	from := time.Now()
	l, err := w.Holders.Leaves(ctx, at, of, first, count)
	if err == nil {
		w.mu.Lock()
		w.began[at.Node] = append(w.began[at.Node], time.Since(from))
		w.mu.Unlock()
	}
	return l, err
}

// take returns what was asked since it was called last.
func (w *watched) take() (requests, sites int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.asked {
		requests += n
	}
	sites = len(w.asked)
	clear(w.asked)
	return requests, sites
}

// hedgeDelay is the p95 of how soon nodes begin to answer, of the slowest of them: the
// time after which another is asked (DESIGN §7). It forgets what it saw.
func (w *watched) hedgeDelay() (slowest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, all := range w.began {
		seconds := make([]float64, len(all))
		for i, one := range all {
			seconds[i] = one.Seconds()
		}
		slowest = max(slowest, time.Duration(percentile(seconds, 95)*float64(time.Second)))
	}
	clear(w.began)
	return slowest
}

// sent is what holders have given to the links to the reader.
func (h *holders) sent() (bytes int64) {
	for i := range h.ids {
		bytes += h.world.Traffic(holderSite(i), reader).Sent
	}
	return bytes
}
