package main

import (
	"errors"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/member"
)

// What a node refuses by its role in the network, or by an operator's word, in the
// words that its clients read.
var (
	errWitness = fault.New(fault.Unavailable, "%w", &archive.Closed{Why: "this node is a witness: it votes, and keeps no images"})
	errDrained = fault.New(fault.Unavailable, "%w", &archive.Closed{Why: "this node is drained: it takes nothing in"})
)

// own is this node's record: as it was asked for while the catalogue has none.
func (w *network) own() member.Member {
	m, _ := w.registry.Member(w.self.ID())
	if !w.registry.Known() {
		m.Witness = w.place.Witness
	}
	return m
}

// takes says why this node takes no instance in: nil, if it does.
func (w *network) takes() error {
	switch own := w.own(); {
	case own.Witness:
		return errWitness
	case own.Drained:
		return errDrained
	}
	return nil
}

// sends says why this node opens no instance, of its own or others': nil, if it
// does. Nobody gives a witness any (DESIGN §7, Keys).
func (w *network) sends() error {
	if w.own().Witness {
		return errWitness
	}
	return nil
}

// whyClosed is why nothing is taken in, in words; "": it is.
func whyClosed(err error) string {
	if closed := new(archive.Closed); errors.As(err, &closed) {
		return closed.Why
	}
	return ""
}

// staleness is how old the catalogue may be; one that nobody shares is never old.
func (n *node) staleness() (time.Duration, bool) {
	if len(holders{n.network}.Others()) == 0 {
		return 0, true
	}
	return n.network.group.Staleness()
}
