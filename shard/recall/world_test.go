package recall_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// striped is a pack and its shards.
type striped struct {
	head       *stripe.Head
	ciphertext []byte
	shards     []*stripe.Shard
}

// encode makes a stripe of random plaintext, whose last tail bytes are its manifest.
func encode(t testing.TB, code shard.Code, plain, manifest int64, seed uint64) *striped {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	text := make([]byte, plain)
	_, _ = random.Read(text)
	var id [16]byte
	_, _ = random.Read(id[:])
	var sealed bytes.Buffer
	w := seal.NewWriter(&sealed, seal.PackKey(seal.Key{1}, id))
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	root, size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	head := stripe.Head{
		Stripe: shard.Stripe{Pack: id, Generation: 1}, Code: code, Size: size, Plaintext: plain,
		Manifest: plain - manifest, Key: [16]byte{2}, Origin: "origin", Pack: root,
	}
	s := &striped{ciphertext: sealed.Bytes()}
	full, shards := stripetest.Encode(t, stripe.NewCoder(), bytes.NewReader(s.ciphertext), head)
	s.head = full
	for _, b := range shards {
		one, err := stripe.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		s.shards = append(s.shards, one)
	}
	return s
}

// sealed is what the seal of a stripe says.
func (s *striped) sealed() recall.Sealed {
	return recall.Sealed{Stripe: s.head.Stripe, Code: s.head.Code, Root: s.head.Root()}
}

// places are one node for each shard, named after it.
func (s *striped) places() (all []recall.Place) {
	for i := range s.shards {
		all = append(all, recall.Place{Index: i, Node: name(i)})
	}
	return all
}

func name(i int) string { return fmt.Sprintf("n%02d", i) }

// ill is what is wrong with a node.
type ill int

const (
	well       ill = iota
	dead           // answers nothing
	refusing       // cannot be connected to
	without        // has no such shard
	lost           // says that its shard is rotten
	rotten         // sends bytes that were changed
	unproven       // sends a wrong proof
	confused       // proves more leaves than it was asked for
	short          // sends a byte less
	long           // sends a byte more
	endless        // sends on and on
	other          // sends another generation
	breaking       // breaks off in the middle
	stuck          // begins, and sends nothing
	faultKinds     // how many there are
)

// node is a holder on virtual time.
type node struct {
	mu      sync.Mutex
	ill     ill
	rtt     time.Duration
	spread  time.Duration  // on top of it, up to so much, mostly little
	slow    int            // times; 0: as it should be
	rot     map[int64]bool // leaves that are rotten
	link    link
	asked   int
	bytes   int64 // sent
	proofs  int64 // bytes of proofs sent
	random  *rand.Rand
	stalled time.Duration // the next answer begins so much later
}

// link carries so many bytes a second, one after the other.
type link struct {
	mu   sync.Mutex
	rate float64
	free time.Time
}

// take returns when n more bytes have passed.
func (l *link) take(n int, rate float64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rate == 0 {
		return time.Now()
	}
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / rate * 1e9))
	return l.free
}

// world is nodes that hold stripes, and a reader's link.
type world struct {
	t       testing.TB
	nodes   map[string]*node
	own     link
	mu      sync.Mutex
	stripes map[shard.Stripe]*striped
	another *striped // what a node sends that has another generation
	now     int64    // bytes in answers that have not ended
	most    int64
}

const gigabit = 125e6 // bytes a second

// newWorld has n nodes of one round trip, links of 1 Gb/s.
func newWorld(t testing.TB, n int, rtt time.Duration, all ...*striped) *world {
	w := &world{t: t, nodes: map[string]*node{}, stripes: map[shard.Stripe]*striped{}, own: link{rate: gigabit}}
	for i := range n {
		w.nodes[name(i)] = &node{rtt: rtt, link: link{rate: gigabit}, random: rand.New(rand.NewPCG(uint64(i), 7)), rot: map[int64]bool{}}
	}
	for _, s := range all {
		w.stripes[s.head.Stripe] = s
	}
	return w
}

func (w *world) client(rotten func(recall.Rot)) *recall.Client {
	return recall.New(recall.Options{Holders: w, Peers: recall.NewPeers(nil), Coder: stripe.NewCoder(), Rotten: rotten})
}

// requests is how many were made of all nodes, and the bytes that were sent.
func (w *world) requests() (requests int, bytes int64) {
	for _, n := range w.nodes {
		n.mu.Lock()
		requests, bytes = requests+n.asked, bytes+n.bytes
		n.mu.Unlock()
	}
	return requests, bytes
}

// proofs is the bytes of all proofs that were sent.
func (w *world) proofs() (bytes int64) {
	for _, n := range w.nodes {
		n.mu.Lock()
		bytes += n.proofs
		n.mu.Unlock()
	}
	return bytes
}

func (w *world) set(i int, of ill) {
	n := w.nodes[name(i)]
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ill = of
}

