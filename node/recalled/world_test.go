package recalled

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The series that tests are about, and the node that is gone.
const (
	study, series = "1.2", "1.2.1"
	origin        = "origin"
)

// world is a catalogue, nodes that hold shards, and a client at the first of them.
type world struct {
	t       *testing.T
	here    string // the node that reads
	solo    *alone.Solo
	catalog *catalog.Catalog
	state   *placement.State
	study   seal.Key
	codec   *pack.Codec
	client  *Client

	shards map[string]map[held.Name][]byte // by node
	down   map[string]bool
	late   bool // the ring has not kept yet what the catalogue has

	mu     sync.Mutex     // guards what follows
	asked  map[string]int // times, by node
	doubts []held.Name
}

func newWorld(t *testing.T, nodes, n int) *world {
	t.Helper()
	ids := make([]string, nodes)
	for i := range ids {
		ids[i] = fmt.Sprintf("n%02d", i)
	}
	return newWorldOf(t, n, ids...)
}

// newWorldOf is newWorld of nodes by their ids.
func newWorldOf(t *testing.T, n int, nodes ...string) *world {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, here: nodes[0], solo: catalogtest.Alone(c), catalog: c, study: seal.NewKey(), codec: pack.NewCodec(1 << 20),
		shards: map[string]map[held.Name][]byte{}, down: map[string]bool{origin: true}, asked: map[string]int{},
	}
	t.Cleanup(func() {
		w.codec.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	var holders []layout.Holder
	for _, id := range nodes {
		holders = append(holders, layout.Holder{Node: layout.Node{ID: id, Site: "s" + id, Pledge: 1 << 40}})
		w.shards[id] = map[held.Name][]byte{}
	}
	table, err := layout.Compute(nil, holders, n)
	if err != nil {
		t.Fatal(err)
	}
	w.state = &placement.State{View: layout.View{New: table}}
	w.do(&catalog.KeyFact{Origin: origin, Study: study, ID: [16]byte{7}, Epoch: 1})
	w.client = New(Options{
		Node: w.here, Catalog: c, Keys: w, State: func() *placement.State { return w.state }, Holders: w, Local: w, Hints: w,
		Doubt: func(name held.Name, _ string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.doubts = append(w.doubts, name)
		},
	})
	return w
}

// do tells the catalogue something.
func (w *world) do(changes ...any) {
	w.t.Helper()
	results, err := w.solo.Do(changes...)
	if err := errors.Join(append(results, err)...); err != nil {
		w.t.Fatal(err)
	}
}

// Key implements [Ring].
func (w *world) Key(id [16]byte) (seal.Key, error) {
	if id != [16]byte{7} || w.late {
		return seal.Key{}, fault.New(fault.NotFound, "no such key")
	}
	return w.study, nil
}

// Open implements [Ring].
func (w *world) Open(k keys.StudyKey) (seal.Key, error) {
	if k.ID != [16]byte{7} || k.Study != study || k.Origin != origin || k.Epoch != 1 {
		return seal.Key{}, fault.New(fault.Corrupt, "another key: %v", k.ID)
	}
	return w.study, nil
}

// Hint implements [recall.Hints].
func (w *world) Hint(node string) (bool, time.Duration) { return !w.down[node], time.Millisecond }

// Shard implements [held.Source], of the node that reads.
func (w *world) Shard(name held.Name) (held.Shard, error) { return w.at(w.here, name) }

func (w *world) at(node string, name held.Name) (held.Shard, error) {
	b, ok := w.shards[node][name]
	if !ok {
		return nil, fault.New(fault.NotFound, "no such shard")
	}
	return stripe.Open(bytes.NewReader(b), int64(len(b)))
}

// Leaves implements [recall.Holders].
func (w *world) Leaves(_ context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	one, err := w.ask(at, of)
	if err != nil {
		return recall.Leaves{}, err
	}
	data, proof, err := one.Range(first, count)
	return recall.Leaves{Proof: func() ([][32]byte, int64, error) { return proof, count, nil }, Body: io.NopCloser(bytes.NewReader(data))}, err
}

// Opening implements [recall.Holders].
func (w *world) Opening(_ context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	one, err := w.ask(at, of)
	if err != nil {
		return recall.Opening{}, err
	}
	tail := one.Tail()
	if tail == nil {
		return recall.Opening{}, fault.New(fault.NotFound, "no tail")
	}
	head, err := one.Head().AppendBinary(nil)
	return recall.Opening{Head: head, Body: io.NopCloser(tail)}, err
}

func (w *world) ask(at recall.Place, of shard.Stripe) (held.Shard, error) {
	if at.Node == w.here {
		panic("a node asks itself over the network")
	}
	w.mu.Lock()
	w.asked[at.Node]++
	w.mu.Unlock()
	if w.down[at.Node] {
		return nil, fault.New(fault.Unavailable, "it does not answer")
	}
	return w.at(at.Node, held.Name{Stripe: of, Index: at.Index})
}

// instance is a version of an instance. Its content is text, many times.
func instance(number uint64, sop, text string, change ...func(*archivepb.Instance)) *version {
	v := &version{content: bytes.Repeat([]byte(text), 30_000)}
	sum := blake3.Sum256(v.content)
	v.Instance = &archivepb.Instance{
		Version: 1, Number: number, Study: study, Series: series, Sop: sop, Class: "1.2.3", Syntax: "1.2.840.10008.1.2.1",
		Bytes: int64(len(v.content)), Hash: sum[:],
	}
	for _, f := range change {
		f(v.Instance)
	}
	return v
}

type version struct {
	*archivepb.Instance
	content []byte
}

func quarantined(r *archivepb.Instance) { r.State = archivepb.State_QUARANTINED }

// packed is a pack.
type packed struct {
	head       stripe.Head // its plan
	ciphertext []byte
	instances  int
}

// pack packs versions.
func (w *world) pack(all ...*version) *packed {
	w.t.Helper()
	p := &packed{instances: len(all)}
	p.head.Stripe.Generation = 1
	_, _ = rand.Read(p.head.Stripe.Pack[:]) // never fails
	var out bytes.Buffer
	sealed := seal.NewWriter(&out, seal.PackKey(w.study, p.head.Stripe.Pack))
	writer := w.codec.NewWriter(sealed, p.head.Stripe.Pack)
	for _, v := range all {
		record, err := proto.Marshal(&archivepb.Arrival{Instance: v.Instance, Header: []byte("header of " + v.Sop)})
		if err != nil {
			w.t.Fatal(err)
		}
		hash := blake3.Sum256(v.content)
		if err := writer.Add(bytes.NewReader(v.content), int64(len(v.content)), hash, pack.Samples{}, pack.Store, record); err != nil {
			w.t.Fatal(err)
		}
	}
	m, err := writer.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	durable, err := m.AppendBinary(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := sealed.Write(durable); err != nil {
		w.t.Fatal(err)
	}
	root, size, err := sealed.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	p.head.Size, p.head.Plaintext, p.head.Manifest, p.head.Pack = size, m.Bytes+int64(len(durable)), m.Bytes, root
	p.head.Key, p.head.Origin = [16]byte{7}, origin
	p.ciphertext = out.Bytes()
	return p
}

// seal makes a stripe of a pack, gives its shards to the nodes of its row, and tells
// the catalogue.
func (w *world) seal(p *packed, code shard.Code, change ...func(*catalog.SealFact)) *stripe.Head {
	w.t.Helper()
	p.head.Code = code
	head, shards := stripetest.Encode(w.t, stripe.NewCoder(), bytes.NewReader(p.ciphertext), p.head)
	for i := range shards {
		owner, ok := w.state.Owner(head.Stripe, i)
		if !ok {
			w.t.Fatal("no owner")
		}
		w.shards[owner.ID][held.Name{Stripe: head.Stripe, Index: i}] = shards[i]
	}
	fact := &catalog.SealFact{
		By: origin, Study: study, Series: series, Stripe: head.Stripe, Origin: origin, Key: head.Key, Size: head.Size,
		Instances: uint64(p.instances), Code: code, Root: head.Root(), Layout: 1, Receipts: 1<<code.N() - 1, Virtual: catalog.NoShard,
	}
	for _, f := range change {
		f(fact)
	}
	w.do(fact)
	return head
}

// lose takes a shard away.
func (w *world) lose(of shard.Stripe, index int) {
	for _, all := range w.shards {
		delete(all, held.Name{Stripe: of, Index: index})
	}
}

// holder is what the catalogue says of instances of the origin.
func holder(asOf uint64, sops ...string) *catalog.Holder {
	var sum [32]byte
	for _, sop := range sops {
		archive.AddUID(&sum, sop)
	}
	return &catalog.Holder{Study: study, Series: series, Node: origin, AsOf: asOf, Instances: uint64(len(sops)), UIDHash: [16]byte(sum[:16])}
}

// delete writes a tombstone.
func (w *world) delete(sop string) {
	w.do(&catalog.TombstoneFact{Study: study, Series: series, Instance: sop, Tick: 1, By: "test"})
}
