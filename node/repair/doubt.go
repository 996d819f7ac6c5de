package repair

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
)

const (
	pathDoubt = "/repair/doubt"
	pathLoad  = "/repair/load"

	nameBytes = 16 + 4 + 1

	// maxDoubts bounds the shards of other nodes that are to be told of, and those of
	// this node that are to be read for others; doubtsPerPeer those of one asker.
	maxDoubts     = 1024
	doubtsPerPeer = 64
	// doubtAgain is how long a shard that was read, or told of, is not again.
	doubtAgain = 10 * time.Minute
	maxKnown   = 8192
	doubtTime  = 10 * time.Second // a call

	// checkLeaves are read at once of a shard that is doubted.
	checkLeaves = 64
)

// doubt is a shard at a node that somebody saw rot, or nothing, of.
type doubt struct {
	held.Name
	node string
}

// doubts are those that wait. The own ones are by who raised them, in turn, so that
// nobody's keep another's waiting.
type doubts struct {
	mu     sync.Mutex
	others []doubt
	own    map[string][]held.Name
	peers  []string // that have some, in turn
	count  int      // of own
	known  map[doubt]time.Time
}

func (d *doubts) init() { d.own, d.known = map[string][]held.Name{}, map[doubt]time.Time{} }

// isKnownLocked notes a doubt, and reports whether it was raised a short while ago.
func (d *doubts) isKnownLocked(one doubt, now time.Time) bool {
	if at, ok := d.known[one]; ok && now.Sub(at) < doubtAgain {
		return true
	}
	if len(d.known) >= maxKnown {
		for k, at := range d.known {
			if now.Sub(at) >= doubtAgain {
				delete(d.known, k)
			}
		}
		if len(d.known) >= maxKnown {
			clear(d.known) // some are looked at sooner again
		}
	}
	d.known[one] = now
	return false
}

// Doubt says that somebody saw rot of a shard at a node, or that it is not there
// although it should: that node is told to look. It never blocks, and may be called
// again for the same. What finds no room is dropped: who meets it again says so again.
func (r *Repair) Doubt(name held.Name, node string) {
	r.doubts.mu.Lock()
	defer r.doubts.mu.Unlock()
	d := &r.doubts
	if node == r.o.Self {
		d.addOwnLocked(name, "")
	} else if len(d.others) < maxDoubts && !d.isKnownLocked(doubt{name, node}, time.Now()) {
		d.others = append(d.others, doubt{name, node})
	}
	poke(r.looks)
}

// addOwnLocked has a shard of this node read, which peer ("": this node) doubts.
func (d *doubts) addOwnLocked(name held.Name, peer string) {
	if d.count >= maxDoubts || len(d.own[peer]) >= doubtsPerPeer || d.isKnownLocked(doubt{name, ""}, time.Now()) {
		return
	}
	if len(d.own[peer]) == 0 {
		d.peers = append(d.peers, peer)
	}
	d.own[peer] = append(d.own[peer], name)
	d.count++
}

// nextOwn takes one of each asker in turn.
func (d *doubts) nextOwn() (held.Name, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.peers) == 0 {
		return held.Name{}, false
	}
	peer := d.peers[0]
	d.peers = d.peers[1:]
	name := d.own[peer][0]
	if d.own[peer] = d.own[peer][1:]; len(d.own[peer]) > 0 {
		d.peers = append(d.peers, peer)
	} else {
		delete(d.own, peer)
	}
	d.count--
	return name, true
}

func (d *doubts) nextOther() (doubt, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.others) == 0 {
		return doubt{}, false
	}
	one := d.others[0]
	d.others = d.others[1:]
	return one, true
}

// OnLost is held's word that a shard of this node turned out rotten or missing: it is
// rebuilt before all others. It does not block for long.
func (r *Repair) OnLost(name held.Name, _ error) {
	if err := r.urgent(r.plan(), name); err != nil {
		r.o.Log.Warn("a lost shard is left to the next walk", "shard", name.String(), "error", err)
	}
	r.wakeAll()
}

