package port

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// A flood of refusals writes refusalLines lines in each refusalWindow; the rest
	// is counted. An operator who looks for one peer's trouble still finds it.
	refusalLines  = 20
	refusalWindow = 10 * time.Second
	// maxReason bounds what certificates of strangers put into a line.
	maxReason = 200
)

// refusalLog tells the operator who was refused and why.
type refusalLog struct {
	log *slog.Logger

	mu      sync.Mutex
	began   time.Time
	lines   int
	unsaid  int
	refused uint64
}

// add writes one line about one refused connection, within the window's share.
func (r *refusalLog) add(from string, s Service, reason error) {
	r.mu.Lock()
	now := time.Now()
	unsaid := 0
	if now.Sub(r.began) >= refusalWindow {
		unsaid = r.unsaid
		r.began, r.lines, r.unsaid = now, 0, 0
	}
	r.refused++
	say := r.lines < refusalLines
	if say {
		r.lines++
	} else {
		r.unsaid++
	}
	r.mu.Unlock()
	if unsaid > 0 {
		r.log.Warn("peer connections refused", "count", unsaid)
	}
	if say {
		text := reason.Error()
		r.log.Warn("peer connection refused", "remote", from, "service", string(s), "reason", text[:min(len(text), maxReason)])
	}
}

// Refused is how many connections were refused since the start.
func (p *Port) Refused() uint64 {
	p.refusals.mu.Lock()
	defer p.refusals.mu.Unlock()
	return p.refusals.refused
}
