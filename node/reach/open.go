package reach

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/shard/pack"
)

// open opens an instance that another node stores.
func (r *Reader) open(ctx context.Context, ref archive.Ref) (archive.Instance, error) {
	v, err := r.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	stored, err := r.reachable(ctx, v)
	if err != nil {
		return nil, err
	}
	in := v.instance()
	header, err := r.headerFrom(v, stored, false)
	if err != nil {
		return nil, err
	}
	whole := verify(stored, in.Record.Bytes, [32]byte(in.Record.Hash))
	return r.o.Archive.Assemble(v.Node, in.Record, header, whole, func() error { return nil })
}

// header returns an instance's header: from the manifest, but for the few that
// are too long for one.
func (r *Reader) header(ctx context.Context, v version, assumed bool) (*dicom.Header, error) {
	if v.instance().Header != nil {
		return r.headerFrom(v, nil, assumed)
	}
	stored, err := r.reachable(ctx, v)
	if err != nil {
		return nil, err
	}
	return r.headerFrom(v, stored, assumed)
}

func (r *Reader) headerFrom(v version, stored io.ReaderAt, assumed bool) (*dicom.Header, error) {
	in := v.instance()
	record := in.Header
	if record == nil {
		var err error
		if record, err = r.o.Archive.HeaderFrom(stored, in.Record); err != nil {
			return nil, err
		}
	}
	return archive.HeaderOf(in.Record, record, assumed)
}

