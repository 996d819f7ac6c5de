package scrub

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// passes reads total bytes, a MiB at a time, and returns how long that took.
func passes(t *testing.T, ctx context.Context, total int64, o Options) (Pass, time.Duration) {
	t.Helper()
	const size = 1 << 20
	pass := Pass{}.Begin()
	o.Total = func() int64 { return total }
	var read int64
	o.Took = func(n int) { read += int64(n) }
	pace := NewPace(ctx, o, &pass)
	began := time.Now()
	from, b := pace.Reader(bytes.NewReader(make([]byte, size))), make([]byte, size/4)
	for pass.Read < total {
		for off := int64(0); off < size; off += int64(len(b)) {
			if n, err := from.ReadAt(b, off); err != nil || n != len(b) {
				if ctx.Err() == nil {
					t.Fatal(n, err)
				}
				return pass, time.Since(began)
			}
		}
		pace.Done()
	}
	if pass.Read != total || read != total {
		t.Errorf("%d and %d bytes are counted, of %d", pass.Read, read, total)
	}
	return pass, time.Since(began)
}

func TestAPassTakesTheTimeItHas(t *testing.T) {
	const period = 1000 * time.Minute
	idle := func() bool { return false }
	for _, test := range []struct {
		name        string
		total       int64
		busy        func() bool
		least, most time.Duration
	}{
		{"much", 8 << 30, idle, period * 79 / 100, period * 81 / 100},
		{"little", 64 << 20, idle, 1000 * time.Second, 1100 * time.Second}, // at the least rate
		{"somebody is served all the time", 8 << 30, func() bool { return true }, period * 95 / 100, period + YieldFor},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, took := passes(t, t.Context(), test.total, Options{Period: period, Busy: test.busy}); took < test.least || took > test.most {
					t.Errorf("took %v of %v", took, period)
				}
			})
		})
	}
}

func TestAPassEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		pass, took := passes(t, ctx, 8<<30, Options{Period: 1000 * time.Minute, Busy: func() bool { return true }})
		if took != time.Hour || pass.Read == 0 {
			t.Errorf("%d bytes in %v", pass.Read, took)
		}
	})
}

func TestTheNextPassIsDueByWhenThisOneBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = 100 * time.Hour
		var p Pass
		if !p.Due(period) {
			t.Error("the first one is not due")
		}
		p = p.Begin()
		began := time.Now()
		time.Sleep(60 * time.Hour)
		if p = p.End(); !p.Finished.Equal(began) || !p.Began.IsZero() || p.Read != 0 || p.Due(period) {
			t.Errorf("after its end: %+v", p)
		}
		if time.Sleep(15 * time.Hour); !p.Due(period) {
			t.Error("the next one is not due in time")
		}
	})
}

func TestTheTimesOfAPassAreKeptInSeconds(t *testing.T) {
	for _, p := range []Pass{{}, {Began: time.Unix(1_800_000_000, 0)}, {Finished: time.Unix(1_700_000_000, 0)}} {
		b := p.AppendTimes(nil)
		if began, finished := ParseTimes(b); len(b) != TimesBytes || !began.Equal(p.Began) || !finished.Equal(p.Finished) {
			t.Errorf("%v, %v of %+v", began, finished, p)
		}
	}
}

func TestItsPlaceIsNotedEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass := Pass{}.Begin()
		pace := NewPace(t.Context(), Options{}, &pass)
		for range 3 {
			if pace.Note() {
				t.Error("too soon")
			}
			if time.Sleep(NoteEvery); !pace.Note() {
				t.Error("not in time")
			}
		}
	})
}
