package far

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
)

const (
	// maxFetch is the most that is asked for at once: 256 units, 33 ms of 1 Gb/s.
	maxFetch = 256 * segmentBytes
	// answerWithin is how long a node may take to begin to answer: its queue's time
	// and a slow disk's.
	answerWithin = 15 * time.Second
	// stallAfter is how long it may then send nothing.
	stallAfter = 15 * time.Second
	// minLate and lateAfter are after which time a node that has not begun to answer is
	// not waited for alone any more: what a busy one may take, and how long none may of
	// whom little is known.
	minLate, lateAfter = 500 * time.Millisecond, 3 * time.Second
	// hedgeShare is the part of what is fetched that may be asked for twice: 5 %.
	hedgeShare = 20
)

// fetch brings units [from, to) of an object. Client.mu guards what is below the
// blank line; only the fetch's goroutine writes the memory of its units.
type fetch struct {
	o        *object
	from, to int
	ahead    bool   // nobody waited for it when it began
	order    uint64 // of those, over all series

	series  *Series       // that reads ahead by it; nil: none
	demand  bool          // somebody waits for it
	next    int           // units before it are here
	changed chan struct{} // closed, and made anew, when next grows; closed at the end
	done    bool
	err     error
}

// startLocked begins a fetch of units that are missing; nil if there is no room.
func (c *Client) startLocked(o *object, from, to int, demand bool) *fetch {
	f := c.claimLocked(o, from, to, demand)
	if f == nil {
		return nil
	}
	f.demand, f.ahead = demand, !demand
	if f.ahead {
		c.ahead++
		c.order++
		f.order = c.order
	}
	c.work.Go(func() { c.run(f) })
	return f
}

// claimLocked makes a fetch of units that are missing, for the caller to run and
// to end; nil if there is no room.
func (c *Client) claimLocked(o *object, from, to int, demand bool) *fetch {
	if c.closed || !c.takeLocked(o, from, to, demand) {
		return nil
	}
	f := &fetch{o: o, from: from, to: to, next: from, changed: make(chan struct{})}
	for u := from; u < to; u++ {
		b := o.blocks[u/unitsAtOnce]
		b.by[u%unitsAtOnce] = f
		b.taken |= 1 << (u % unitsAtOnce)
	}
	o.fetches++
	c.idle.Reset(idleAfter)
	return f
}

// run fetches from one node after the other until all is here.
func (c *Client) run(f *fetch) {
	c.mu.Lock()
	way := c.wayLocked(f.o)
	c.mu.Unlock()
	var err error
	for f.next < f.to && c.ctx.Err() == nil {
		var answer *answered
		if answer, err = c.first(f, way); err != nil {
			break
		}
		before := f.next
		err = c.take(f, answer)
		answer.close()
		if err == nil {
			continue
		}
		err = fmt.Errorf("far: node %s: %w", answer.node, err)
		way.failed(answer.node, err)
		c.lost(f.o, answer.node, err)
		if f.next > before && fault.Is(err, fault.Unavailable) {
			way.again(answer.node) // it was getting on
		}
	}
	if f.next < f.to && c.ctx.Err() != nil {
		err = errClosed
	}
	c.end(f, err)
}

// end ends a fetch, with the reason if not all of it came.
func (c *Client) end(f *fetch, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := f.o
	for u := f.next; u < f.to; u++ {
		b := o.blocks[u/unitsAtOnce]
		b.by[u%unitsAtOnce] = nil
		b.taken &^= 1 << (u % unitsAtOnce)
	}
	f.done, f.err = true, err
	close(f.changed)
	if f.series != nil {
		f.series.flying -= f.bytes()
	}
	c.letGoLocked(o, f.from/unitsAtOnce, (f.to-1)/unitsAtOnce+1)
	o.fetches--
	if f.ahead {
		c.ahead--
	}
	c.completeLocked(o)
	c.offerLocked(o)
	c.forgetLocked(o)
	if f.series != nil && err == nil {
		f.series.aheadLocked()
	}
}

