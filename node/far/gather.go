package far

import (
	"bytes"
	"context"
)

// gather reads units of a pack from its shards. The answer begins when all of it is
// here; like that of a node it is authenticated while it is taken.
func (c *Client) gather(ctx context.Context, cancel context.CancelFunc, o *object, first, end int) *answered {
	from, to := int64(first)*o.unit, min(int64(end)*o.unit, o.size)
	buffer := c.ranges.Get().(*[]byte)
	b := (*buffer)[:to-from]
	a := &answered{node: Shards, cancel: cancel, body: bytes.NewReader(b)}
	a.close = func() {
		cancel()
		c.ranges.Put(buffer)
	}
	a.err = noEnd(c.o.Packs.ReadPack(ctx, &o.pack, b, from))
	return a
}
