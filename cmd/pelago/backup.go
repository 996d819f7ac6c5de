package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/datadir"
)

// backupCommand copies a running node's data.
type backupCommand struct {
	target
	To string `arg:"" optional:"" help:"Empty directory on the node's machine." type:"path"`
	CA string `name:"ca" help:"Also, or alone, write the network's root certificate, and the authority's key sealed to this node, to a new file. From --data, whether the node runs or not." placeholder:"FILE" type:"path"`
}

func (b *backupCommand) Run(e *env) error {
	if b.CA != "" {
		if err := b.authority(e); err != nil || b.To == "" {
			return err
		}
	}
	if b.To == "" {
		return fault.New(fault.Invalid, "backup: a directory, or --ca FILE, or both")
	}
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

// authority exports what the data directory has of the network's authority. Its
// key stays sealed: only this node's keys open it, which are in a backup.
func (b *backupCommand) authority(e *env) error {
	if b.HTTP != "" {
		return fault.New(fault.Invalid, "backup: --ca reads the data directory: --data, not --http")
	}
	folder := vfs.Default.PathJoin(b.Data, "keys")
	papers, err := authority.LoadPapers(vfs.Default, folder)
	if err != nil {
		return err
	}
	text, err := papers.Export()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(b.CA, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("backup: %w", errors.Join(err, os.Remove(b.CA))) // half of it is nothing
	}
	signs := "and the authority's key, sealed to this node"
	if len(papers.Key) == 0 {
		signs = "without the authority's key: this node may not sign"
	}
	_, err = fmt.Fprintf(e.stderr, "wrote %s: the network's root certificate, %s\n", b.CA, signs)
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