// reachable returns the bytes of an instance, of which the first could be had now:
// a copy is here, or a node has just answered. The same instance at another node
// is as good.
func (r *Reader) reachable(ctx context.Context, v version) (io.ReaderAt, error) {
	rest := r.twins(ctx, v.instance().Record, v.Node)
	var failed error
	for {
		stored, err := r.tryOpen(ctx, v)
		if err == nil {
			return anyOf(stored, r.nextOf(ctx, rest)), nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil || !elsewhere(err) {
			return nil, failed
		}
		twin, ok := rest()
		if !ok {
			return nil, fault.New(worst(failed), "reach: no node gives the instance: %w", failed)
		}
		v = twin
	}
}

// nextOf returns the bytes of the next of some twins that gives them.
func (r *Reader) nextOf(ctx context.Context, rest func() (version, bool)) func(error) (io.ReaderAt, error) {
	return func(cause error) (io.ReaderAt, error) {
		for {
			twin, ok := rest()
			if !ok {
				return nil, cause
			}
			if stored, err := r.tryOpen(ctx, twin); err == nil {
				return stored, nil
			}
		}
	}
}

// worst is the kind of an instance that nobody gives: it may come back unless
// those who should have it say that it is rotten.
func worst(err error) fault.Kind {
	if kind := fault.KindOf(err); kind == fault.Corrupt || kind == fault.NotFound {
		return kind
	}
	return fault.Unavailable
}

// tryOpen returns the bytes of an instance of one node, if its first byte can be
// had.
func (r *Reader) tryOpen(ctx context.Context, v version) (io.ReaderAt, error) {
	in := v.instance()
	if in.Lost {
		return nil, fault.New(fault.Corrupt, "node %s has lost the instance", v.Node)
	}
	stored := r.stored(ctx, v)
	if in.Record.Bytes == 0 || in.Pack >= 0 && r.o.Copies.Has(v.Packs[in.Pack].ID) {
		return stored, nil
	}
	if time.Since(v.came) < goodFor {
		return stored, nil
	}
	// Another node may have a copy of this pack and of no other, or shards of it.
	name := v.Node
	if _, silent := r.contact.ask(name); in.Pack >= 0 && (v.helped() || silent && r.o.Shards != nil) {
		name += string(v.Packs[in.Pack].ID[:])
	}
	good, bad := r.contact.ask(name)
	if good && r.o.Nodes.Alive(v.Node) {
		return stored, nil
	}
	if bad {
		return nil, fault.New(fault.Unavailable, "node %s has just not answered", v.Node)
	}
	var first [1]byte
	_, err := stored.ReadAt(first[:], 0)
	if isEnd(err) {
		err = nil
	}
	if ctx.Err() == nil {
		r.contact.note(name, err == nil || answered(err))
	}
	return stored, err
}

// stored returns the bytes of an instance; nothing is read.
func (r *Reader) stored(ctx context.Context, v version) io.ReaderAt {
	in := v.instance()
	v.mu.Lock()
	defer v.mu.Unlock()
	bytes := r.bytesLocked(v.known)
	if in.Pack < 0 {
		return bytes.Staged(ctx, v.index)
	}
	t := v.packs[in.Pack]
	if t == nil {
		t = newPlaintext(r.o.Copies, v.Packs[in.Pack], bytes.Plaintext(in.Pack))
		v.packs[in.Pack] = t
	}
	return r.o.Archive.Codec().Instance(t.pack.ID, t, in.Entry())
}

// bytesLocked returns the readers of a manifest's bytes, made anew when its node
// has gone away since.
func (r *Reader) bytesLocked(k *known) Bytes {
	helpers := r.helpers(k.Node)
	if k.by != "" && !slices.Contains(helpers, k.by) {
		helpers = append([]string{k.by}, helpers...)
	}
	if k.bytes == nil || len(helpers) > 0 && !k.helpers {
		k.bytes = r.o.Client.Read(k.Manifest, helpers...)
		k.packs, k.helpers = map[int]*plaintext{}, len(helpers) > 0
		if k.whole {
			k.bytes.Whole()
		}
	}
	return k.bytes
}

// mostHelpers bounds the nodes that are asked for packs, and for manifests, of one
// that is away.
const mostHelpers = 8

// helpers are the nodes that may keep copies of the packs of one that does not
// answer. While it does, they are not troubled. The packs' shards come before those of
// which nobody knows whether they keep any.
func (r *Reader) helpers(node string) []string {
	if r.o.Nodes.Alive(node) {
		return nil
	}
	if r.o.Shards == nil {
		return r.neighbours(node)
	}
	return append([]string{far.Shards}, r.neighbours(node)...)
}

// neighbours are some nodes that are believed to answer, without one that does not.
func (r *Reader) neighbours(node string) []string {
	var nodes []string
	for _, other := range r.o.Nodes.Others() {
		if other != node && r.o.Nodes.Alive(other) && len(nodes) < mostHelpers {
			nodes = append(nodes, other)
		}
	}
	return nodes
}

// twins yields the same instance at nodes other than this one and its own, bit for
// bit, of which the manifest is asked for only when it comes to that; then as the shards
// of all these nodes' packs have it.
func (r *Reader) twins(ctx context.Context, record *archivepb.Instance, node string) func() (version, bool) {
	asked := map[string]bool{node: true, r.o.Node: true}
	gathered := map[string]bool{r.o.Node: true}
	same := func(k *known) (version, bool) {
		if k == nil {
			return version{}, false
		}
		at, ok := k.index(record.Sop)
		if !ok {
			return version{}, false
		}
		twin := version{k, at}
		other := twin.instance().Record
		return twin, string(other.Hash) == string(record.Hash) && other.Syntax == record.Syntax
	}
	return func() (version, bool) {
		holders, err := r.holders(record.Study, record.Series)
		if err != nil {
			return version{}, false
		}
		for i := range holders {
			h := &holders[i]
			if asked[h.Node] {
				continue
			}
			asked[h.Node] = true
			k, _ := r.ask(ctx, h, wanted{sop: record.Sop}) // an old one will do: the hash decides
			if twin, ok := same(k); ok {
				return twin, true
			}
		}
		for i := range holders {
			h := &holders[i]
			if gathered[h.Node] || r.o.Shards == nil {
				continue
			}
			gathered[h.Node] = true
			k, _ := r.fromShards(ctx, h, wanted{})
			if twin, ok := same(k); ok {
				return twin, true
			}
		}
		return version{}, false
	}
}

// maxPrefetch is the largest instance that is read ahead, as in node/archive.
const maxPrefetch = 16 << 20

// Prefetch reads an instance ahead for a reader that will come for it next. It is
// a hint: what goes wrong shows when the instance is opened.
func (r *Reader) Prefetch(ctx context.Context, ref archive.Ref) {
	if ref.Origin == "" {
		r.o.Archive.Prefetch(ctx, ref)
		return
	}
	k := r.recall(seriesAt{ref.Study, ref.Series, ref.Origin})
	if k == nil || ref.Bytes > maxPrefetch || ctx.Err() != nil {
		return
	}
	i, ok := k.index(ref.SOP)
	if !ok {
		return
	}
	v := version{k, i}
	in := v.instance()
	if in.Pack < 0 {
		return // its bytes go to their reader only
	}
	k.readWhole() // who is read ahead is read whole
	stored := r.stored(ctx, v)
	touch(ctx, stored, in.Chunks)
}

// readWhole says that all of a manifest will be read in order, or is being.
func (k *known) readWhole() {
	k.mu.Lock()
	bytes, already := k.bytes, k.whole
	k.whole = true
	k.mu.Unlock()
	if bytes != nil && !already {
		bytes.Whole()
	}
}

// touch reads a byte of each chunk, which decodes it whole.
func touch(ctx context.Context, stored io.ReaderAt, chunks []pack.Chunk) {
	var one [1]byte
	for i := range chunks {
		if ctx.Err() != nil {
			return
		}
		if _, err := stored.ReadAt(one[:], chunks[i].Offset); err != nil && !isEnd(err) {
			return
		}
	}
}
