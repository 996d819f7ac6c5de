package recall

import (
	"time"

	"pelago/cluster/fault"
)

const (
	// doubtFor is how long a place that had not what it should is asked after others:
	// it may be on its way there, or be repaired.
	doubtFor = time.Minute
	// maxDoubts bounds what is remembered of one pack.
	maxDoubts = 64
)

// doubt is what a place had not. Other leaves it may have.
type doubt struct {
	Place
	span  // of whatever shard; count 0: all of it
	until time.Time
}

// doubt notes that a place had not what it should, and tells if that was rot.
func (p *Pack) doubt(at Place, s span, err error) {
	d := doubt{Place: at, span: s, until: time.Now().Add(doubtFor)}
	if fault.Is(err, fault.Corrupt) {
		p.client.rotten(Rot{Place: at, Stripe: p.head.Stripe, First: s.first, Count: s.count, Err: err})
	} else {
		d.count = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubts = append([]doubt{d}, p.doubts[:min(len(p.doubts), maxDoubts-1)]...)
}

// sites returns the places that may be asked for leaves of a stripe's shards.
func (p *Pack) sites(s span) []*site {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*site, len(p.places))
	for i, at := range p.places {
		all[i] = &site{Place: at}
		for _, d := range p.doubts {
			if d.Place == at && now.Before(d.until) && (d.count == 0 || d.first < s.end() && s.first < d.end()) {
				all[i].doubted = true
			}
		}
	}
	return all
}
