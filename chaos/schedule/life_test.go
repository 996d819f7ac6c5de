package schedule

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/pack"
)

// calling is who sends.
const calling = "MODALITY"

// image is an instance and its bytes.
type image struct {
	dimsetest.Instance
	data []byte
}

// images are those of all lives: a study of a large series and a small one, which is
// deleted, and one that stays.
var images = func() (all struct{ gone, kept []image }) {
	of := func(seed uint64, n, rows, columns, frames int, series string) image {
		in := dimsetest.CT(seed, n)
		in.Rows, in.Columns, in.Frames = rows, columns, frames
		in.SeriesInstanceUID += series
		return image{in, in.Dataset()}
	}
	all.gone = []image{of(1, 0, 600, 600, 0, ""), of(1, 1, 60, 50, 0, ".9"), of(1, 2, 60, 50, 0, ".9")}
	all.kept = []image{of(2, 0, 70, 60, 0, "")}
	return all
}()

// life is what happens to two studies: one is deleted, the other stays.
type life struct {
	*network
	gone, kept []image
	packs      map[string][]pack.ID // by study
	acked      map[string]bool      // by SOP Instance UID
	committed  map[string]bool
	deleted    bool
	lived      int // steps that it took
}

// inLife lives a life in a network of its own.
func inLife(t *testing.T, b *bug, prepare func(l *life)) (l *life) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l = &life{network: newNetwork(t, b), packs: map[string][]pack.ID{}, acked: map[string]bool{}, committed: map[string]bool{}}
		defer l.close()
		defer func() {
			if p := recover(); p != nil && p != (stopped{}) {
				panic(p)
			}
		}()
		l.gone, l.kept = images.gone, images.kept
		if prepare != nil {
			prepare(l)
		}
		l.live()
		l.lived = l.steps
	})
	return l
}

// live lives it.
func (l *life) live() {
	l.t.Helper()
	origin := l.nodes[0]
	all := slices.Concat(l.gone, l.kept)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"stored", func() error { return l.store(origin, all) }},
		{"committed", func() error { return l.commit(origin, all) }},
		{"evicted", func() error { return l.evict(origin) }},
		{"deleted", func() error { return l.delete(origin) }},
		{"purged", l.purged},
	} {
		if !l.until(step.name, step.do) {
			return
		}
		if l.bug != nil && l.bug.after != nil {
			l.bug.after(l, step.name)
			l.restart()
		}
		l.holds(step.name)
		if l.broken() {
			return
		}
	}
	l.nothingLeft()
	l.sound()
}

// until does a step until it is done. Who has lost power starts again meanwhile.
func (l *life) until(what string, do func() error) bool {
	l.t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Minute); time.Now().Before(end); {
		err = do()
		if l.restart() {
			continue
		}
		if err == nil {
			return true
		}
		time.Sleep(time.Second)
		l.restart()
	}
	l.failf("not %s in a quarter of an hour: %v", what, err)
	return false
}

// restart starts those that have lost power; the network is then as it was.
func (l *life) restart() (any bool) {
	l.t.Helper()
	for _, s := range l.nodes {
		if s.dead.Load() {
			s.restart()
			any = true
		}
	}
	return any
}

func (l *life) store(origin *node, all []image) error {
	for _, in := range all {
		if l.acked[in.SOPInstanceUID] {
			continue
		}
		_, err := origin.archive.Store(context.Background(), archive.Incoming{
			Sender: archive.Sender{CallingAE: calling}, Syntax: dict.ExplicitLittleEndian, Body: bytes.NewReader(in.data),
		})
		if err != nil {
			return err
		}
		if origin.dead.Load() {
			return errNoRoute
		}
		l.acked[in.SOPInstanceUID] = true
	}
	return nil
}

// commit asks for storage commitment of all. What it is given for must at once survive
// the loss of any site.
func (l *life) commit(origin *node, all []image) (waits error) {
	for _, in := range all {
		if l.committed[in.SOPInstanceUID] {
			continue
		}
		err := origin.protect.Committed(context.Background(), in.SOPClassUID, in.SOPInstanceUID, calling)
		if origin.dead.Load() {
			return errNoRoute
		}
		if err != nil {
			waits = err
			continue
		}
		l.committed[in.SOPInstanceUID] = true
		l.readable("committed", in)
	}
	return waits
}

