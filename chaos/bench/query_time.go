package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"pelago/chaos/bench/peer"
)

// took is what one query took: the client's time, and the server's CPU time.
type took struct{ client, cpu time.Duration }

// times are those of many queries, in milliseconds.
type times struct{ client, cpu []float64 }

func (t *times) add(one took) {
	t.client = append(t.client, milliseconds(one.client))
	t.cpu = append(t.cpu, milliseconds(one.cpu))
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// stopwatch measures one query of a server.
type stopwatch struct {
	server *peer.Server
	cpu    time.Duration
	began  time.Time
}

func clock(server *peer.Server) (stopwatch, error) {
	cpu, err := server.CPU()
	return stopwatch{server, cpu, time.Now()}, err
}

func (w stopwatch) took() (took, error) {
	client := time.Since(w.began)
	cpu, err := w.server.CPU()
	return took{client, cpu - w.cpu}, err
}

// operations are what the node calls the protocols' queries.
var operations = map[string]string{qido: "search", cfind: "C-FIND"}

// inside returns, in milliseconds, how long the node says in its log that its
// requests of an operation took: those after the first so many, of which there
// will be count. None if it does not log requests.
func inside(ctx context.Context, server *peer.Server, operation string, before, count int) ([]float64, error) {
	for began := time.Now(); ; {
		all, err := logged(server, operation)
		if err != nil || before+len(all) == 0 {
			return nil, err
		}
		if len(all) >= before+count {
			return all[before:], nil
		}
		if time.Since(began) > time.Minute { // the last one is logged after its answer
			return nil, fmt.Errorf("the node has logged %d requests of %s, not %d", len(all)-before, operation, count)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// logged reads the durations of an operation's requests from a node's log in
// JSON.
func logged(server *peer.Server, operation string) ([]float64, error) {
	log, err := server.Log()
	var all []float64
	for line := range bytes.Lines(log) {
		var entry struct {
			Msg       string        `json:"msg"`
			Operation string        `json:"operation"`
			Took      time.Duration `json:"took"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "request" && entry.Operation == operation {
			all = append(all, milliseconds(entry.Took))
		}
	}
	return all, err
}
