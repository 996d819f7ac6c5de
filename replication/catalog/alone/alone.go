// Package alone applies to a catalogue without Raft, for tests and for tools that
// fill one: what it is told is committed and applied at once. Its nodes' keys are
// known to everyone, so no network may ever take such a catalogue for its own.
package alone

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
)

// Signer is the signing key of a node that a [Solo] makes up: everyone knows it.
type Signer struct{ key ed25519.PrivateKey }

// SignerOf returns the key of a node by its name, the same every time.
func SignerOf(node string) Signer {
	seed := sha256.Sum256([]byte("alone " + node))
	return Signer{ed25519.NewKeyFromSeed(seed[:])}
}

// Sign signs a message.
func (s Signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

// Public is the public key.
func (s Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Member returns the command that makes a node a member, under [SignerOf] it.
func Member(node, site string) *catalog.RegistryFact {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&catalogpb.Member{Site: site, PublicKey: SignerOf(node).Public()})
	if err != nil {
		panic(err) // text and bytes
	}
	return &catalog.RegistryFact{Kind: catalog.KindMember, Name: node, Value: value}
}

// Named reports whether a key is that of a node: one that is made up, by its name,
// or a real one, by its id.
func Named(node string, key ed25519.PublicKey) bool {
	return SignerOf(node).Public().Equal(key) || identity.IDOf(key) == node
}

// decider is the node that decisions of a [Solo] are of.
const decider = "decider"

// Solo is a catalogue without Raft: an entry is committed and applied at once,
// under the next index.
type Solo struct {
	// Node is the member that decides, with Signer its key: of a network that
	// somebody has founded. "": one that is made up, which founds it.
	Node   string
	Signer catalog.Signer
	// Keep is called with every entry that is applied; nil: nobody is.
	Keep func(replication.Entry)

	c  *catalog.Catalog
	mu sync.Mutex
}

// New returns the proposer and decider of a catalogue that nobody else applies
// to. Nodes become members as they are first heard of.
func New(c *catalog.Catalog) *Solo {
	c.Rename(Named)
	return &Solo{c: c}
}

// Propose applies an entry and returns its index.
func (a *Solo) Propose(_ context.Context, entry []byte) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	index := a.c.Applied() + 1
	return index, a.apply(index, index, entry)
}

// apply applies entries under the indexes from first on, and makes at last.
func (a *Solo) apply(first, last uint64, entries ...[]byte) error {
	at := a.c.Position()
	at.Index, at.Term = last, max(1, at.Term)
	list := make([]replication.Entry, len(entries))
	for i, entry := range entries {
		list[i] = replication.Entry{Index: first + uint64(i), Term: at.Term, Data: entry}
		if a.Keep != nil {
			a.Keep(list[i])
		}
	}
	return a.c.Apply(list, at)
}

// Decide applies a decision, of a member that it makes if there is none.
func (a *Solo) Decide(_ context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.run()
	if err := r.decide(conditions, commands); err != nil {
		return nil, err
	}
	return a.do(r, a.c.Applied()+1, 0)
}

// Do applies facts (*catalog.SeriesFact, *catalog.KeyFact, *catalog.SealFact) and
// commands in their order, each run of facts of one kind and node as batches of its
// journal and each run of commands as a decision, and returns their results.
func (a *Solo) Do(changes ...any) ([]error, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.run()
	if err := r.add(changes); err != nil {
		return nil, err
	}
	return a.do(r, a.c.Applied()+1, 0)
}

// Stride is how many indexes [Solo.DoAs] uses for one number.
const Stride = 256

// DoAs is Do, in one step and under indexes that follow from a number: the
// catalogue stands at number times Stride afterwards.
func (a *Solo) DoAs(number uint64, changes ...any) ([]error, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.run()
	if err := r.add(changes); err != nil {
		return nil, err
	}
	if len(r.entries) > Stride {
		return nil, fault.New(fault.Invalid, "alone: %d entries at once", len(r.entries))
	}
	return a.do(r, (number-1)*Stride+1, number*Stride)
}

func (a *Solo) do(r run, first, last uint64) ([]error, error) {
	if len(r.entries) == 0 {
		return nil, nil
	}
	if err := a.apply(first, max(last, first+uint64(len(r.entries))-1), r.entries...); err != nil {
		return nil, err
	}
	var all []error
	for i, asked := range r.asked {
		results, ok := a.c.Results(first + uint64(i))
		if !ok {
			return nil, fault.New(fault.NotFound, "alone: no results of entry %d", first+uint64(i))
		}
		if asked {
			all = append(all, results...)
		} else if err := errors.Join(results...); err != nil {
			return nil, fmt.Errorf("alone: admit: %w", err)
		}
	}
	return all, nil
}

func (a *Solo) run() run {
	r := run{c: a.c, node: a.Node, signer: a.Signer}
	if r.node == "" {
		r.node, r.signer = decider, SignerOf(decider)
	}
	return r
}

