package group

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

const (
	// maxPins bounds the checkpoints that are kept for others to copy. What they
	// pin is what compactions would have dropped since.
	maxPins = 2
	// pinIdle is how long a checkpoint is kept that nobody reads from, and pinAge
	// how long one is given to who begins to copy.
	pinIdle = 15 * time.Minute
	pinAge  = 10 * time.Minute

	// pieceWindow is how far back zstd looks within a piece, and the memory for it on
	// either side.
	pieceWindow = 1 << 20

	maxFiles         = 100_000
	maxManifestBytes = 16 << 20
)

// manifest is a checkpoint of the catalogue as others copy it.
type manifest struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"` // everything up to it is in the checkpoint
	Hash       string `json:"hash"`  // of the state at that index, hexadecimal
	Files      []file `json:"files"`
}

// file is a file of a checkpoint.
type file struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes
	BLAKE3 string `json:"blake3"` // 32 bytes, hexadecimal
}

// check refuses what no node would offer: names that lead elsewhere, above all.
func (m *manifest) check() error {
	if len(m.Files) == 0 || len(m.Files) > maxFiles || !isHash(m.Hash) {
		return fault.New(fault.Protocol, "group: a checkpoint of %d files", len(m.Files))
	}
	names := map[string]bool{}
	for _, f := range m.Files {
		if !isFileName(f.Name) || names[f.Name] || f.Size < 0 || !isHash(f.BLAKE3) {
			return fault.New(fault.Protocol, "group: a checkpoint with a file that cannot be")
		}
		names[f.Name] = true
	}
	return nil
}

// fits refuses a checkpoint that has no room here, some bytes of an earlier copy
// being there: it is fetched, and then written once more as the tables that take the
// place of what is there. A disk that copies have filled would end the node.
func (m *manifest) fits(fs vfs.FS, dir string, there uint64) error {
	usage, err := fs.GetDiskUsage(dir)
	if err != nil {
		return nil //nolint:nilerr // a file system that cannot tell, as in memory
	}
	room := (usage.AvailBytes + there) / 2
	for _, f := range m.Files {
		if uint64(f.Size) > room {
			return fault.New(fault.Full, "group: a checkpoint of %d files needs more than half of %d bytes", len(m.Files), usage.AvailBytes)
		}
		room -= uint64(f.Size)
	}
	return nil
}

// isFileName reports whether Pebble may have given a file this name.
func isFileName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= 255 && name[0] != '.'
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && hex.EncodeToString(b) == s
}

// copies are the checkpoints that others copy: folders of links, each with what
// is in it.
type copies struct {
	fs   vfs.FS
	dir  string
	turn chan struct{} // capacity 1: held while a checkpoint is made

	mu   sync.Mutex
	pins map[string]*pin
}

type pin struct {
	manifest manifest
	dir      string
	made     time.Time
	used     time.Time
	readers  int
}

// run drops checkpoints that nobody reads any more, until ctx ends, and then all.
func (c *copies) run(ctx context.Context) {
	for pause.For(ctx, time.Minute) {
		c.expire(func(p *pin) bool { return time.Since(p.used) > pinIdle })
	}
	c.expire(func(*pin) bool { return true })
}

// expire drops the checkpoints of a kind that nobody reads at the moment.
func (c *copies) expire(which func(*pin) bool) {
	c.mu.Lock()
	var gone []string
	for id, p := range c.pins {
		if p.readers == 0 && which(p) {
			delete(c.pins, id)
			gone = append(gone, p.dir)
		}
	}
	c.mu.Unlock()
	for _, dir := range gone {
		_ = c.fs.RemoveAll(dir) // the next start removes what is left
	}
}

// young returns a checkpoint that is not old and stands at least at an index.
func (c *copies) young(generation, index uint64) *manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *pin
	for _, p := range c.pins {
		m := &p.manifest
		if m.Generation == generation && m.Index >= index && time.Since(p.made) <= pinAge && (best == nil || p.made.After(best.made)) {
			best = p
		}
	}
	if best == nil {
		return nil
	}
	best.used = time.Now()
	return &best.manifest
}

// add keeps a checkpoint, in the place of the one that was used longest ago.
func (c *copies) add(p *pin) error {
	c.mu.Lock()
	var oldest *pin
	if len(c.pins) >= maxPins {
		for _, o := range c.pins {
			if o.readers == 0 && (oldest == nil || o.used.Before(oldest.used)) {
				oldest = o
			}
		}
		if oldest == nil {
			c.mu.Unlock()
			return errors.Join(fault.New(fault.Full, "group: %d checkpoints are being copied", maxPins), c.fs.RemoveAll(p.dir))
		}
		delete(c.pins, oldest.manifest.ID)
	}
	c.pins[p.manifest.ID] = p
	c.mu.Unlock()
	if oldest != nil {
		return c.fs.RemoveAll(oldest.dir)
	}
	return nil
}

