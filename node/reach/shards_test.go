package reach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/node/placement"
	"pelago/node/recalled"
	"pelago/query"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

// striped is what a network has of shards.
type striped struct {
	n     *network
	state *placement.State
	// at has the bytes of shards by node; of that with the index of rot, from 1, a byte of
	// each answer is another.
	at     map[string]map[held.Name][]byte
	rot    int
	doubts chan string // nodes
	keys   map[[16]byte]seal.Key
}

// stripe makes shards of what a site has packed of a series, gives them to the nodes of
// their rows, and tells the catalogues of others of them.
func (n *network) stripe(code shard.Code, from *site, study, series string, to ...string) *striped {
	n.t.Helper()
	s := &striped{n: n, at: map[string]map[held.Name][]byte{}, doubts: make(chan string, 1000), keys: map[[16]byte]seal.Key{}}
	var nodes []layout.Holder
	for node := range n.sites {
		nodes = append(nodes, layout.Holder{Node: layout.Node{ID: node, Site: "site " + node, Pledge: 1 << 40}})
		s.at[node] = map[held.Name][]byte{}
	}
	table, err := layout.Compute(nil, nodes, code.N())
	if err != nil {
		n.t.Fatal(err)
	}
	s.state = &placement.State{View: layout.View{New: table}, Code: code}
	for _, site := range n.sites {
		site.recallFrom(s)
	}
	s.seal(from, study, series, to...)
	return s
}

