package purge

import (
	"bytes"
	"context"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/archive"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

const (
	// maxPurged bounds the packs of one decision, maxSeries their series, each of which
	// is a condition.
	maxPurged = 256
	maxSeries = 100
	// maxNamed bounds the tombstones of instances that one decision names.
	maxNamed = 2048
	// laterRounds is in which of so many rounds a node that does not lead proposes for
	// nodes that are gone.
	laterRounds = 4
)

// Propose has the network decide that what is past its grace goes, until ctx ends.
func (p *Purger) Propose(ctx context.Context) error {
	for round := 1; ; round++ {
		terms, err := p.o.Catalog.Terms()
		if err != nil {
			return err
		}
		if !pause.For(ctx, jitter(interval(terms))) {
			return nil
		}
		if err := p.Round(ctx, p.leads() || round%laterRounds == 0); err != nil && !passing(err) {
			return err
		}
	}
}

// Round proposes once: for this node and, if forGone, for nodes that are gone.
func (p *Purger) Round(ctx context.Context, forGone bool) error {
	r := &round{p: p, forGone: forGone, looked: map[[16]byte]bool{}, over: map[string]bool{}}
	if clock, err := p.o.Catalog.Clock(); err != nil || clock.Seconds == 0 {
		return err
	}
	var part []*catalog.Tombstone
	for stone, err := range p.o.Catalog.Tombstones(ctx) {
		if err != nil {
			return err
		}
		if part = append(part, stone); len(part) == maxJudged {
			if err := r.stones(ctx, part); err != nil {
				return err
			}
			part = part[:0]
		}
	}
	if err := r.stones(ctx, part); err != nil {
		return err
	}
	return r.flush(ctx)
}

// maxJudged bounds the tombstones that are judged at once.
const maxJudged = 256

// stones proposes what some tombstones cover.
func (r *round) stones(ctx context.Context, part []*catalog.Tombstone) error {
	over, err := r.p.o.Catalog.Overs(part...)
	if err != nil {
		return err
	}
	for i, stone := range part {
		r.over[nameOf(stone)] = over[i]
	}
	for i, stone := range part {
		if !over[i] {
			continue
		}
		if err := r.packs(ctx, stone); err != nil {
			return err
		}
		if stone.Study == r.study {
			continue
		}
		r.study = stone.Study
		if err := r.keys(ctx, r.study); err != nil {
			return err
		}
	}
	return nil
}

func nameOf(stone *catalog.Tombstone) string {
	return stone.Study + "\x00" + stone.Series + "\x00" + stone.Instance
}

// round is one look at all that is deleted.
type round struct {
	p       *Purger
	forGone bool
	looked  map[[16]byte]bool // packs
	over    map[string]bool   // tombstones
	study   string            // whose keys were looked at last

	commands   []catalog.Command
	conditions map[string]catalog.Condition // by series
	named      int
}

// isOver is Catalog.Over, remembered.
func (r *round) isOver(stone *catalog.Tombstone) (bool, error) {
	name := nameOf(stone)
	over, known := r.over[name]
	if known {
		return over, nil
	}
	over, err := r.p.o.Catalog.Over(stone)
	if err == nil {
		r.over[name] = over
	}
	return over, err
}

// packs proposes the packs that a tombstone may cover.
func (r *round) packs(ctx context.Context, stone *catalog.Tombstone) error {
	seals, err := r.read(stone)
	if err != nil {
		return err
	}
	for _, seal := range seals {
		id := seal.Stripe.Pack
		if r.looked[id] {
			continue
		}
		r.looked[id] = true
		fact, err := r.fact(&seal, stone)
		if err != nil {
			return err
		}
		if fact == nil {
			continue
		}
		refusal, err := r.p.o.Catalog.Would(r.p.o.Node, fact)
		if err != nil {
			return err
		}
		if refusal != nil {
			continue
		}
		if err := r.add(ctx, fact, len(fact.Instances), seal.Study, seal.Series); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) read(stone *catalog.Tombstone) (seals []catalog.Seal, err error) {
	v := r.p.o.Catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	return v.Packs(stone.Study, stone.Series)
}

// fact returns how a pack may be purged; nil if it may not.
func (r *round) fact(seal *catalog.Seal, stone *catalog.Tombstone) (*catalog.PurgeFact, error) {
	id := seal.Stripe.Pack
	wide := &catalog.PurgeFact{Pack: id, Study: stone.Series == "", Series: stone.Series != "" && stone.Instance == ""}
	if seal.Origin != r.p.o.Node {
		if !r.forGone || stone.Instance != "" {
			return nil, nil
		}
		return wide, nil
	}
	part, err := r.p.o.Archive.Parting(pack.ID(id), r.isOver)
	switch {
	case fault.Is(err, fault.NotFound):
		// It is not here any more. Nobody knows what was in it, so all of its series must be
		// deleted, and nothing of that accepted.
		if _, some := r.p.o.Catalog.Accepted(seal.Study, seal.Series); some || stone.Instance != "" {
			return nil, nil
		}
		return wide, nil
	case err != nil || part == nil:
		return nil, err
	}
	return factOf(id, part), nil
}

func factOf(id [16]byte, part *archive.Parting) *catalog.PurgeFact {
	return &catalog.PurgeFact{Pack: id, Study: part.ByStudy, Series: part.BySeries, Instances: part.Instances}
}

// keys proposes the keys of a study under which nothing is left.
func (r *round) keys(ctx context.Context, study string) error {
	left, err := r.keysLeft(study)
	if err != nil {
		return err
	}
	for _, k := range left {
		if k.Origin == r.p.o.Node {
			own, err := r.p.o.Ring.Wrapped(k.ID)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			if err == nil && own.Origin == "" {
				continue // this node has something under it, or may yet
			}
		} else if !r.forGone {
			continue
		}
		fact := &catalog.ForgetFact{Key: k.ID}
		refusal, err := r.p.o.Catalog.Would(r.p.o.Node, fact)
		if err != nil {
			return err
		}
		if refusal != nil {
			continue
		}
		if err := r.add(ctx, fact, 0, "", ""); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) keysLeft(study string) (left []catalog.StudyKey, err error) {
	v := r.p.o.Catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	return v.KeysLeft(study)
}

// add puts a command into the decision that is being made. What was accepted of a series
// when it was looked at must be what is accepted then.
func (r *round) add(ctx context.Context, c catalog.Command, named int, study, series string) error {
	if r.conditions == nil {
		r.conditions = map[string]catalog.Condition{}
	}
	if series != "" {
		name := catalog.AcceptedName(study, series)
		if _, known := r.conditions[name]; !known {
			value, err := r.p.o.Catalog.RegistryRecord(catalog.KindAccepted, name)
			if err != nil {
				return err
			}
			r.conditions[name] = catalog.If(catalog.KindAccepted, name, value)
		}
	}
	r.commands, r.named = append(r.commands, c), r.named+named
	if len(r.commands) < maxPurged && len(r.conditions) < maxSeries && r.named < maxNamed {
		return nil
	}
	return r.flush(ctx)
}

// flush has the network decide.
func (r *round) flush(ctx context.Context) error {
	if len(r.commands) == 0 {
		return nil
	}
	conditions := make([]catalog.Condition, 0, len(r.conditions))
	for _, c := range r.conditions {
		conditions = append(conditions, c)
	}
	slices.SortFunc(conditions, func(a, b catalog.Condition) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	commands := r.commands
	r.commands, r.conditions, r.named = nil, nil, 0
	began := time.Now()
	err := r.p.decide(ctx, conditions, commands...)
	if err == nil {
		r.p.o.Log.Info("packs and keys of what was deleted are purged", "purged", len(commands), "took_ms", time.Since(began).Milliseconds())
	}
	return err
}