// read begins to read a file of a checkpoint.
func (c *copies) read(id, name string) (dir string, size int64, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pins[id]
	if p == nil {
		return "", 0, nil, fault.New(fault.NotFound, "group: no such checkpoint, or none any more")
	}
	for _, f := range p.manifest.Files {
		if f.Name != name {
			continue
		}
		p.readers++
		p.used = time.Now()
		return p.dir, f.Size, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			p.readers--
			p.used = time.Now()
		}, nil
	}
	return "", 0, nil, fault.New(fault.NotFound, "group: no such file in the checkpoint")
}

// serveCheckpoint answers with a checkpoint that stands at least at an index.
func (g *Group) serveCheckpoint(w http.ResponseWriter, r *http.Request) {
	least, err := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	if err != nil {
		call.Refuse(w, fault.New(fault.Invalid, "group: a checkpoint of no index"))
		return
	}
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	m, err := g.pin(r.Context(), least)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	writeAnswer(w, m)
}

// pin returns a checkpoint, a new one if there is none that will do.
func (g *Group) pin(ctx context.Context, least uint64) (*manifest, error) {
	if err := g.Fenced(); err != nil {
		return nil, fault.New(fault.Unavailable, "%w", err)
	}
	if g.fence.read().unverified {
		return nil, fault.New(fault.Unavailable, "group: the catalogue is a copy that is being verified")
	}
	select {
	case g.copies.turn <- struct{}{}:
		defer func() { <-g.copies.turn }()
	case <-ctx.Done():
		return nil, fault.New(fault.KindOf(ctx.Err()), "group: checkpoint: %w", ctx.Err())
	}
	generation, known := g.node.Generation()
	if m := g.copies.young(generation, least); m != nil {
		return m, nil
	}
	if at := g.o.Catalogue.Position(); !known || at.Index < max(least, 1) {
		return nil, fault.New(fault.Unavailable, "group: the catalogue is at %d, not at %d", at.Index, least)
	}
	p := &pin{manifest: manifest{ID: fmt.Sprintf("%016x", rand.Uint64()), Generation: generation}, made: time.Now(), used: time.Now()}
	p.dir = g.o.FS.PathJoin(g.copies.dir, p.manifest.ID)
	err := g.o.FS.MkdirAll(g.copies.dir, 0o700)
	if err == nil {
		err = g.machine.still(func(hash [32]byte, index uint64) error {
			p.manifest.Hash, p.manifest.Index = hex.EncodeToString(hash[:]), index
			return g.o.Catalogue.Checkpoint(p.dir)
		})
	}
	if err == nil {
		p.manifest.Files, err = describe(ctx, g.o.FS, p.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("group: checkpoint: %w", err), g.o.FS.RemoveAll(p.dir))
	}
	return &p.manifest, g.copies.add(p)
}

// describe lists the files of a folder.
func describe(ctx context.Context, fs vfs.FS, dir string) ([]file, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var all []file
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hash, size, err := hashFile(fs, fs.PathJoin(dir, name))
		if err != nil {
			return nil, err
		}
		all = append(all, file{Name: name, Size: size, BLAKE3: hash})
	}
	return all, nil
}

// hashFile returns a file's BLAKE3, hexadecimal, and its size.
func hashFile(fs vfs.FS, name string) (hash string, size int64, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := blake3.New()
	if size, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// serveFile answers with a piece of a file of a checkpoint, in zstd: tables rest for
// fast reading, and are a third shorter on a link.
func (g *Group) serveFile(w http.ResponseWriter, r *http.Request) {
	name, query := r.PathValue("file"), r.URL.Query()
	from, errFrom := strconv.ParseInt(query.Get("from"), 10, 64)
	count, errCount := strconv.ParseInt(query.Get("bytes"), 10, 64)
	if err := errors.Join(errFrom, errCount); err != nil || from < 0 || count < 1 || count > pieceBytes {
		call.Refuse(w, fault.New(fault.Invalid, "group: %d bytes from %d of a file", count, from))
		return
	}
	dir, size, done, err := g.copies.read(r.PathValue("id"), name)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	defer done()
	if from > size-count {
		call.Refuse(w, fault.New(fault.Invalid, "group: %d bytes from %d of a file of %d", count, from, size))
		return
	}
	f, err := g.o.FS.Open(g.o.FS.PathJoin(dir, name))
	if err != nil {
		call.Refuse(w, fault.New(fault.KindOf(err), "group: checkpoint: %w", err))
		return
	}
	defer f.Close()
	// Who reads slowly keeps the checkpoint, and what it pins, for others to wait for.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pieceLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		call.Refuse(w, fault.New(fault.Unavailable, "group: checkpoint: %w", err))
		return
	}
	to, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(pieceWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		call.Refuse(w, fmt.Errorf("group: checkpoint: %w", err)) // no option is wrong
		return
	}
	w.Header().Set("Content-Type", "application/zstd")
	if _, err = io.Copy(to, io.NewSectionReader(f, from, count)); err == nil {
		err = to.Close()
	}
	if err != nil { // the frame has no end, so that nobody takes it for whole
		g.log.Debug("a piece of a checkpoint broke off", "error", err)
	}
}
