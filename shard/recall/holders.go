package recall

import (
	"context"
	"fmt"
	"io"

	"pelago/shard"
)

// Place is where a shard may be had: with the node of its row, that of the row
// before, an exception that the seal names, or an origin that cuts it from its copy.
// An index may have several.
type Place struct {
	Index int    // of the shard
	Node  string // that has it
	Via   string // a node that passes the request on, where no link leads there; "": none
}

func (p Place) String() string {
	if p.Via != "" {
		return fmt.Sprintf("shard %d of node %s by way of %s", p.Index, p.Node, p.Via)
	}
	return fmt.Sprintf("shard %d of node %s", p.Index, p.Node)
}

// Holders asks nodes for what they have of a stripe; held.Holders is one, without
// relay. Both calls return when the
// answer has begun, with what leads to believe it; the body follows. They and the
// body's Read end soon after ctx does, or the body is closed, which may happen while
// it is read. Errors have kinds: fault.NotFound for what the node does not have,
// fault.Corrupt for what it has lost, fault.Unavailable for a node that cannot be
// reached.
type Holders interface {
	// Leaves asks for count whole leaves, from first on, of the body of a shard.
	Leaves(ctx context.Context, at Place, of shard.Stripe, first, count int64) (Leaves, error)
	// Opening asks for the stripe's head and for the tail that rides with a shard.
	Opening(ctx context.Context, at Place, of shard.Stripe) (Opening, error)
}

// Leaves is a range of a shard on its way: runs of leaves, each with its proof, so
// that what came is proven as it comes.
type Leaves struct {
	// Proof returns the proof of the run that is next in Body, as of seal.Tree, and how
	// many leaves that has; it bounds what it reads. It is called before the run is
	// read, and in the goroutine that reads.
	Proof func() (proof [][32]byte, leaves int64, err error)
	Body  io.ReadCloser
}

// Opening is a head, and a tail on its way.
type Opening struct {
	Head []byte // canonical (stripe.ParseHead); the caller has bounded its length
	Body io.ReadCloser
}

// Rot is what a node should not have sent.
type Rot struct {
	Place
	Stripe       shard.Stripe
	First, Count int64 // leaves of the body; Count 0: head or tail
	Err          error // fault.Corrupt
}
