package keyring

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/member"
)

// Catalog is the network's memory. *catalog.Catalog is one.
type Catalog interface {
	member.Records
	member.Changing
}

// Members are the members in good standing. *member.Registry has them.
type Members interface {
	Members() []member.Member
	// Changed is closed when Members answers otherwise than now.
	Changed() <-chan struct{}
}

// Options are what a keeper is made of.
type Options struct {
	Self      *identity.Node
	Catalog   Catalog
	Members   Members
	Decisions member.Decisions
	// Leader is the node that leads, which goes first; nil: everybody does.
	Leader func() string
	Log    *slog.Logger
}

// Keeper keeps this node's epoch keys, and sees to it that others have theirs.
type Keeper struct {
	o   Options
	now atomic.Pointer[view]

	mu sync.Mutex // guards what follows
	// told is what the log has a line of, by what it is about.
	told map[string]bool
	// proved is whose sealing keys were checked, and what came of it: each time costs
	// as much as sealing.
	proved map[proof]error
}

// maxTold bounds what is told of once: a hostile member can make up names. maxProved
// does the same for what is remembered of sealing keys, of which each member has one.
const (
	maxTold   = 1024
	maxProved = 4096
)

// New reads the records, so that the keeper answers from the start.
func New(o Options) (*Keeper, error) {
	k := &Keeper{o: o, told: map[string]bool{}, proved: map[proof]error{}}
	v, err := k.read()
	if err != nil {
		return nil, err
	}
	k.now.Store(v)
	return k, nil
}

// once logs an error the first time that it is about something.
func (k *Keeper) once(about, text string, args ...any) {
	k.mu.Lock()
	first := !k.told[about] && len(k.told) < maxTold
	if first {
		k.told[about] = true
	}
	k.mu.Unlock()
	if first {
		k.o.Log.Error(text, args...)
	}
}

// Follow keeps what is sealed to this node as it is applied, until the context ends
// or the catalogue cannot be read or the keys not be written. An epoch counts, here
// and for those who ask, once it is durable.
func (k *Keeper) Follow(ctx context.Context) error {
	return member.Follow(ctx, k.o.Catalog, k.o.Members, func() error {
		v, err := k.read()
		if err != nil {
			return err
		}
		if err := k.take(v); err != nil {
			return err
		}
		if old := k.now.Load(); !v.equal(old) {
			k.now.Store(v)
			close(old.changed)
		}
		return nil
	})
}

// take opens the envelopes of this node and holds what is in them, and notes those
// that do not hold the epoch's key.
func (k *Keeper) take(v *view) error {
	if !slices.Contains(v.members, k.o.Self.ID()) {
		return nil // a witness takes none, whoever sealed it
	}
	added := map[uint32][32]byte{}
	for number, e := range v.epochs {
		if key, err := k.o.Self.Epoch(number); err == nil {
			if !e.is(number, key) {
				k.once("held "+numberText(number), "this node holds another key of an epoch than the network: what it has wrapped under it nobody else can open", "epoch", number)
			}
			continue
		}
		sealed := v.sealed[number]
		if sealed == nil {
			continue
		}
		key, err := k.o.Self.OpenEpoch(number, sealed)
		if err == nil && !e.is(number, key) {
			err = fault.New(fault.Corrupt, "keyring: the key in it is not that of epoch %d", number)
		}
		if err != nil {
			v.refused = append(v.refused, number)
			k.once("sealed "+numberText(number), "an envelope for this node is refused, and asked for anew", "epoch", number, "error", err)
			continue
		}
		added[number] = key
	}
	if err := k.o.Self.AddEpochs(added); err != nil {
		return fault.New(fault.KindOf(err), "keyring: keep epoch keys: %w", err)
	}
	if len(added) > 0 {
		k.o.Log.Info("this node holds keys of epochs that it lacked", "epochs", len(added), "newest", k.o.Self.Current())
	}
	slices.Sort(v.refused)
	return nil
}

// Ready reports whether a member was given all epochs, as far as the records say:
// it may count for t. Whether it has them durably, it says itself ([Ask]).
func (k *Keeper) Ready(node string) bool {
	v := k.now.Load()
	return slices.Contains(v.members, node) && v.has(node)
}

// State is how far this node has the network's epoch keys.
type State struct {
	Held    int // of the network's epochs
	Lacking int // 0 at a node that is to have none
}

// State returns it.
func (k *Keeper) State() State {
	v := k.now.Load()
	var s State
	for number := range v.epochs {
		if _, err := k.o.Self.Epoch(number); err == nil {
			s.Held++
		} else if slices.Contains(v.members, k.o.Self.ID()) {
			s.Lacking++
		}
	}
	return s
}

// Changed is closed when Ready answers otherwise than now.
func (k *Keeper) Changed() <-chan struct{} { return k.now.Load().changed }
