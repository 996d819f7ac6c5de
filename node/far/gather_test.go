package far_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/node/far"
	"pelago/shard/seal"
)

// shards gives what a shelf has, changed by change, unless err says why not.
type shards struct {
	*shelf
	err    error
	change func([]byte)
	wait   time.Duration

	asked, at, most atomic.Int64
}

func (s *shards) ReadPack(ctx context.Context, p *far.Pack, b []byte, off int64) error {
	s.asked.Add(1)
	s.most.Store(max(s.most.Load(), s.at.Add(1)))
	defer s.at.Add(-1)
	if off%seal.LeafBytes != 0 || int64(len(b))%seal.LeafBytes != 0 && off+int64(len(b)) != p.Bytes {
		panic("not whole segments")
	}
	if s.wait > 0 {
		select {
		case <-time.After(s.wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s.err != nil {
		return s.err
	}
	copy(b, s.sealed[p.ID][off:])
	if s.change != nil {
		s.change(b)
	}
	return nil
}

func TestPacksThatNoNodeGivesAreReadFromShards(t *testing.T) {
	shelf := newShelf(t, 30, 256, 1<<20)
	for _, test := range []struct {
		name    string
		trouble func(*http.Request, http.Handler) http.Handler
		nodes   []string
		packs   *shards
		want    fault.Kind
		asked   bool
	}{
		{"its node answers", nil, nil, &shards{}, fault.Other, false},
		{"its node is gone", refusing, nil, &shards{}, fault.Other, true},
		{"its node sends other bytes", lying, nil, &shards{}, fault.Other, true},
		{"its node is thought to be gone", nil, []string{far.Shards}, &shards{}, fault.Other, true},
		{"shards have not enough, its node has", nil, []string{far.Shards}, &shards{err: fault.New(fault.Unavailable, "too few")}, fault.Other, true},
		{"shards give other bytes, its node does not", nil, []string{far.Shards}, &shards{change: func(b []byte) { b[len(b)/2] ^= 1 }}, fault.Other, true},
		{"nobody gives it", refusing, nil, &shards{err: fault.New(fault.NotFound, "not sealed")}, fault.Unavailable, true},
		{"all give other bytes", lying, nil, &shards{change: func(b []byte) { b[0] ^= 1 }}, fault.Corrupt, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			net := newNetwork()
			origin, asker := net.plain(t, "A", shelf), net.plain(t, "B", nil)
			test.packs.shelf = shelf
			k := kept{came: make(chan struct{}, 100)}
			c := asker.client(func(o *far.Options) { o.Packs, o.Keep = test.packs, &k })
			m, err := c.Series(t.Context(), origin.self.ID(), shelf.holdings[0].Record.Study, shelf.holdings[0].Record.Series)
			if err != nil {
				t.Fatal(err)
			}
			net.between(origin.self.ID(), test.trouble)
			err = readAll(t.Context(), c.Read(m, test.nodes...), m)
			if (err != nil) != (test.want != fault.Other) || err != nil && !fault.Is(err, test.want) {
				t.Errorf("%v: %v", fault.KindOf(err), err)
			}
			if asked := test.packs.asked.Load() > 0; asked != test.asked {
				t.Errorf("shards were asked: %t", asked)
			}
			if err != nil {
				return
			}
			for range m.Packs { // what was read whole is a copy, whoever gave it
				<-k.came
			}
		})
	}
}

func TestOfWhatIsNotPackedThereAreNoShards(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 3)
	origin.store(stored...)
	packs := &shards{}
	c := asker.client(func(o *far.Options) { o.Packs = packs })
	m, err := c.Find(t.Context(), origin.self.ID(), stored[0].SOPInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	net.between(origin.self.ID(), refusing)
	if err := readAll(t.Context(), c.Read(m, far.Shards), m); !fault.Is(err, fault.Unavailable) || packs.asked.Load() > 0 {
		t.Errorf("%v, of shards asked %d times", err, packs.asked.Load())
	}
}

func TestSilenceIsNotWaitedForWhereThereAreShards(t *testing.T) {
	shelf := newShelf(t, 30, 128, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, asker := net.plain(t, "A", shelf), net.plain(t, "B", nil)
		packs := &shards{shelf: shelf}
		c := asker.client(func(o *far.Options) { o.Packs = packs })
		m, err := c.Series(t.Context(), origin.self.ID(), shelf.holdings[0].Record.Study, shelf.holdings[0].Record.Series)
		if err != nil {
			t.Fatal(err)
		}
		net.between(origin.self.ID(), ranges(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		started := time.Now()
		if err := readAll(t.Context(), c.Read(m), m); err != nil {
			t.Error(err)
		}
		// Whatever is asked for, its node is waited for once.
		if took := time.Since(started); took < time.Second || took > 4*time.Second {
			t.Errorf("all of it took %v", took)
		}
		c.Close()
	})
}

func TestWhatIsReadFromShardsAtOnceIsBounded(t *testing.T) {
	shelf := newShelf(t, 200, 256, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		origin, asker := net.plain(t, "A", shelf), net.plain(t, "B", nil)
		packs := &shards{shelf: shelf, wait: 100 * time.Millisecond}
		c := asker.client(func(o *far.Options) { o.Packs = packs })
		m, err := c.Series(t.Context(), origin.self.ID(), shelf.holdings[0].Record.Study, shelf.holdings[0].Record.Series)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		for i := range m.Packs {
			go func() {
				b := make([]byte, 1)
				_, err := c.Read(m, far.Shards).Pack(i).ReadAt(t.Context(), b, 0)
				failed <- err
			}()
		}
		for range m.Packs {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
		if most := packs.most.Load(); len(m.Packs) > 16 && most > 16 || most < 2 {
			t.Errorf("%d at a time, of %d packs", most, len(m.Packs))
		}
		// Who gives up leaves his place.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := asker.client(func(o *far.Options) { o.Packs = packs }).Read(m, far.Shards).Pack(0).ReadAt(ctx, make([]byte, 1), 0); err == nil {
			t.Error("it did not wait")
		}
		c.Close()
	})
}
