package far

import (
	"bytes"
	"context"
)

// maxGathers bounds the ranges that come from shards at one time: 64 MiB, and about
// twice as much on the way to them. A quarter is left to who waits.
const maxGathers = 16

// gather reads units of a pack from its shards. The answer begins when all of it is
// here; like that of a node it is authenticated while it is taken.
func (c *Client) gather(ctx context.Context, cancel context.CancelFunc, f *fetch, first int) *answered {
	a := &answered{node: Shards, cancel: cancel, close: cancel}
	leave, err := c.enter(ctx, f.ahead)
	if err != nil {
		a.err = err
		return a
	}
	o := f.o
	from, to := int64(first)*o.unit, min(int64(f.to)*o.unit, o.size)
	buffer := c.ranges.Get().(*[]byte)
	b := (*buffer)[:to-from]
	a.body = bytes.NewReader(b)
	a.close = func() {
		cancel()
		c.ranges.Put(buffer)
		leave()
	}
	a.err = noEnd(c.o.Packs.ReadPack(ctx, &o.pack, b, from))
	return a
}

// enter waits for a place among the ranges that come from shards.
func (c *Client) enter(ctx context.Context, ahead bool) (leave func(), err error) {
	rooms := []chan struct{}{c.gathers}
	if ahead {
		rooms = []chan struct{}{c.gathersAhead, c.gathers}
	}
	for i, room := range rooms {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			for _, room := range rooms[:i] {
				<-room
			}
			return nil, context.Cause(ctx)
		}
	}
	return func() {
		for _, room := range rooms {
			<-room
		}
	}, nil
}
