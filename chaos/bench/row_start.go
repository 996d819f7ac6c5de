package main

import (
	"context"
	"errors"
	"pelago/chaos/bench/peer"
	"time"
)

// starts measures how long a node takes to be ready, and what it holds in
// memory once it has answered.
func starts(ctx context.Context, b *bench, s *sheet) error {
	s.note("from the start of the process to the first 200 of /readyz; the binary and the files are in the page cache. The catalogue knows the studies and the ring holds a key for each; store/, bulk/ and staging/ are empty: a start goes through neither the rows of the one nor the tables of the other, and through staging by its size")
	dir, p, err := b.catalogue(ctx)
	if err != nil {
		return err
	}
	for round := range b.rounds {
		began := time.Now()
		node, err := b.pelago.Start(ctx, dir)
		if err != nil {
			return err
		}
		s.add("start", "s", pelago, time.Since(began).Seconds())
		cpu, err := peer.CPU(node.PID())
		if err != nil {
			return errors.Join(err, node.Stop())
		}
		s.add("start CPU", "s", pelago, cpu.Seconds())
		err = ask(ctx, &sheet{}, pelago, node, p, b.size.queries, round)
		resident, peak, memoryErr := node.Memory()
		s.add("resident", "MB", pelago, float64(resident)/1e6)
		s.add("resident at most", "MB", pelago, float64(peak)/1e6)
		if err := errors.Join(err, memoryErr, node.Stop()); err != nil {
			return err
		}
	}
	return nil
}