// lost draws the consequences of a node's failure.
func (c *Client) lost(o *object, node string, err error) {
	switch kind := fault.KindOf(err); {
	case kind == fault.Canceled:
	case node == Shards: // they may be there, or mended, in a moment
		if kind != fault.Unavailable && kind != fault.NotFound {
			c.o.Log.Warn("a pack cannot be read from its shards", "error", err, "kind", kind.String())
		}
	case kind == fault.Unavailable:
		c.peers.broke(node, time.Now())
	default:
		if !fault.Is(err, fault.NotFound) {
			c.o.Log.Warn("a peer does not give what it should", "node", node, "error", err, "kind", fault.KindOf(err).String())
		}
		c.mu.Lock()
		o.refused[node] = true
		c.mu.Unlock()
	}
}

// way is whom a fetch still asks, in order, and what came of those it asked.
type way struct {
	left       []stop
	redirected bool
	err        error
}

// stop is a node to ask. insist: it must not send us elsewhere. ahead: what has a
// lower one comes first; 0: somebody waits.
type stop struct {
	node   string
	insist bool
	ahead  uint64
}

// query is what a node is told beside the range of a pack.
func (s stop) query() string {
	var all []string
	if s.insist {
		all = append(all, insistQuery)
	}
	if s.ahead > 0 {
		all = append(all, aheadQuery+"="+strconv.FormatUint(s.ahead, 10))
	}
	if len(all) == 0 {
		return ""
	}
	return "?" + strings.Join(all, "&")
}

// wayLocked is the way of a fetch: the object's nodes, those last that failed
// lately, and those that do not have it only if there is no other.
func (c *Client) wayLocked(o *object) *way {
	var good, bad, none []stop
	now := time.Now()
	for _, n := range o.nodes {
		switch {
		case n == Shards && (c.o.Packs == nil || o.verifier == nil):
		case o.refused[n]:
			none = append(none, stop{node: n})
		case n != Shards && (c.peers.down(n, now) || !c.o.Alive(n)):
			bad = append(bad, stop{node: n})
		default:
			good = append(good, stop{node: n})
		}
	}
	w := &way{left: append(good, bad...)}
	if len(w.left) == 0 {
		w.left = none
	}
	return w
}

// failed remembers an error: of several, that which leaves most hope.
func (w *way) failed(node string, err error) {
	if w.err == nil || hope(err) > hope(w.err) {
		w.err = err
	}
}

func hope(err error) int {
	return slices.Index([]fault.Kind{fault.NotFound, fault.Denied, fault.Corrupt, fault.Full, fault.Unavailable}, fault.KindOf(err))
}

// again asks a node once more, after the others.
func (w *way) again(node string) { w.left = append(w.left, stop{node: node, insist: w.redirected}) }

// take returns the next to ask.
func (w *way) take() (stop, bool) {
	if len(w.left) == 0 {
		return stop{}, false
	}
	s := w.left[0]
	w.left = w.left[1:]
	s.insist = s.insist || w.redirected
	return s, true
}

// redirect asks others first, as a node says, and then that node. It happens once
// a fetch.
func (w *way) redirect(from string, to []string) {
	w.redirected = true
	var first []stop
	for _, n := range to {
		first = append(first, stop{node: n})
	}
	w.left = append(append(first, stop{node: from}), slices.DeleteFunc(w.left, func(s stop) bool {
		return s.node == from || slices.Contains(to, s.node)
	})...)
}

// answered is an answer that has begun.
type answered struct {
	node   string
	body   io.Reader
	cancel context.CancelFunc
	close  func()
	others []string // ask these instead
	err    error
	after  time.Duration
}

