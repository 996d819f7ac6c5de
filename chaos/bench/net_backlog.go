package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

// netBacklog has a node miss very many series, come back, and a new one join.
func netBacklog(ctx context.Context, b *bench, s *sheet) error {
	const link = 200 * world.Mbps
	s.note("one round; studies of one series of one image of 64 pixels, stored at one of two sites while the other is stopped; the backlog's time is from the start of that one's process until it has applied as much as the first; a third then joins: the time is from asking for its token until it knows all studies, the bytes those of the first's catalogue on disk")
	return b.fleet(ctx, world.Both(20*time.Millisecond, link), func(f *fleet.Fleet) error {
		here, there := f.Nodes[0], f.Nodes[1]
		if err := quiet(ctx, f, 0); err != nil {
			return err
		}
		if err := there.Stop(ctx); err != nil {
			return err
		}
		if err := b.sendMany(ctx, here); err != nil {
			return err
		}
		known, err := b.drained(ctx, here)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := there.Restart(ctx); err != nil {
			return err
		}
		if err := b.knows(ctx, there, known); err != nil {
			return err
		}
		s.add("apply", "series/s", pelago, float64(b.net.backlog)/time.Since(began).Seconds())
		rests, err := peer.DiskUsage(filepath.Join(here.Data(), "catalog"))
		if err != nil {
			return err
		}
		s.add("catalogue bytes", "B", pelago, float64(rests)/float64(b.net.backlog))
		began = time.Now()
		fresh, err := f.Add(ctx, "site3", "")
		if err != nil {
			return err
		}
		if err := b.knows(ctx, fresh, known); err != nil {
			return err
		}
		s.add("bootstrap", "", pelago, link.Time(rests).Seconds()/time.Since(began).Seconds())
		return nil
	}, sites(2)...)
}

// drained waits until a node's journal is empty and returns the index at which
// its catalogue stands then.
func (b *bench) drained(ctx context.Context, n *fleet.Node) (uint64, error) {
	for {
		s, err := status(ctx, n)
		if err != nil || s.PendingJournal == 0 && s.Series >= uint64(b.net.backlog) {
			return s.AppliedIndex, err
		}
		b.say("  %d facts in the journal", s.PendingJournal)
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// knows waits until a node has applied an index, however long it takes.
func (b *bench) knows(ctx context.Context, n *fleet.Node, index uint64) error {
	for {
		s, err := status(ctx, n)
		if err != nil || s.AppliedIndex >= index && s.Series >= uint64(b.net.backlog) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendMany stores the backlog's images from memory: as files they would be more
// than a file system likes.
func (b *bench) sendMany(ctx context.Context, to *fleet.Node) error {
	p := input.Population{Seed: seedMany, Size: b.net.backlog}
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			var kinds []scu.Kind
			for _, class := range input.Classes() {
				kinds = append(kinds, scu.Kind{Class: class, Syntax: dict.ExplicitLittleEndian})
			}
			sender := scu.NewSender(scu.Target{Addr: to.DICOM(), Called: to.AE(), Calling: "BENCH"}, kinds, 1)
			for {
				i := int(next.Add(1)) - 1
				if i >= p.Size || ctx.Err() != nil {
					return sender.Close(ctx)
				}
				if err := sendMade(ctx, sender, input.Instance{Study: p.Study(i), Series: 1, Number: 1, Rows: 8, Columns: 8}); err != nil {
					return err
				}
				if (i+1)%100_000 == 0 {
					b.say("  %d stored", i+1)
				}
			}
		})
	}
	return group.Wait()
}

// sendMade stores an image that is in no file.
func sendMade(ctx context.Context, sender *scu.Sender, image input.Instance) error {
	var file bytes.Buffer
	if err := image.Write(&file); err != nil {
		return err
	}
	meta, _, err := dicom.OpenFile(bytes.NewReader(file.Bytes()))
	if err != nil {
		return err
	}
	status, err := sender.Store(ctx, scu.Instance{
		Class: meta.Class, UID: meta.Instance, Syntax: meta.Syntax,
		Open: func(context.Context, string) (io.ReadCloser, error) {
			_, body, err := dicom.OpenFile(bytes.NewReader(file.Bytes()))
			return io.NopCloser(body), err
		},
	}, scu.Originator{})
	if err == nil && status != command.Success {
		err = fmt.Errorf("status %04X", uint16(status))
	}
	return err
}
