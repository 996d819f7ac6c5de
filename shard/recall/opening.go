package recall

import (
	"context"
	"fmt"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

const (
	// maxTail bounds the tail of a pack, of which a head that its seal knows tells.
	maxTail = 1 << 30
	// usualTail is how long one is expected to be of which nothing is known.
	usualTail = 64 << 10
)

// Sealed is what a seal says of a stripe.
type Sealed struct {
	Stripe shard.Stripe
	Code   shard.Code
	Root   [32]byte // of the stripe
	Tail   int64    // bytes, about: how long to wait for it; 0: unknown
}

// Opened is a stripe's head, checked by the seal, and the segments of its ciphertext
// that hold the manifest, checked by the head.
type Opened struct {
	Head *stripe.Head
	Tail []byte // of head.TailRange
}

// Open gets the head and the tail of a stripe from any of its shards 0 to m, in one
// round trip to one node. places are as those of [Client.Pack]; others than of these
// shards are not asked. Errors are those of [Pack.ReadAt].
func (c *Client) Open(ctx context.Context, of Sealed, places []Place) (*Opened, error) {
	if len(places) > maxPlaces {
		return nil, fault.New(fault.Invalid, "recall: %d places", len(places))
	}
	expected := of.Tail
	if expected < 1 {
		expected = usualTail
	}
	g := &gather{
		client: c, want: none, need: 1, have: map[int]answer{},
		bytes: func(int) int64 { return expected },
		wrong: func(at Place, err error) {
			if fault.Is(err, fault.Corrupt) {
				c.rotten(Rot{Place: at, Stripe: of.Stripe, Err: err})
			}
		},
	}
	g.ask = func(ctx context.Context, at Place, x *exchange) (answer, error) {
		return c.opening(ctx, of, at, x)
	}
	for _, p := range places {
		if p.Index >= 0 && p.Index <= of.Code.M && p.Index < of.Code.N() {
			g.sites = append(g.sites, &site{Place: p})
		}
	}
	if err := g.run(ctx); err != nil {
		return nil, fmt.Errorf("recall: open stripe %s: %w", of.Stripe, err)
	}
	for _, a := range g.have {
		return &Opened{a.head, a.data}, nil
	}
	panic("recall: nothing gathered")
}

// opening asks one node.
func (c *Client) opening(ctx context.Context, of Sealed, at Place, x *exchange) (answer, error) {
	ctx, stall := call.NewStall(ctx, answerWithin)
	defer stall.Stop()
	reply, err := c.o.Holders.Opening(ctx, at, of.Stripe)
	if err != nil {
		return answer{}, broken(ctx, err)
	}
	in := receive(ctx, reply.Body, x, stall)
	defer in.close()
	head, length, err := checkHead(reply.Head, of)
	if err != nil {
		return answer{}, err
	}
	var tail []byte
	for int64(len(tail)) < length { // it grows with what comes
		from := len(tail)
		tail = append(tail, make([]byte, min(length-int64(from), 1<<20))...)
		if err := in.fill(tail[from:]); err != nil {
			return answer{}, err
		}
	}
	if err := in.end(); err != nil {
		return answer{}, err
	}
	if err := seal.VerifyRange(head.Tail, length, 0, tail, nil); err != nil {
		return answer{}, fmt.Errorf("recall: tail: %w", err)
	}
	return answer{head: head, data: tail}, nil
}

// checkHead reads a head, and returns how long its tail is.
func checkHead(b []byte, of Sealed) (*stripe.Head, int64, error) {
	head, err := stripe.ParseHead(b)
	if err != nil {
		return nil, 0, err
	}
	if head.Root() != of.Root || head.Stripe != of.Stripe || head.Code != of.Code {
		return nil, 0, fault.New(fault.Corrupt, "recall: the head of %s, of another root than was sealed", head.Stripe)
	}
	_, length := head.TailRange()
	if length < 1 || length > maxTail {
		return nil, 0, fault.New(fault.Unsupported, "recall: a tail of %d bytes", length)
	}
	return head, length, nil
}
