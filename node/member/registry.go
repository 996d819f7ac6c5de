package member

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

// Catalog is the network's memory. *catalog.Catalog is one.
type Catalog interface {
	Records
	// Changed is closed after the next change of the catalogue.
	Changed() <-chan struct{}
	// Sync makes what was applied durable.
	Sync() error
}

// settle is how long changes of the catalogue may gather before the registry is
// read again: a backlog changes it a hundred times a second.
const settle = 20 * time.Millisecond

// RegistryOptions are what a registry is made of.
type RegistryOptions struct {
	Self    string // this node's id
	Catalog Catalog
	// Hints are who is believed in while the catalogue knows no member.
	Hints []Hint
	// Heard returns the address that a node says it has now, if it was heard of;
	// nil: nobody is heard. Must not block.
	Heard func(node string) (address string, ok bool)
	// Revoked is told of nodes that were removed, after [Registry.Revoked] says so.
	// nil: nobody is.
	Revoked func(node string)
	Log     *slog.Logger
}

// Registry is what the node knows of the members, in memory.
type Registry struct {
	o    RegistryOptions
	now  atomic.Pointer[view]
	told map[string]bool // removed nodes that Options.Revoked knows of; only Run's
}

// view is the registry at a moment. It is never changed.
type view struct {
	members map[string]Member
	// outdated is what was heard of a node when its record came to say otherwise:
	// what is heard since is newer, and this is not.
	outdated map[string]string
	revoked  map[string]Revocation
	signers  map[string][]byte
	hinted   bool          // it is made of hints
	changed  chan struct{} // closed when there is another
}

// NewRegistry reads the registry, so that it answers from the start.
// fault.Unavailable, or the catalogue's error, if it cannot be read.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	r := &Registry{o: o, told: map[string]bool{}}
	v, err := r.read()
	if err != nil {
		return nil, err
	}
	for node := range v.revoked { // who was removed before is not connected
		r.told[node] = true
	}
	r.now.Store(v)
	return r, nil
}

