package held

import (
	"context"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/recall"
)

// Holders are the nodes that a client asks, as shard/recall reads from them: it
// verifies what comes. fault.Unsupported for what another node would have to pass on.
type Holders struct{ Client *Client }

var _ recall.Holders = Holders{}

// Leaves implements [recall.Holders].
func (h Holders) Leaves(ctx context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	if err := direct(at); err != nil {
		return recall.Leaves{}, err
	}
	l, err := h.Client.Leaves(ctx, at.Node, Name{of, at.Index}, first, count)
	if err != nil {
		return recall.Leaves{}, err
	}
	return recall.Leaves{Proof: l.Proof, Body: l}, nil
}

// Opening implements [recall.Holders].
func (h Holders) Opening(ctx context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	if err := direct(at); err != nil {
		return recall.Opening{}, err
	}
	head, tail, err := h.Client.Opening(ctx, at.Node, Name{of, at.Index})
	if err != nil {
		return recall.Opening{}, err
	}
	return recall.Opening{Head: head, Body: tail}, nil
}

func direct(at recall.Place) error {
	if at.Via != "" {
		return fault.New(fault.Unsupported, "held: %v: calls are not passed on", at)
	}
	return nil
}
