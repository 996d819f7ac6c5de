package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/shard"
)

// protection is what a node says of a study (DESIGN §11).
type protection struct {
	State         string `json:"state"`
	SurvivesSites int    `json:"survives_sites"`
	Packs         []struct {
		ID     string `json:"id"`
		K      int    `json:"k"`
		M      int    `json:"m"`
		Shards []struct {
			Index int    `json:"index"`
			Site  string `json:"site"`
			Node  string `json:"node"`
			State string `json:"state"`
		} `json:"shards"`
	} `json:"packs"`
}

// shardStatus is what the rows of shards want of a node's status.
type shardStatus struct {
	LayoutVersion uint64 `json:"layout_version"`
	SurvivesSites int    `json:"survives_sites"`
	HotBytes      int64  `json:"hot_bytes"`
	Repair        struct {
		Queued  int `json:"queued"`
		Running int `json:"running"`
	} `json:"repair"`
	Layout struct {
		From uint64 `json:"from"` // that is changed from; 0: no change is under way
	} `json:"layout"`
}

// protected reports whether a study survives as many sites as a network promises.
func (p protection) protected(survives int) bool {
	return p.State == "protected" && p.SurvivesSites >= survives
}

// done reports whether a node knows of no change that is under way, since a version.
func (s shardStatus) done(since uint64) bool {
	return s.LayoutVersion > since && s.Layout.From == 0 && s.Repair.Queued == 0 && s.Repair.Running == 0
}

// striping runs a network of so many sites that stripe their packs over all of them.
func (b *bench) striping(ctx context.Context, link world.Link, n int, use func(f *fleet.Fleet, code shard.Code, survives int) error) error {
	code, survives := shard.Default(n)
	o := fleet.Options{Sites: sites(n), World: world.Options{Link: link}, Env: []string{pledged}}
	return b.runFleet(ctx, o, func(f *fleet.Fleet) error {
		if err := voters(ctx, f, min(n, 2*survives+1)); err != nil {
			return err
		}
		var last shardStatus // of the node that was not there yet
		err := untilWithin(ctx, spreadTime, "all nodes have the layout of all sites", func() (bool, error) {
			return all(ctx, f, func(s shardStatus) bool { last = s; return s.SurvivesSites == survives && s.done(0) })
		})
		if err != nil {
			return fmt.Errorf("%w: one has %+v", err, last)
		}
		b.say("  %d sites stripe by %v", n, code)
		return use(f, code, survives)
	})
}

// pledged is what nodes have pledged to hold: they share this machine's disk, and by what
// is free of it each would follow what all others store, and shards with it.
const pledged = "PELAGO_STORE_PLEDGE=16GiB"

// all reports whether something is so at every node that runs.
func all(ctx context.Context, f *fleet.Fleet, so func(shardStatus) bool) (bool, error) {
	for _, n := range f.Nodes {
		if !n.Running() {
			continue
		}
		var s shardStatus
		if err := getJSON(ctx, n, "/api/status", &s); err != nil || !so(s) {
			return false, err
		}
	}
	return true, nil
}

// hot is what rests at the sites where it arrived, of all nodes that run.
func hot(ctx context.Context, f *fleet.Fleet) (bytes int64, err error) {
	_, err = all(ctx, f, func(s shardStatus) bool { bytes += s.HotBytes; return true })
	return bytes, err
}

// between is what all sites have sent to all others.
func between(f *fleet.Fleet) (bytes int64) {
	for _, from := range f.Nodes {
		for _, to := range f.Nodes {
			if from.Site != to.Site {
				bytes += f.World.Traffic(from.Site, to.Site).Sent
			}
		}
	}
	return bytes
}

// bulkBytes is what packs and shards take on a node's disk.
func bulkBytes(n *fleet.Node) (int64, error) { return peer.DiskUsage(filepath.Join(n.Data(), "bulk")) }

// spreadTime is how long all that was stored may take to be spread.
const spreadTime = 15 * time.Minute

// heldBytes are those of the shards that a node holds, tables and what is dead in them
// aside.
func heldBytes(ctx context.Context, n *fleet.Node) (int64, error) {
	bytes, err := counter(ctx, n, "pelago_held_bytes")
	return int64(bytes), err
}

// protect waits until a node says of studies that they survive the loss of so many
// sites.
func protect(ctx context.Context, n *fleet.Node, survives int, studies []string) error {
	for _, study := range studies {
		err := untilWithin(ctx, spreadTime, "study "+study+" is protected", func() (bool, error) {
			var p protection
			err := getJSON(ctx, n, "/api/studies/"+study+"/protection", &p)
			return p.protected(survives), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// studiesOf names the studies of a folder, once each.
func studiesOf(folders ...folder) (all []string) {
	known := map[string]bool{}
	for _, f := range folders {
		for _, image := range f.images {
			if uid := image.Study.UID; !known[uid] {
				known[uid] = true
				all = append(all, uid)
			}
		}
	}
	return all
}

// settled waits until the sites have hardly anything more to tell each other, in
// looks that follow each other.
func settled(ctx context.Context, f *fleet.Fleet) error {
	const every, looks = time.Second, 3
	little := int64(len(f.Nodes)*len(f.Nodes)) * 10 << 10 // gossip and Raft are less
	still, last := 0, between(f)
	return untilWithin(ctx, spreadTime, "the sites have settled", func() (bool, error) {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		now := between(f)
		if still++; now-last > little {
			still = 0
		}
		last = now
		quiet, err := all(ctx, f, func(s shardStatus) bool { return s.Repair.Queued == 0 && s.Repair.Running == 0 })
		return quiet && still >= looks, err
	})
}

// fill stores a folder at each of several nodes, packs it, and waits until all of it
// is protected and all sites have settled.
func fill(ctx context.Context, f *fleet.Fleet, survives int, at []*fleet.Node, folders []folder) error {
	var group errgroup.Group
	for i, n := range at {
		group.Go(func() error {
			if err := server(n).StoreSCU(ctx, nil, folders[i].paths...); err != nil {
				return err
			}
			return (peer.Node{Server: server(n)}).Pack(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, n := range at {
		if err := protect(ctx, n, survives, studiesOf(folders[i])); err != nil {
			return err
		}
	}
	return settled(ctx, f)
}

// lose ends a site and has another declare it lost.
func (b *bench) lose(ctx context.Context, f *fleet.Fleet, lost *fleet.Node) error {
	if err := lost.Kill(); err != nil {
		return err
	}
	by := f.Nodes[0]
	out, err := exec.CommandContext(ctx, b.pelago.Binary, "lost", "--data", by.Data(), string(lost.Site)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pelago lost: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// rebuilt waits until every node that runs has all that the layouts after a version
// give it.
func rebuilt(ctx context.Context, f *fleet.Fleet, since uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, spreadTime, fmt.Errorf("what was lost was not made again within %v", spreadTime))
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		is, err := all(ctx, f, func(s shardStatus) bool { return s.done(since) })
		if is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drop removes the files of folders.
func (b *bench) drop(folders []folder) error {
	var err error
	for _, f := range folders {
		err = errors.Join(err, b.inputs.drop(f))
	}
	return err
}
