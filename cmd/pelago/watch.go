package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/port"
	"pelago/node/admin"
	"pelago/node/transfers"
	"pelago/node/work"
	"pelago/replication/freshness"
)

// watch is what operators see of the network's traffic and of how far the nodes are.
type watch struct {
	metrics   *admin.Metrics
	transfers transfers.Registry
	history   freshness.History // when the catalogue stood where
}

// noteEvery is how often it is noted where the catalogue stands: the resolution
// of lag in seconds.
const noteEvery = time.Second

// client makes a client of peer calls whose calls and bytes are counted.
func (w *watch) client(t http.RoundTripper) *call.Client {
	return call.NewClient(w.metrics.Calls(w.transfers.Transport(t, moves)))
}

// handler counts the bytes that go to other nodes.
func (w *watch) handler(h http.Handler) http.Handler {
	return w.transfers.Handler(h, moves, func(r *http.Request) string {
		if r.TLS == nil {
			return ""
		}
		name, err := port.PeerOf(*r.TLS)
		if err != nil {
			return "" // it is about to be refused
		}
		return name.Node
	})
}

// moves tells which peer calls move bytes that are worth a line.
func moves(path string) transfers.Kind {
	switch {
	case strings.HasPrefix(path, "/archive/"):
		return transfers.Images
	case strings.HasPrefix(path, "/raft/checkpoint/"):
		return transfers.Catalogue
	}
	return transfers.None
}

// task notes where the catalogue stands.
func (w *watch) task(applied func() uint64) work.Task {
	return work.Task{Name: "lag", Run: work.Every(noteEvery, func(context.Context, *work.Progress) error {
		w.history.Note(time.Now(), applied())
		return nil
	})}
}