// Run keeps the registry as the catalogue is, until the context ends or the
// catalogue cannot be read.
func (r *Registry) Run(ctx context.Context) error {
	for {
		changed := r.o.Catalog.Changed() // before it is read: what comes meanwhile is read next time
		v, err := r.read()
		if err != nil {
			return err
		}
		if r.take(v) {
			// What the catalogue loses in a crash the log brings back, but from others:
			// who they are must not be in it.
			if err := r.o.Catalog.Sync(); err != nil {
				return fault.New(fault.KindOf(err), "member: keep the members: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if !pause.For(ctx, settle) {
			return nil
		}
	}
}

// take makes a view the present one, if it differs, and tells of those that were
// removed.
func (r *Registry) take(v *view) (changed bool) {
	old := r.now.Load()
	if !v.differs(old) {
		return false
	}
	v.outdated = r.outdated(old, v)
	r.now.Store(v)
	close(old.changed)
	for node := range v.revoked {
		if r.told[node] {
			continue
		}
		r.told[node] = true
		r.o.Log.Warn("node was removed from the network", "node", node, "site", v.members[node].Site)
		if r.o.Revoked != nil {
			r.o.Revoked(node)
		}
	}
	return true
}

// outdated notes what is heard of nodes whose records have changed.
func (r *Registry) outdated(old, v *view) map[string]string {
	outdated := maps.Clone(old.outdated)
	for node, m := range v.members {
		if was, known := old.members[node]; !known || was.Address == m.Address || r.o.Heard == nil {
			continue
		}
		if outdated == nil {
			outdated = map[string]string{}
		}
		delete(outdated, node)
		if address, heard := r.o.Heard(node); heard {
			outdated[node] = address
		}
	}
	return outdated
}

func (v *view) differs(old *view) bool {
	same := func(a, b []byte) bool { return string(a) == string(b) }
	return v.hinted != old.hinted ||
		!maps.EqualFunc(v.members, old.members, Member.equal) ||
		!maps.EqualFunc(v.revoked, old.revoked, func(a, b Revocation) bool { return a.By == b.By && a.At.Equal(b.At) }) ||
		!maps.EqualFunc(v.signers, old.signers, same)
}

// read reads the kinds. A record that does not parse is left out with a line in
// the log: the others serve; but a revocation counts whatever it holds.
func (r *Registry) read() (*view, error) {
	v := &view{members: map[string]Member{}, revoked: map[string]Revocation{}, changed: make(chan struct{})}
	all := func(kind string, each func(name string, value []byte) error) error {
		records, err := r.o.Catalog.Registry(kind)
		if err != nil {
			return fault.New(fault.KindOf(err), "member: read the registry: %w", err)
		}
		for name, value := range records {
			if err := each(name, value); err != nil {
				r.o.Log.Error("a record of the registry does not parse", "kind", kind, "node", name, "error", err)
			}
		}
		return nil
	}
	err := all(kindMember, func(name string, value []byte) error {
		m, err := parseMember(name, value)
		if err == nil {
			v.members[name] = m
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = all(kindRevoked, func(name string, value []byte) (err error) {
		v.revoked[name], err = parseRevocation(value)
		return err
	})
	if err != nil {
		return nil, err
	}
	if v.signers, err = r.o.Catalog.Registry(kindSigner); err != nil {
		return nil, fault.New(fault.KindOf(err), "member: read the registry: %w", err)
	}
	if len(v.members) == 0 {
		v.hint(r.o.Hints)
	}
	return v, nil
}

// hint fills a view for as long as the catalogue knows no member.
func (v *view) hint(hints []Hint) {
	v.hinted = true
	for _, h := range hints {
		v.members[h.Node] = Member{Node: h.Node, Site: h.Site, Address: h.Address}
		if h.Revoked {
			v.revoked[h.Node] = Revocation{}
		}
	}
}

// Revoked reports whether a node was removed from the network. It never blocks.
func (r *Registry) Revoked(node string) bool {
	_, ok := r.now.Load().revoked[node]
	return ok
}

// Belongs reports whether a node is a member in good standing. It never blocks.
func (r *Registry) Belongs(node string) bool {
	v := r.now.Load()
	_, known := v.members[node]
	_, revoked := v.revoked[node]
	return known && !revoked
}

// Member returns what is known of a node, removed ones too.
func (r *Registry) Member(node string) (Member, bool) {
	m, ok := r.now.Load().members[node]
	return m, ok
}

// Members returns the members in good standing by site and id.
func (r *Registry) Members() []Member {
	v := r.now.Load()
	var all []Member
	for node, m := range v.members {
		if _, revoked := v.revoked[node]; !revoked {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, compareMembers)
	return all
}

// Removed returns the nodes that were removed from the network, by site and id.
func (r *Registry) Removed() []Member {
	v := r.now.Load()
	var all []Member
	for node, m := range v.members {
		if _, revoked := v.revoked[node]; revoked {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, compareMembers)
	return all
}

// Any reports whether some member is such a one; removed ones are looked at too.
func (r *Registry) Any(such func(Member) bool) bool {
	for _, m := range r.now.Load().members {
		if such(m) {
			return true
		}
	}
	return false
}

func compareMembers(a, b Member) int {
	return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Node, b.Node))
}

// Changed is closed when Revoked, Belongs, Members or Removed answer otherwise than
// now.
func (r *Registry) Changed() <-chan struct{} { return r.now.Load().changed }

// Known reports whether the catalogue itself has this node as a member.
func (r *Registry) Known() bool {
	v := r.now.Load()
	_, ok := v.members[r.o.Self]
	return ok && !v.hinted
}

// Locate returns the address of a node's port: what was heard of it since its
// record has changed, else what the record says; whoever answers there has to
// prove who it is. fault.Unavailable for a node that is not known or was removed.
func (r *Registry) Locate(_ context.Context, node string) (string, error) {
	v := r.now.Load()
	m, ok := v.members[node]
	if _, revoked := v.revoked[node]; revoked {
		return "", fault.New(fault.Unavailable, "member: node %s was removed from the network", node)
	}
	if r.o.Heard != nil {
		if address, heard := r.o.Heard(node); heard && address != v.outdated[node] {
			return address, nil
		}
	}
	if !ok || m.Address == "" {
		return "", fault.New(fault.Unavailable, "member: nobody knows where node %s is", node)
	}
	return m.Address, nil
}
