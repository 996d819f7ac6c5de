package keyring

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/pause"
	"pelago/node/member"
)

const (
	// maxGiven bounds the envelopes of one decision, and the epochs that one makes
	// known: each comes with up to three conditions, of which catalog.MaxConditions
	// are taken.
	maxGiven = 64
	// maxTurned bounds the members to whom one decision seals a new epoch; each comes
	// with two conditions. Further ones are given it like any other that they lack.
	maxTurned = 120
	// stride is from how many numbers that of a new epoch is chosen. A network that
	// was recovered may not know of an epoch that a node which comes back has: under
	// one number there would be two keys, and what was wrapped under one of them lost.
	stride = 1 << 20

	// giveEvery is how often duties are looked at beside every change of the records,
	// giveLater how long others leave them to the leader, giveSoon if that is a witness.
	giveEvery = 5 * time.Minute
	giveLater = 5 * time.Second
	giveSoon  = 500 * time.Millisecond
	giveRetry = 2 * time.Second
	// decideTime bounds one round of decisions.
	decideTime = 30 * time.Second
)

// duties are what this node sees that is lacking.
type duties struct {
	unknown []uint32          // epochs that it holds and the network has no record of
	turn    bool              // a new epoch is due
	lacking []envelope        // that it can seal
	refused map[uint32][]byte // envelopes of this node that are not what they should be
}

func (d duties) any() bool {
	return len(d.unknown) > 0 || d.turn || len(d.lacking) > 0 || len(d.refused) > 0
}

// duties looks at what the records say. Who is to have no keys has no duties.
func (k *Keeper) duties(v *view) duties {
	if !slices.Contains(v.members, k.o.Self.ID()) {
		return duties{}
	}
	var d duties
	for _, number := range k.o.Self.Epochs() {
		if _, known := v.epochs[number]; !known {
			d.unknown = append(d.unknown, number)
		}
	}
	d.turn = len(d.unknown) == 0 && due(v.epochs, v.revoked)
	d.lacking = v.lacking(func(number uint32) bool {
		key, err := k.o.Self.Epoch(number)
		return err == nil && v.epochs[number].is(number, key)
	})
	d.refused = map[uint32][]byte{}
	for _, number := range v.refused {
		d.refused[number] = v.sealed[number]
	}
	return d
}

// Give proposes what is lacking until the context ends: records of epochs that only
// this node knows, a new epoch after a removal, envelopes for members without. The
// leader goes first. What fails is tried again.
func (k *Keeper) Give(ctx context.Context) error {
	for {
		v := k.now.Load()
		wait, changed := jitter(giveEvery), v.changed
		if k.duties(v).any() {
			if !pause.For(ctx, k.patience(v)) {
				return nil
			}
			if err := k.give(ctx, k.duties(k.now.Load())); err != nil && ctx.Err() == nil {
				k.failed(err)
				wait, changed = jitter(giveRetry), nil
			}
		}
		if !pause.Until(ctx, changed, wait) {
			return nil
		}
	}
}

// patience is how long this node leaves duties to others.
func (k *Keeper) patience(v *view) time.Duration {
	if k.o.Leader == nil {
		return 0
	}
	switch leader := k.o.Leader(); {
	case leader == k.o.Self.ID():
		return 0
	case slices.Contains(v.members, leader) && v.has(leader):
		return jitter(giveLater)
	}
	return jitter(giveSoon) // it has none to give
}

// failed tells of what does not pass by itself, once of each kind.
func (k *Keeper) failed(err error) {
	if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.Canceled {
		k.once("give "+kind.String(), "epoch keys cannot be given to those who lack them; it is tried again", "error", err, "kind", kind.String())
	}
	k.o.Log.Debug("epoch keys", "error", err)
}

