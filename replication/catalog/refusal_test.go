package catalog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/dict"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/catalog/catalogtest"
)

// scene is a network of nodes a and b, of which a has told two batches.
type scene struct {
	t      *testing.T
	log    []replication.Entry
	hashes [][32]byte // of the chain of a, by number
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, hashes: make([][32]byte, 1)}
	s.put(s.decision("a", "a", catalogtest.Member("a", "site-a")))
	s.put(s.decision("a", "a", catalogtest.Member("b", "site-b")))
	for range 2 {
		s.put(s.batch("a", "a", 1, uint64(len(s.hashes)), s.hashes[len(s.hashes)-1], 1, true))
	}
	return s
}

func (s *scene) put(data []byte) {
	s.log = append(s.log, replication.Entry{Index: uint64(len(s.log) + 1), Data: data})
}

// batch returns a batch with one fact of so many instances; by signs it.
func (s *scene) batch(node, by string, incarnation, number uint64, previous [32]byte, instances uint64, keep bool) []byte {
	s.t.Helper()
	f := fact(node, "1.1", "1.1.1", number, instances, values{})
	entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf(by), catalog.Batch{
		Node: node, Site: f.Site, Incarnation: incarnation, Number: number, Facts: []*catalog.SeriesFact{f},
	}, previous)
	if err != nil {
		s.t.Fatal(err)
	}
	if keep {
		s.hashes = append(s.hashes, hash)
	}
	return entry
}

func (s *scene) decision(node, by string, commands ...catalog.Command) []byte {
	return s.decisionIf(node, by, nil, commands...)
}

func (s *scene) decisionIf(node, by string, conditions []catalog.Condition, commands ...catalog.Command) []byte {
	s.t.Helper()
	entry, err := catalog.EncodeDecision(catalogtest.SignerOf(by), node, conditions, commands)
	if err != nil {
		s.t.Fatal(err)
	}
	return entry
}

// witness puts a member that is one into the log.
func (s *scene) witness() { s.put(s.decision("a", "a", witness(func(*catalogpb.Member) {}))) }

// witness returns the record of w, changed.
func witness(change func(*catalogpb.Member)) *catalog.RegistryFact {
	m := &catalogpb.Member{Site: "site-w", PublicKey: catalogtest.SignerOf("w").Public(), Address: "here:7700", Witness: true}
	change(m)
	value, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &catalog.RegistryFact{Kind: catalog.KindMember, Name: "w", Value: value}
}

// anonymous is a key that no member has.
type anonymous struct{ ed25519.PrivateKey }

func (a anonymous) Sign(b []byte) []byte { return ed25519.Sign(a.PrivateKey, b) }

