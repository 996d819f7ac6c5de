package repair

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/capacity"
	"pelago/node/evict"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/held/volatile"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// disk is that of a node whose copies go by a rule as it fills.
type disk struct {
	*node
	size     int64
	capacity *capacity.Capacity // what keeps room; nil: none is kept
}

// usedLocked is what rests on the disk and what is on its way; node.mu is held.
func (d *disk) usedLocked() int64 {
	heldHere, arriving := d.store.Bytes()
	used := heldHere + arriving
	for _, m := range d.hot {
		used += m.head.Size
	}
	return used
}

func (d *disk) used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked()
}

// room is what is kept, as cmd/pelago works it out: of a pledge that is no limit here.
func (d *disk) room() int64 {
	if d.capacity == nil || d.capacity.Report() == nil {
		return 0
	}
	return d.capacity.Report().Room[d.id] + max(d.repair.Status().Lacking, 0)
}

// EachPack implements [evict.Packs].
func (d *disk) EachPack(_ context.Context, _ pack.ID, visit func(*archivepb.Pack) (bool, error)) error {
	d.mu.Lock()
	all := maps.Clone(d.hot)
	d.mu.Unlock()
	for _, id := range slices.SortedFunc(maps.Keys(all), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }) {
		if more, err := visit(&archivepb.Pack{Id: id[:], BlobBytes: all[id].head.Size}); err != nil || !more {
			return err
		}
	}
	return nil
}

// Evict implements [evict.Packs].
func (d *disk) Evict(id pack.ID) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	bytes := d.hot[id].head.Size
	delete(d.hot, id)
	return bytes, nil
}

// Cut implements [evict.Copies].
func (d *disk) Cut(context.Context, held.Name) (*stripe.Shard, error) {
	panic("no shard is cut from a copy here")
}

// Head implements [evict.Spread].
func (d *disk) Head(of shard.Stripe) (*stripe.Head, error) {
	if m := d.copyOf(of.Pack); m != nil {
		return m.head, nil
	}
	return nil, fault.New(fault.NotFound, "no pack of this node")
}

// Tell implements [evict.Spread].
func (d *disk) Tell(*catalog.SealFact) error { panic("nothing is told of copies here") }

// evicts is the task that gives copies up.
func (d *disk) evicts() work.Task {
	w := d.n
	return evict.New(evict.Options{
		Self: d.id, Rule: evict.Rule{Above: 95, Below: 94, Untouched: time.Hour},
		Packs: d, Copies: d, Spread: d, Holders: held.NewClient(caller{w, d.id}, w), Own: d.store, Rows: &volatile.Rows{},
		Placement: func() *placement.State { return places{w, d.id}.State() },
		Site: func(node string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return siteOf(slices.Index(w.names, node)), !w.lost[node]
		},
		Seals: func(id [16]byte) ([]catalog.Seal, error) {
			v := w.cat.View()
			defer v.Close()
			return v.Pack(id)
		},
		Survives: func(context.Context, pack.ID) error { return nil },
		Disk: func() (evict.Disk, error) {
			return evict.Disk{Used: d.used(), Size: d.size, Room: d.room()}, nil
		},
	}).Task()
}

// Disks are nearly full of whole copies when a site is lost, and no copy may go while
// what it held is made anew: the room has to be there. Without it the change of the
// layout never ends, and so no copy ever goes.
func TestALostSiteIsRebuiltThoughDisksAreNearlyFull(t *testing.T) {
	for _, kept := range []bool{true, false} {
		onNetwork(t, 5, 4, 2, func(w *network) {
			state := *w.state
			state.Code = large
			w.state = &state
			const packs, size = 5, 540_000
			for _, id := range w.names {
				w.from = id
				for range packs {
					m := w.sealed(large, size, nil)
					w.nodes[id].hot[m.head.Stripe.Pack] = m
				}
			}
			counts := capacity.New(w.cat, places{w, ""})
			w.startAll()
			tasks := []work.Task{counts.Task()}
			var disks []*disk
			for i, id := range w.names {
				d := &disk{node: w.nodes[id]}
				if kept {
					d.capacity = counts
				}
				d.size = d.used() * 101 / 100
				d.mu.Lock()
				d.full = func(int64) bool { return d.usedLocked() > d.size } // what asks is on its way
				d.mu.Unlock()
				task := d.evicts()
				task.Name = fmt.Sprintf("%s_%d", task.Name, i)
				disks, tasks = append(disks, d), append(tasks, task)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			all.Go(func() {
				if err := work.New(nil, tasks...).Run(ctx); err != nil {
					t.Error(err)
				}
			})
			defer func() { cancel(); all.Wait() }()
			passes(10 * time.Minute)
			copies := 0
			for _, d := range disks {
				if used, room := d.used(), counts.Report().Room[d.id]; used > d.size*95/100 || kept && used+room > d.size*95/100 || room < d.size/20 {
					t.Errorf("room kept: %t; of %d bytes %d are in use, and %d are to be free", kept, d.size, used, room)
				}
				copies += len(d.hot)
			}
			if copies == 0 || copies == packs*len(disks) {
				t.Errorf("room kept: %t; %d of %d copies are left", kept, copies, packs*len(disks))
			}

			victim := w.names[2]
			w.set(w.lost, victim, true)
			w.set(w.down, victim, true)
			w.nodes[victim].end()
			w.change()
			passes(time.Hour)
			if rebuilt := (places{w, ""}).State().View.Old == nil; rebuilt != kept {
				t.Errorf("room kept: %t; all is rebuilt: %t", kept, rebuilt)
			}
			if kept {
				w.whole()
			}
			short := false
			for _, d := range disks {
				if d.used() > d.size {
					t.Errorf("%d of %d bytes are in use", d.used(), d.size)
				}
				short = short || d.id != victim && d.repair.Status().Full
			}
			if short == kept {
				t.Errorf("room kept: %t; a node has none: %t", kept, short)
			}
		})
	}
}
