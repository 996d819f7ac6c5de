package recalled

import (
	"bytes"
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/recall"
)

// nearby are holders of which this node is one: its own shards it does not ask over
// the network.
type nearby struct {
	recall.Holders
	local held.Source
	node  string
}

// Leaves implements [recall.Holders].
func (n nearby) Leaves(ctx context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	if at.Node != n.node {
		return n.Holders.Leaves(ctx, at, of, first, count)
	}
	one, err := n.shard(at, of)
	if err != nil {
		return recall.Leaves{}, err
	}
	data, proof, err := one.Range(first, count)
	if err != nil {
		return recall.Leaves{}, err
	}
	told := false
	return recall.Leaves{
		Body: io.NopCloser(bytes.NewReader(data)),
		Proof: func() ([][32]byte, int64, error) {
			if told {
				return nil, 0, io.EOF
			}
			told = true
			return proof, count, nil
		},
	}, nil
}

// Opening implements [recall.Holders].
func (n nearby) Opening(ctx context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	if at.Node != n.node {
		return n.Holders.Opening(ctx, at, of)
	}
	one, err := n.shard(at, of)
	if err != nil {
		return recall.Opening{}, err
	}
	tail := one.Tail()
	if tail == nil {
		return recall.Opening{}, fault.New(fault.NotFound, "recalled: a shard without the tail")
	}
	head, err := one.Head().AppendBinary(nil)
	if err != nil {
		return recall.Opening{}, err
	}
	return recall.Opening{Head: head, Body: io.NopCloser(tail)}, nil
}

func (n nearby) shard(at recall.Place, of shard.Stripe) (held.Shard, error) {
	if n.local == nil {
		return nil, fault.New(fault.NotFound, "recalled: no shards are held here")
	}
	return n.local.Shard(held.Name{Stripe: of, Index: at.Index})
}

// here are hints that know that this node is near.
type here struct {
	recall.Hints
	node string
}

// herein is how far this node is from itself.
const herein = 50 * time.Microsecond

// Hint implements [recall.Hints].
func (h here) Hint(node string) (up bool, rtt time.Duration) {
	switch {
	case node == h.node:
		return true, herein
	case h.Hints == nil:
		return true, 0
	}
	return h.Hints.Hint(node)
}