// first asks one node after the other, and a second one when the first takes
// longer than it usually does, and returns the first answer that has begun.
func (c *Client) first(f *fetch, w *way) (*answered, error) {
	answers := make(chan *answered)
	settled := make(chan struct{})
	defer close(settled)
	asked := map[string]context.CancelFunc{}
	defer func() {
		for _, cancel := range asked {
			cancel()
		}
	}()
	from := f.next // of late losers too, who would read it while it grows
	var launched time.Time
	launch := func(s stop) {
		launched = time.Now()
		s.ahead = c.orderOf(f)
		ctx, cancel := context.WithCancel(c.ctx)
		asked[s.node] = cancel
		c.work.Go(func() {
			var a *answered
			if s.node == Shards {
				a = c.gather(ctx, cancel, f, from)
			} else {
				a = c.ask(ctx, cancel, f.o, from, f.to, s)
			}
			select {
			case answers <- a:
			case <-settled:
				a.close()
			}
		})
	}
	for {
		if len(asked) == 0 {
			s, ok := w.take()
			if !ok {
				return nil, w.noneLeft()
			}
			launch(s)
		}
		hedge, stopHedge := c.hedge(w, asked)
		overdue, stopOverdue := c.overdue(w, asked, launched)
		select {
		case <-hedge:
			if c.mayHedge(f) {
				s, _ := w.take()
				launch(s)
			}
		case <-overdue:
			for node := range asked {
				c.peers.broke(node, time.Now()) // until it answers
			}
			s, _ := w.take()
			launch(s)
		case a := <-answers:
			delete(asked, a.node)
			switch {
			case a.err != nil:
				a.close()
				w.failed(a.node, fmt.Errorf("far: node %s: %w", a.node, a.err))
				c.lost(f.o, a.node, a.err)
			case len(a.others) > 0:
				a.close()
				c.sentTo(f.o, w, a)
			default:
				if a.node != Shards {
					c.peers.answered(a.node, a.after)
				}
				stopHedge()
				stopOverdue()
				return a, nil
			}
		}
		stopHedge()
		stopOverdue()
	}
}

// noneLeft is why nobody gives it.
func (w *way) noneLeft() error {
	if w.err == nil {
		return fault.New(fault.NotFound, "far: no node is known to hold it")
	}
	return w.err
}

// sentTo follows a node that says who else has the pack.
func (c *Client) sentTo(o *object, w *way, a *answered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	others := slices.DeleteFunc(a.others, func(n string) bool { return o.refused[n] || n == c.o.Self.ID() })
	if w.redirected {
		others = nil
	}
	o.ask(others, true)
	w.redirect(a.node, others)
}

// hedge is when another node may be asked too: never if none is left that is
// known to answer.
func (c *Client) hedge(w *way, asked map[string]context.CancelFunc) (<-chan time.Time, func()) {
	if len(w.left) > 0 && len(asked) == 1 && !c.peers.down(w.left[0].node, time.Now()) {
		for node := range asked {
			if d, ok := c.peers.patience(node); ok {
				t := time.NewTimer(d + d/4) // what is nearly here does not come sooner from another
				return t.C, func() { t.Stop() }
			}
		}
	}
	return nil, func() {}
}

// overdue is when the only node that is asked is as good as lost, so that another one is
// asked whatever was asked for twice: it has not begun for three times its patience.
func (c *Client) overdue(w *way, asked map[string]context.CancelFunc, launched time.Time) (<-chan time.Time, func()) {
	if len(w.left) > 0 && len(asked) == 1 && (w.left[0].node == Shards || !c.peers.down(w.left[0].node, time.Now())) {
		for node := range asked {
			if node == Shards {
				break // they have a patience of their own
			}
			after := lateAfter
			if d, ok := c.peers.patience(node); ok {
				after = min(after, max(minLate, 3*d))
			}
			t := time.NewTimer(time.Until(launched.Add(after)))
			return t.C, func() { t.Stop() }
		}
	}
	return nil, func() {}
}

// mayHedge reports whether somebody waits for a fetch and little enough was asked
// for twice already, and counts it.
func (c *Client) mayHedge(f *fetch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.demand || (c.hedged+f.bytes())*hedgeShare > c.fetched {
		return false
	}
	c.hedged += f.bytes()
	return true
}

// orderOf is in which order a fetch is wanted; 0: somebody waits for it.
func (c *Client) orderOf(f *fetch) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.demand {
		return 0
	}
	return f.order
}

// bytes is what is left of it, about.
func (f *fetch) bytes() int64 { return int64(f.to-f.next) * f.o.unit }