func (l *life) evict(origin *node) error {
	var hot []pack.ID
	clear(l.packs)
	err := origin.archive.EachPack(context.Background(), pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		l.packs[p.Study] = append(l.packs[p.Study], pack.ID(p.Id))
		if !p.Evicted {
			hot = append(hot, pack.ID(p.Id))
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	waits := 0
	for _, id := range hot {
		stays, err := l.stays(origin, id)
		if err != nil {
			return err
		}
		if stays {
			continue
		}
		if _, err := origin.evict.Pack(context.Background(), id); err != nil {
			return err
		}
		waits++
	}
	if waits > 0 {
		return fmt.Errorf("%d packs are hot", waits)
	}
	return nil
}

// stays reports whether a pack is not to be evicted: its origin stands in for a holder
// that was away, until repair, which has no part in this, has brought that its shard.
func (l *life) stays(origin *node, id pack.ID) (bool, error) {
	seals, err := origin.seals(id)
	if err != nil || len(seals) != 1 || seals[0].Virtual == catalog.NoShard {
		return false, err
	}
	owner, ok := l.state.Owner(seals[0].Stripe, seals[0].Virtual)
	return ok && owner.ID != origin.id(), nil
}

func (l *life) delete(origin *node) error {
	now := time.Now()
	l.deletedAt.CompareAndSwap(nil, &now)
	err := origin.archive.Delete(context.Background(), l.gone[0].StudyInstanceUID, "", "", "operator")
	if err == nil && !origin.dead.Load() || fault.Is(err, fault.NotFound) {
		l.deleted = true
		return nil
	}
	return err
}

// purged waits until the keys of the deleted study are gone everywhere.
func (l *life) purged() error {
	for _, s := range l.nodes {
		for _, id := range l.packs[l.gone[0].StudyInstanceUID] {
			index, err := s.catalog.Purged(id)
			if err != nil || index == 0 {
				return fmt.Errorf("pack %x is not purged at %s: %v", id[:2], s.site, err)
			}
		}
		if what := l.left(s); what != "" {
			return fmt.Errorf("%s still has %s", s.site, what)
		}
	}
	return nil
}

// left says what a node still has of the deleted study.
func (l *life) left(s *node) (what string) {
	study := l.gone[0].StudyInstanceUID
	for _, id := range l.packs[study] {
		if has, err := s.archive.HasPack(id); err != nil || has {
			return fmt.Sprintf("pack %x (%v)", id[:2], err)
		}
		seals, err := s.seals(id)
		if err != nil {
			return err.Error()
		}
		for _, f := range seals {
			if _, err := s.keys.Wrapped(f.Key); !fault.Is(err, fault.NotFound) {
				return fmt.Sprintf("key %x (%v)", f.Key[:2], err)
			}
		}
	}
	err := s.held.Load().List(0, 1<<64-1, nil, func(h held.Status) (bool, error) {
		if slices.Contains(l.packs[study], pack.ID(h.Pack)) {
			what = "shard " + h.Name.String()
		}
		return what == "", nil
	})
	if err != nil {
		return err.Error()
	}
	if keeps, err := s.archive.KeepsStudy(study); err != nil || keeps {
		return fmt.Sprintf("rows of the study (%v)", err)
	}
	return what
}

// holds is what must hold behind each step: what was acknowledged is there, what was
// committed survives the loss of any site, and what is deleted is shown nowhere.
func (l *life) holds(when string) {
	l.t.Helper()
	if !l.deleted && (l.bug == nil || !l.bug.loses) {
		l.promised(when)
	}
	for _, in := range slices.Concat(l.gone, l.kept) {
		switch deleted := l.deleted && in.StudyInstanceUID == l.gone[0].StudyInstanceUID; {
		case deleted:
			for _, s := range l.nodes {
				if got, err := s.read(in); !fault.Is(err, fault.NotFound) {
					l.failf("%s, at %s: a deleted instance is shown: %d bytes, %v", when, s.site, len(got), err)
				}
			}
		case l.committed[in.SOPInstanceUID]:
			l.readable(when, in)
		case l.acked[in.SOPInstanceUID]:
			l.same(when, l.nodes[0], in)
		}
	}
}

// readable checks that an instance is read everywhere, whichever site is gone.
func (l *life) readable(when string, in image) {
	l.t.Helper()
	for _, gone := range l.nodes {
		l.without(gone, func() {
			for _, s := range l.nodes {
				if s != gone {
					l.same(fmt.Sprintf("%s, without %s", when, gone.site), s, in)
				}
			}
		})
	}
}

func (l *life) same(when string, s *node, in image) {
	l.t.Helper()
	if l.restart() {
		return // it is looked at again behind the step
	}
	got, err := s.read(in)
	if l.restart() {
		return
	}
	if err != nil {
		l.failf("%s: %s cannot read %s: %v", when, s.site, in.SOPInstanceUID, err)
	} else if !bytes.Equal(got, in.data) {
		l.failf("%s: %s reads another %s", when, s.site, in.SOPInstanceUID)
	}
}

// read reads an instance as a face does.
func (s *node) read(in image) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for ref, err := range s.reach.Select(ctx, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID) {
		if err != nil {
			return nil, err
		}
		if ref.SOP != in.SOPInstanceUID {
			continue
		}
		opened, err := s.reach.Open(ctx, ref)
		if err != nil {
			return nil, err
		}
		defer opened.Close() //nolint:errcheck // only read
		return io.ReadAll(io.NewSectionReader(opened.Stored(), 0, ref.Bytes))
	}
	return nil, fault.New(fault.NotFound, "it is not listed")
}

// nothingLeft checks that nothing of what was purged is left, and that there was something.
func (l *life) nothingLeft() {
	l.t.Helper()
	if packs := len(l.packs[l.gone[0].StudyInstanceUID]); packs != 2 {
		l.failf("%d packs were purged, want a large and a small one", packs)
	}
	for _, s := range l.nodes {
		if what := l.left(s); what != "" {
			l.failf("%s still has %s", s.site, what)
		}
	}
}

// sound checks that each node's archive is in itself what it should be.
func (l *life) sound() {
	l.t.Helper()
	for _, s := range l.nodes {
		report, err := s.archive.Verify(context.Background(), nil)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, f := range report.Findings {
			l.failf("%s: %s: %s: %s", s.site, f.Kind, f.Object, f.Detail)
		}
		if err := s.catalog.Verify(context.Background(), func(err error) { l.failf("%s: catalogue: %v", s.site, err) }); err != nil {
			l.t.Error(err)
		}
	}
}

func TestALifeWithoutACrash(t *testing.T) {
	l := inLife(t, nil, nil)
	if l.lived < 100 {
		t.Errorf("only %d steps", l.lived)
	}
	t.Logf("%d steps", l.lived)
}