// give does a round of duties, each by a decision of its own.
func (k *Keeper) give(ctx context.Context, d duties) error {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	if len(d.unknown) > 0 {
		if err := k.publish(ctx, d.unknown); err != nil {
			return err
		}
	}
	if d.turn {
		if err := k.turn(ctx); err != nil {
			return err
		}
	}
	if len(d.lacking) > 0 {
		if err := k.seal(ctx, d.lacking); err != nil {
			return err
		}
	}
	if len(d.refused) > 0 {
		return k.drop(ctx, d.refused)
	}
	return nil
}

// First adds the epochs that a node holds to the decision by which it founds its
// network: no member is without an epoch ever. Of very many, such as a network that
// is begun anew may have, the older ones follow.
func First(self *identity.Node, s *member.Step) error {
	numbers := self.Epochs()
	if len(numbers) == 0 {
		return nil
	}
	s.Given(kindNewest, nameNewest, nil)
	s.Put(kindNewest, nameNewest, []byte(numberText(numbers[len(numbers)-1])))
	for _, number := range numbers[max(0, len(numbers)-maxGiven):] {
		if err := put(s, self, number); err != nil {
			return err
		}
	}
	return nil
}

// put writes the record of an epoch that a node holds, with the node's own envelope.
// Nobody can tell any more which removed nodes held it.
func put(s *member.Step, self *identity.Node, number uint32) error {
	key, err := self.Epoch(number)
	if err != nil {
		return err
	}
	s.Given(kindEpoch, numberText(number), nil)
	s.Put(kindEpoch, numberText(number), epoch{Version: recordVersion, Check: checkOf(number, key)}.encode())
	return sealTo(s, envelope{number, self.ID()}, self.Sealing(), key)
}

func sealTo(s *member.Step, e envelope, to [identity.SealingBytes]byte, key [32]byte) error {
	sealed, err := identity.SealEpochKey(to, e.number, key)
	if err != nil {
		return err
	}
	s.Put(kindEnvelope, e.name(), sealed)
	return nil
}

// publish makes known epochs that this node holds: a network that was begun anew, or
// recovered at another node, has no record of them.
func (k *Keeper) publish(ctx context.Context, numbers []uint32) error {
	numbers = numbers[:min(len(numbers), maxGiven)]
	return k.o.Decisions.Make(ctx, func(s *member.Step) error {
		all, err := k.readEpochs()
		if err != nil {
			return err
		}
		head, err := k.o.Decisions.Record(kindNewest, nameNewest)
		if err != nil {
			return err
		}
		last := newest(all)
		var added bool
		for _, number := range numbers {
			if _, known := all[number]; known {
				continue
			}
			if err := put(s, k.o.Self, number); err != nil {
				return err
			}
			added, last = true, max(last, number)
		}
		if added {
			s.Given(kindNewest, nameNewest, head)
			s.Put(kindNewest, nameNewest, []byte(numberText(last)))
		}
		return nil
	})
}

// turn makes a new epoch, sealed to the members that are left. Nobody holds its key
// before the decision is taken: then this node, too, has it from its envelope.
func (k *Keeper) turn(ctx context.Context) error {
	var made uint32
	err := k.o.Decisions.Make(ctx, func(s *member.Step) error {
		made = 0
		all, err := k.readEpochs()
		if err != nil {
			return err
		}
		revoked, err := k.o.Catalog.Registry(kindRevoked)
		if err != nil {
			return readError(err)
		}
		if !due(all, len(revoked)) {
			return nil // somebody else was first
		}
		head, err := k.o.Decisions.Record(kindNewest, nameNewest)
		if err != nil {
			return err
		}
		number, err := next(all)
		if err != nil {
			return err
		}
		key := identity.NewEpoch()
		s.Given(kindNewest, nameNewest, head)
		s.Put(kindNewest, nameNewest, []byte(numberText(number)))
		s.Put(kindEpoch, numberText(number), epoch{Version: recordVersion, Check: checkOf(number, key), Revoked: len(revoked)}.encode())
		made = number
		return k.sealNew(s, number, key)
	})
	if err == nil && made != 0 {
		k.o.Log.Info("the network has a new epoch: what is packed from now on, removed nodes cannot open", "epoch", made)
	}
	return err
}

