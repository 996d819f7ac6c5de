package held

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/shard/bulk"
)

// begin is a time with whole seconds: rows have no others.
func begin() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

// scrubbing runs a holder's scrub on virtual time.
func scrubbing(t *testing.T, change func(*Options), run func(t *testing.T, h *holder)) {
	synctest.Test(t, func(t *testing.T) {
		begin()
		rows := newMemRows()
		h := open(t, vfs.NewMem(), func(o *Options) {
			o.Rows = rows
			if change != nil {
				change(o)
			}
		})
		run(t, h)
		h.close()
	})
}

// start runs scrub until stop is called.
func (h *holder) scrubs() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Run(ctx, func(err error) {
			if err != nil {
				h.t.Error(err)
			}
		})
	}()
	return func() {
		cancel()
		<-ended
	}
}

// All that is held is read once in a period, slowly, and then again.
func TestScrubReadsAllInItsPeriod(t *testing.T) {
	const period = 10 * time.Hour
	scrubbing(t, func(o *Options) { o.Period = period }, func(t *testing.T, h *holder) {
		for i := range 4 {
			h.land(encode(t, uint64(i), small, 200_000).offer(0))
		}
		total := h.stats.Bytes.Load()
		defer h.scrubs()()
		time.Sleep(time.Minute)
		if read := h.stats.Scanned.Load(); read < total {
			t.Errorf("after a minute %d of %d bytes", read, total)
		}
		once := h.stats.Scanned.Load()
		time.Sleep(period * 7 / 10)
		if again := h.stats.Scanned.Load(); again != once {
			t.Errorf("a second pass began early: %d bytes", again)
		}
		time.Sleep(period / 10)
		if again := h.stats.Scanned.Load(); again != 2*once {
			t.Errorf("after a period %d bytes, of %d a pass", again, once)
		}
		place, err := h.Scrubbed()
		if err != nil || !place.Began.IsZero() || place.Finished.IsZero() {
			t.Errorf("%+v, %v", place, err)
		}
	})
}

// It is no faster than it must be, and goes on where a restart cut it off.
func TestScrubIsPacedAndGoesOnAfterARestart(t *testing.T) {
	const period = 100 * time.Second
	scrubbing(t, func(o *Options) { o.Period = period }, func(t *testing.T, h *holder) {
		for i := range 12 {
			h.land(encode(t, uint64(i), larger, 3<<20).offer(0))
		}
		total := float64(h.stats.Bytes.Load())
		stop := h.scrubs()
		time.Sleep(period * 4 / 10)
		stop()
		half := float64(h.stats.Scanned.Load())
		if half < 0.4*total || half > 0.65*total {
			t.Errorf("half of the aim after %.0f of %.0f bytes", half, total)
		}
		place, err := h.Scrubbed()
		if err != nil || place.Began.IsZero() || place.at.Table == 0 {
			t.Fatalf("%+v, %v", place, err)
		}
		again := &holder{t: t, fs: h.fs, self: h.self, rows: h.rows}
		h.bulk.Close()
		again.start(func(o *Options) { o.Period, o.Rows = period, h.o.Rows })
		h.bulk = again.bulk
		defer again.scrubs()()
		time.Sleep(period / 2)
		if rest := float64(again.stats.Scanned.Load()); rest < 0.3*total || rest+half > 1.15*total {
			t.Errorf("%.0f bytes, then %.0f, of %.0f", half, rest, total)
		}
		if place, err = again.Scrubbed(); err != nil || !place.Began.IsZero() {
			t.Errorf("%+v, %v", place, err)
		}
	})
}

// It waits for readers, but not so long that it would be late.
func TestScrubWaitsForReaders(t *testing.T) {
	const period = 100 * time.Second
	busy := true
	scrubbing(t, func(o *Options) { o.Period, o.Busy = period, func() bool { return busy } }, func(t *testing.T, h *holder) {
		for i := range 8 {
			h.land(encode(t, uint64(i), larger, 3<<20).offer(0))
		}
		total := float64(h.stats.Bytes.Load())
		defer h.scrubs()()
		time.Sleep(period / 2)
		if read := float64(h.stats.Scanned.Load()); read < 0.4*total || read > 0.6*total {
			t.Errorf("busy, %.0f of %.0f bytes in half the period", read, total)
		}
		time.Sleep(period * 6 / 10)
		if read := float64(h.stats.Scanned.Load()); read < total {
			t.Errorf("busy, %.0f of %.0f bytes in the period", read, total)
		}
	})
}

// Rot that nobody reads is found.
func TestScrubFindsRot(t *testing.T) {
	rows := newMemRows()
	fs := vfs.NewMem()
	h := open(t, fs, func(o *Options) { o.Rows = rows })
	m, sound := encode(t, 1, small, 4_000), encode(t, 2, small, 6_000)
	h.land(m.offer(0))
	h.land(sound.offer(0))
	h = h.rot(m, 0, 0.5)
	h.close()
	again := &holder{t: t, fs: fs, self: h.self, rows: rows}
	again.start(nil)
	if err := again.scrub(t.Context(), Scrub{}); err != nil {
		t.Fatal(err)
	}
	if told := again.told(); len(told) != 1 || told[0] != m.name(0) {
		t.Errorf("told of %v", told)
	}
	again.check(sound, 0)
	if err := again.scrub(t.Context(), Scrub{}); err != nil || len(again.told()) != 1 {
		t.Errorf("again: %v, %v", again.told(), err)
	}
	again.close()
}

// Bytes that bulk/ vouches for and that are not the shard's are rot too.
func TestAShardOfOthersBytesIsLost(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	a, b := encode(t, 1, small, 4_000), encode(t, 2, small, 4_000)
	h.land(a.offer(0), b.offer(0))
	ra, _ := h.row(a.name(0))
	rb, _ := h.row(b.name(0))
	swapped := *ra
	swapped.ref = rb.ref
	if err := h.rows.Commit(map[string][]byte{keyShard(a.name(0)): swapped.append(nil), keyBlob(rb.ref): a.name(0).append(nil)}); err != nil {
		t.Fatal(err)
	}
	if err := h.scrub(t.Context(), Scrub{at: bulk.Ref{Space: bulk.Held}}); err != nil {
		t.Fatal(err)
	}
	if told := h.told(); len(told) != 1 || told[0] != a.name(0) {
		t.Errorf("told of %v", told)
	}
}