// reach waits for the beginning of an answer.
func (w *world) reach(ctx context.Context, at recall.Place) (*node, ill, error) {
	n := w.nodes[at.Node]
	n.mu.Lock()
	n.asked++
	of, wait := n.ill, n.rtt+n.stalled
	n.stalled = 0
	if n.spread > 0 {
		x := n.random.Float64()
		wait += time.Duration(x * x * x * float64(n.spread))
	}
	wait *= time.Duration(max(1, n.slow))
	n.mu.Unlock()
	switch of {
	case dead:
		<-ctx.Done()
		return nil, of, context.Cause(ctx)
	case refusing:
		wait = min(wait, time.Millisecond)
	}
	if err := sleep(ctx, time.Now().Add(wait)); err != nil {
		return nil, of, err
	}
	switch of {
	case refusing:
		return nil, of, fault.New(fault.Unavailable, "connection refused")
	case without:
		return nil, of, fault.New(fault.NotFound, "no such shard")
	case lost:
		return nil, of, fault.New(fault.Corrupt, "the shard is lost")
	}
	return n, of, nil
}

func sleep(ctx context.Context, until time.Time) error {
	if d := time.Until(until); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Leaves implements recall.Holders.
func (w *world) Leaves(ctx context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	n, illness, err := w.reach(ctx, at)
	if err != nil {
		return recall.Leaves{}, err
	}
	s := w.stripes[of]
	if illness == other {
		s = w.another
	}
	data, _, err := s.shards[at.Index].Range(first, count)
	if err != nil {
		return recall.Leaves{}, err
	}
	n.mu.Lock()
	for leaf := range n.rot {
		if leaf >= first && leaf < first+count {
			data = slices.Clone(data)
			data[(leaf-first)*seal.LeafBytes+100] ^= 1
		}
	}
	n.mu.Unlock()
	prove := func() ([][32]byte, int64, error) { // of as many leaves as its runs have
		if illness == confused {
			return nil, count + 1, nil
		}
		run := min(runLeaves, count)
		_, proof, err := s.shards[at.Index].Range(first, run)
		first, count = first+run, count-run
		if illness == unproven {
			proof = append(slices.Clone(proof), [32]byte{1})
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.proofs += int64(len(proof)) * 32
		return proof, run, err
	}
	return recall.Leaves{Proof: prove, Body: w.body(ctx, n, illness, data)}, nil
}

// runLeaves is how many leaves a node proves at once.
const runLeaves = 64

// Opening implements recall.Holders.
func (w *world) Opening(ctx context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	n, illness, err := w.reach(ctx, at)
	if err != nil {
		return recall.Opening{}, err
	}
	s := w.stripes[of]
	if illness == other {
		s = w.another
	}
	head, err := s.head.AppendBinary(nil)
	if err != nil {
		return recall.Opening{}, err
	}
	if illness == unproven {
		head[40] ^= 1
	}
	from := s.shards[at.Index].Tail()
	if from == nil {
		return recall.Opening{}, fault.New(fault.NotFound, "shard %d has no tail", at.Index)
	}
	tail := make([]byte, from.Size())
	if _, err := from.ReadAt(tail, 0); err != nil {
		return recall.Opening{}, err
	}
	return recall.Opening{Head: head, Body: w.body(ctx, n, illness, tail)}, nil
}

// body sends bytes over the node's link and the reader's.
func (w *world) body(ctx context.Context, n *node, of ill, data []byte) io.ReadCloser {
	b := &sending{w: w, n: n, ill: of, data: data, size: int64(len(data)), closed: make(chan struct{}), ctx: ctx}
	switch of {
	case rotten:
		b.data = slices.Clone(data)
		b.data[len(data)/2] ^= 0x40
	case short:
		b.data = data[:len(data)-1]
	case long:
		b.data = append(slices.Clone(data), 7)
	case breaking:
		b.data = data[:len(data)/2]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += b.size
	w.most = max(w.most, w.now)
	return b
}

// sending is a body on its way.
type sending struct {
	w      *world
	n      *node
	ill    ill
	data   []byte
	size   int64
	ctx    context.Context
	once   sync.Once
	closed chan struct{}
}

func (b *sending) Read(p []byte) (int, error) {
	select {
	case <-b.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	switch {
	case b.ill == stuck:
		<-b.closed
		return 0, io.ErrClosedPipe
	case b.ill == endless && len(b.data) == 0:
		b.data = make([]byte, 64)
	case b.ill == breaking && len(b.data) == 0:
		return 0, io.ErrUnexpectedEOF
	case len(b.data) == 0:
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 16<<10)], b.data)
	b.data = b.data[n:]
	b.n.mu.Lock()
	b.n.bytes += int64(n)
	rate := b.n.link.rate / float64(max(1, b.n.slow))
	b.n.mu.Unlock()
	there, here := b.n.link.take(n, rate), b.w.own.take(n, b.w.own.rate)
	if there.After(here) {
		here = there
	}
	timer := time.NewTimer(time.Until(here))
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, nil
	case <-b.closed:
		return 0, io.ErrClosedPipe
	}
}

func (b *sending) Close() error {
	b.once.Do(func() {
		close(b.closed)
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		b.w.now -= b.size
	})
	return nil
}
