package recalled

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/replication/catalog"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Series returns what a node holds of a series, by the shards of its packs: the
// manifest that the node would tell. The error says why it is not the set of instances
// that the catalogue knows of, with what could be read of it: nil if that is nothing.
// fault.NotFound if nothing of it is sealed, or all is deleted, fault.Unavailable if
// too few of those answer who have shards, or this node lacks the epoch of its key,
// fault.Corrupt if what they have cannot be read.
func (c *Client) Series(ctx context.Context, h *catalog.Holder) (*far.Manifest, error) {
	var seals []catalog.Seal
	err := c.look(func(v *catalog.View) (err error) {
		seals, err = v.Seals(h.Study, h.Series)
		return err
	})
	if err != nil {
		return nil, err
	}
	packs := generations(seals, h.Node)
	if len(packs) == 0 {
		return nil, fault.New(fault.NotFound, "recalled: nothing of the series is sealed")
	}
	listed := make([]*listed, len(packs))
	failed := make([]error, len(packs))
	var group errgroup.Group
	group.SetLimit(maxPacksAtOnce)
	for i := range packs {
		group.Go(func() error {
			listed[i], failed[i] = c.list(ctx, h, packs[i])
			return nil
		})
	}
	_ = group.Wait() // they answer for themselves
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var why []error
	for _, err := range failed {
		if err != nil {
			why = append(why, err)
		}
	}
	m, whole := c.merge(h, listed)
	switch {
	case whole:
		return m, nil
	case len(why) > 0:
		return m, hopeful(why)
	}
	return m, fault.New(fault.Unavailable, "recalled: the packs that are sealed hold another set of instances than the catalogue knows of")
}

// listed is what a pack holds.
type listed struct {
	pack    far.Pack
	entries []far.Instance // all versions, Pack not set yet
}

// list opens a pack by one of its generations.
func (c *Client) list(ctx context.Context, h *catalog.Holder, generations []catalog.Seal) (*listed, error) {
	var failed []error
	for _, s := range c.byChance(generations) {
		one, err := c.listStripe(ctx, h, s)
		if err == nil || ctx.Err() != nil {
			return one, err
		}
		failed = append(failed, err)
	}
	return nil, hopeful(failed)
}

// expectedTail is how many bytes of manifest an instance takes, about: how long to
// wait for a tail.
const expectedTail = 300

// key opens a study key: that of the ring, or, as the ring follows the catalogue by a
// moment, in which an origin may burn, that of the catalogue.
func (c *Client) key(id [16]byte) (seal.Key, error) {
	key, err := c.o.Keys.Key(id)
	if !fault.Is(err, fault.NotFound) {
		return key, err
	}
	var told catalog.StudyKey
	var known bool
	if reading := c.look(func(v *catalog.View) (err error) {
		told, known, err = v.Key(id)
		return err
	}); reading != nil || !known {
		return seal.Key{}, errors.Join(err, reading)
	}
	return c.o.Keys.Open(keys.StudyKey{ID: told.ID, Study: told.Study, Origin: told.Origin, Epoch: told.Epoch, Wrapped: told.Wrapped})
}

func (c *Client) listStripe(ctx context.Context, h *catalog.Holder, s *catalog.Seal) (*listed, error) {
	key, err := c.key(s.Key)
	if err != nil {
		return nil, fmt.Errorf("recalled: stripe %s: study key: %w", s.Stripe, err)
	}
	state := c.o.State()
	got, err := c.recall.Open(ctx, sealedBy(s, int64(min(s.Instances, 1<<20))*expectedTail), state.Places(&s.SealFact))
	if err != nil {
		return nil, err
	}
	if got.Head.Key != s.Key || got.Head.Size != s.Size || got.Head.Origin != s.Origin {
		return nil, fault.New(fault.Corrupt, "recalled: stripe %s is not of the pack that it is sealed for", s.Stripe)
	}
	if _, err := c.remember(s, got.Head, state); err != nil {
		return nil, err
	}
	one := &listed{pack: packOf(s, got.Head, key)}
	manifest, err := manifestOf(got, seal.PackKey(key, s.Stripe.Pack))
	if err == nil {
		err = one.take(h, manifest)
	}
	if err != nil {
		return nil, fmt.Errorf("recalled: stripe %s: %w", s.Stripe, err)
	}
	return one, nil
}