// lookInto tells other nodes of doubts, reads what is doubted here, and asks the nodes
// that repair reads from whether they are busy.
func (r *Repair) lookInto(ctx context.Context, progress *work.Progress) error {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		var did bool
		if one, ok := r.doubts.nextOther(); ok {
			did = true
			r.tellDoubt(ctx, one)
		}
		if name, ok := r.doubts.nextOwn(); ok {
			did = true
			if err := r.check(ctx, name); err != nil && ctx.Err() == nil {
				progress.Note(err)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-tick.C:
			r.askLoads(ctx)
			continue
		default:
		}
		if did {
			continue
		}
		select {
		case <-r.looks:
		case <-tick.C:
			r.askLoads(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Repair) tellDoubt(ctx context.Context, one doubt) {
	if r.bad.is(one.node) || r.o.Calls == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doubtTime)
	defer cancel()
	response, err := r.send(ctx, one.node, http.MethodPost, pathDoubt, appendName(nil, one.Name))
	if err != nil {
		r.o.Log.Debug("a doubt could not be told", "node", one.node, "shard", one.Name.String(), "error", err)
		return
	}
	response.Body.Close()
}

func (r *Repair) send(ctx context.Context, node, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+node+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Invalid, "repair: %w", err)
	}
	return r.o.Calls.Send(request)
}

// check reads a shard of this node whole, or the copy that it is cut from. The store
// notes rot, and tells of it (OnLost).
func (r *Repair) check(ctx context.Context, name held.Name) error {
	st, err := r.o.Held.Status(name)
	if fault.Is(err, fault.NotFound) || err == nil && st.State != held.Held {
		return r.checkCopy(ctx, name)
	}
	if err != nil {
		return err
	}
	r.stats.Doubted.Add(1)
	one, err := r.o.Held.Shard(name)
	if err != nil {
		return nil //nolint:nilerr // the store has noted it
	}
	g, err := one.Head().Geometry()
	if err != nil {
		return err
	}
	leaves := (g.ShardBytes(name.Index) + shard.LeafBytes - 1) / shard.LeafBytes
	for first := int64(0); first < leaves; first += checkLeaves {
		if err := r.pace.take(ctx, r.o.Self, checkLeaves*shard.LeafBytes); err != nil {
			return err
		}
		if _, _, err := one.Range(first, min(checkLeaves, leaves-first)); err != nil {
			return nil //nolint:nilerr // as above
		}
	}
	if tail := one.Tail(); tail != nil {
		_, err = io.Copy(io.Discard, tail)
	}
	return err
}

// checkCopy reads the full copy that a shard is cut from; the seal says so no more if
// it is rotten.
func (r *Repair) checkCopy(ctx context.Context, name held.Name) error {
	seal, ok, err := r.sealOf(name.Stripe)
	if err != nil || !ok || seal.Virtual != name.Index || seal.Origin != r.o.Self {
		return err
	}
	r.stats.Doubted.Add(1)
	err = r.o.Copies.Verify(ctx, name.Stripe)
	if !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.NotFound) {
		return err
	}
	r.o.Log.Error("the copy that a shard is cut from is rotten: the shard is rebuilt from others", "shard", name.String(), "error", err)
	return r.copyLost(name.Pack)
}

// CopyLost says that the full copy of a pack of this node turned out rotten or missing:
// the shards that it stood for are brought here from others.
func (r *Repair) CopyLost(pack [16]byte) {
	if err := r.copyLost(pack); err != nil {
		r.o.Log.Warn("the shard of a pack whose copy is lost is left to the next walk", "error", err)
	}
}

func (r *Repair) copyLost(pack [16]byte) error {
	r.mu.Lock()
	if len(r.rotten) >= maxKnown {
		clear(r.rotten)
	}
	r.rotten[pack] = true
	r.mu.Unlock()
	view := r.o.Catalog.View()
	seals, err := view.Pack(pack)
	if err := errors.Join(err, view.Close()); err != nil {
		return err
	}
	for i := range seals {
		s := &seals[i].SealFact
		if s.Virtual != catalog.NoShard && s.Origin == r.o.Self {
			if err := r.urgent(r.plan(), held.Name{Stripe: s.Stripe, Index: s.Virtual}); err != nil {
				return err
			}
		}
	}
	r.wakeAll()
	return nil
}

