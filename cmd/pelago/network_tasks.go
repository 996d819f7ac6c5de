package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/gossip"
	"pelago/cluster/port"
	"pelago/node/work"
)

const (
	// callsTime is what calls under way get to end.
	callsTime = 5 * time.Second
	// answerTime is what the last answers get to leave in.
	answerTime = 50 * time.Millisecond
	// foundTime bounds the first decision of a network, which waits for nobody;
	// copyTime how long a node that has just joined waits for the catalogue before it
	// serves without; backTime the same of a node whose catalogue was lost.
	foundTime = 30 * time.Second
	copyTime  = 2 * time.Minute
	backTime  = 5 * time.Second
)

// tasks are the node's part in the network, those that others rely on first.
func (w *network) tasks() []work.Task {
	plain := func(run func(context.Context) error) func(context.Context, *work.Progress) error {
		return func(ctx context.Context, _ *work.Progress) error { return run(ctx) }
	}
	again := func(name string, run func(context.Context) error) work.Task {
		return work.Task{Name: name, Run: plain(run), Restart: &work.Restart{}}
	}
	all := []work.Task{again("members", w.registry.Run)}
	if w.listener != nil {
		all = append(all, work.Task{Name: "peer_port", Run: plain(func(ctx context.Context) error { return w.port.Run(ctx, w.listener) })})
	}
	// What ends replication ends nothing else: a node that is cut off serves on.
	all = append(all, again("raft", w.group.Run))
	if w.listener != nil {
		all = append(all, again("peer_calls", w.serveCalls), again("join", w.serveJoin), again("gossip", w.talk), again("relay", w.serveRelay))
	}
	all = append(all, again("ways", w.ways.Run))
	all = append(all, w.watch.task(w.catalog.Applied), again("epochs", w.keeper.Follow), again("envelopes", w.keeper.Give))
	if w.studies != nil {
		all = append(all, again("study_keys", w.studies.Run))
	}
	return append(all, again("membership", w.office.Keep), again("certificate", w.office.KeepValid), again("standing", w.office.Watch))
}

// serveCalls answers other nodes.
func (w *network) serveCalls(ctx context.Context) error {
	l, err := w.listen(port.Peer)
	if err != nil {
		return err
	}
	calls := &gate{next: w.watch.handler(w.peers)}
	server := port.NewServer(calls, w.log)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), callsTime)
		defer cancel()
		// Shutdown tells the others that no more is taken, and waits a second or two
		// for them to hang up, calls or none.
		var telling sync.WaitGroup
		telling.Go(func() { _ = server.Shutdown(limited) }) // Close ends it
		if calls.close(limited) == nil {
			select {
			case <-time.After(answerTime):
			case <-limited.Done():
			}
		}
		server.Close() //nolint:errcheck // connections that nobody uses, or that are late
		cancel()
		telling.Wait()
	})
	err = server.Serve(l)
	if !stop() {
		<-ended
		return nil
	}
	return fault.New(fault.Unavailable, "peer calls: %w", err)
}

// serveJoin lets nodes in.
func (w *network) serveJoin(ctx context.Context) error {
	l, err := w.listen(port.Join)
	if err != nil {
		return err
	}
	return w.office.Serve(ctx, l)
}

// talk takes part in the gossip.
func (w *network) talk(ctx context.Context) error {
	at, err := resolve(ctx, w.place.Address)
	if err != nil {
		return err
	}
	l, err := w.listen(port.Gossip)
	if err != nil {
		return err
	}
	g, err := gossip.New(gossip.Config{
		Node: w.self.ID(), Advertise: at, Listener: l, Meta: w.meta, Log: w.log,
		Dial: func(ctx context.Context, node, address string) (net.Conn, error) {
			return w.port.Dial(ctx, node, address, port.Gossip)
		},
		Seeds: func() []gossip.Seed { return w.seeds(ctx) }, Member: w.registry.Belongs,
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	w.gossip.Store(g)
	defer w.gossip.Store(nil)
	return g.Run(ctx)
}

// seeds are the other members, where they are said to be.
func (w *network) seeds(ctx context.Context) []gossip.Seed {
	var seeds []gossip.Seed
	for _, m := range w.registry.Members() {
		if m.Node == w.self.ID() || m.Address == "" {
			continue
		}
		at, err := resolve(ctx, m.Address)
		if err != nil {
			w.log.Debug("gossip", "node", m.Node, "error", err)
			continue
		}
		seeds = append(seeds, gossip.Seed{Node: m.Node, Address: at})
	}
	return seeds
}

// begin waits, after the tasks were started, until the catalogue knows this node:
// at once but after founding and joining. A node that is cut off from the others
// serves without the catalogue if it does not come.
func (w *network) begin(ctx context.Context) error {
	limit := backTime
	switch {
	case w.fresh && w.membership.Founder():
		limit = foundTime
	case w.fresh:
		limit = copyTime
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := w.office.Begin(limited)
	if err == nil || ctx.Err() != nil || w.fresh && w.membership.Founder() {
		return errors.Join(err, ctx.Err())
	}
	w.log.Warn("the catalogue of the network has not come yet: the node serves what it takes in itself", "error", err)
	return nil
}
