package recall

import (
	"context"
	"slices"
)

// flight is a fetch of leaves that any number of readers wait for.
type flight struct {
	span
	users  int // readers; Pack.mu guards it
	cancel context.CancelFunc

	done chan struct{} // closed when what follows is written, and its goroutine has nothing left to do
	data []byte
	err  error
}

// fetch fills what a range of b at off has of a span, from what is on its way for
// others, and for the rest from fetches of its own.
func (p *Pack) fetch(ctx context.Context, s span, b []byte, off int64) error {
	flights := p.join(ctx, s)
	defer func() {
		for _, f := range flights {
			p.leave(f)
		}
	}()
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.err != nil {
			return f.err
		}
		p.put(b, off, f.span, f.data)
	}
	return nil
}

// join returns the flights that bring a span. Those that were not under way begin.
func (p *Pack) join(ctx context.Context, s span) (all []*flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flights {
		if f.column == s.column && f.first < s.end() && s.first < f.end() {
			f.users++
			all = append(all, f)
			p.client.counters.Shared.Add(1)
		}
	}
	slices.SortFunc(all, func(a, b *flight) int { return int(a.first - b.first) })
	at := s.first
	for _, f := range all {
		if at < f.first {
			all = append(all, p.startLocked(ctx, span{s.column, at, f.first - at}))
		}
		at = max(at, f.end())
	}
	if at < s.end() {
		all = append(all, p.startLocked(ctx, span{s.column, at, s.end() - at}))
	}
	return all
}

// startLocked begins a flight for one reader. It lasts as long as any waits for it.
func (p *Pack) startLocked(ctx context.Context, s span) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{span: s, users: 1, cancel: cancel, done: make(chan struct{})}
	p.flights = append(p.flights, f)
	go func() {
		defer close(f.done)
		defer cancel()
		f.data, f.err = p.recall(ctx, s)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.landLocked(f)
	}()
	return f
}

// landLocked makes a flight unknown to readers who come.
func (p *Pack) landLocked(f *flight) {
	p.flights = slices.DeleteFunc(p.flights, func(g *flight) bool { return g == f })
}

// leave ends a reader's use of a flight; the last ends the flight, and waits.
func (p *Pack) leave(f *flight) {
	p.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		p.landLocked(f)
	}
	p.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}