// Handler answers other nodes under /repair/, who are members.
func (r *Repair) Handler(peer func(*http.Request) (string, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathDoubt, func(w http.ResponseWriter, request *http.Request) {
		if err := r.hear(request, peer); err != nil {
			call.Refuse(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+pathLoad, func(w http.ResponseWriter, _ *http.Request) {
		answer := []byte{0}
		if r.o.Busy() {
			answer[0] = 1
		}
		w.Write(answer) //nolint:errcheck // the asker does without
	})
	return mux
}

// hear takes another node's doubt, of a shard that this node has, had, or cuts.
func (r *Repair) hear(request *http.Request, peer func(*http.Request) (string, error)) error {
	from, err := peer(request)
	if err != nil {
		return err
	}
	b, err := call.Read(request.Body, nameBytes)
	if err != nil {
		return err
	}
	name, err := parseName(b)
	if err != nil {
		return err
	}
	st, err := r.o.Held.Status(name)
	if err != nil || st.State == held.Dropped {
		seal, ok, err := r.sealOf(name.Stripe)
		if err != nil {
			return err
		}
		if !ok || seal.Origin != r.o.Self || seal.Virtual != name.Index {
			return fault.New(fault.NotFound, "repair: shard %v is not here", name)
		}
	}
	r.doubts.mu.Lock()
	r.doubts.addOwnLocked(name, from)
	r.doubts.mu.Unlock()
	poke(r.looks)
	r.o.Log.Debug("a shard of this node is doubted", slog.String("node", from), slog.String("shard", name.String()))
	return nil
}

func appendName(b []byte, n held.Name) []byte {
	b = binary.BigEndian.AppendUint32(append(b, n.Pack[:]...), n.Generation)
	return append(b, byte(n.Index))
}

func parseName(b []byte) (n held.Name, err error) {
	if len(b) != nameBytes {
		return n, fault.New(fault.Invalid, "repair: a shard's name of %d bytes", len(b))
	}
	copy(n.Pack[:], b)
	n.Generation, n.Index = binary.BigEndian.Uint32(b[16:]), int(b[20])
	if n.Generation == 0 || n.Index >= shard.MaxShards {
		return n, fault.New(fault.Invalid, "repair: no shard %d of generation %d", n.Index, n.Generation)
	}
	return n, nil
}

// compare is the order of requests and receipts.
func compare(a, b held.Name) int {
	return cmp.Or(bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Index, b.Index))
}

const (
	loadEvery = 2 * time.Second
	loadTime  = time.Second // a call
)

// loads are what the nodes that repair reads from say of readers there.
type loads struct {
	mu   sync.Mutex
	used map[string]time.Time
	busy map[string]bool
}

func (l *loads) init() { l.used, l.busy = map[string]time.Time{}, map[string]bool{} }

// busyAt reports whether a node said lately that others use it.
func (r *Repair) busyAt(node string) bool {
	r.loads.mu.Lock()
	defer r.loads.mu.Unlock()
	r.loads.used[node] = time.Now()
	return r.loads.busy[node]
}

// askLoads asks those that were read from since they were asked last.
func (r *Repair) askLoads(ctx context.Context) {
	if r.o.Calls == nil {
		return
	}
	var nodes []string
	r.loads.mu.Lock()
	for node, at := range r.loads.used {
		if node == r.o.Self || time.Since(at) > 2*loadEvery {
			delete(r.loads.used, node)
			delete(r.loads.busy, node)
			continue
		}
		nodes = append(nodes, node)
	}
	r.loads.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range nodes {
		all.Go(func() {
			busy := r.askLoad(ctx, node)
			r.loads.mu.Lock()
			defer r.loads.mu.Unlock()
			r.loads.busy[node] = busy
		})
	}
	all.Wait()
}

// askLoad: who does not answer in time may be busy with others.
func (r *Repair) askLoad(ctx context.Context, node string) bool {
	response, err := r.send(ctx, node, http.MethodGet, pathLoad, nil)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, 16)
	return err == nil && len(b) > 0 && b[0] == 1
}
