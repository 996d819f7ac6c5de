package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/cached"
	"pelago/node/config"
	"pelago/node/datadir"
	"pelago/shard/held"
)

// verifyCommand re-reads everything: through the node that runs on the data
// directory, or by itself when none does.
type verifyCommand struct{ target }

func (v *verifyCommand) Run(e *env) error {
	bar := newBar(e, "verified", v.JSON)
	report, err := v.verify(e, bar)
	bar.close()
	if err != nil {
		return err
	}
	if v.JSON {
		err = printJSON(e.stdout, report)
	} else {
		for _, f := range report.Findings {
			fmt.Fprintf(e.stdout, "%s: %s: %s\n", f.Kind, f.Object, f.Detail)
		}
		fmt.Fprintf(e.stdout, "%d instances, %s, %d packs: %d findings\n",
			report.Instances, size(int64(report.Bytes)), report.Packs, len(report.Findings))
		if report.Copies > 0 {
			fmt.Fprintf(e.stdout, "%d copies of other nodes' packs, %d rotten and dropped\n", report.Copies, report.CopiesDropped)
		}
		if report.Evicted > 0 {
			fmt.Fprintf(e.stdout, "%d packs are read from their shards, which was not done\n", report.Evicted)
		}
		if report.HeldBytes > 0 {
			fmt.Fprintf(e.stdout, "%s of shards of other nodes' packs\n", size(int64(report.HeldBytes)))
		}
	}
	if err == nil && len(report.Findings) > 0 {
		return fault.New(fault.Corrupt, "verify found %d things wrong", len(report.Findings))
	}
	return err
}

func (v *verifyCommand) verify(e *env, bar *bar) (*archive.Report, error) {
	c, err := v.node(e)
	nobody := fault.Is(err, fault.Unavailable)
	if err == nil {
		var end admin.Progress
		end, err = c.follow(e.ctx, "/api/verify", nil, func(p admin.Progress) { bar.at(p.At, p.Of) })
		if err == nil {
			return end.Report, nil
		}
		nobody = errors.Is(err, errNoAnswer) // it may have ended without a word
	}
	if v.HTTP != "" || !nobody || e.ctx.Err() != nil {
		return nil, err
	}
	report, alone := v.alone(e, bar)
	if fault.Is(alone, fault.Unavailable) { // a node holds the directory after all
		return nil, errors.Join(err, alone)
	}
	return report, alone
}

// alone opens the data directory, as a node would, and verifies it. Starting the
// stores finishes what a crash has cut short, but nothing that was stored goes.
func (v *verifyCommand) alone(e *env, bar *bar) (report *archive.Report, err error) {
	dir, err := datadir.OpenExisting(v.Data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	c := config.Default()
	c.Data = v.Data
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	self, ring, err := openKeys(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	o := archiveOptions(c, self, ring, log)
	if o.Catalog, err = archive.OpenCatalog(o); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Catalog.Close()) }()
	note := watchHeld(&o)
	a, err := archive.Open(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if !v.JSON {
		fmt.Fprintln(e.stderr, "pelago: no node runs on the data directory, and none can start on it until it is verified")
	}
	if report, err = a.VerifyAlone(e.ctx, bar.at); err != nil {
		return report, err
	}
	copies, err := openCopies(a, ring, c, func() int64 { return 0 }, log)
	if err != nil {
		return report, err
	}
	defer copies.Close()
	if err := verifyCopies(e.ctx, copies, report, bar.at); err != nil {
		return report, err
	}
	shards, err := openHeld(a, note, held.Options{Self: self, Log: log})
	if err != nil {
		return report, err
	}
	return report, verifyHeld(e.ctx, shards, report)
}

// verified is the archive as operators know it, with the copies and the shards of
// what others store.
type verified struct {
	*archive.Archive
	copies *cached.Store
	held   *held.Store // nil at a witness
}

// Verify implements [admin.Archive].
func (v verified) Verify(ctx context.Context, progress func(done, total uint64)) (*archive.Report, error) {
	report, err := v.Archive.Verify(ctx, progress)
	if err == nil {
		err = verifyCopies(ctx, v.copies, report, progress)
	}
	if err != nil || v.held == nil {
		return report, err
	}
	return report, verifyHeld(ctx, v.held, report)
}

// verifyHeld re-reads the held shards and adds to a report those that are lost, now
// or since longer.
func verifyHeld(ctx context.Context, shards *held.Store, report *archive.Report) error {
	if err := shards.Verify(ctx, func(bytes int64) { report.HeldBytes = uint64(bytes) }); err != nil {
		return err
	}
	return shards.EachLost(func(st held.Status) (bool, error) {
		report.Add(archive.Finding{Kind: "shard", Object: "shard " + st.Name.String(), Detail: "lost: " + st.Cause})
		return true, ctx.Err()
	})
}

// verifyCopies re-reads the copies and adds them to a report.
func verifyCopies(ctx context.Context, copies *cached.Store, report *archive.Report, progress func(done, total uint64)) error {
	done, err := copies.Verify(ctx, func(at, of uint64) { progress(report.Instances+at, report.Instances+of) })
	report.Copies, report.CopiesDropped = done.Copies, done.Dropped
	return err
}
