package recall

import "time"

// Patience is how long after asking a node another is asked for, as things stand.
func (p *Peers) Patience(node string) time.Duration {
	x := p.begin(way{node: node}, 0, good, time.Now())
	x.forget()
	return x.patience
}

// Rate is what a node is believed to send, in bytes a second.
func (p *Peers) Rate(node string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[way{node: node}].rate
}
