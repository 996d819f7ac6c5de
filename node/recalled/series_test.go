package recalled

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/seal"
)

// read reads an instance of a manifest as its readers do.
func (w *world) read(m *far.Manifest, i int) ([]byte, error) {
	in := &m.Instances[i]
	p := m.Packs[in.Pack]
	plain := seal.Reader(readerOf{w, &p}, p.Bytes, seal.PackKey(p.Key, p.ID))
	return io.ReadAll(io.NewSectionReader(w.codec.Instance(p.ID, plain, in.Entry()), 0, in.Record.Bytes))
}

// readerOf is a pack by whole segments.
type readerOf struct {
	w *world
	p *far.Pack
}

func (r readerOf) ReadAt(b []byte, off int64) (int, error) {
	from := off / shard.LeafBytes * shard.LeafBytes
	to := min((off+int64(len(b))+shard.LeafBytes-1)/shard.LeafBytes*shard.LeafBytes, r.p.Bytes)
	all := make([]byte, to-from)
	if err := r.w.client.ReadPack(r.w.t.Context(), r.p, all, from); err != nil {
		return 0, err
	}
	n := copy(b, all[off-from:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// check checks that a manifest has these versions and no others, byte for byte.
func (w *world) check(m *far.Manifest, want ...*version) {
	w.t.Helper()
	if m == nil || len(m.Instances) != len(want) {
		w.t.Fatalf("%+v, of %d instances", m, len(want))
	}
	for i, v := range want {
		in := &m.Instances[i]
		if in.Record.Sop != v.Sop || in.Record.Number != v.Number || in.Record.State != archivepb.State_CANONICAL || string(in.Header) != "header of "+v.Sop {
			w.t.Errorf("%s %d, %v, header %q, of %s %d", in.Record.Sop, in.Record.Number, in.Record.State, in.Header, v.Sop, v.Number)
		}
		if got, err := w.read(m, i); err != nil || !bytes.Equal(got, v.content) {
			w.t.Errorf("%s: %d bytes, %v", v.Sop, len(got), err)
		}
	}
	for i := range m.Packs {
		if !slices.ContainsFunc(m.Instances, func(in far.Instance) bool { return in.Pack == i }) {
			w.t.Error("a pack of which nothing counts")
		}
	}
}

func TestTheVersionThatCountedIsTheOneThatIsTold(t *testing.T) {
	decided := func(r *archivepb.Instance) { r.Decided = 5 }
	for _, test := range []struct {
		name    string
		packs   [][]*version
		prepare func(*world)
		told    *catalog.Holder
		want    []int // numbers
		whole   bool
	}{
		{"two packs", [][]*version{{instance(1, "1.1", "a")}, {instance(2, "1.2", "b")}}, nil, holder(2, "1.1", "1.2"), []int{1, 2}, true},
		{
			"other content came later", [][]*version{{instance(1, "1.1", "a")}, {instance(2, "1.1", "b", quarantined)}},
			nil, holder(2, "1.1"), []int{1}, true,
		},
		{
			"an operator decided before it was packed", [][]*version{{instance(1, "1.1", "a")}, {instance(2, "1.1", "b", decided)}},
			nil, holder(2, "1.1"), []int{2}, true,
		},
		{"the same was sent again for what was lost", [][]*version{{instance(1, "1.1", "a")}, {instance(2, "1.1", "a")}}, nil, holder(2, "1.1"), []int{2}, true},
		{"only what is quarantined", [][]*version{{instance(1, "1.1", "a", quarantined)}}, nil, holder(0), nil, true},
		{
			"one was accepted over a tombstone", [][]*version{{instance(1, "1.1", "a"), instance(2, "1.1", "b", quarantined)}, {instance(3, "1.2", "c")}},
			func(w *world) {
				w.delete("1.1")
				a := catalog.Accepted{Study: study, Series: series, Versions: map[string][32]byte{"1.1": [32]byte(instance(2, "1.1", "b").Hash)}}
				w.do(&catalog.RegistryFact{Kind: catalog.KindAccepted, Name: catalog.AcceptedName(study, series), Value: a.Encode()})
			},
			holder(3, "1.1", "1.2"), []int{2, 3}, true,
		},
		{
			"one was deleted, and its node told so", [][]*version{{instance(1, "1.1", "a"), instance(2, "1.2", "b")}},
			func(w *world) { w.delete("1.1") }, holder(2, "1.2"), []int{2}, true,
		},
		{"some is above what the catalogue knows", [][]*version{{instance(1, "1.1", "a"), instance(2, "1.2", "b")}}, nil, holder(1, "1.1"), []int{1, 2}, true},
		{"some is not sealed", [][]*version{{instance(1, "1.1", "a")}}, nil, holder(2, "1.1", "1.2"), []int{1}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 5, 4)
			versions := map[int]*version{}
			for _, all := range test.packs {
				for _, v := range all {
					versions[int(v.Number)] = v
				}
				w.seal(w.pack(all...), shard.Code{K: 1, M: 2})
			}
			if test.prepare != nil {
				test.prepare(w)
			}
			m, err := w.client.Series(t.Context(), test.told)
			if (err == nil) != test.whole {
				t.Fatalf("%v", err)
			}
			var want []*version
			for _, number := range test.want {
				want = append(want, versions[number])
			}
			if len(want) == 0 {
				if m != nil {
					t.Errorf("%+v", m)
				}
				return
			}
			w.check(m, want...)
		})
	}
}

// A node that went before a deletion still counts what was deleted: among any others.
func TestWhatWasDeletedSinceIsNotMissed(t *testing.T) {
	for _, n := range []int{3, 6, 20} {
		w := newWorld(t, 5, 4)
		var all []*version
		var told []string
		for i := range n {
			sop := fmt.Sprintf("1.%02d", i)
			all = append(all, instance(uint64(i+1), sop, "a"))
			if i != 1 { // which the node knew to be deleted
				told = append(told, sop)
			}
		}
		w.seal(w.pack(all...), shard.Code{K: 1, M: 2})
		for i := range n - 1 {
			w.delete(all[i].Sop)
		}
		m, err := w.client.Series(t.Context(), holder(uint64(n), told...))
		whole := n-1 <= maxGuessed
		if (err == nil) != whole || m == nil {
			t.Fatalf("%d: %v", n, err)
		}
		shown := 0
		for _, in := range m.Instances {
			if !w.catalog.Hidden(study, series, in.Record.Sop, in.Record.Hash) {
				shown++
			}
		}
		if shown != 1 || whole && len(m.Instances) != n-1 {
			t.Errorf("%d: %d shown of %d", n, shown, len(m.Instances))
		}
	}
}

func TestAnyGenerationThatIsLeftIsRead(t *testing.T) {
	one, other := instance(1, "1.1", "ab"), instance(2, "1.2", "cd")
	for _, code := range []shard.Code{{K: 1, M: 2}, {K: 2, M: 2}} {
		w := newWorld(t, 6, 4)
		p := w.pack(one, other)
		first := w.seal(p, code)
		p.head.Stripe.Generation = 2
		second := w.seal(p, shard.Code{K: 1, M: 3})
		told := holder(2, "1.1", "1.2")
		for i := range 4 {
			w.lose(second.Stripe, i)
		}
		m, err := w.client.Series(t.Context(), told)
		if err != nil {
			t.Fatal(err)
		}
		w.check(m, one, other)
		for i := range code.N() {
			w.lose(first.Stripe, i)
		}
		if _, err := w.client.Series(t.Context(), told); !fault.Is(err, fault.Unavailable) {
			t.Errorf("of nothing: %v", err)
		}
		if err := w.client.ReadPack(t.Context(), &m.Packs[0], make([]byte, shard.LeafBytes), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("bytes of nothing: %v", err)
		}
	}
}

func TestWhatIsReachableIsWhatSealsAndGossipSay(t *testing.T) {
	w := newWorld(t, 6, 4)
	p := w.pack(instance(1, "1.1", "ab"), instance(2, "1.2", "cd"))
	head := w.seal(p, shard.Code{K: 2, M: 2}, func(f *catalog.SealFact) { f.Receipts = 0b1011 })
	told := holder(2, "1.1", "1.2")
	if !w.client.Reachable(told) || !w.client.Has(head.Stripe.Pack) {
		t.Error("three of two columns are not enough")
	}
	if more := holder(3, "1.1", "1.2", "1.3"); w.client.Reachable(more) {
		t.Error("one that is not sealed is reachable")
	}
	away := 0
	for i := 0; i < 4 && away < 2; i++ { // shard 2 has no receipt: it counts for nothing
		if owner, _ := w.state.Owner(head.Stripe, i); i != 2 && owner.ID != "n00" {
			w.down[owner.ID] = true
			away++
		}
	}
	if w.client.Reachable(told) || w.client.Has(head.Stripe.Pack) {
		t.Error("one of two columns is enough")
	}
	clear(w.down)
	w.delete("")
	if w.client.Reachable(told) || w.client.Has(head.Stripe.Pack) {
		t.Error("what is deleted is reachable")
	}
	if _, err := w.client.Series(t.Context(), told); !fault.Is(err, fault.NotFound) {
		t.Errorf("what is deleted: %v", err)
	}
	gone := far.Pack{ID: head.Stripe.Pack, Bytes: head.Size, Root: head.Pack}
	if err := w.client.ReadPack(t.Context(), &gone, make([]byte, shard.LeafBytes), 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("bytes of what is deleted: %v", err)
	}
}

func TestWhatIsHereNeedsNobodyElse(t *testing.T) {
	w := newWorld(t, 4, 4)
	one := instance(1, "1.1", "ab")
	w.seal(w.pack(one), shard.Code{K: 1, M: 3})
	for node := range w.shards {
		w.down[node] = true
	}
	m, err := w.client.Series(t.Context(), holder(1, "1.1"))
	if err != nil {
		t.Fatal(err)
	}
	w.check(m, one)
	w.client = New(w.client.o) // knows no head yet, as after a restart
	p := &m.Packs[0]
	if err := w.client.ReadPack(t.Context(), p, make([]byte, p.Bytes), 0); err != nil {
		t.Error(err)
	}
}

// An origin may burn in the moment before this node has kept its key.
func TestAKeyThatIsNotKeptYetIsTheCatalogues(t *testing.T) {
	w := newWorld(t, 4, 4)
	one := instance(1, "1.1", "ab")
	w.seal(w.pack(one), shard.Code{K: 2, M: 2})
	w.late = true
	m, err := w.client.Series(t.Context(), holder(1, "1.1"))
	if err != nil {
		t.Fatal(err)
	}
	w.check(m, one)
}

func TestASealOfAnotherPackIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		record func(*archivepb.Instance)
		want   fault.Kind
	}{
		{"another series", func(r *archivepb.Instance) { r.Series = "1.2.9" }, fault.Corrupt},
		{"no UID", func(r *archivepb.Instance) { r.Sop = "" }, fault.Corrupt},
		{"another hash", func(r *archivepb.Instance) { r.Hash = make([]byte, 32) }, fault.Corrupt},
		{"no hash", func(r *archivepb.Instance) { r.Hash = nil }, fault.Corrupt},
		{"another length", func(r *archivepb.Instance) { r.Bytes++ }, fault.Corrupt},
		{"a newer record", func(r *archivepb.Instance) { r.Version = 2 }, fault.Unsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 5, 4)
			w.seal(w.pack(instance(1, "1.1", "a", test.record)), shard.Code{K: 1, M: 2})
			if m, err := w.client.Series(t.Context(), holder(1, "1.1")); m != nil || !fault.Is(err, test.want) {
				t.Errorf("%+v, %v: %v", m, fault.KindOf(err), err)
			}
		})
	}
	w := newWorld(t, 5, 4)
	one := w.seal(w.pack(instance(1, "1.1", "a")), shard.Code{K: 1, M: 2})
	p := far.Pack{ID: one.Stripe.Pack, Bytes: one.Size, Root: [32]byte{1}}
	if err := w.client.ReadPack(t.Context(), &p, make([]byte, one.Size), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a pack of another root: %v", err)
	}
}

func TestRotIsDoubtedByName(t *testing.T) {
	w := newWorld(t, 5, 4)
	one := instance(1, "1.1", "ab")
	head := w.seal(w.pack(one), shard.Code{K: 1, M: 3})
	rotten := map[held.Name]bool{}
	for node, all := range w.shards {
		for name, b := range all {
			if node != "n00" && name.Index != 3 {
				b[len(b)/3] ^= 1
				rotten[name] = true
			}
		}
	}
	m, err := w.client.Series(t.Context(), holder(1, "1.1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.read(m, 0); err != nil {
		t.Error(err)
	}
	for _, name := range w.doubts {
		if !rotten[name] || name.Stripe != head.Stripe {
			t.Errorf("%v is doubted", name)
		}
	}
}
