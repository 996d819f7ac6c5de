package group

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/replication"
	"pelago/replication/consensus"
)

const (
	// copyWorkers fetch files at the same time: many are small, and each takes a
	// round trip.
	copyWorkers = 4
	// pieceBytes is what is synced at once of a file, and what a crash or a cut may
	// cost.
	pieceBytes = 8 << 20
	// pieceLimit bounds the time for a piece: 8 MiB at 0.5 Mb/s.
	pieceLimit = 2 * time.Minute
	// manifestLimit bounds waiting for a checkpoint to be made, all of which is hashed.
	manifestLimit = 10 * time.Minute
	// maxBroken is how often a file may break off without a byte before another
	// source is tried, or the same one later.
	maxBroken  = 3
	copyFolder = "copy" // in the data directory
)

// sources returns who may have what this node lacks: nodes of its own site,
// others, then those that it hears of just now, the busy leader among them, and at
// last those whose copy was found to be broken.
func (g *Group) sources(members []replication.Member) []string {
	site, of := "", map[string]string{}
	list, err := records(g.o.Catalogue)
	if err != nil {
		g.log.Warn("directory", "error", err)
	}
	var all []string
	gone := map[string]bool{g.o.ID: true}
	for _, r := range list {
		of[r.ID] = r.Site
		if r.ID == g.o.ID {
			site = r.Site
		}
		if r.Revoked {
			gone[r.ID] = true
		}
		all = append(all, r.ID)
	}
	for _, m := range slices.Concat(members, g.node.Members()) {
		all = append(all, m.ID)
	}
	heard := g.transport.heardOf(time.Now().Add(-time.Minute))
	all = append(all, heard...)
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(id string) bool { return gone[id] })
	g.mu.Lock()
	broken := maps.Clone(g.broken)
	g.mu.Unlock()
	rank := func(id string) int {
		switch {
		case broken[id]:
			return 3
		case site != "" && of[id] == site:
			return 0
		case !slices.Contains(heard, id):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return all
}

// Bootstrap implements consensus.Peers: it copies the catalogue from a member
// that is far enough, checks its state with others, and puts it in place; it is
// verified afterwards, while it is in use. What was
// copied when it fails is there for the next attempt, whoever it is from.
func (g *Group) Bootstrap(ctx context.Context, want replication.Position) error {
	g.copying.Lock()
	defer g.copying.Unlock()
	generation := consensus.GenerationOf(want.Term)
	var errs []error
	for _, node := range g.sources(want.Members) {
		if err := ctx.Err(); err != nil {
			return fault.New(fault.KindOf(err), "group: copy: %w", err)
		}
		err := g.copyFrom(ctx, node, generation, want.Index, g.confirm)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fault.New(fault.Unavailable, "group: copy of the catalogue at %d: %w", want.Index, errors.Join(append(errs, errNobody)...))
}

// sweep removes what an interrupted copy has left, once this node has caught up
// without it, and reports whether it did.
func (g *Group) sweep() bool {
	if !g.copying.TryLock() {
		return false
	}
	defer g.copying.Unlock()
	return g.o.FS.RemoveAll(g.o.FS.PathJoin(g.o.Dir, copyFolder)) == nil
}

// copyFrom copies the catalogue of a node, if others confirm its state.
func (g *Group) copyFrom(ctx context.Context, node string, generation, least uint64, confirm func(context.Context, string, *manifest) error) error {
	m, err := g.manifestOf(ctx, node, generation, least)
	if err != nil {
		return err
	}
	if err := confirm(ctx, node, m); err != nil { // by what they remember now
		return err
	}
	g.log.Info("copying the catalogue", "from", node, "index", m.Index, "files", len(m.Files))
	dir := g.o.FS.PathJoin(g.o.Dir, copyFolder)
	d := &download{g: g, node: node, manifest: m, fs: g.o.FS, dir: dir}
	if err := m.fits(g.o.FS, g.o.Dir, d.there()); err != nil {
		return err
	}
	whole, err := d.run(ctx)
	if err != nil {
		return err
	}
	hash, index, err := g.o.Catalogue.Prepare(ctx, whole, g.o.ID)
	if ended := ctx.Err(); ended != nil || fault.Is(err, fault.Full) { // not the copy's fault: it is there for the next attempt
		return errors.Join(err, ended)
	}
	if err != nil || index != m.Index || hex.EncodeToString(hash[:]) != m.Hash {
		err = fault.New(fault.Corrupt, "group: the copy is not what it was said to be: %w", errors.Join(err, fmt.Errorf("at %d", index)))
		return errors.Join(err, g.o.FS.RemoveAll(dir))
	}
	if err := g.putInPlace(ctx, node, whole); err != nil {
		return err
	}
	g.log.Info("catalogue copied; it is verified now", "index", m.Index)
	if g.o.Replaced != nil {
		g.o.Replaced()
	}
	return g.o.FS.RemoveAll(dir)
}

// confirm asks two nodes besides the source whether they know the state, if there
// are so many and they still remember that index: what differs from most is not
// taken. Later comparisons find what could not be compared.
func (g *Group) confirm(ctx context.Context, source string, m *manifest) error {
	same, other := g.states(ctx, source, m, g.sources(nil), compareWith)
	if other >= same {
		return fault.New(fault.Corrupt, "group: the state of %s at %d is another one than at %d of %d nodes", source, m.Index, other, same+other)
	}
	return nil
}

// states asks nodes besides the source for their state where a checkpoint stands,
// until enough know it, and counts those that have the same, the source among them.
func (g *Group) states(ctx context.Context, source string, m *manifest, nodes []string, enough int) (same, other int) {
	same = 1
	for _, node := range nodes {
		if node == source || same+other > enough {
			continue
		}
		theirs, err := g.hashesOf(ctx, node, m.Generation, []uint64{m.Index})
		if hash, ok := theirs[m.Index]; err == nil && ok && hash == m.Hash {
			same++
		} else if err == nil && ok {
			other++
			g.log.Error("the copied catalogue differs from that of another node", "from", source, "node", node, "index", m.Index)
		}
	}
	return same, other
}

func (g *Group) manifestOf(ctx context.Context, node string, generation, least uint64) (*manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestLimit)
	defer cancel()
	query := url.Values{"generation": {strconv.FormatUint(generation, 10)}, "index": {strconv.FormatUint(least, 10)}}
	response, err := g.o.Peers.Do(ctx, node, http.MethodGet, "/raft/checkpoint?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fault.New(fault.Protocol, "group: a peer's checkpoint: %w", err)
	}
	if m.Generation != generation || m.Index < least {
		return nil, fault.New(fault.Protocol, "group: a checkpoint of generation %d at %d", m.Generation, m.Index)
	}
	return &m, m.check()
}

// download copies the files of a checkpoint. Each is kept under its hash until all
// are there, so that whatever was copied of it before, from whomever, is of use.
type download struct {
	g        *Group
	node     string
	manifest *manifest
	fs       vfs.FS
	dir      string
}

func (d *download) parts() string { return d.fs.PathJoin(d.dir, "parts") }

// there is how many bytes an earlier copy has left, of use or not.
func (d *download) there() (bytes uint64) {
	names, err := d.fs.List(d.parts())
	if err != nil {
		return 0 // no earlier copy
	}
	for _, name := range names {
		if info, err := d.fs.Stat(d.fs.PathJoin(d.parts(), name)); err == nil {
			bytes += uint64(info.Size())
		}
	}
	return bytes
}

// run returns the folder with all files, durable and checked.
func (d *download) run(ctx context.Context) (whole string, err error) {
	whole = d.fs.PathJoin(d.dir, "whole")
	if err := errors.Join(d.fs.RemoveAll(whole), d.fs.MkdirAll(d.parts(), 0o700)); err != nil {
		return "", fmt.Errorf("group: copy: %w", err)
	}
	if err := d.drop(); err != nil {
		return "", err
	}
	if err := d.all(ctx); err != nil {
		return "", err
	}
	if err := d.fs.MkdirAll(whole, 0o700); err != nil {
		return "", fmt.Errorf("group: copy: %w", err)
	}
	for _, f := range d.manifest.Files {
		// Two files may be one part, if they are alike.
		if err := d.fs.Link(d.fs.PathJoin(d.parts(), f.BLAKE3), d.fs.PathJoin(whole, f.Name)); err != nil {
			return "", fmt.Errorf("group: copy: %w", err)
		}
	}
	return whole, syncDirs(d.fs, whole, d.dir, d.g.o.Dir)
}

// drop removes parts that the checkpoint does not have.
func (d *download) drop() error {
	names, err := d.fs.List(d.parts())
	if err != nil {
		return fmt.Errorf("group: copy: %w", err)
	}
	needed := map[string]bool{}
	for _, f := range d.manifest.Files {
		needed[f.BLAKE3] = true
	}
	for _, name := range names {
		if !needed[name] {
			if err := d.fs.RemoveAll(d.fs.PathJoin(d.parts(), name)); err != nil {
				return fmt.Errorf("group: copy: %w", err)
			}
		}
	}
	return nil
}

// all fetches every part, some at a time.
func (d *download) all(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	files := make(chan file)
	var work sync.WaitGroup
	for range copyWorkers {
		work.Go(func() {
			for f := range files {
				if err := d.one(ctx, f); err != nil {
					cancel(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	for _, f := range d.manifest.Files {
		if seen[f.BLAKE3] {
			continue
		}
		seen[f.BLAKE3] = true
		select {
		case files <- f:
		case <-ctx.Done():
		}
	}
	close(files)
	work.Wait()
	if err := context.Cause(ctx); err != nil {
		return fault.New(fault.KindOf(err), "group: copy: %w", err)
	}
	return nil
}

// one completes a part and checks it. One that was begun earlier, and is not what
// it should be, is fetched once more: a crash may have left bytes that were never
// synced.
func (d *download) one(ctx context.Context, f file) error {
	name := d.fs.PathJoin(d.parts(), f.BLAKE3)
	begun, err := d.complete(ctx, f, name)
	if err == nil {
		err = d.checkPart(f, name)
	}
	if begun && fault.Is(err, fault.Corrupt) {
		if _, err = d.complete(ctx, f, name); err == nil {
			err = d.checkPart(f, name)
		}
	}
	return err
}

// complete fetches what a part lacks, piece by piece, and reports whether some of
// it was there.
func (d *download) complete(ctx context.Context, f file, name string) (begun bool, err error) {
	have := int64(0)
	info, err := d.fs.Stat(name)
	switch {
	case err == nil:
		have = info.Size()
	case !errors.Is(err, os.ErrNotExist):
		return false, err
	}
	begun = info != nil
	there := begun // an empty file is one too
	for broken := 0; have < f.Size || !there; {
		n, err := d.piece(ctx, f, name, have)
		have += n
		if n > 0 {
			broken = 0
		}
		if err == nil {
			there = true
			continue
		}
		if broken++; broken >= maxBroken || ctx.Err() != nil || !fault.Is(err, fault.Unavailable) {
			return begun, err
		}
		if !pause.For(ctx, time.Second) {
			return begun, ctx.Err()
		}
	}
	return begun, nil
}

// checkPart removes a part that is not what it was said to be.
func (d *download) checkPart(f file, name string) error {
	hash, size, err := hashFile(d.fs, name)
	if err != nil {
		return err
	}
	if hash != f.BLAKE3 || size != f.Size {
		return errors.Join(fault.New(fault.Corrupt, "group: a file of the checkpoint is not what it was said to be"), d.fs.RemoveAll(name))
	}
	return nil
}

// piece appends the next piece of a part, and syncs it.
func (d *download) piece(ctx context.Context, f file, name string, have int64) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, pieceLimit)
	defer cancel()
	to, err := d.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, fmt.Errorf("group: copy: %w", err)
	}
	defer func() { err = errors.Join(err, to.Sync(), to.Close()) }()
	want := min(pieceBytes, f.Size-have)
	if want == 0 {
		return 0, nil
	}
	query := url.Values{"from": {strconv.FormatInt(have, 10)}, "bytes": {strconv.FormatInt(want, 10)}}
	from := "/raft/checkpoint/" + url.PathEscape(d.manifest.ID) + "/" + url.PathEscape(f.Name) + "?" + query.Encode()
	response, err := d.g.o.Peers.Do(ctx, d.node, http.MethodGet, from, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	plain, err := zstd.NewReader(response.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(pieceWindow))
	if err != nil {
		return 0, fault.New(fault.Protocol, "group: copy: %w", err)
	}
	defer plain.Close()
	n, err = io.Copy(io.NewOffsetWriter(to, have), io.LimitReader(plain, want))
	if err == nil && n < want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return n, fault.New(fault.Unavailable, "group: copy: %w", err)
	}
	return n, nil
}

// syncDirs makes the names in folders durable.
func syncDirs(fs vfs.FS, dirs ...string) error {
	for _, dir := range dirs {
		d, err := fs.OpenDir(dir)
		if err != nil {
			return fmt.Errorf("group: copy: %w", err)
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("group: copy: %w", err)
		}
	}
	return nil
}
