package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"pelago/chaos/bench/peer"
)

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// inside returns, in milliseconds, how long the node says in its log that its QIDO
// requests took: those after the first so many, of which there will be count. None
// if it does not log requests.
func inside(ctx context.Context, server *peer.Server, before, count int) ([]float64, error) {
	for began := time.Now(); ; {
		all, err := logged(server)
		if err != nil || before+len(all) == 0 {
			return nil, err
		}
		if len(all) >= before+count {
			return all[before:], nil
		}
		if time.Since(began) > time.Minute { // the last one is logged after its answer
			return nil, fmt.Errorf("the node has logged %d requests, not %d", len(all)-before, count)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// logged reads the durations of QIDO requests from a node's log in JSON.
func logged(server *peer.Server) ([]float64, error) {
	log, err := server.Log()
	var all []float64
	for line := range bytes.Lines(log) {
		var entry struct {
			Msg       string        `json:"msg"`
			Operation string        `json:"operation"`
			Took      time.Duration `json:"took"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "request" && entry.Operation == "search" {
			all = append(all, milliseconds(entry.Took))
		}
	}
	return all, err
}