func TestWhatNoMemberMaySayIsRefusedEverywhereAlike(t *testing.T) {
	const none = fault.Kind(255)
	var zero [32]byte
	ae := func(name string) *catalog.RegistryFact {
		return &catalog.RegistryFact{Kind: "ae", Name: name, Value: []byte("v")}
	}
	flipped := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	for _, test := range []struct {
		name string
		last func(s *scene) []byte // the entry that is judged; it may put others before
		want fault.Kind
	}{
		{"the next batch", func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[2], 5, false) }, none},
		{"a batch of who is no member", func(s *scene) []byte { return s.batch("c", "c", 1, 1, zero, 5, false) }, fault.Denied},
		{"a batch signed by another member", func(s *scene) []byte { return s.batch("a", "b", 1, 3, s.hashes[2], 5, false) }, fault.Denied},
		{"a batch whose signature has a wrong bit", func(s *scene) []byte { return flipped(s.batch("a", "a", 1, 3, s.hashes[2], 5, false), -1) }, fault.Denied},
		{"a batch whose counts were changed", func(s *scene) []byte {
			a, b := s.batch("a", "a", 1, 3, s.hashes[2], 5, false), s.batch("a", "a", 1, 3, s.hashes[2], 6, false)
			return append(bytes.Clone(a[:len(a)-ed25519.SignatureSize]), b[len(b)-ed25519.SignatureSize:]...)
		}, fault.Denied},
		{"a batch of another site", func(s *scene) []byte {
			f := fact("a", "1.1", "1.1.1", 3, 5, values{})
			f.Site = "elsewhere"
			entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), catalog.Batch{
				Node: "a", Site: f.Site, Incarnation: 1, Number: 3, Facts: []*catalog.SeriesFact{f},
			}, s.hashes[2])
			if err != nil {
				s.t.Fatal(err)
			}
			return entry
		}, fault.Denied},
		{"a known batch again", func(s *scene) []byte { return s.log[3].Data }, none},
		{"a batch before it again", func(s *scene) []byte { return s.log[2].Data }, none},
		{"another batch of a known number", func(s *scene) []byte { return s.batch("a", "a", 1, 2, s.hashes[1], 9, false) }, fault.Conflict},
		{"a batch after one that is missing", func(s *scene) []byte { return s.batch("a", "a", 1, 4, s.hashes[2], 9, false) }, fault.Mismatch},
		{"a batch after another one than is known", func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[1], 9, false) }, fault.Conflict},
		{"a new incarnation", func(s *scene) []byte { return s.batch("a", "a", 2, 1, zero, 9, false) }, none},
		{"a new incarnation without its beginning", func(s *scene) []byte { return s.batch("a", "a", 2, 2, s.hashes[1], 9, false) }, fault.Mismatch},
		{"an incarnation that is over", func(s *scene) []byte {
			s.put(s.batch("a", "a", 2, 1, zero, 9, false))
			return s.batch("a", "a", 1, 3, s.hashes[2], 9, false)
		}, fault.Conflict},
		{"a batch of who is revoked", func(s *scene) []byte {
			s.put(s.decision("b", "b", &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")}))
			return s.batch("a", "a", 1, 3, s.hashes[2], 9, false)
		}, fault.Denied},
		{"a batch of who left", func(s *scene) []byte {
			s.put(s.decision("b", "b", &catalog.RegistryFact{Kind: catalog.KindMember, Name: "a"}))
			return s.batch("a", "a", 1, 3, s.hashes[2], 9, false)
		}, fault.Denied},
		{"a decision", func(s *scene) []byte { return s.decision("b", "b", ae("x")) }, none},
		{"a decision of who is no member", func(s *scene) []byte { return s.decision("c", "c", ae("x")) }, fault.Denied},
		{"a second founding", func(s *scene) []byte { return s.decision("c", "c", catalogtest.Member("c", "east")) }, fault.Denied},
		{"a second founding when all have left", func(s *scene) []byte {
			s.put(s.decision("a", "a", &catalog.RegistryFact{Kind: catalog.KindMember, Name: "b"}, &catalog.RegistryFact{Kind: catalog.KindMember, Name: "a"}))
			return s.decision("c", "c", catalogtest.Member("c", "east"))
		}, fault.Denied},
		{"a decision signed by another member", func(s *scene) []byte { return s.decision("b", "a", ae("x")) }, fault.Denied},
		{"a decision of who is revoked", func(s *scene) []byte {
			s.put(s.decision("b", "b", &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")}))
			return s.decision("a", "a", ae("x"))
		}, fault.Denied},
		{"a decision under a key that was made up", func(s *scene) []byte {
			entry, err := catalog.EncodeDecision(anonymous{ed25519.NewKeyFromSeed(make([]byte, 32))}, "a", nil, []catalog.Command{ae("x")})
			if err != nil {
				s.t.Fatal(err)
			}
			return entry
		}, fault.Denied},
		{"a decision whose condition holds", func(s *scene) []byte {
			s.put(s.decision("a", "a", ae("x")))
			return s.decisionIf("a", "a", []catalog.Condition{catalog.If("ae", "x", []byte("v")), catalog.If("ae", "y", nil)}, ae("y"))
		}, none},
		{"a decision whose record has another value", func(s *scene) []byte {
			return s.decisionIf("a", "a", []catalog.Condition{catalog.If("ae", "x", []byte("v"))}, ae("y"))
		}, fault.Conflict},
		{"a decision whose record is there", func(s *scene) []byte {
			s.put(s.decision("a", "a", ae("x")))
			return s.decisionIf("a", "a", []catalog.Condition{catalog.If("ae", "x", nil)}, ae("x"))
		}, fault.Conflict},
		{"a witness that moves", func(s *scene) []byte {
			s.witness()
			return s.decision("w", "w", witness(func(m *catalogpb.Member) { m.Address = "there:7700" }))
		}, none},
		{"a witness that would be more", func(s *scene) []byte {
			s.witness()
			return s.decision("w", "w", witness(func(m *catalogpb.Member) { m.Witness = false }))
		}, fault.Denied},
		{"a witness that moves, and deletes", func(s *scene) []byte {
			s.witness()
			return s.decision("w", "w", witness(func(m *catalogpb.Member) { m.Address = "there:7700" }), &catalog.TombstoneFact{Study: "1.1", Tick: 1})
		}, fault.Denied},
		{"a witness that decides about another", func(s *scene) []byte {
			s.witness()
			return s.decision("w", "w", &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")})
		}, fault.Denied},
		{"a member without a key", func(s *scene) []byte {
			return s.decision("a", "a", &catalog.RegistryFact{Kind: catalog.KindMember, Name: "c", Value: []byte{10, 1, 's'}})
		}, fault.Invalid},
		{"bytes that are no entry", func(*scene) []byte { return []byte("garbage") }, fault.Invalid},
		{"no bytes", func(*scene) []byte { return nil }, fault.Invalid},
		{"an entry of the first version", func(*scene) []byte { return []byte{0x08, 1, 0x10, 1} }, fault.Invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.put(test.last(s))
			last := uint64(len(s.log))
			var states []string
			for _, together := range []bool{true, false} {
				c := openMem(t, vfs.NewMem())
				defer c.Close()
				if together {
					if err := c.Apply(s.log[:last-1], replication.Position{Index: last - 1}); err != nil {
						t.Fatal(err)
					}
				} else {
					for i := uint64(1); i < last; i++ {
						if err := c.Apply(s.log[i-1:i], replication.Position{Index: i}); err != nil {
							t.Fatal(err)
						}
					}
				}
				for i := uint64(1); i < last; i++ {
					if results, ok := c.Results(i); !ok || slices.ContainsFunc(results, func(err error) bool { return err != nil }) {
						t.Fatalf("entry %d: %v, %t", i, results, ok)
					}
				}
				before, _ := c.StateHash()
				if err := c.Apply(s.log[last-1:], replication.Position{Index: last}); err != nil {
					t.Fatal(err)
				}
				results, ok := c.Results(last)
				if !ok || len(results) == 0 {
					t.Fatal("no results")
				}
				for _, err := range results {
					if test.want == none && err != nil || test.want != none && !fault.Is(err, test.want) {
						t.Errorf("result %v, want %v", err, test.want)
					}
				}
				after, _ := c.StateHash()
				if test.want == fault.Denied && after != before {
					t.Error("what was denied left something behind")
				}
				verify(t, c)
				states = append(states, fmt.Sprint(catalog.Dump(c), after))
			}
			if states[0] != states[1] {
				t.Error("two nodes make different things of it")
			}
		})
	}
}

// A proposer that has no answer proposes again: what was taken is not taken
// twice, and has the results it had.
func TestADecisionTakenTwiceIsTakenOnce(t *testing.T) {
	s := newScene(t)
	stone := s.decision("a", "a", &catalog.TombstoneFact{Study: "1.1", Tick: 1}, &catalog.RestoreFact{Study: "1.7", Tick: 1})
	for _, entry := range [][]byte{
		stone, s.decision("a", "a", &catalog.RestoreFact{Study: "1.1", Tick: 2}), stone,
	} {
		s.put(entry)
	}
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	if err := c.Apply(s.log, replication.Position{Index: uint64(len(s.log))}); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{5, 7} {
		results, ok := c.Results(index)
		if !ok || len(results) != 2 || results[0] != nil || !fault.Is(results[1], fault.NotFound) {
			t.Errorf("entry %d: %v, %t", index, results, ok)
		}
	}
	if _, deleted := c.Deleted("1.1", "", ""); deleted {
		t.Error("a decision proposed again undid a later one")
	}
	verify(t, c)
}

func TestCursorTellsWhereAJournalGoesOn(t *testing.T) {
	s := newScene(t)
	fs := vfs.NewMem()
	c := openMem(t, fs)
	if err := c.Apply(s.log, replication.Position{Index: 4}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	want := catalog.Cursor{Incarnation: 1, Number: 2, Hash: s.hashes[2], Index: 4}
	if got, ok, err := c.Cursor("a"); got != want || !ok || err != nil {
		t.Errorf("cursor %+v, %t, %v, want %+v", got, ok, err, want)
	}
	if got, ok, err := c.Cursor("b"); ok || err != nil {
		t.Errorf("cursor of a silent node: %+v, %t, %v", got, ok, err)
	}
}

func TestOversizedBatchIsFullAndForeignFactsAreInvalid(t *testing.T) {
	b := catalog.Batch{Node: "a", Site: "site-a", Incarnation: 1, Number: 1}
	for i := range 3000 {
		b.Facts = append(b.Facts, fact("a", fmt.Sprintf("1.%d", i), fmt.Sprintf("1.%d.1", i), 1, 1, values{}))
	}
	if _, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), b, [32]byte{}); !fault.Is(err, fault.Full) {
		t.Errorf("a large batch: %v, want full", err)
	}
	b.Facts = []*catalog.SeriesFact{fact("b", "1.1", "1.1.1", 1, 1, values{})}
	if _, _, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), b, [32]byte{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another node's fact: %v, want invalid", err)
	}
}

