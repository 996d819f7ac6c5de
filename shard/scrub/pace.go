package scrub

import (
	"context"
	"io"
	"time"

	"pelago/cluster/pause"
)

const (
	// Slowest is what is read in a second at least, while there is something.
	Slowest = 64 << 10
	// AimPercent of the period is what a pass aims to take, so that pauses fit.
	AimPercent = 80
	// YieldFor is how long a pass waits for those who are served before it looks again.
	YieldFor = time.Second
	// NoteEvery is how often its place is noted.
	NoteEvery = time.Minute
)

// Options are what a pass is paced by.
type Options struct {
	Period time.Duration
	Total  func() int64 // bytes that there are to read, about
	Busy   func() bool  // whether somebody is served, who goes first
	Took   func(n int)  // is told of bytes that were read
}

// Pace keeps a pass to the rate at which it ends in time.
type Pace struct {
	ctx   context.Context //nolint:containedctx // of one pass
	o     Options
	pass  *Pass
	part  int64 // bytes read of what is in hand
	noted time.Time
}

// NewPace returns the pace of a pass that is under way. The pass is the caller's; the
// pace adds to its Read.
func NewPace(ctx context.Context, o Options, pass *Pass) *Pace {
	return &Pace{ctx: ctx, o: o, pass: pass, noted: time.Now()}
}

// Reader reads no faster than the pass may, until its context ends.
func (p *Pace) Reader(from io.ReaderAt) io.ReaderAt { return &reader{p, from} }

// Done says that what was in hand is read.
func (p *Pace) Done() { p.pass.Read, p.part = p.read(), 0 }

// Note reports whether it is time to make durable where the pass is, and if so counts
// it as done.
func (p *Pace) Note() bool {
	if time.Since(p.noted) < NoteEvery {
		return false
	}
	p.noted = time.Now()
	return true
}

// took waits as long as n bytes may take, and for who is served.
func (p *Pace) took(n int) {
	p.part += int64(n)
	p.o.Took(n)
	total := p.o.Total()
	aim := p.o.Period / 100 * AimPercent
	left := max(aim-time.Since(p.pass.Began), p.o.Period/100)
	rate := max(Slowest, perSecond(total, aim), perSecond(total-p.read(), left))
	if !pause.For(p.ctx, time.Duration(float64(n)/float64(rate)*float64(time.Second))) {
		return
	}
	for p.o.Busy() && p.ahead(total) && pause.For(p.ctx, YieldFor) {
		continue
	}
}

// ahead reports whether the pass can wait without being late.
func (p *Pace) ahead(total int64) bool {
	elapsed := time.Since(p.pass.Began)
	return float64(p.read())*float64(p.o.Period) >= float64(total)*float64(elapsed)
}

func (p *Pace) read() int64 { return p.pass.Read + p.part }

func perSecond(bytes int64, in time.Duration) int64 { return bytes / max(1, int64(in/time.Second)) }

type reader struct {
	pace *Pace
	from io.ReaderAt
}

// ReadAt implements [io.ReaderAt].
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.pace.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.from.ReadAt(b, off)
	r.pace.took(n)
	return n, err
}
