package far

import (
	"encoding/binary"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/pack"
)

// What follows a manifest, for who reads the series whole: the asker claims it
// before he shows the manifest, so that readers wait for it instead of asking.

// coming takes in what will follow the end.
func (o *Opening) coming(body []byte) error {
	g := o.gathering
	if !g.want.ahead() || len(o.ahead) > 0 || len(body)%aheadHead != 0 {
		return errManifest("bytes that were not asked for follow")
	}
	left := int64(maxAheadUnits)
	for ; len(body) > 0; body = body[aheadHead:] {
		r := aheadRun{pack.ID(body), int64(binary.BigEndian.Uint64(body[16:])), int64(binary.BigEndian.Uint32(body[24:]))}
		i, ok := g.packs[r.pack]
		if !ok {
			return errManifest("bytes of a pack that is in no part")
		}
		units := (g.m.Packs[i].Bytes + segmentBytes - 1) / segmentBytes
		if left -= r.units; r.units < 1 || r.units > unitsAtOnce || left < 0 || r.first < 0 || r.first > units-r.units {
			return errManifest("bytes that are not units of a pack, or too many")
		}
		o.ahead = append(o.ahead, r)
	}
	return nil
}

// follow claims what follows, shows the manifest, and takes in what comes.
func (o *Opening) follow(m *Manifest, stream *messages, stall *time.Timer) (err error) {
	c := o.client
	claimed := make([][]*fetch, len(o.ahead))
	for i, r := range o.ahead {
		claimed[i] = c.claim(m.Packs[o.gathering.packs[r.pack]], r)
	}
	o.settle(m, nil)
	var told *object // the pack whose bytes failed to come last
	for i, r := range o.ahead {
		var body []byte
		if err == nil {
			body, err = nextAhead(stream, r, m.Packs[o.gathering.packs[r.pack]].Bytes)
			err = c.late(err)
			stall.Reset(stallAfter)
		}
		if err == nil {
			err = c.deliver(claimed[i], r.first, body)
		} else {
			for _, f := range claimed[i] {
				c.end(f, err)
			}
		}
		if err != nil && len(claimed[i]) > 0 && claimed[i][0].o != told { // once a pack
			told = claimed[i][0].o
			c.lost(told, o.gathering.node, err)
		}
	}
	return err
}

// claim claims what is missing of a run, as far as there is room.
func (c *Client) claim(p Pack, r aheadRun) (fetches []*fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.objectLocked(objectKey{pack: p.ID}, func() (*object, error) { return packObject(p) })
	if err != nil {
		return nil // readers will be told
	}
	o.gaps(int(r.first), int(r.first+r.units), func(a, b int) bool {
		f := c.claimLocked(o, a, b, false)
		if f != nil {
			fetches = append(fetches, f)
		}
		return f != nil
	})
	c.forgetLocked(o)
	return fetches
}

// nextAhead reads the message of a run of a pack of so many bytes.
func nextAhead(stream *messages, r aheadRun, size int64) ([]byte, error) {
	kind, body, err := stream.next()
	if err != nil {
		return nil, err
	}
	head := packHead(r.pack, r.first)
	want := min(r.units*segmentBytes, size-r.first*segmentBytes)
	if kind != messagePack || len(body) != len(head)+int(want) || string(body[:len(head)]) != string(head) {
		return nil, fault.New(fault.Corrupt, "far: other bytes follow a manifest than were told of")
	}
	return body[len(head):], nil
}
