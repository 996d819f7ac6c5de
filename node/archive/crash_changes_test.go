package archive

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/shard/bulk/bulktest"
)

// story is what happens to instances after they were stored, and what readers
// must see of it: nil stands for nothing.
type story struct {
	mu    sync.Mutex
	shown map[string]*image // by SOP Instance UID
	maybe map[string]*image // while a step is under way: what else readers may see
	acked bool              // every step was done
}

func newStory() *story { return &story{shown: map[string]*image{}, maybe: map[string]*image{}} }

// copy returns what may be seen at this moment.
func (s *story) copy() *story {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &story{shown: maps.Clone(s.shown), maybe: maps.Clone(s.maybe), acked: s.acked}
}

// step does something that changes what readers see of some instances.
func (s *story) step(t *testing.T, after map[string]*image, do func() error) {
	t.Helper()
	s.mu.Lock()
	s.maybe = after
	s.mu.Unlock()
	if err := do(); err != nil {
		t.Errorf("step: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.shown, after)
	s.maybe = nil
}

// purgeTime is a moment at which everything deleted so far is past its grace.
func purgeTime(b *bench) time.Time { return time.Now().Add(b.o.Grace + time.Hour) }

// live goes through the story on an archive that packs meanwhile.
func (s *story) live(t *testing.T, b *bench) {
	ctx := context.Background()
	packing, stop := context.WithCancel(ctx)
	var packer sync.WaitGroup
	packer.Go(func() {
		for packing.Err() == nil {
			if err := b.Pack(packing); err != nil && packing.Err() == nil {
				t.Errorf("pack: %v", err)
			}
		}
	})
	defer packer.Wait()
	defer stop()
	images := make([]image, 24)
	for n := range images {
		images[n] = serial(n)
		s.step(t, map[string]*image{images[n].sop: &images[n]}, func() error {
			_, err := b.Store(ctx, images[n].incoming(images[n].encode(t)))
			return err
		})
	}
	s.duplicates(t, b, images)
	s.deletions(t, b, images)
	s.mu.Lock()
	s.acked = true
	s.mu.Unlock()
}

// duplicates sends instances again: the same in another encoding, and others
// under known UIDs, about which an operator decides.
func (s *story) duplicates(t *testing.T, b *bench, images []image) {
	ctx := context.Background()
	send := func(m image, want Outcome) (number uint64) {
		s.step(t, nil, func() error {
			stored, err := b.Store(ctx, m.incoming(m.encode(t)))
			if err == nil && stored.Outcome != want {
				t.Errorf("%s sent again: outcome %d, want %d", m.sop, stored.Outcome, want)
			}
			number = stored.Number
			return err
		})
		return number
	}
	for _, n := range []int{1, 9} {
		implicit := images[n]
		implicit.syntax = dict.ImplicitLittleEndian
		send(implicit, Same)
		send(implicit, Same)
	}
	accepted, discarded := images[2], images[10]
	accepted.seed, discarded.seed = 302, 310
	number := send(accepted, Quarantined)
	if again := send(accepted, Quarantined); again != number {
		t.Errorf("a quarantined instance sent again is another: %d and %d", number, again)
	}
	s.step(t, map[string]*image{accepted.sop: &accepted}, func() error { return b.Decide(ctx, number, Accept) })
	number = send(discarded, Quarantined)
	s.step(t, nil, func() error { return b.Decide(ctx, number, Discard) })
}

// deletions deletes an instance, a series and a study, restores, deletes again,
// purges, and sends what is gone once more.
func (s *story) deletions(t *testing.T, b *bench, images []image) {
	ctx := context.Background()
	nothing := func(of []image) map[string]*image {
		after := map[string]*image{}
		for _, m := range of {
			after[m.sop] = nil
		}
		return after
	}
	one, series, study := images[3:4], images[12:16], images[16:24]
	s.step(t, nothing(one), func() error { return b.Delete(ctx, one[0].study, one[0].series, one[0].sop, "test") })
	s.step(t, nothing(series), func() error { return b.Delete(ctx, series[0].study, series[0].series, "", "test") })
	s.step(t, nothing(study), func() error { return b.Delete(ctx, study[0].study, "", "", "test") })
	back := map[string]*image{}
	for i := range series {
		back[series[i].sop] = &series[i]
	}
	s.step(t, back, func() error { return b.Restore(ctx, series[0].study, series[0].series, "", "test") })
	s.step(t, nil, func() error { return b.purge(ctx, purgeTime(b)) })
	s.step(t, nil, func() error {
		stored, err := b.Store(ctx, study[0].incoming(study[0].encode(t)))
		if err == nil && (stored.Outcome != Quarantined || !stored.Deleted) {
			t.Errorf("a purged instance that comes again: %+v", stored)
		}
		return err
	})
}

// holds checks that readers see what they may.
func (s *story) holds(t *testing.T, b *bench) {
	t.Helper()
	sops := slices.Collect(maps.Keys(s.shown))
	for sop := range s.maybe {
		if _, ok := s.shown[sop]; !ok {
			sops = append(sops, sop)
		}
	}
	for _, sop := range sops {
		var allowed []*image
		allowed = append(allowed, s.shown[sop])
		if other, ok := s.maybe[sop]; ok {
			allowed = append(allowed, other)
		}
		got, err := b.read(image{sop: sop})
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", sop, err)
			continue
		}
		if !slices.ContainsFunc(allowed, func(m *image) bool {
			if m == nil {
				return err != nil
			}
			return err == nil && bytes.Equal(got, m.encode(t))
		}) {
			t.Errorf("%s: readers see %d bytes (%v), which is none of the %d possibilities", sop, len(got), err, len(allowed))
		}
	}
}

// leftovers checks that nothing of what has gone stays behind: after a last
// packing and purge no byte is live in staging, and keys of purged studies of
// which nothing is left are forgotten.
func leftovers(t *testing.T, b *bench, keys *ring) {
	t.Helper()
	b.pack()
	if err := b.purge(context.Background(), purgeTime(b)); err != nil {
		t.Errorf("purge: %v", err)
	}
	if _, live := b.staging.Bytes(); live != 0 {
		t.Errorf("%d bytes are live in staging and nowhere queued", live)
	}
	b.sound()
	rows := map[string]bool{}
	if err := b.each([]byte{rowLocation}, func(key, _ []byte) error {
		r, ok, err := b.instance(numberOf(key))
		if err == nil && ok {
			rows[r.Study] = true
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	keys.mu.Lock()
	defer keys.mu.Unlock()
	for study := range keys.of {
		if _, deleted := b.catalog.Deleted(study, "", ""); deleted && !rows[study] {
			t.Errorf("nothing is left of deleted study %s but its key", study)
		}
	}
}

func TestChangesOfInstancesSurviveACrash(t *testing.T) {
	run := func(at int64, seed uint64) (c *crash, then *story) {
		c = newCrash(at, seed)
		told, keys := newStory(), newRing()
		c.keys = keys
		c.snapshot = func() { then = told.copy() }
		b := open(t, testOptions(c.fs(), keys))
		told.live(t, b)
		if at == 0 {
			told.holds(t, b)
			b.sound()
			leftovers(t, b, keys)
			told.holds(t, b)
		}
		b.close()
		return c, then
	}
	whole, _ := run(0, 1)
	total := whole.ops.Load()
	if t.Failed() {
		return
	}
	points := crashPoints(t)
	for i := range points {
		at := 1 + int64(i)*total/int64(points)
		c, then := run(at, uint64(i))
		if c.after == nil {
			continue // this run took fewer operations
		}
		again := &crash{disk: bulktest.Over(c.after), at: 1 + c.rng.Int64N(200), rng: c.rng, snapshot: func() {}, keys: c.left}
		b := open(t, testOptions(again.fs(), c.left))
		then.holds(t, b)
		b.sound()
		b.close()
		if again.after != nil {
			b = open(t, testOptions(again.after, again.left))
			then.holds(t, b)
			leftovers(t, b, again.left)
			then.holds(t, b)
			b.close()
		}
		if t.Failed() {
			t.Logf("crash at operation %d of %d, seed %d", at, total, i)
			return
		}
	}
}
