package spread

import (
	"context"
	"io"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/shard/held"
)

// A pack whose copy was evicted is striped anew like any other: its bytes come from
// the shards that it has, and are compared with the root that the pack was sealed
// under as they are encoded, like those of a copy. But nothing can be cut from a copy
// later, so this node's shard rests here like those of other nodes' packs (decision
// 0059).

// Own takes shards to rest here; *held.Store is it.
type Own interface {
	Land(ctx context.Context, claims []held.Claim, from io.Reader) (*held.Landed, error)
	Ask(entries []held.Entry) (*held.Landed, error)
}

// nearby are holders of which this node is one: it does not call itself.
type nearby struct {
	Holders
	own  Own
	self string
}

// Upload implements [Holders].
func (n nearby) Upload(ctx context.Context, node string, offers []held.Offer) (*held.Landed, error) {
	if node != n.self {
		return n.Holders.Upload(ctx, node, offers)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	claims := make([]held.Claim, len(offers))
	for i, o := range offers {
		claims[i] = o.Claim
	}
	from, to := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		var err error
		for _, o := range offers {
			if err = o.Write(ctx, to); err != nil {
				break
			}
		}
		to.CloseWithError(err) //nolint:errcheck // it never fails
		wrote <- err
	}()
	landed, err := n.own.Land(ctx, claims, from)
	cancel()
	from.CloseWithError(io.ErrClosedPipe) //nolint:errcheck // who writes on ends
	if own := <-wrote; err != nil && fault.Is(err, fault.Unavailable) && own != nil {
		return nil, own // it says why
	}
	return landed, err
}

// Receipts implements [Holders].
func (n nearby) Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error) {
	if node != n.self {
		return n.Holders.Receipts(ctx, node, entries)
	}
	return n.own.Ask(entries)
}

// cuts reports whether a shard that is to be at this node may be cut from its copy.
func (w *job) cuts() bool { return !w.pack.Evicted }

// uncut takes back what was to be cut from a copy that is not there: that shard is
// nowhere, unless it came to rest here in this round.
func (w *job) uncut() {
	if w.cuts() || w.virtual == catalog.NoShard {
		return
	}
	if w.got == nil || !w.got[w.virtual] {
		w.at[w.virtual] = ""
	}
	w.virtual = catalog.NoShard
}
