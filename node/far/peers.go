package far

import (
	"slices"
	"sync"
	"time"
)

// peers remembers how soon nodes answer, and which failed lately.
type peers struct {
	mu sync.Mutex
	of map[string]*peer
}

type peer struct {
	first  [64]time.Duration // the last times to the first byte
	seen   int               // answers
	failed time.Time
}

const (
	// downFor is how long a node that failed is asked after all others.
	downFor = 10 * time.Second
	// enough answers tell a p95.
	enough = 20
	// maxPeers bounds what is remembered, above the largest network.
	maxPeers = 4096
)

func newPeers() *peers { return &peers{of: map[string]*peer{}} }

func (p *peers) atLocked(node string) *peer {
	one := p.of[node]
	if one == nil {
		if len(p.of) == maxPeers {
			clear(p.of)
		}
		one = &peer{}
		p.of[node] = one
	}
	return one
}

// answered notes that a node began to answer after d.
func (p *peers) answered(node string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.atLocked(node)
	one.first[one.seen%len(one.first)] = d
	one.seen++
	one.failed = time.Time{}
}

// broke notes that a node does not answer, or broke off.
func (p *peers) broke(node string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.atLocked(node).failed = now
}

// patience is the time within which 95 of 100 answers of a node began; false if
// too few were seen.
func (p *peers) patience(node string) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.atLocked(node)
	if one.seen < enough {
		return 0, false
	}
	all := slices.Clone(one.first[:min(one.seen, len(one.first))])
	slices.Sort(all)
	return all[len(all)*95/100], true
}

// down reports whether a node failed lately.
func (p *peers) down(node string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.atLocked(node)
	return !one.failed.IsZero() && now.Sub(one.failed) < downFor
}