// The results of old entries make room for those of new ones.
func TestResultsAreKeptForAWhile(t *testing.T) {
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	entries := make([]replication.Entry, 5000)
	for i := range entries {
		entries[i] = replication.Entry{Index: uint64(i + 1)}
	}
	if err := c.Apply(entries, replication.Position{Index: 5000}); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[uint64]bool{0: false, 1: false, 904: false, 905: true, 5000: true, 5001: false} {
		if _, ok := c.Results(index); ok != want {
			t.Errorf("entry %d is kept: %t", index, ok)
		}
	}
}

// Who has not what a fact leans on says so, and nothing is made up.
func TestAFactThatLeansOnNothingIsNotFound(t *testing.T) {
	n := newNetwork(t, "a")
	defer n.close()
	m := n.members[0]
	n.say(m, fact("a", "1.1", "1.1.1", 1, 1, values{dict.PatientID: "P1", dict.StudyDescription: "a long description"}),
		fact("a", "1.1", "1.1.3", 1, 1, values{dict.PatientID: "P1", dict.StudyDescription: "a long description"}))
	n.commit(m)
	n.catchUp(m, len(n.log))
	n.say(m, fact("a", "1.1", "1.1.1", 2, 2, values{dict.PatientID: "P1", dict.StudyDescription: "a long description"}),
		fact("a", "1.1", "1.1.2", 2, 2, values{dict.PatientID: "P1", dict.StudyDescription: "a long description"}))
	short, full := m.queued[0].facts, m.full[0].facts
	for _, other := range []bool{false, true} { // another series of the study is known, and does not help
		s := newScene(t)
		c := openMem(t, vfs.NewMem())
		defer c.Close()
		number, previous := uint64(3), s.hashes[2]
		if !other {
			s.log, number, previous = s.log[:2], 1, [32]byte{}
		}
		b := catalog.Batch{Node: "a", Site: "site-a", Incarnation: 1, Number: number, Facts: short}
		entry, hash, err := catalog.EncodeBatch(catalogtest.SignerOf("a"), b, previous)
		if err != nil {
			t.Fatal(err)
		}
		s.put(entry)
		b.Number, b.Facts = number+1, full
		if entry, _, err = catalog.EncodeBatch(catalogtest.SignerOf("a"), b, hash); err != nil {
			t.Fatal(err)
		}
		s.put(entry)
		last := uint64(len(s.log))
		if err := c.Apply(s.log, replication.Position{Index: last}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, false} {
			results, ok := c.Results(last - 1 + uint64(i))
			if !ok || len(results) != 2 || fault.Is(results[0], fault.NotFound) != want || fault.Is(results[1], fault.NotFound) != want {
				t.Errorf("entry %d: %v", i, results)
			}
		}
		if study, err := c.Study("1.1"); err != nil || study.Instances != 4 {
			t.Errorf("told in full: %+v, %v", study, err)
		}
		verify(t, c)
	}
}

