package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"pelago/cluster/layout"
	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/seal"
)

// TestShardRowsMeasureEverything runs the rows of shards that need no nodes with small
// inputs: every line must come out with a figure, whatever it is.
func TestShardRowsMeasureEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("reads over links with delay")
	}
	small := map[string]bool{"pipeline": true, "read": true, "series": true, "layout": true}
	rows := slices.DeleteFunc(shardRows(), func(r row) bool { return !small[r.name] })
	if len(rows) != len(small) {
		t.Fatalf("%d rows of %d", len(rows), len(small))
	}
	measureAll(t, rows, "-shards", "-pelago", "none")
}

func TestPagesAreOfOneKind(t *testing.T) {
	if _, err := parse([]string{"-network", "-shards"}, io.Discard); err == nil {
		t.Error("a page of both was begun")
	}
	r := report{Shards: true, Busy: true}
	if page := r.markdown(); !bytes.HasPrefix(page, []byte("# Benchmarks of shards\n")) || !bytes.Contains(page, []byte("other work meanwhile")) {
		t.Errorf("the page begins %.200s", page)
	}
}

// Who pledges more than a row can use of it has a slot in every row; the others share
// what is left.
func TestExactSharesAreBounded(t *testing.T) {
	holders := benchHolders(5, false)
	holders[2].Pledge *= 100
	l, err := layout.Compute(nil, holders, 3)
	if err != nil {
		t.Fatal(err)
	}
	for id, share := range exactShares(l, 3) {
		want := 2 * 1024.0 / 4
		if id == holders[2].ID {
			want = 1024
		}
		if math.Abs(share-want) > 1e-6 {
			t.Errorf("%s has %v slots, want %v", id, share, want)
		}
	}
	if peak := slotPeak(l); peak < 1 || peak > 1.01 {
		t.Errorf("slots max/mean %v", peak)
	}
}

// A layout that does not follow the one before moves far more than has to move, and
// that is seen.
func TestWastefulMovementIsSeen(t *testing.T) {
	before, after := benchHolders(9, true), benchHolders(10, true)
	from, err := layout.Compute(nil, before, 5)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		previous *layout.Layout
		wasteful bool
	}{"following": {from, false}, "anew": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			to, err := layout.Compute(test.previous, after, 5)
			if err != nil {
				t.Fatal(err)
			}
			moved, gained := movement(from, to)
			if wasteful(from, to) != test.wasteful {
				t.Errorf("wasteful: %v, want %v", !test.wasteful, test.wasteful)
			}
			if over := float64(moved)/gained > 1.1; over != test.wasteful {
				t.Errorf("%d moved, %v had to", moved, gained)
			}
			var c chained
			if optimum := c.see(from, to, moved, gained); test.wasteful && (optimum != gained || c.proven != 0 || c.more != 1) {
				t.Errorf("waste was taken for the optimum: %v of %d, %+v", optimum, moved, c)
			}
		})
	}
}

func TestCirclesBelowNothingAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		step [][]int
		want bool
	}{
		"gain and loss alike": {[][]int{{none, 1, none}, {none, none, 0}, {-1, none, none}}, false},
		"a gain":              {[][]int{{none, 1, none}, {none, none, -1}, {-1, none, none}}, true},
		"no circle":           {[][]int{{none, -1, -1}, {none, none, -1}, {none, none, none}}, false},
	} {
		if got := negative(test.step); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A frame in a block of a MiB that is cut in three lies in a third of it, or across.
func TestPiecesOfRowStripingAreCounted(t *testing.T) {
	g, err := shard.NewGeometry(shard.Code{K: 3, M: 3}, 10<<20)
	if err != nil {
		t.Fatal(err)
	}
	at := func(first, leaves int64) frame {
		return frame{first: first, leaves: leaves, bytes: leaves * seal.LeafBytes}
	}
	const piece = (1<<20 + 2) / 3 / seal.LeafBytes // leaves that lie in one wholly
	for name, test := range map[string]struct {
		frames []frame
		want   float64
	}{
		"in one":       {[]frame{at(0, piece)}, 1},
		"across":       {[]frame{at(piece, 2)}, 2},
		"whole blocks": {[]frame{at(0, 130)}, 3},
		"both":         {[]frame{at(0, 1), at(piece, 2)}, 1.5},
	} {
		if got := piecesTouched(&striped{geometry: g, frames: test.frames}, striped1MiB); got != test.want {
			t.Errorf("%s: %v sites, want %v", name, got, test.want)
		}
	}
}

// Every frame of a stripe is where its manifest says, and in a column or across.
func TestFramesAreLocated(t *testing.T) {
	b := &bench{cut: shardsQuick}
	s, err := b.stripe(t.Context(), shard.Code{K: 2, M: 1})
	if err != nil {
		t.Fatal(err)
	}
	crossing := 0
	for _, f := range s.frames {
		if f.column < 0 {
			crossing++
			continue
		}
		from, length := s.geometry.Column(f.column)
		if at := f.first * seal.LeafBytes; at < from || at+f.bytes > from+length {
			t.Errorf("frame %d is not in column %d", f.number, f.column)
		}
	}
	if crossing > 1 || len(s.within(0))+len(s.within(1))+crossing != len(s.frames) || len(s.within(-1))+crossing != len(s.frames) {
		t.Errorf("%d of %d frames cross the border, %d and %d are in the columns", crossing, len(s.frames), len(s.within(0)), len(s.within(1)))
	}
}

func TestHedgeDelayIsThatOfTheSlowest(t *testing.T) {
	w := watching(nil)
	for n := range 100 {
		w.began["fast"] = append(w.began["fast"], time.Duration(n)*time.Millisecond)
		w.began["slow"] = append(w.began["slow"], time.Duration(2*n)*time.Millisecond)
	}
	if got := w.hedgeDelay(); got.Round(time.Millisecond) != 188*time.Millisecond {
		t.Errorf("%v", got)
	}
	if got := w.hedgeDelay(); got != 0 {
		t.Errorf("%v after it was forgotten", got)
	}
}

func TestWhatIsAskedIsCounted(t *testing.T) {
	w := watching(nobody{})
	for _, node := range []string{"a", "b", "a"} {
		if _, err := w.Leaves(t.Context(), recall.Place{Node: node}, shard.Stripe{}, 0, 1); err == nil {
			t.Fatal("nobody answered")
		}
	}
	if requests, sites := w.take(); requests != 3 || sites != 2 {
		t.Errorf("%d requests of %d sites", requests, sites)
	}
	if requests, sites := w.take(); requests != 0 || sites != 0 || w.hedgeDelay() != 0 {
		t.Errorf("%d requests of %d sites after they were taken", requests, sites)
	}
}

// nobody is holders none of which is there.
type nobody struct{ recall.Holders }

func (nobody) Leaves(context.Context, recall.Place, shard.Stripe, int64, int64) (recall.Leaves, error) {
	return recall.Leaves{}, errors.New("nobody is there")
}

func TestWindowGivesWhatItHas(t *testing.T) {
	w := window{[]byte("abcdef"), 100}
	p := make([]byte, 3)
	if n, err := w.ReadAt(p, 102); n != 3 || err != nil || string(p) != "cde" {
		t.Errorf("%d %q, %v", n, p, err)
	}
	if n, err := w.ReadAt(p, 104); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	for _, off := range []int64{0, 99, 107} {
		if _, err := w.ReadAt(p, off); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}
