package recall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

const (
	// answerWithin is how long a node may take to begin to answer, and slowest, in
	// bytes a second, how slow it may be then: a reader on whom nobody else depends
	// waits so long, and nothing waits longer.
	answerWithin = 15 * time.Second
	slowest      = 128 << 10
	// sip is the least that is read at once.
	sip = 64 << 10
)

// answer is what one node gave, all of it proven.
type answer struct {
	data []byte
	head *stripe.Head // of an opening
}

// body reads all of an answer into b, and that nothing follows. Whoever cancels ctx
// ends it.
func body(ctx context.Context, from io.ReadCloser, b []byte, x *exchange) error {
	defer from.Close()
	stop := context.AfterFunc(ctx, func() { from.Close() })
	defer stop()
	for done := 0; done < len(b); {
		n, err := from.Read(b[done:min(len(b), done+sip)])
		if n > 0 {
			x.came(int64(n), time.Now())
		}
		done += n
		switch {
		case done == len(b):
		case errors.Is(err, io.EOF):
			return fault.New(fault.Corrupt, "recall: an answer of %d bytes where %d were asked for", done, len(b))
		case err != nil:
			return broken(ctx, err)
		}
	}
	var more [1]byte
	switch n, err := from.Read(more[:]); {
	case n > 0:
		return fault.New(fault.Corrupt, "recall: an answer longer than the %d bytes that were asked for", len(b))
	case err != nil && !errors.Is(err, io.EOF):
		return broken(ctx, err)
	}
	return nil
}

// broken is why an answer ended: unless it has a kind of its own, it may yet be had.
func broken(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fault.KindOf(err) == fault.Other:
		return fault.New(fault.Unavailable, "recall: %w", err)
	}
	return err
}

var errLate = fault.New(fault.Unavailable, "recall: no answer in time")

// within runs an exchange that ends in time.
func within(ctx context.Context, bytes int64, ask func(ctx context.Context, began func()) (answer, error)) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(answerWithin, func() { cancel(errLate) })
	defer late.Stop()
	got, err := ask(ctx, func() { late.Reset(answerWithin + transfer(bytes, slowest)) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return got, err
}

// leaves asks a node for leaves of its shard.
func (p *Pack) leaves(ctx context.Context, at Place, first, count int64, x *exchange) (answer, error) {
	size := p.geometry.ShardBytes(at.Index)
	length := min(count*seal.LeafBytes, size-first*seal.LeafBytes)
	return within(ctx, length, func(ctx context.Context, began func()) (answer, error) {
		reply, err := p.client.o.Holders.Leaves(ctx, at, p.head.Stripe, first, count)
		if err != nil {
			return answer{}, broken(ctx, err)
		}
		began()
		data := make([]byte, length)
		if err := body(ctx, reply.Body, data, x); err != nil {
			return answer{}, err
		}
		if err := seal.VerifyRange(p.head.Roots[at.Index], size, first, data, reply.Proof); err != nil {
			return answer{}, fmt.Errorf("recall: %w", err)
		}
		return answer{data: data}, nil
	})
}