// run are entries that are about to be applied.
type run struct {
	c       *catalog.Catalog
	node    string // that decides
	signer  catalog.Signer
	entries [][]byte
	asked   []bool            // whether the caller hears of the results
	members map[string]string // site by node
	cursors map[string]catalog.Cursor
}

func (r *run) put(entry []byte, asked bool) {
	r.entries, r.asked = append(r.entries, entry), append(r.asked, asked)
}

func (r *run) add(changes []any) error {
	for len(changes) > 0 {
		first, err := r.speakerOf(changes[0])
		if err != nil {
			return err
		}
		n := 1
		for ; n < len(changes); n++ {
			if next, err := r.speakerOf(changes[n]); err != nil || next != first {
				break
			}
		}
		if first.kind == ofCommand {
			commands := make([]catalog.Command, n)
			for i := range commands {
				commands[i] = changes[i].(catalog.Command)
			}
			err = r.decide(nil, commands)
		} else if err = r.admit(first.node, first.site); err == nil {
			err = r.say(first, changes[:n])
		}
		if err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// speaker is who says a change, and of what kind it is: a run of changes that agree
// in it is one entry.
type speaker struct {
	node, site string
	kind       kind
}

type kind uint8

const (
	ofCommand kind = iota
	ofSeries
	ofKey
	ofSeal
)

func (r *run) speakerOf(change any) (s speaker, err error) {
	switch change := change.(type) {
	case *catalog.SeriesFact:
		return speaker{change.Origin, change.Site, ofSeries}, nil
	case *catalog.KeyFact:
		s = speaker{node: change.Origin, kind: ofKey}
	case *catalog.SealFact:
		s = speaker{node: change.By, kind: ofSeal}
	case catalog.Command:
		return s, nil
	default:
		return s, fault.New(fault.Invalid, "alone: a change of type %T", change)
	}
	s.site, err = r.siteOf(s.node)
	return s, err
}

// siteOf returns the site of a member; of who is none yet, none.
func (r *run) siteOf(node string) (string, error) {
	if site, ok := r.members[node]; ok {
		return site, nil
	}
	row, err := r.c.RegistryRecord(catalog.KindMember, node)
	if err != nil || row == nil {
		return "", err
	}
	m, err := catalog.DecodeMember(row)
	if err != nil {
		return "", err
	}
	return m.Site, nil
}

func (r *run) decide(conditions []catalog.Condition, commands []catalog.Command) error {
	if err := r.admit(r.node, ""); err != nil {
		return err
	}
	entry, err := catalog.EncodeDecision(r.signer, r.node, conditions, commands)
	r.put(entry, true)
	return err
}

// say adds facts of one kind and node as its next batch, or as several.
func (r *run) say(by speaker, facts []any) error {
	at, ok := r.cursors[by.node]
	if !ok {
		var err error
		if at, ok, err = r.c.Cursor(by.node); err != nil {
			return err
		}
		if !ok {
			at.Incarnation = 1
		}
	}
	const most = 1000
	var entry []byte
	err := fault.New(fault.Full, "alone: %d facts", len(facts))
	var hash [32]byte
	if len(facts) <= most {
		b := catalog.Batch{Node: by.node, Site: by.site, Incarnation: at.Incarnation, Number: at.Number + 1}
		for _, f := range facts {
			switch f := f.(type) {
			case *catalog.SeriesFact:
				b.Facts = append(b.Facts, f)
			case *catalog.KeyFact:
				b.Keys = append(b.Keys, f)
			case *catalog.SealFact:
				b.Seals = append(b.Seals, f)
			}
		}
		entry, hash, err = catalog.EncodeBatch(SignerOf(by.node), b, at.Hash)
	}
	if fault.Is(err, fault.Full) && len(facts) > 1 {
		if err := r.say(by, facts[:len(facts)/2]); err != nil {
			return err
		}
		return r.say(by, facts[len(facts)/2:])
	}
	if err != nil {
		return err
	}
	if r.cursors == nil {
		r.cursors = map[string]catalog.Cursor{}
	}
	r.cursors[by.node] = catalog.Cursor{Incarnation: at.Incarnation, Number: at.Number + 1, Hash: hash}
	r.put(entry, true)
	return nil
}

// admit makes a node a member of a site unless it is one. The first founds the network.
func (r *run) admit(node, site string) error {
	if node == r.node && node != decider { // somebody has founded the network with it
		return nil
	}
	if known, ok := r.members[node]; ok && known == site {
		return nil
	}
	row, err := r.c.RegistryRecord(catalog.KindMember, node)
	if err != nil {
		return err
	}
	var member *catalogpb.Member
	if row != nil {
		if member, err = catalog.DecodeMember(row); err != nil {
			return err
		}
	}
	if member == nil || member.Site != site {
		if node != r.node {
			if err := r.admit(r.node, ""); err != nil {
				return err
			}
		}
		entry, err := catalog.EncodeDecision(r.signer, r.node, nil, []catalog.Command{Member(node, site)})
		if err != nil {
			return err
		}
		r.put(entry, false)
	}
	if r.members == nil {
		r.members = map[string]string{}
	}
	r.members[node] = site
	return nil
}
