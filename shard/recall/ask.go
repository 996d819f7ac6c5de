package recall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/stripe"
)

const (
	// answerWithin is how long a node may take to begin to answer, and then to send
	// anything: who has nobody else to ask waits so long, and nothing longer.
	answerWithin = 15 * time.Second
	// sip is the most that is read at once.
	sip = 64 << 10
)

// answer is what one node gave, all of it proven.
type answer struct {
	data []byte
	head *stripe.Head // of an opening
}

// incoming is the body of an answer. Whoever cancels ctx ends it.
type incoming struct {
	ctx   context.Context //nolint:containedctx // of one answer
	from  io.ReadCloser
	x     *exchange
	stall *call.Stall
	stop  func() bool
}

func receive(ctx context.Context, from io.ReadCloser, x *exchange, stall *call.Stall) *incoming {
	stall.Moved()
	return &incoming{ctx, from, x, stall, context.AfterFunc(ctx, func() { from.Close() })}
}

func (in *incoming) close() {
	in.stop()
	in.from.Close()
}

// fill reads all of b.
func (in *incoming) fill(b []byte) error {
	for done := 0; done < len(b); {
		n, err := in.from.Read(b[done:min(len(b), done+sip)])
		if n > 0 {
			in.stall.Moved()
			in.x.came(int64(n), time.Now())
		}
		done += n
		switch {
		case done == len(b): // an error comes again
		case errors.Is(err, io.EOF):
			return fault.New(fault.Corrupt, "recall: an answer that is too short")
		case err != nil:
			return broken(in.ctx, err)
		}
	}
	return nil
}

// end checks that nothing follows.
func (in *incoming) end() error {
	var more [1]byte
	for {
		switch n, err := in.from.Read(more[:]); {
		case n > 0:
			return fault.New(fault.Corrupt, "recall: an answer that is too long")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return broken(in.ctx, err)
		}
	}
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

// leaves asks a node for leaves of its shard.
func (p *Pack) leaves(ctx context.Context, at Place, first, count int64, x *exchange) (answer, error) {
	ctx, stall := call.NewStall(ctx, answerWithin)
	defer stall.Stop()
	reply, err := p.client.o.Holders.Leaves(ctx, at, p.head.Stripe, first, count)
	if err != nil {
		return answer{}, broken(ctx, err)
	}
	in := receive(ctx, reply.Body, x, stall)
	defer in.close()
	data := make([]byte, min(count*shard.LeafBytes, p.geometry.ShardBytes(at.Index)-first*shard.LeafBytes))
	for done := int64(0); done < int64(len(data)); {
		proof, leaves, err := reply.Proof()
		if err != nil {
			return answer{}, broken(ctx, err)
		}
		from := first + done/shard.LeafBytes
		if leaves < 1 || leaves > first+count-from {
			return answer{}, fault.New(fault.Corrupt, "recall: a run of %d leaves", leaves)
		}
		run := data[done:min(done+leaves*shard.LeafBytes, int64(len(data)))]
		if err := in.fill(run); err != nil {
			return answer{}, err
		}
		if err := p.head.VerifyRange(at.Index, from, run, proof); err != nil {
			return answer{}, fmt.Errorf("recall: %w", err)
		}
		done += int64(len(run))
	}
	return answer{data: data}, in.end()
}