// packOf is the pack of a stripe as its node would tell of it.
func packOf(s *catalog.Seal, head *stripe.Head, key seal.Key) far.Pack {
	return far.Pack{
		ID: s.Stripe.Pack, Study: s.Study, Series: s.Series, Bytes: head.Size, Plaintext: head.Plaintext, Manifest: head.Manifest,
		Root: head.Pack, KeyID: s.Key, Key: key, Instances: uint32(min(s.Instances, 1<<20)), //nolint:gosec // bounded
	}
}

// manifestOf opens the manifest of a pack, of the segments of its tail.
func manifestOf(o *recall.Opened, key seal.Key) (*pack.Manifest, error) {
	head := o.Head
	offset, _ := head.TailRange()
	plain := seal.Reader(&tail{o.Tail, offset}, head.Size, key)
	b := make([]byte, head.Plaintext-head.Manifest) // at most what came
	if n, err := plain.ReadAt(b, head.Manifest); n < len(b) {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := pack.ParseManifest(b)
	if err != nil {
		return nil, err
	}
	if m.ID != head.Stripe.Pack || m.Bytes != head.Manifest {
		return nil, fault.New(fault.Corrupt, "the manifest of another pack")
	}
	return m, nil
}

// tail is a ciphertext of which the end is here.
type tail struct {
	bytes []byte
	from  int64
}

// ReadAt implements io.ReaderAt.
func (t *tail) ReadAt(p []byte, off int64) (int, error) {
	if off < t.from {
		return 0, fault.New(fault.NotFound, "recalled: before the tail")
	}
	return bytes.NewReader(t.bytes).ReadAt(p, off-t.from)
}

var _ io.ReaderAt = (*tail)(nil)

const (
	// recordVersion is the highest version of instance records that is read.
	recordVersion = 1
	// maxInstances bounds those of a series, as node/far does.
	maxInstances = 1 << 18
	// maxHeader is the longest header record that is told of: a longer one is read from
	// the bytes.
	maxHeader = 16 << 20
)

// take reads the entries of a pack's manifest. They were sealed by their node; that
// they fit to the seal is checked all the same.
func (l *listed) take(h *catalog.Holder, m *pack.Manifest) error {
	if len(m.Entries) > maxInstances {
		return fault.New(fault.Unsupported, "a pack of %d instances", len(m.Entries))
	}
	l.entries = make([]far.Instance, 0, len(m.Entries))
	for i := range m.Entries {
		e := &m.Entries[i]
		var arrival archivepb.Arrival
		if err := proto.Unmarshal(e.Record, &arrival); err != nil {
			return fault.New(fault.Corrupt, "an instance's record: %w", err)
		}
		r := arrival.Instance
		switch {
		case r == nil:
			return fault.New(fault.Corrupt, "an entry without a record")
		case r.Version > recordVersion:
			return fault.New(fault.Unsupported, "a record of version %d, newer than %d", r.Version, recordVersion)
		case r.Study != h.Study || r.Series != h.Series || r.Sop == "" || string(r.Hash) != string(e.Hash[:]) || r.Bytes != e.Bytes:
			return fault.New(fault.Corrupt, "an entry of another series, or another instance than its record")
		case !whole(e):
			return fault.New(fault.Unsupported, "an instance of which only a part is in the pack")
		}
		one := far.Instance{Record: r, Header: arrival.Header, Chunks: e.Chunks}
		if len(one.Header) == 0 || len(one.Header) > maxHeader {
			one.Header = nil
		}
		l.entries = append(l.entries, one)
	}
	return nil
}

// whole reports whether all of an instance is in its pack. Chunks follow each other.
func whole(e *pack.Entry) bool {
	if len(e.Chunks) == 0 {
		return e.Bytes == 0
	}
	last := e.Chunks[len(e.Chunks)-1]
	return e.Chunks[0].Offset == 0 && last.Offset+last.Length == e.Bytes
}
