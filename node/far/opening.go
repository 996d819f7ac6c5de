package far

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/far/farpb"
	"pelago/shard/pack"
)

// maxOpenings bounds the manifests that are coming at one time: each may take as
// much memory as a series' headers. Who comes on top waits: to be refused would look
// as if the node did not answer.
const maxOpenings = 64

// openFor bounds an answer, however it keeps coming: the longest manifest takes four
// minutes of 10 Mb/s.
const openFor = 5 * time.Minute

// Open asks a node for what is wanted, in one round trip. It returns as soon as
// the wanted instance, and those of its bytes that were asked for, are here; the
// rest of the manifest comes meanwhile: [Opening.Manifest]. fault.NotFound if the
// node holds no such thing, or was not told of it, fault.Unavailable if it does
// not answer, fault.Invalid if its answer is none.
func (c *Client) Open(ctx context.Context, node string, want Want) (*Opening, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	body, err := proto.Marshal(&farpb.Open{
		Study: want.Study, Series: want.Series, Sop: want.SOP,
		Frame: uint32(max(0, want.Frame)), Bytes: uint64(max(0, want.Bytes)), Origin: want.Origin,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "far: %w", err)
	}
	o := &Opening{client: c, gathering: newGathering(node, want), early: make(chan struct{}), done: make(chan struct{})}
	select {
	case c.openings <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, errClosed
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.openings
		return nil, errClosed
	}
	run, cancel := context.WithTimeout(c.ctx, openFor)
	c.work.Go(func() {
		defer cancel()
		o.run(run, cancel, body)
	})
	c.mu.Unlock()
	select {
	case <-o.early:
	case <-ctx.Done():
		cancel() // nobody waits for it
		return nil, context.Cause(ctx)
	}
	if o.first == nil {
		<-o.done
		return nil, o.err
	}
	return o, nil
}

// Series returns the manifest of a series of a node.
func (c *Client) Series(ctx context.Context, node, study, series string) (*Manifest, error) {
	return c.manifest(ctx, node, Want{Study: study, Series: series})
}

// Find returns the manifest of the series of an instance of a node.
func (c *Client) Find(ctx context.Context, node, sop string) (*Manifest, error) {
	return c.manifest(ctx, node, Want{SOP: sop})
}

func (c *Client) manifest(ctx context.Context, node string, want Want) (*Manifest, error) {
	o, err := c.Open(ctx, node, want)
	if err != nil {
		return nil, err
	}
	return o.Manifest(ctx)
}

// Opening is an answer that is still coming.
type Opening struct {
	client    *Client
	gathering *gathering    // of the goroutine that reads the answer
	early     chan struct{} // closed when first is set, or nothing comes
	done      chan struct{} // closed when manifest or err is set

	ahead    []aheadRun  // follows the end
	came     atomic.Bool // bytes
	first    *Manifest
	manifest *Manifest
	err      error
}

// First is what has come: the wanted instance, or the series' first, and its
// pack. A series that is read by it finds the bytes of the frame here.
func (o *Opening) First() *Manifest { return o.first }

// Came reports whether bytes that were asked for came with the first instance: a
// node that could not give them sends none.
func (o *Opening) Came() bool { return o.came.Load() }

