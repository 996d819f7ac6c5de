package reach

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/query"
)

// place is where an instance is by its own name, as all nodes tell.
type place struct {
	at     []seriesAt
	silent error // why more places may be: a node did not answer; nil: all did
	asked  time.Time
}

const (
	// placesBytes is the memory for places: some retrieves' worth.
	placesBytes = 16 << 20
	// placesFor is how long a place is believed: as long as the retrieve takes to
	// come to it. What is there is looked at again then; what is nowhere may be
	// stored meanwhile.
	placesFor = 30 * time.Second
)

// placed finds an instance of which not all names are known among those that were
// asked for together; not ok if it must be asked for alone.
func (r *Reader) placed(ctx context.Context, study, series, sop string) (v version, err error, ok bool) {
	p, ok := r.places.Get(sop)
	if !ok || time.Since(p.asked) > placesFor {
		named := archive.HintOf(ctx).Named
		i := slices.Index(named, sop)
		if r.o.Locate == nil || i < 0 || len(named)-i < 2 {
			return version{}, nil, false
		}
		r.locate(ctx, named[i:min(len(named), i+query.MaxCandidates)])
		if p, ok = r.places.Get(sop); !ok {
			return version{}, nil, false
		}
	}
	for _, at := range p.at {
		if study != "" && at.study != study || series != "" && at.series != series {
			continue
		}
		v, err := r.selectAway(ctx, at.study, at.series, sop)
		if !fault.Is(err, fault.NotFound) {
			return v, err, true
		}
	}
	switch {
	case len(p.at) > 0:
		return version{}, nil, false // the catalogue here does not know of it yet, or it is gone
	case r.o.Shards != nil && (study != "" || series != ""):
		return version{}, nil, false // its series can be looked through
	case p.silent != nil:
		if v, ok := r.reserved(ctx, sop); ok {
			return v, nil, true
		}
		return version{}, errSought(study, series, sop, p.silent), true
	}
	return version{}, errNothing(), true
}

// errSought is why an instance was not found that may be somewhere.
func errSought(study, series, sop string, silent error) error {
	missing := &archive.Missing{Study: study, Series: series, SOP: sop, Instances: 1}
	return fault.New(fault.Unavailable, "reach: no node that answers has it: %w: %w", missing, silent)
}

// locate asks every node once where instances are.
func (r *Reader) locate(ctx context.Context, sops []string) {
	var mu sync.Mutex // guards what follows
	at := map[string][]seriesAt{}
	var silent error
	var group errgroup.Group
	group.SetLimit(askAtOnce)
	asked := time.Now()
	for _, node := range r.o.Nodes.Others() {
		group.Go(func() error {
			found, err := r.locateAt(ctx, node, sops)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = err // one is as good as another
			}
			for i := range found {
				at[found[i].SOP] = append(at[found[i].SOP], seriesAt{found[i].Study, found[i].Series, node})
			}
			return nil
		})
	}
	_ = group.Wait() // they answer for themselves
	if ctx.Err() != nil {
		return
	}
	for _, sop := range sops {
		places := at[sop]
		slices.SortFunc(places, func(a, b seriesAt) int { // the order in which they answered is none
			return slices.Compare([]string{a.study, a.series, a.node}, []string{b.study, b.series, b.node})
		})
		r.places.Put(sop, &place{places, silent, asked}, int64(256+len(sop)+256*len(places)))
	}
}

// locateAt asks one node.
func (r *Reader) locateAt(ctx context.Context, node string, sops []string) ([]query.Instance, error) {
	if _, bad := r.contact.ask(node); bad && !r.o.Nodes.Alive(node) {
		return nil, fault.New(fault.Unavailable, "node %s has just not answered", node)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found, err := r.o.Locate(ctx, node, sops)
	if ctx.Err() == nil || err == nil {
		r.contact.note(node, err == nil || answered(err))
	}
	return found, err
}
