package protect

import (
	"context"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/replication/catalog"
)

// loneliness is what the registry was found to say of who else there is.
type loneliness struct {
	read    bool
	changes uint64 // of the registry when it was read
	others  bool   // other members are known
	why     error  // why this node's site is not all there is; nil: it is

	asked  time.Time // when the leader was asked last for what is committed
	failed error     // what became of that
}

const (
	// currentFor is how long an answer of the leader serves those who ask for many
	// instances one after the other.
	currentFor = 2 * time.Second
	// currentTime bounds the question.
	currentTime = 10 * time.Second
)

// alone returns nil when the network promises no more than this site (t = 0, DESIGN
// §7: one site): there is nobody else to keep anything. fault.Unavailable while others
// are there but nothing is placed with them yet, and while this node does not know. A
// node that has heard of others does not go by its own catalogue, which may be behind
// since before they held anything: it asks the leader for the end of the log first. A
// catalogue that has stopped may have done so before the first of them joined.
func (p *Protect) alone(ctx context.Context) error {
	if err := p.o.Fenced(); err != nil {
		return fault.New(fault.Unavailable, "this node's catalogue is not to be relied on: %w", err)
	}
	l, err := p.readLone()
	if err != nil || !l.others {
		return firstOf(err, l.why)
	}
	if err := p.current(ctx); err != nil && p.bug != bugOwnView {
		return fault.New(fault.Unavailable, "other members are known, and whether they hold anything is not: %w", err)
	}
	l, err = p.readLone()
	return firstOf(err, l.why)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readLone reads the registry unless it is as it was.
func (p *Protect) readLone() (loneliness, error) {
	changes := p.o.Catalog.RegistryChanged() // before it is read
	p.mu.Lock()
	l := p.lone
	p.mu.Unlock()
	if l.read && l.changes == changes {
		return l, nil
	}
	others, why, err := p.others()
	if err != nil {
		return loneliness{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lone.read, p.lone.changes, p.lone.others, p.lone.why = true, changes, others, why
	return p.lone, nil
}

// others tells whether there are other members, and why this site is not alone. It
// asks the catalogue itself: what is kept in memory of it follows a little later.
func (p *Protect) others() (others bool, why, err error) {
	codes, err := p.o.Catalog.Registry(placement.KindCode)
	if err != nil {
		return false, nil, err
	}
	members, err := p.o.Catalog.Registry(catalog.KindMember)
	if err != nil {
		return false, nil, err
	}
	revoked, err := p.o.Catalog.Registry(catalog.KindRevoked)
	if err != nil {
		return false, nil, err
	}
	switch {
	case len(codes) > 0:
		why = fault.New(fault.Unavailable, "the network has a code, which this node does not follow yet")
	case members[p.o.Self] == nil:
		return false, fault.New(fault.Unavailable, "this node does not know its network yet"), nil
	}
	for node, value := range members {
		if node == p.o.Self {
			continue
		}
		m, err := catalog.DecodeMember(value)
		if err != nil {
			return false, nil, fault.New(fault.Unavailable, "a member's record cannot be read: %w", err)
		}
		others = true
		if _, gone := revoked[node]; !gone && !m.Witness && m.Site != p.o.Site && why == nil {
			why = fault.New(fault.Unavailable, "there are other sites, and nothing is placed with them yet")
		}
	}
	return others, why, nil
}

// current asks the leader, or remembers that somebody just has.
func (p *Protect) current(ctx context.Context) error {
	p.mu.Lock()
	asked, failed := p.lone.asked, p.lone.failed
	p.mu.Unlock()
	if !asked.IsZero() && time.Since(asked) < currentFor {
		return failed
	}
	limited, cancel := context.WithTimeout(ctx, currentTime)
	defer cancel()
	sent := time.Now()
	err := p.o.Current(limited)
	if ctx.Err() != nil {
		return context.Cause(ctx) // says nothing of the network
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		sent = time.Now() // a failure took its time, and is believed from its end
	}
	if p.lone.asked.Before(sent) {
		p.lone.asked, p.lone.failed = sent, err
	}
	return err
}
