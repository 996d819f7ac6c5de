package reconcile

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/replication/catalog"
)

// Content is what stands under a SOP Instance UID.
type Content struct {
	Hash   [32]byte // BLAKE3 of the data set as received
	Syntax string
}

// Decider has the network decide.
type Decider interface {
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Rows remember what was compared. *archive.Rows are such.
type Rows interface {
	Get(key string) (value []byte, ok bool, err error)
	Note(rows map[string][]byte) error
}

// Options are what is compared, and by whom.
type Options struct {
	Catalog *catalog.Catalog
	Node    string // this node's id
	// Own returns what is here of a series, Other what another node has, both by
	// SOP Instance UID.
	Own    func(ctx context.Context, study, series string) (map[string]Content, error)
	Other  func(ctx context.Context, node, study, series string) (map[string]Content, error)
	Decide Decider
	Rows   Rows
	Every  time.Duration // how often the catalogue is looked through; 10 min
	Log    *slog.Logger  // nil: none
}

// Reconciler compares.
type Reconciler struct{ o Options }

// New returns one.
func New(o Options) *Reconciler {
	if o.Every == 0 {
		o.Every = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reconciler{o}
}

// Task is the work in the background.
func (r *Reconciler) Task() work.Task {
	return work.Task{Name: "reconcile", Restart: &work.Restart{}, Run: work.Every(r.o.Every, func(ctx context.Context, p *work.Progress) error {
		return r.Round(ctx, p)
	})}
}

// viewStudies is how many studies one view of the catalogue serves.
const viewStudies = 4096

// Round looks through the catalogue once, and compares what this node has to
// compare and has not. A node that does not answer is asked the next time.
func (r *Reconciler) Round(ctx context.Context, p *work.Progress) error {
	for from, done := (catalog.Order{}), false; !done; {
		pairs, next, last, err := r.pairs(ctx, from)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			if err := r.compare(ctx, pair); err != nil {
				if ctx.Err() != nil || !fault.Is(err, fault.Unavailable) {
					return err
				}
				r.o.Log.Info("comparing a series with another node's waits", "node", pair.first.Node, "error", err)
				continue
			}
			p.Add(1)
		}
		from, done = next, last
	}
	return nil
}

// pair is a series of which this node, the second, compares what it has with what
// another told of before.
type pair struct{ first, second catalog.Holder }

// pairs returns what is to be compared of the next studies.
func (r *Reconciler) pairs(ctx context.Context, from catalog.Order) (all []pair, next catalog.Order, done bool, err error) {
	view := r.o.Catalog.View()
	defer func() {
		if closing := view.Close(); err == nil {
			err = closing
		}
	}()
	studies, err := view.All()
	if err != nil {
		return nil, from, false, err
	}
	for range viewStudies {
		if err := ctx.Err(); err != nil {
			return nil, from, false, err
		}
		at, ok, err := studies.SeekGE(from)
		if err != nil || !ok {
			return all, from, true, err
		}
		row, ok, err := view.Study(at)
		if err != nil {
			return nil, from, false, err
		}
		if ok && row.Shared() {
			holders, err := view.Holders(row.UID(), "")
			if err != nil {
				return nil, from, false, err
			}
			all = append(all, r.own(holders)...)
		}
		if at == catalog.LastOrder() {
			return all, at, true, nil
		}
		from = at.Next()
	}
	return all, from, false, nil
}

// own picks the pairs of which this node is the second. Holders come by series,
// and of each in the order of the log.
func (r *Reconciler) own(holders []catalog.Holder) []pair {
	var all []pair
	for i, h := range holders {
		if h.Node != r.o.Node {
			continue
		}
		for _, first := range holders[:i] {
			if first.Series == h.Series {
				all = append(all, pair{first, h})
			}
		}
	}
	return all
}

// state is what both had told when they were compared.
func (p pair) state() []byte {
	b := append(slices.Clone(p.first.UIDHash[:]), p.second.UIDHash[:]...)
	b = binary.BigEndian.AppendUint64(b, p.first.AsOf)
	return binary.BigEndian.AppendUint64(b, p.second.AsOf)
}

// compare compares a pair, unless both are as they were when it was done before,
// and has the network decide what it finds.
func (r *Reconciler) compare(ctx context.Context, p pair) error {
	key := name(p.second.Study, p.second.Series, p.first.Node, p.second.Node)
	before, _, err := r.o.Rows.Get(key)
	if err != nil {
		return err
	}
	state := p.state()
	if slices.Equal(before, state) {
		return nil
	}
	other, err := r.o.Other(ctx, p.first.Node, p.second.Study, p.second.Series)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fault.New(fault.Unavailable, "node %s does not tell what it has: %w", p.first.Node, err)
	}
	own, err := r.o.Own(ctx, p.second.Study, p.second.Series)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := r.record(ctx, key, p.conflict(other, own)); err != nil {
		return err
	}
	return r.o.Rows.Note(map[string][]byte{key: state})
}

// conflict returns what differs; nil if nothing does.
func (p pair) conflict(first, second map[string]Content) *Conflict {
	c := &Conflict{
		Study: p.second.Study, Series: p.second.Series,
		First: Holder{p.first.Node, p.first.Site}, Second: Holder{p.second.Node, p.second.Site},
	}
	for sop, one := range first {
		if other, ok := second[sop]; ok && other.Hash != one.Hash {
			c.Instances = append(c.Instances, Instance{SOP: sop, Syntax: other.Syntax != one.Syntax})
		}
	}
	if c.Total = len(c.Instances); c.Total == 0 {
		return nil
	}
	slices.SortFunc(c.Instances, func(a, b Instance) int { return cmp.Compare(a.SOP, b.SOP) })
	c.Instances = c.Instances[:min(c.Total, maxInstances)]
	return c
}

// record has the network record a conflict, or drop one that is no more. What is
// recorded already is not decided again.
func (r *Reconciler) record(ctx context.Context, key string, c *Conflict) error {
	var value []byte
	if c != nil {
		var err error
		if value, err = json.Marshal(record{recordVersion, *c}); err != nil {
			return err
		}
	}
	before, err := r.o.Catalog.RegistryRecord(Kind, key)
	if err != nil || slices.Equal(before, value) {
		return err
	}
	results, err := r.o.Decide.Decide(ctx, nil, &catalog.RegistryFact{Kind: Kind, Name: key, Value: value})
	if err := errors.Join(append(results, err)...); err != nil {
		return err
	}
	if c != nil {
		r.o.Log.Warn("a series holds other content under equal UIDs than at another node ('pelago conflicts' lists it)",
			"study", c.Study, "series", c.Series, "node", c.First.Node, "instances", c.Total)
	}
	return nil
}