// ask sends a request for units of an object.
func (c *Client) ask(ctx context.Context, cancel context.CancelFunc, o *object, first, end int, s stop) *answered {
	a := &answered{node: s.node, cancel: cancel, close: cancel}
	from, to := int64(first)*o.unit, min(int64(end)*o.unit, o.size)
	path := o.path
	if o.verifier != nil {
		path += s.query()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.node+path, nil)
	if err != nil {
		a.err = fault.New(fault.Invalid, "%w", err)
		return a
	}
	request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	started := time.Now()
	late := time.AfterFunc(answerWithin, cancel)
	response, err := c.o.Calls.Send(request) //nolint:bodyclose // a.close does
	if !late.Stop() && c.ctx.Err() == nil {
		err = errors.Join(fault.New(fault.Unavailable, "no answer within %s", answerWithin), err)
	}
	a.after = time.Since(started)
	if err != nil {
		a.err = noEnd(err)
		if response != nil {
			a.err = errors.Join(err, response.Body.Close())
		}
		return a
	}
	a.body = response.Body
	a.close = func() {
		cancel()
		response.Body.Close()
	}
	if response.StatusCode == http.StatusNoContent && response.Header.Get(holderHeader) != "" {
		a.others = strings.SplitN(response.Header.Get(holderHeader), ",", maxHolders+1)
		a.others = a.others[:min(len(a.others), maxHolders)]
		return a
	}
	if got, want := response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", from, to-1, o.size); got != want {
		a.err = fault.New(fault.Corrupt, "the answer is of another range, or object, than was asked for")
	}
	return a
}

// take reads an answer, block by block; what it has read is authenticated before
// others see it. Of an answer that breaks off, whole units count.
func (c *Client) take(f *fetch, a *answered) error {
	scratch := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(scratch)
	stall := time.AfterFunc(stallAfter, a.cancel)
	defer stall.Stop()
	o := f.o
	for f.next < f.to {
		index := f.next / unitsAtOnce
		end := min(f.to, (index+1)*unitsAtOnce)
		c.mu.Lock()
		mem := o.blocks[index].mem // pinned by us
		c.mu.Unlock()
		skip := int64(f.next-index*unitsAtOnce) * o.unit
		mem = mem[skip:min(int64(len(mem)), int64(end-index*unitsAtOnce)*o.unit)]
		n, broke := fill(mem, a.body, stall)
		if broke != nil {
			end = f.next + int(int64(n)/o.unit)
			mem = mem[:int64(end-f.next)*o.unit]
		}
		if o.verifier != nil && len(mem) > 0 {
			if err := o.verifier.Verify(int64(f.next), mem, *scratch); err != nil {
				return err
			}
		}
		if err := errors.Join(c.arrived(f, end), c.late(broke)); err != nil {
			return err
		}
	}
	return nil
}

// fill reads all of mem and puts the end of patience off with each piece.
func fill(mem []byte, from io.Reader, stall *time.Timer) (n int, err error) {
	for n < len(mem) {
		m, err := from.Read(mem[n:])
		n += m
		stall.Reset(stallAfter)
		if err != nil && n < len(mem) {
			return n, errBroken(err)
		}
	}
	return n, nil
}

// arrived shows units up to end to everybody. The last of a staged instance are
// shown once its hash is right.
func (c *Client) arrived(f *fetch, end int) error {
	if end == f.next {
		return nil
	}
	o := f.o
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.verifier == nil && o.here+end-f.next == o.units {
		if !c.takeLocked(o, 0, o.units, true) {
			return fault.New(fault.Unavailable, "far: no room")
		}
		c.mu.Unlock()
		right := rightHash(o)
		c.mu.Lock()
		c.letGoLocked(o, 0, len(o.blocks))
		if !right {
			return fault.New(fault.Corrupt, "far: the instance's bytes do not match its hash")
		}
	}
	c.fetched += int64(end-f.next) * o.unit
	if f.series != nil {
		f.series.flying -= int64(end-f.next) * o.unit
	}
	now := time.Now()
	for u := f.next; u < end; u++ {
		b := o.blocks[u/unitsAtOnce]
		b.have |= 1 << (u % unitsAtOnce)
		b.by[u%unitsAtOnce] = nil
		b.came = now
	}
	o.here += end - f.next
	if o.came != nil {
		o.came.add(f.next, end)
		c.followLocked(o)
	}
	f.next = end
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}
