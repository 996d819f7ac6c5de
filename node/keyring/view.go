package keyring

import (
	"cmp"
	"maps"
	"slices"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/member"
)

// view is what the registry says of epochs, and who is to have them. It is never
// changed.
type view struct {
	epochs    map[uint32]epoch
	envelopes map[envelope]bool
	sealed    map[uint32][]byte // the envelopes of this node, by epoch
	refused   []uint32          // of them, those that are not what they should be; ascending
	revoked   int               // nodes that were removed, ever
	members   []string          // that are to have all epochs, by site and id
	changed   chan struct{}     // closed when there is another
}

// read reads the records; one that does not parse is left out and told of.
func (k *Keeper) read() (*view, error) {
	v := &view{
		epochs: map[uint32]epoch{}, envelopes: map[envelope]bool{}, sealed: map[uint32][]byte{}, changed: make(chan struct{}),
	}
	self := k.o.Self.ID()
	revoked, err := k.o.Catalog.Registry(kindRevoked)
	if err != nil {
		return nil, readError(err)
	}
	v.revoked = len(revoked)
	if v.epochs, err = k.readEpochs(); err != nil {
		return nil, err
	}
	envelopes, err := k.o.Catalog.Registry(kindEnvelope)
	if err != nil {
		return nil, readError(err)
	}
	for name, value := range envelopes {
		e, err := parseEnvelope(name)
		if err != nil {
			k.once("envelope "+name, "a record of the registry does not parse", "error", err)
			continue
		}
		v.envelopes[e] = true
		if e.node == self {
			v.sealed[e.number] = value
		}
	}
	for _, m := range k.o.Members.Members() {
		if k.entitled(m) {
			v.members = append(v.members, m.Node)
		}
	}
	return v, nil
}

func (k *Keeper) readEpochs() (map[uint32]epoch, error) {
	records, err := k.o.Catalog.Registry(kindEpoch)
	if err != nil {
		return nil, readError(err)
	}
	all := map[uint32]epoch{}
	for name, value := range records {
		number, err := parseNumber(name)
		var e epoch
		if err == nil {
			e, err = parseEpoch(value)
		}
		if err != nil {
			k.once("epoch "+name, "a record of the registry does not parse", "error", err)
			continue
		}
		all[number] = e
	}
	return all, nil
}

func readError(err error) error {
	return fault.New(fault.KindOf(err), "keyring: read the registry: %w", err)
}

// entitled reports whether a member is to have the epoch keys: no witness, and
// nobody whose sealing key is not proved to be its own.
func (k *Keeper) entitled(m member.Member) bool {
	if m.Witness || len(m.Public) == 0 { // a hint has no keys
		return false
	}
	if err := k.prove(m); err != nil {
		k.once("member "+m.Node, "a member gets no keys: its sealing key is not proved to be its own", "node", m.Node, "error", err)
		return false
	}
	return true
}

// proof is what a node says of its sealing key. Its id is the hash of the key that
// the proof is made by.
type proof struct {
	node    string
	sealing [identity.SealingBytes]byte
	proof   [identity.ProofBytes]byte
}

// prove checks that a member's sealing key is its own.
func (k *Keeper) prove(m member.Member) error {
	p := proof{m.Node, m.Sealing, m.Proof}
	k.mu.Lock()
	err, known := k.proved[p]
	k.mu.Unlock()
	if known {
		return err
	}
	err = identity.CheckSealing(m.Public, m.Sealing, m.Proof)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.proved) >= maxProved {
		clear(k.proved)
	}
	k.proved[p] = err
	return err
}

// newest is the highest epoch of all that there are; 0: none.
func newest(all map[uint32]epoch) uint32 {
	var last uint32
	for number := range all {
		last = max(last, number)
	}
	return last
}

// due reports whether a new epoch is to be made: because there is none at all, or
// because somebody was removed who may hold the newest.
func due(all map[uint32]epoch, revoked int) bool {
	last := newest(all)
	return last == 0 || revoked > all[last].Revoked
}

// has reports whether a node has envelopes of all epochs.
func (v *view) has(node string) bool {
	for number := range v.epochs {
		if !v.envelopes[envelope{number, node}] {
			return false
		}
	}
	return len(v.epochs) > 0
}

// lacking lists the envelopes that members lack, as far as this node could seal
// them: member by member, so that some have all soon, of each the newest first,
// under which it packs.
func (v *view) lacking(held func(number uint32) bool) []envelope {
	numbers := slices.SortedFunc(maps.Keys(v.epochs), func(a, b uint32) int { return cmp.Compare(b, a) })
	numbers = slices.DeleteFunc(numbers, func(number uint32) bool { return !held(number) })
	var all []envelope
	for _, node := range v.members {
		for _, number := range numbers {
			if e := (envelope{number, node}); !v.envelopes[e] {
				all = append(all, e)
			}
		}
	}
	return all
}

func (v *view) equal(other *view) bool {
	return v.revoked == other.revoked && maps.Equal(v.epochs, other.epochs) && maps.Equal(v.envelopes, other.envelopes) &&
		slices.Equal(v.members, other.members) && slices.Equal(v.refused, other.refused) &&
		maps.EqualFunc(v.sealed, other.sealed, func(a, b []byte) bool { return string(a) == string(b) })
}