// Whoever leads keeps out of the order what would stop the nodes of its version, what
// is no entry, what is another node's, and what every node would refuse.
func TestWhatMayBeProposed(t *testing.T) {
	const taken = fault.Kind(255)
	var zero [32]byte
	newer, err := proto.Marshal(&catalogpb.Entry{Version: 99, MinReader: 99})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		from  string
		entry func(s *scene) []byte
		want  fault.Kind
		again bool
	}{
		"the next batch":                    {from: "a", want: taken, entry: func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[2], 1, false) }},
		"a new incarnation":                 {from: "a", want: taken, entry: func(s *scene) []byte { return s.batch("a", "a", 2, 1, zero, 1, false) }},
		"a decision of its own":             {from: "a", want: taken, entry: func(s *scene) []byte { return s.decision("a", "a", catalogtest.Member("c", "site-c")) }},
		"a decision that was taken":         {from: "a", want: taken, again: true, entry: func(s *scene) []byte { return s.log[1].Data }},
		"another's batch":                   {from: "b", want: fault.Denied, entry: func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[2], 1, false) }},
		"another's decision":                {from: "b", want: fault.Denied, entry: func(s *scene) []byte { return s.decision("a", "a", catalogtest.Member("c", "site-c")) }},
		"of nobody":                         {from: "", want: fault.Denied, entry: func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[2], 1, false) }},
		"a batch of who is no member":       {from: "c", want: fault.Denied, entry: func(s *scene) []byte { return s.batch("c", "c", 1, 1, zero, 1, false) }},
		"a decision of who is no member":    {from: "c", want: fault.Denied, entry: func(s *scene) []byte { return s.decision("c", "c", catalogtest.Member("c", "site-c")) }},
		"a batch signed by another":         {from: "a", want: fault.Denied, entry: func(s *scene) []byte { return s.batch("a", "b", 1, 3, s.hashes[2], 1, false) }},
		"a decision signed by another":      {from: "a", want: fault.Denied, entry: func(s *scene) []byte { return s.decision("a", "b", catalogtest.Member("c", "site-c")) }},
		"a batch after another chain":       {from: "a", want: fault.Conflict, entry: func(s *scene) []byte { return s.batch("a", "a", 1, 3, s.hashes[1], 1, false) }},
		"a batch after one that is missing": {from: "a", want: fault.Mismatch, entry: func(s *scene) []byte { return s.batch("a", "a", 1, 4, s.hashes[2], 1, false) }},
		"a batch that is known":             {from: "a", want: fault.Conflict, entry: func(s *scene) []byte { return s.log[3].Data }},
		"what a witness may not": {from: "w", want: fault.Denied, entry: func(s *scene) []byte {
			s.witness()
			return s.decision("w", "w", &catalog.TombstoneFact{Study: "1.1", Tick: 1})
		}},
		"an entry of a newer version": {from: "a", want: fault.Unsupported, entry: func(*scene) []byte { return newer }},
		"garbage":                     {from: "a", want: fault.Invalid, entry: func(*scene) []byte { return []byte("garbage") }},
		"nothing":                     {from: "a", want: fault.Invalid, entry: func(*scene) []byte { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			entry := test.entry(s)
			c := openMem(t, vfs.NewMem())
			defer c.Close()
			if err := c.Apply(s.log, replication.Position{Index: uint64(len(s.log))}); err != nil {
				t.Fatal(err)
			}
			again, err := c.Admit(test.from, entry)
			if (test.want == taken) != (err == nil) || err != nil && !fault.Is(err, test.want) || again != test.again {
				t.Errorf("again %t, %v, want %v", again, err, test.want)
			}
		})
	}
}

