package main

import (
	"bytes"
	"context"
	"errors"
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

const (
	// backlogSeries is how many series a study of the backlog has: that of the
	// design's study of 5 series.
	backlogSeries = 5
	// backlogReady is how long a node that joins may take: it is ready once it knows
	// of itself, which is the last that it learns.
	backlogReady = 30 * time.Minute
	// look is the pause between looks at a node's status, which costs it a millisecond.
	look = 100 * time.Millisecond
	// lone begins the names of the figures of studies of one series.
	lone = "lone "
)

// netBacklog has a node miss very many series, come back, and a new one join: of
// studies as they mostly are, and of those that cost most.
func netBacklog(ctx context.Context, b *bench, s *sheet) error {
	s.note("one round for each of two networks; %d studies of %d series and %d of one, each series one image of 64 pixels, stored at one of two sites while the other is stopped; each time begins once the nodes that run have nothing else to do (packing what was stored, above all); the backlog's time is from the start of that one's process until it has applied as much as the first; a third then joins: the time is from asking for its token until it knows all studies, the bytes those of the first's catalogue on disk",
		b.net.backlog/backlogSeries, backlogSeries, b.net.lone)
	if err := b.backlog(ctx, s, backlog{studies: b.net.backlog / backlogSeries, series: backlogSeries}); err != nil {
		return err
	}
	return b.backlog(ctx, s, backlog{name: lone, studies: b.net.lone, series: 1})
}

// backlog is what a node misses.
type backlog struct {
	name            string // that the names of its figures begin with
	studies, series int    // series of each study
}

func (w backlog) all() int { return w.studies * w.series }

// backlog measures one network.
func (b *bench) backlog(ctx context.Context, s *sheet, what backlog) error {
	const link = 200 * world.Mbps
	return b.patientFleet(ctx, world.Both(20*time.Millisecond, link), backlogReady, func(f *fleet.Fleet) error {
		here, there := f.Nodes[0], f.Nodes[1]
		if err := quiet(ctx, f, 0); err != nil {
			return err
		}
		if err := there.Stop(ctx); err != nil {
			return err
		}
		if err := b.sendMany(ctx, here, what); err != nil {
			return err
		}
		known, err := b.drained(ctx, here, what)
		if err != nil {
			return err
		}
		if err := b.idle(ctx, f); err != nil {
			return err
		}
		if err := b.catchUp(ctx, s, there, what, known); err != nil {
			return err
		}
		rests, err := peer.DiskUsage(filepath.Join(here.Data(), "catalog"))
		if err != nil {
			return err
		}
		s.add(what.name+"catalogue bytes", "B", pelago, float64(rests)/float64(what.all()))
		return b.bootstrap(ctx, s, f, what, known, link.Time(rests))
	}, sites(2)...)
}

// bootstrap has a new node join, beside the time that the catalogue's bytes take
// on the link.
func (b *bench) bootstrap(ctx context.Context, s *sheet, f *fleet.Fleet, what backlog, known uint64, link time.Duration) error {
	if err := b.idle(ctx, f); err != nil {
		return err
	}
	began := time.Now()
	fresh, err := f.Add(ctx, "site3", "")
	if err != nil {
		return err
	}
	if err := b.knows(ctx, fresh, known, what.all()); err != nil {
		return err
	}
	took := time.Since(began)
	s.add(what.name+"bootstrap", "", pelago, link.Seconds()/took.Seconds())
	return b.spent(s, fresh, what, "the new node", took)
}

// catchUp starts the node that was away, and has it learn what it missed.
func (b *bench) catchUp(ctx context.Context, s *sheet, n *fleet.Node, what backlog, known uint64) error {
	began := time.Now()
	if err := n.Restart(ctx); err != nil {
		return err
	}
	first, err := status(ctx, n)
	if err != nil {
		return err
	}
	if err := b.knows(ctx, n, first.AppliedIndex+1, 0); err != nil {
		return err
	}
	s.note("%d series in studies of %d: the first entry was applied %s s after the start; a leader asks a node that was away at most every ten seconds",
		what.all(), what.series, number(time.Since(began).Seconds()))
	err = b.profiled(ctx, server(n), "backlog-"+fmt.Sprint(what.series), func() error { return b.knows(ctx, n, known, what.all()) })
	if err != nil {
		return err
	}
	took := time.Since(began)
	s.add(what.name+"apply", "series/s", pelago, float64(what.all())/took.Seconds())
	return b.spent(s, n, what, "the node that was away", took)
}

// spent notes the processor time of a node since its start.
func (b *bench) spent(s *sheet, n *fleet.Node, what backlog, who string, took time.Duration) error {
	cpu, err := peer.CPU(n.PID())
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return err
	}
	const million = 1e6
	s.note("%d series in studies of %d: %s took %s s and of them %s s of processor time, %s s for a million series",
		what.all(), what.series, who, number(took.Seconds()), number(cpu.Seconds()), number(cpu.Seconds()*million/float64(what.all())))
	return nil
}

// drained waits until a node's journal is empty and returns the index at which
// its catalogue stands then.
func (b *bench) drained(ctx context.Context, n *fleet.Node, what backlog) (uint64, error) {
	const tell = 5 * time.Second
	for told := time.Now(); ; {
		s, err := status(ctx, n)
		if err != nil || s.PendingJournal == 0 && s.Series >= uint64(what.all()) {
			return s.AppliedIndex, err
		}
		if time.Since(told) >= tell {
			told = time.Now()
			b.say("  %d facts in the journal", s.PendingJournal)
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// knows waits until a node has applied an index and knows so many series, however
// long it takes.
func (b *bench) knows(ctx context.Context, n *fleet.Node, index uint64, series int) error {
	for {
		s, err := status(ctx, n)
		if err != nil || s.AppliedIndex >= index && s.Series >= uint64(series) {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendMany stores the backlog's images from memory, study by study: as files they
// would be more than a file system likes.
func (b *bench) sendMany(ctx context.Context, to *fleet.Node, what backlog) error {
	p := input.Population{Seed: seedMany, Size: what.studies}
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
				for series := range what.series {
					if err := sendMade(ctx, sender, input.Instance{Study: p.Study(i), Series: 1 + series, Number: 1, Rows: 8, Columns: 8}); err != nil {
						return err
					}
				}
				if (i+1)%(100_000/what.series) == 0 {
					b.say("  %d stored", (i+1)*what.series)
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
