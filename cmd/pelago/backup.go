package main

import (
	"fmt"
	"path/filepath"
	"time"

	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/datadir"
)

// backupCommand copies a running node's data.
type backupCommand struct {
	target
	To string `arg:"" help:"Empty directory on the node's machine." type:"path"`
}

func (b *backupCommand) Run(e *env) error {
	c, err := b.node(e)
	if err != nil {
		return err
	}
	to, err := filepath.Abs(b.To)
	if err != nil {
		return err
	}
	bar := newBar(e, "copied", b.JSON)
	_, err = c.follow(e.ctx, "/api/backup", map[string]string{"directory": to}, func(p admin.Progress) { bar.at(p.At, p.Of) })
	bar.close()
	if err != nil {
		return err
	}
	took := time.Since(bar.began)
	if b.JSON {
		return printJSON(e.stdout, map[string]any{"directory": to, "seconds": took.Seconds()})
	}
	_, err = fmt.Fprintf(e.stdout, "backed up to %s in %s\n", to, took.Round(time.Millisecond))
	return err
}

// restoreCommand makes a data directory from a backup.
type restoreCommand struct {
	From string `arg:"" help:"A backup." type:"existingdir"`
	Data string `help:"The data directory to make; empty or missing." default:"pelago-data" env:"PELAGO_DATA" type:"path"`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (r *restoreCommand) Run(e *env) error {
	if _, err := datadir.Find(r.Data); err == nil {
		return fault.New(fault.Conflict, "a node runs on %s", r.Data)
	}
	bar := newBar(e, "copied", r.JSON)
	err := archive.Restore(e.ctx, r.From, r.Data, bar.at)
	bar.close()
	if err != nil {
		return err
	}
	if r.JSON {
		return printJSON(e.stdout, map[string]string{"data": r.Data})
	}
	_, err = fmt.Fprintf(e.stdout, "restored to %s; run 'pelago serve --data %s', then 'pelago verify'\n", r.Data, r.Data)
	return err
}