// Manifest waits for the whole manifest.
func (o *Opening) Manifest(ctx context.Context) (*Manifest, error) {
	select {
	case <-o.done:
		return o.manifest, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run reads the answer to its end.
func (o *Opening) run(ctx context.Context, cancel context.CancelFunc, body []byte) {
	if err := o.read(ctx, cancel, body); err != nil {
		o.settle(nil, fmt.Errorf("far: node %s: %w", o.gathering.node, err))
	}
	<-o.client.openings
}

// settle shows the manifest, or why there is none, unless it was shown.
func (o *Opening) settle(m *Manifest, err error) {
	select {
	case <-o.done:
		return
	default:
	}
	o.manifest, o.err = m, err
	close(o.done)
	o.showFirst()
}

// showFirst lets go of who waits for the first instance.
func (o *Opening) showFirst() {
	select {
	case <-o.early:
		return
	default:
	}
	if o.err == nil {
		o.first = o.gathering.soFar()
	}
	close(o.early)
}

// read settles the opening at the end of the manifest; what follows that serves
// readers.
func (o *Opening) read(ctx context.Context, cancel context.CancelFunc, body []byte) error {
	c, g := o.client, o.gathering
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+g.node+pathOpen, bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	stall := time.AfterFunc(answerWithin, cancel)
	defer stall.Stop()
	response, err := c.o.Calls.Send(request)
	if err != nil {
		return c.late(err)
	}
	defer response.Body.Close()
	stream := &messages{r: response.Body}
	defer stream.close()
	for {
		kind, body, err := stream.next()
		if err != nil {
			return c.late(err)
		}
		stall.Reset(stallAfter)
		switch kind {
		case messagePart:
			raw, err := stream.inflate(body)
			if err != nil {
				return err
			}
			if err := g.part(raw, c.o.Self); err != nil {
				return err
			}
			if !g.want.bytes() {
				o.showFirst()
			}
		case messagePack, messageStaged:
			if err := o.bytes(kind, body); err != nil {
				return err
			}
			o.came.Store(true)
		case messageFrame:
			if !g.complete() {
				return errManifest("a frame of nothing")
			}
			o.showFirst()
		case messageAhead:
			if err := o.coming(body); err != nil {
				return err
			}
		case messageEnd:
			m, err := g.end(body)
			if err != nil {
				return err
			}
			return o.follow(m, stream, stall)
		case messageFailure:
			var f farpb.Failure
			if err := parse(body, &f); err != nil {
				return err
			}
			if f.Kind >= uint32(len(fault.Kinds())) {
				f.Kind = uint32(fault.Other)
			}
			return fault.New(fault.Kind(f.Kind), "peer: %s", strings.ToValidUTF8(f.Text, "\uFFFD"))
		}
	}
}

// late gives an error that our own patience made its kind: no reader has given up.
func (c *Client) late(err error) error {
	if c.ctx.Err() == nil && fault.Is(err, fault.Canceled) {
		return fault.New(fault.Unavailable, "no answer in time, or nobody waits for it: %w", err)
	}
	return err
}

// bytes puts bytes that came with the manifest where readers look first. What
// there is no room for is not needed: readers ask again.
func (o *Opening) bytes(kind byte, body []byte) error {
	c, g := o.client, o.gathering
	if len(body) < 8 || kind == messagePack && len(body) < len(pack.ID{})+8 {
		return errManifest("bytes without a place")
	}
	var key objectKey
	var makeObject func() (*object, error)
	var first int64
	if kind == messagePack {
		id := pack.ID(body)
		i, ok := g.packs[id]
		if !ok {
			return errManifest("bytes of a pack that is in no part")
		}
		p := g.m.Packs[i]
		key, makeObject = objectKey{pack: id}, func() (*object, error) { return packObject(p) }
		first, body = int64(binary.BigEndian.Uint64(body[len(id):])), body[len(id)+8:]
	} else {
		number := binary.BigEndian.Uint64(body)
		i := slices.IndexFunc(g.m.Instances, func(in Instance) bool { return in.Record.Number == number && in.Pack < 0 })
		if i != 0 || g.m.Node != g.node {
			return errManifest("bytes of an instance that was not asked for")
		}
		in := &g.m.Instances[i]
		key, makeObject = stagedKey(g.node, in), func() (*object, error) { return stagedObject(g.node, in), nil }
		body = body[8:]
		if len(body) < 8 {
			return errManifest("bytes without a place")
		}
		offset := binary.BigEndian.Uint64(body)
		first, body = int64(offset/stagedBytes), body[8:]
		if offset%stagedBytes != 0 {
			return errManifest("bytes that are not whole units")
		}
	}
	return c.put(key, makeObject, first, body)
}

// put puts units that came unasked into memory, if they are missing.
func (c *Client) put(key objectKey, makeObject func() (*object, error), first int64, body []byte) error {
	c.mu.Lock()
	o, err := c.objectLocked(key, makeObject)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	end := first*o.unit + int64(len(body))
	if first < 0 || first >= int64(o.units) || len(body) == 0 || end > o.size || end != o.size && end%o.unit != 0 {
		c.forgetLocked(o)
		c.mu.Unlock()
		return errManifest("bytes that are not whole units")
	}
	to := int((end + o.unit - 1) / o.unit)
	var fetches []*fetch
	o.gaps(int(first), to, func(a, b int) bool {
		f := c.claimLocked(o, a, b, true)
		if f != nil {
			fetches = append(fetches, f)
		}
		return f != nil
	})
	c.forgetLocked(o)
	c.mu.Unlock()
	return c.deliver(fetches, first, body)
}

// deliver ends fetches with the units that came for them, from first on.
func (c *Client) deliver(fetches []*fetch, first int64, body []byte) (err error) {
	for _, f := range fetches {
		if err == nil {
			from, to := int64(f.from)-first, int64(f.to)-first
			part := body[from*f.o.unit : min(to*f.o.unit, int64(len(body)))]
			err = c.take(f, &answered{body: bytes.NewReader(part), cancel: func() {}})
		}
		c.end(f, err)
	}
	return err
}