// The first entry of all makes its own node a member: there is nobody else to sign it.
func TestWhoFoundsANetworkMayPropose(t *testing.T) {
	s := &scene{t: t}
	c := openMem(t, vfs.NewMem())
	defer c.Close()
	if _, err := c.Admit("a", s.decision("a", "a", catalogtest.Member("a", "s"))); err != nil {
		t.Errorf("founding: %v", err)
	}
	if _, err := c.Admit("b", s.decision("b", "b", catalogtest.Member("a", "s"))); !fault.Is(err, fault.Denied) {
		t.Errorf("founding by who is no member: %v", err)
	}
}

// An id is that of a key: who may decide makes nobody sign in another's name.
func TestAMemberRecordIsOfItsNodesKey(t *testing.T) {
	node := func(seed string) (string, ed25519.PrivateKey) {
		hash := sha256.Sum256([]byte(seed))
		key := ed25519.NewKeyFromSeed(hash[:])
		return identity.IDOf(key.Public().(ed25519.PublicKey)), key
	}
	member := func(id string, key ed25519.PrivateKey) *catalog.RegistryFact {
		value, err := proto.Marshal(&catalogpb.Member{Site: "s", PublicKey: key.Public().(ed25519.PublicKey)})
		if err != nil {
			t.Fatal(err)
		}
		return &catalog.RegistryFact{Kind: catalog.KindMember, Name: id, Value: value}
	}
	founder, key := node("founder")
	victim, victimKey := node("victim")
	_, other := node("other")
	var entries []replication.Entry
	put := func(commands ...catalog.Command) {
		entry, err := catalog.EncodeDecision(anonymous{key}, founder, nil, commands)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, replication.Entry{Index: uint64(len(entries) + 1), Data: entry})
	}
	put(member(founder, other))    // no founding
	put(member(founder, key))      // this is one
	put(member(victim, other))     // a stranger under another's id
	put(member(victim, victimKey)) // the node itself
	put(member(victim, other))     // and a stranger in its place
	put(member("a name", other))   // nobody's id
	want := []fault.Kind{fault.Denied, 255, fault.Invalid, 255, fault.Invalid, fault.Invalid}
	c, err := catalog.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Apply(entries, replication.Position{Index: uint64(len(entries))}); err != nil {
		t.Fatal(err)
	}
	for i, kind := range want {
		results, ok := c.Results(uint64(i + 1))
		if !ok || len(results) != 1 || (results[0] == nil) != (kind == 255) || results[0] != nil && !fault.Is(results[0], kind) {
			t.Errorf("entry %d: %v, want %v", i+1, results, kind)
		}
	}
	row, err := c.RegistryRecord(catalog.KindMember, victim)
	if err != nil || !bytes.Equal(row, member(victim, victimKey).Value) {
		t.Errorf("the record of the victim is another one: %v", err)
	}
}