// seal stripes what is packed and was not before.
func (s *striped) seal(from *site, study, series string, to ...string) {
	t := s.n.t
	t.Helper()
	seen := map[pack.ID]bool{}
	for h, err := range everyVersion(from) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[h] {
			continue
		}
		seen[h] = true
		p, ciphertext, err := from.archive.Ciphertext(h)
		if err != nil {
			t.Fatal(err)
		}
		code := s.state.Code
		if g := (shard.Geometry{Code: code, Size: p.BlobBytes}); g.Leaves() < int64(code.K) {
			code.K = 1
		}
		head := stripe.Head{
			Stripe: shard.Stripe{Pack: h, Generation: 1}, Code: code, Size: p.BlobBytes, Plaintext: p.Plaintext, Manifest: p.Manifest,
			Key: [16]byte(p.Key), Origin: from.node, Pack: [32]byte(p.Root),
		}
		done, shards := stripetest.Encode(t, stripe.NewCoder(), ciphertext, head)
		key, err := from.keys.Wrapped(head.Key)
		if err != nil {
			t.Fatal(err)
		}
		if s.keys[head.Key], err = from.keys.Key(head.Key); err != nil {
			t.Fatal(err)
		}
		fact := &catalog.SealFact{
			By: from.node, Study: study, Series: series, Stripe: head.Stripe, Origin: from.node, Key: head.Key, Size: head.Size,
			Instances: uint64(p.Instances), Code: code, Root: done.Root(), Layout: 1, Receipts: 1<<code.N() - 1, Virtual: catalog.NoShard,
		}
		for i := range shards {
			owner, ok := s.state.Owner(head.Stripe, i)
			if !ok {
				t.Fatal("no owner")
			}
			s.at[owner.ID][held.Name{Stripe: head.Stripe, Index: i}] = shards[i]
		}
		for _, node := range to {
			results, err := s.n.sites[node].solo.Do(
				&catalog.KeyFact{Origin: from.node, Study: study, ID: key.ID, Epoch: key.Epoch, Wrapped: key.Wrapped})
			if err := errors.Join(append(results, err)...); err != nil {
				t.Fatal(err)
			}
			results, err = s.n.sites[node].solo.Do(fact)
			if err := errors.Join(append(results, err)...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// everyVersion yields the packs of all versions that a site received, of one series.
func everyVersion(from *site) func(func(pack.ID, error) bool) {
	return func(yield func(pack.ID, error) bool) {
		for number := uint64(1); number < 100; number++ {
			_, p, err := from.archive.Packed(context.Background(), number)
			switch {
			case fault.Is(err, fault.NotFound), err == nil && p == nil:
			case err != nil:
				yield(pack.ID{}, err)
				return
			case !yield(pack.ID(p.Id), nil):
				return
			}
		}
	}
}

// recallFrom makes a site read from shards.
func (s *site) recallFrom(shards *striped) {
	client := recalled.New(recalled.Options{
		Node: s.node, Catalog: s.archive.Catalog(), Keys: shards, State: func() *placement.State { return shards.state },
		Holders: shardsFor{shards, s}, Local: source{shards, s.node}, Hints: hints{s},
		Doubt: func(_ held.Name, node string) { shards.doubts <- node },
	})
	s.packs.Store(client)
	s.reader.o.Shards = client
}

// Key implements [recalled.Ring]: all sites can open what any has stored.
func (s *striped) Key(id [16]byte) (key seal.Key, err error) {
	key, ok := s.keys[id]
	if !ok {
		return key, fault.New(fault.NotFound, "no such key")
	}
	return key, nil
}

// Open implements [recalled.Ring].
func (s *striped) Open(k keys.StudyKey) (key seal.Key, err error) { return s.Key(k.ID) }

// Hint implements [recall.Hints].
func (h hints) Hint(node string) (bool, time.Duration) { return h.Alive(node), time.Millisecond }

// source is what a node holds of shards.
type source struct {
	*striped
	node string
}

func (s source) Shard(n held.Name) (held.Shard, error) {
	b, ok := s.at[s.node][n]
	if !ok {
		return nil, fault.New(fault.NotFound, "no such shard")
	}
	one, err := stripe.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return one, nil
}

// shardsFor asks other sites for their shards.
type shardsFor struct {
	*striped
	from *site
}

func (s shardsFor) shard(at recall.Place, of shard.Stripe) (held.Shard, error) {
	if s.n.isDown(at.Node) || s.n.isDown(s.from.node) {
		return nil, fault.New(fault.Unavailable, "%s does not answer", at.Node)
	}
	return source{s.striped, at.Node}.Shard(held.Name{Stripe: of, Index: at.Index})
}

// Leaves implements [recall.Holders].
func (s shardsFor) Leaves(_ context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	one, err := s.shard(at, of)
	if err != nil {
		return recall.Leaves{}, err
	}
	data, proof, err := one.Range(first, count)
	if err != nil {
		return recall.Leaves{}, err
	}
	if at.Index == s.rot-1 {
		data[len(data)/2] ^= 1
	}
	return recall.Leaves{
		Proof: func() ([][32]byte, int64, error) { return proof, count, nil },
		Body:  io.NopCloser(bytes.NewReader(data)),
	}, nil
}

// Opening implements [recall.Holders].
func (s shardsFor) Opening(_ context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	one, err := s.shard(at, of)
	if err != nil {
		return recall.Opening{}, err
	}
	head, err := one.Head().AppendBinary(nil)
	if err != nil || one.Tail() == nil {
		return recall.Opening{}, errors.Join(err, fault.New(fault.NotFound, "no tail"))
	}
	tail, err := io.ReadAll(one.Tail())
	if at.Index == s.rot-1 && len(tail) > 0 {
		tail[len(tail)/2] ^= 1
	}
	return recall.Opening{Head: head, Body: io.NopCloser(bytes.NewReader(tail))}, err
}

// losing takes shards away until so many of each stripe are left, first of nodes other
// than keep.
func (s *striped) losing(left int, keep string) {
	of := map[shard.Stripe][]held.Name{}
	where := map[held.Name]string{}
	for node, all := range s.at {
		for name := range all {
			of[name.Stripe] = append(of[name.Stripe], name)
			where[name] = node
		}
	}
	for _, names := range of {
		slices.SortFunc(names, func(a, b held.Name) int {
			if here := where[a] == keep; here != (where[b] == keep) {
				if here {
					return 1
				}
				return -1
			}
			return a.Index - b.Index
		})
		for _, name := range names[:max(0, len(names)-left)] {
			delete(s.at[where[name]], name)
		}
	}
}

// rotOne has the data of one index rot: one that another node than a and b holds.
func (s *striped) rotOne() {
	for _, node := range []string{"c", "d", "e", "f"} {
		for name := range s.at[node] {
			if name.Index < s.state.Code.K {
				s.rot = name.Index + 1
			}
		}
	}
}

// gone has a series of n images at site a, packed, striped, and a away. b knows of it.
func gone(t *testing.T, code shard.Code, all []dimsetest.Instance) (*network, *striped) {
	t.Helper()
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	study, series := uids(all)
	a := n.sites["a"]
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	s := n.stripe(code, a, study, series, "b")
	n.cut("a", true)
	return n, s
}

func TestAStudyWhoseNodeIsGoneOpensFromShards(t *testing.T) {
	for _, test := range []struct {
		name string
		code shard.Code
		lose func(*striped)
	}{
		{"1+2, all left", shard.Code{K: 1, M: 2}, func(*striped) {}},
		{"1+2, one left", shard.Code{K: 1, M: 2}, func(s *striped) { s.losing(1, "") }},
		{"2+2, all left", shard.Code{K: 2, M: 2}, func(*striped) {}},
		{"2+2, two left", shard.Code{K: 2, M: 2}, func(s *striped) { s.losing(2, "a") }},
		{"2+2, two left, one here", shard.Code{K: 2, M: 2}, func(s *striped) { s.losing(2, "b") }},
		{"2+2, one rotten", shard.Code{K: 2, M: 2}, (*striped).rotOne},
		{"3+2, three left", shard.Code{K: 3, M: 2}, func(s *striped) { s.losing(3, "") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := images(1, 0, 12)
			n, s := gone(t, test.code, all)
			delete(s.at, "a")
			s.at["a"] = map[held.Name][]byte{}
			test.lose(s)
			study, series := uids(all)
			b := n.sites["b"]
			asked := n.asked.Load()
			b.same(study, "", "", all...)
			b.same(study, series, all[3].SOPInstanceUID, all[3])
			b.same(study, "", all[5].SOPInstanceUID, all[5])
			if got := n.asked.Load() - asked; got > 4 { // where the third is, of the nodes that answer
				t.Errorf("%d manifests were asked for", got)
			}
			if got := b.reader.Instances(b.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Online {
				t.Errorf("availability is %s", got)
			}
			for ref, err := range b.reader.Select(t.Context(), study, series, "") {
				if err != nil {
					t.Fatal(err)
				}
				if h, err := b.reader.Headers(t.Context(), ref); err != nil || h.Dataset.String(dict.SOPInstanceUID) != ref.SOP {
					t.Errorf("header: %v", err)
				}
			}
			if recorded, whole := b.reader.Recall(t.Context(), study, series, []string{"a"}); !whole || len(recorded) != len(all) || recorded[0].Availability != query.Online {
				t.Errorf("%d are remembered, whole %t", len(recorded), whole)
			}
			// What was read whole is here from now on.
			b.settle(study, series, "a")
			for _, node := range []string{"c", "d", "e", "f"} {
				n.cut(node, true)
			}
			b.same(study, "", "", all...)
			if s.rot > 0 && len(s.doubts) == 0 {
				t.Error("nobody was told of rot")
			}
		})
	}
}

func TestWhatTooFewShardsAreLeftOfIsMissingAndSaysSo(t *testing.T) {
	all := images(1, 0, 12)
	n, s := gone(t, shard.Code{K: 2, M: 2}, all)
	study, series := uids(all)
	s.losing(1, "c")
	b := n.sites["b"]
	if got := b.reader.Instances(b.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Online {
		t.Errorf("by receipts it is %s", got)
	}
	listed, missed, opened := 0, 0, 0
	for ref, err := range b.reader.Select(t.Context(), study, series, "") {
		var missing *archive.Missing
		switch {
		case errors.As(err, &missing):
			missed += missing.Instances
		case err != nil:
			t.Errorf("not said to be missing: %v", err)
		default:
			listed++ // a shard that is left has the manifest
			if _, err = b.open(ref); err == nil {
				opened++ // of a pack that is too short to be cut
				continue
			}
		}
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v: %v", fault.KindOf(err), err)
		}
	}
	if listed+missed != len(all) || opened > 3 {
		t.Errorf("%d listed, %d missing, %d opened", listed, missed, opened)
	}
	for _, node := range []string{"c", "d", "e", "f"} {
		n.cut(node, true)
	}
	if got := b.reader.Instances(b.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Unavailable {
		t.Errorf("of four sites that are gone it is %s", got)
	}
}

func TestWhatShardsSayIsMissingIsCounted(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	all := images(1, 0, 12)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all[:9]...)
	a.pack()
	n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b")
	a.store(all[9:]...)
	a.announce(study, series, "b")
	n.cut("a", true)
	got, failed := b.read(study, series, "")
	if len(got) != 9 || len(failed) != 1 {
		t.Fatalf("%d instances, %v", len(got), failed)
	}
	var missing *archive.Missing
	if !errors.As(failed[0], &missing) || missing.Instances != 3 || !fault.Is(failed[0], fault.Unavailable) {
		t.Errorf("%v", failed[0])
	}
	if got := b.reader.Instances(b.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Unavailable {
		t.Errorf("availability is %s", got)
	}
	if err := onlyError(b, study, series, all[10].SOPInstanceUID); !fault.Is(err, fault.Unavailable) || !errors.As(err, &missing) {
		t.Errorf("one that is not sealed: %v", err)
	}
	for ref, err := range a.archive.Select(t.Context(), study, series, all[10].SOPInstanceUID) {
		if err != nil {
			t.Fatal(err)
		}
		ref.Origin = a.node // as b listed it before
		if _, err := b.open(ref); !fault.Is(err, fault.Unavailable) {
			t.Errorf("it is listed, and is not among what is left: %v", err)
		}
	}
}

// onlyError is why an instance cannot be read.
func onlyError(s *site, study, series, sop string) error {
	_, failed := s.read(study, series, sop)
	return errors.Join(failed...)
}

func TestWhatIsDeletedIsNotReadFromShards(t *testing.T) {
	all := images(1, 0, 6)
	n, _ := gone(t, shard.Code{K: 2, M: 2}, all)
	study, series := uids(all)
	b := n.sites["b"]
	b.delete(study, series, all[2].SOPInstanceUID)
	b.delete(study, series, all[4].SOPInstanceUID)
	b.same(study, series, "", all[0], all[1], all[3], all[5])
	if err := onlyError(b, study, series, all[2].SOPInstanceUID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted one: %v", err)
	}
	b.delete(study, series, "")
	if err := onlyError(b, study, series, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted series: %v", err)
	}
}

func TestOfSeveralPacksTheVersionThatCountedIsRead(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	all := images(1, 0, 6)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all[:3]...)
	a.pack()
	other := all[1]
	other.Rows = 90 // under the same UID
	a.store(other)
	a.store(all[3:]...)
	a.pack()
	a.announce(study, series, "b")
	n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b")
	n.cut("a", true)
	b.same(study, series, "", all...)
}

// A node that refuses calls while it is believed to answer.
func TestShardsAreAskedWhenANodeFails(t *testing.T) {
	all := images(1, 0, 6)
	n, _ := gone(t, shard.Code{K: 2, M: 2}, all)
	study, series := uids(all)
	b := n.sites["b"]
	b.unsure.Store(true)
	b.same(study, series, "", all...)
	b.same(study, "", all[2].SOPInstanceUID, all[2])
}

// A node that takes calls and says nothing, while it is believed to answer, is waited
// for no longer than a moment: for its manifest, and for the bytes of one that it told.
func TestASilentNodeIsNotWaitedForLong(t *testing.T) {
	for _, told := range []bool{false, true} {
		all := images(1, 0, 6)
		n, s := gone(t, shard.Code{K: 2, M: 2}, all)
		study, series := uids(all)
		b := n.sites["b"]
		n.cut("a", false)
		if told {
			for ref, err := range b.reader.Select(t.Context(), study, series, "") {
				if err != nil || ref.Origin != "a" {
					t.Fatal(err)
				}
			}
		}
		n.silence("a")
		s.at["a"] = map[held.Name][]byte{}
		began := time.Now()
		b.same(study, series, "", all...)
		if took := time.Since(began); took >= 15*time.Second { // which is what one answer gets
			t.Errorf("told before %t: it took %v", told, took)
		}
	}
}

// What was in staging when its node told of it was packed since.
func TestWhatWasToldBeforeItWasPackedIsReadFromShards(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	all := images(1, 0, 6)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.store(all...)
	a.announce(study, series, "b")
	for _, err := range b.reader.Select(t.Context(), study, series, "") {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.pack()
	n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b")
	n.cut("a", true)
	b.same(study, series, "", all...)
}

// What a node that answers has lost opens at others all the same.
func TestWhatAnotherNodeHasLostIsReadFromShards(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	all := images(1, 0, 6)
	study, series := uids(all)
	a, b := n.sites["a"], n.sites["b"]
	a.rests = true
	a.store(all...)
	a.pack()
	a.announce(study, series, "b")
	n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b")
	a.loseTables() // and knows of no shards from here on
	b.same(study, series, "", all...)
}

// A node that answers and has lost its rows, all or those of what it stored since the
// copy that it was put back from, is not believed that it never had what it announced.
func TestWhatANodeThatAnswersHasForgottenIsReadFromShards(t *testing.T) {
	all := images(1, 0, 9)
	study, series := uids(all)
	for _, test := range []struct {
		name string
		kept int // instances
		read func(t *testing.T, b *site, listed map[string]archive.Ref)
	}{
		{"one by its names, of a node that has nothing", 0, func(_ *testing.T, b *site, _ map[string]archive.Ref) {
			b.same(study, series, all[5].SOPInstanceUID, all[5])
		}},
		{"one by its names, of a node that has others", 3, func(_ *testing.T, b *site, _ map[string]archive.Ref) {
			b.same(study, series, all[1].SOPInstanceUID, all[1])
			b.same(study, series, all[5].SOPInstanceUID, all[5])
		}},
		{"the series, of a node that has a part", 3, func(_ *testing.T, b *site, _ map[string]archive.Ref) {
			b.same(study, series, "", all...)
			b.same(study, "", "", all...)
		}},
		{"one of a study, of a node that has a part", 3, func(_ *testing.T, b *site, _ map[string]archive.Ref) {
			b.same(study, "", all[5].SOPInstanceUID, all[5])
		}},
		{"one that was listed, of a node that has nothing", 0, func(t *testing.T, b *site, listed map[string]archive.Ref) {
			if got, err := b.open(listed[all[5].SOPInstanceUID]); err != nil || !bytes.Equal(got, all[5].Dataset()) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		{"one that was listed, of a node that has others", 3, func(t *testing.T, b *site, listed map[string]archive.Ref) {
			b.same(study, series, all[1].SOPInstanceUID, all[1])
			if got, err := b.open(listed[all[5].SOPInstanceUID]); err != nil || !bytes.Equal(got, all[5].Dataset()) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		{"nothing that never was, of a node that has nothing", 0, func(t *testing.T, b *site, _ map[string]archive.Ref) {
			if err := onlyError(b, study, series, "1.2.3"); !fault.Is(err, fault.NotFound) {
				t.Errorf("what never was: %v", err)
			}
		}},
		{"nothing that is deleted", 0, func(t *testing.T, b *site, listed map[string]archive.Ref) {
			b.delete(study, series, all[5].SOPInstanceUID)
			if err := onlyError(b, study, series, all[5].SOPInstanceUID); !fault.Is(err, fault.NotFound) {
				t.Errorf("what is deleted: %v", err)
			}
			if got, err := b.open(listed[all[5].SOPInstanceUID]); !fault.Is(err, fault.NotFound) {
				t.Errorf("what is deleted since it was listed: %d bytes, %v", len(got), err)
			}
			b.same(study, series, all[4].SOPInstanceUID, all[4])
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t, "a", "b", "c", "d", "e", "f")
			a, b := n.sites["a"], n.sites["b"]
			a.store(all...)
			a.pack()
			a.announce(study, series, "b")
			n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b")
			listed := map[string]archive.Ref{}
			for _, ref := range refsOf(t, a, study) {
				ref.Origin = a.node // as others list it
				listed[ref.SOP] = ref
			}
			a.forget()
			a.store(all[:test.kept]...)
			a.pack()
			test.read(t, b, listed)
		})
	}
}

// What is not in shards, or cannot be read from them, is not said never to have been.
func TestWhatANodeHasForgottenThatNobodyHasIsMissing(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		n := newNetwork(t, "a", "b", "c", "d", "e", "f")
		all := images(1, 0, 6)
		study, series := uids(all)
		a, b := n.sites["a"], n.sites["b"]
		a.store(all...)
		a.pack()
		a.announce(study, series, "b")
		if sealed {
			n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "b").losing(0, "")
		} else {
			b.recallFrom(&striped{n: n, at: map[string]map[held.Name][]byte{}, state: &placement.State{}})
		}
		a.forget()
		var missing *archive.Missing
		if err := onlyError(b, study, series, all[2].SOPInstanceUID); !fault.Is(err, fault.Unavailable) || !errors.As(err, &missing) {
			t.Errorf("sealed %t: %v", sealed, err)
		}
	}
}

// Of an instance of which the study is known, the series of a node that is gone are
// looked through; of one of which nothing is, nobody knows.
func TestAnInstanceOfANodeThatIsGoneIsFoundInItsStudy(t *testing.T) {
	all := images(1, 0, 6)
	n, _ := gone(t, shard.Code{K: 2, M: 2}, all)
	study, series := uids(all)
	b := n.sites["b"]
	b.same(study, "", all[2].SOPInstanceUID, all[2])
	b.same("", series, all[3].SOPInstanceUID, all[3])
	if err := onlyError(b, study, "", "1.2.3"); !fault.Is(err, fault.NotFound) {
		t.Errorf("what its study has not: %v", err)
	}
	var missing *archive.Missing
	if err := onlyError(b, "", "", "1.2.3"); !fault.Is(err, fault.Unavailable) || !errors.As(err, &missing) {
		t.Errorf("what may be anywhere: %v", err)
	}
}

// A Non-Patient Object has no name but its own.
func TestANonPatientObjectOfANodeThatIsGoneIsFoundByItsName(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	a, b := n.sites["a"], n.sites["b"]
	all := images(1, 0, 4)
	for i := range all {
		all[i].SOPClassUID, all[i].StudyInstanceUID, all[i].SeriesInstanceUID = "1.2.840.10008.5.1.4.38.1", "", ""
	}
	a.store(all...)
	a.pack()
	refs := refsOf(t, a, archive.ReservedStudy)
	if len(refs) != len(all) {
		t.Fatalf("%d rest in reserved series", len(refs))
	}
	a.announce(refs[0].Study, refs[0].Series, "b")
	n.stripe(shard.Code{K: 2, M: 2}, a, refs[0].Study, refs[0].Series, "b")
	b.delete(refs[3].Study, refs[3].Series, refs[3].SOP)
	n.cut("a", true)
	b.same("", "", all[1].SOPInstanceUID, all[1])
	named := archive.WithHint(t.Context(), archive.Hint{Named: []string{all[0].SOPInstanceUID, "1.2.3", all[2].SOPInstanceUID}})
	for ref, err := range b.reader.Select(named, "", "", all[0].SOPInstanceUID) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.open(ref); err != nil || !bytes.Equal(got, all[0].Dataset()) {
			t.Errorf("of several that are named: %d bytes, %v", len(got), err)
		}
	}
	for _, sop := range []string{"1.2.3", refs[3].SOP} {
		if err := onlyError(b, "", "", sop); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", sop, err)
		}
	}
}

func TestAFrameOfANodeThatIsGoneIsAFewRequests(t *testing.T) {
	all := images(1, 0, 12)
	n, _ := gone(t, shard.Code{K: 2, M: 2}, all)
	study, series := uids(all)
	b := n.sites["b"]
	for ref, err := range b.reader.Select(archive.WithHint(t.Context(), archive.Hint{Frame: 1}), study, series, all[4].SOPInstanceUID) {
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.reader.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		want := all[4].Dataset()
		if _, err := in.Stored().ReadAt(got, int64(len(want)-100)); err != nil || !bytes.Equal(got, want[len(want)-100:]) {
			t.Error(err)
		}
		in.Close()
	}
	packs := int64(len(b.reader.recall(seriesAt{study, series, "a"}).Packs))
	// A tail of each pack, and of one the column that the frame is in, or two others: the
	// bytes before the first and after the last are those of its neighbours.
	if asked := b.packs.Load().Counters().Asked.Load(); asked > packs+6 {
		t.Errorf("%d requests for %d packs", asked, packs)
	}
}

func TestWhatIsLostHereIsReadFromShardsAndFetchedBack(t *testing.T) {
	n := newNetwork(t, "a", "b", "c", "d", "e", "f")
	all := images(1, 0, 9)
	study, series := uids(all)
	a := n.sites["a"]
	a.rests = true
	a.store(all...)
	a.pack()
	a.announce(study, series, "a")
	s := n.stripe(shard.Code{K: 2, M: 2}, a, study, series, "a")
	a.loseTables()
	a.recallFrom(s)
	a.same(study, "", "", all...)
	if got := a.reader.Instances(a.archive.Instances()).Availability(t.Context(), study, "", 0); got != query.Online {
		t.Errorf("availability is %s", got)
	}
	if err := a.reader.MendLost(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.reader.Counters().Mended.Load() == 0 {
		t.Error("nothing was fetched back")
	}
	for node := range n.sites {
		n.cut(node, node != "a")
	}
	clear(s.at["a"])
	a.same(study, "", "", all...)
}