// next chooses the number of a new epoch.
func next(all map[uint32]epoch) (uint32, error) {
	last := newest(all)
	if len(all) >= identity.MaxEpochs || last > math.MaxUint32-stride {
		return 0, fault.New(fault.Full, "keyring: the network has had %d epochs, and can have no more", len(all))
	}
	return last + 1 + rand.Uint32N(stride), nil
}

// sealNew seals a new epoch's key to this node and the other members.
func (k *Keeper) sealNew(s *member.Step, number uint32, key [32]byte) error {
	self := k.o.Self.ID()
	nodes := []string{self}
	for _, m := range k.o.Members.Members() {
		if m.Node != self && len(nodes) < maxTurned {
			nodes = append(nodes, m.Node)
		}
	}
	for _, node := range nodes {
		m, err := k.o.Decisions.Member(s, node)
		switch {
		case fault.Is(err, fault.NotFound) && node != self:
			continue // it was removed a moment ago
		case err != nil:
			return err
		case !k.entitled(m) && node == self:
			return fault.New(fault.Denied, "keyring: this node may hold no keys")
		case !k.entitled(m):
			continue
		}
		if err := sealTo(s, envelope{number, node}, m.Sealing, key); err != nil {
			return err
		}
	}
	return nil
}

// seal gives envelopes to members that lack them.
func (k *Keeper) seal(ctx context.Context, lacking []envelope) error {
	lacking = lacking[:min(len(lacking), maxGiven)]
	given := map[string]int{}
	err := k.o.Decisions.Make(ctx, func(s *member.Step) error {
		clear(given)
		all, err := k.readEpochs()
		if err != nil {
			return err
		}
		for rest := lacking; len(rest) > 0; { // those of one node stand together
			node := rest[0].node
			n := slices.IndexFunc(rest, func(e envelope) bool { return e.node != node })
			if n < 0 {
				n = len(rest)
			}
			if given[node], err = k.sealTo(s, all, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for node, count := range given {
		if count > 0 {
			k.o.Log.Info("a member was given epoch keys that it lacked", "node", node, "epochs", count)
		}
	}
	return nil
}

// sealTo seals epochs to one member, and says how many it lacked.
func (k *Keeper) sealTo(s *member.Step, all map[uint32]epoch, lacking []envelope) (given int, err error) {
	m, err := k.o.Decisions.Member(s, lacking[0].node)
	if fault.Is(err, fault.NotFound) {
		return 0, nil
	}
	if err != nil || !k.entitled(m) {
		return 0, err
	}
	for _, e := range lacking {
		there, err := k.o.Decisions.Record(kindEnvelope, e.name())
		if err != nil {
			return 0, err
		}
		key, held := k.o.Self.Epoch(e.number)
		if there != nil || held != nil || !all[e.number].is(e.number, key) {
			continue
		}
		s.Given(kindEnvelope, e.name(), nil)
		if err := sealTo(s, e, m.Sealing, key); err != nil {
			return 0, err
		}
		given++
	}
	return given, nil
}

// drop takes back envelopes of this node that do not hold what they should, so that
// others seal it anew.
func (k *Keeper) drop(ctx context.Context, refused map[uint32][]byte) error {
	return k.o.Decisions.Make(ctx, func(s *member.Step) error {
		dropped := 0
		for number, sealed := range refused {
			name := envelope{number, k.o.Self.ID()}.name()
			there, err := k.o.Decisions.Record(kindEnvelope, name)
			if err != nil {
				return err
			}
			if there == nil || !bytes.Equal(there, sealed) || dropped == maxGiven {
				continue
			}
			s.Given(kindEnvelope, name, there)
			s.Put(kindEnvelope, name, nil)
			dropped++
		}
		return nil
	})
}

func jitter(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2) }
