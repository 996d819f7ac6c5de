package purge

import (
	"errors"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// errUnread says that the network's time cannot begin yet.
var errUnread = errors.New("the network's time does not begin")

// mayBegin refuses the first tick while a member would stop at it: a program that does not
// read the entries that come with it applies nothing from there on. So all members that are
// not removed, witnesses too, must have said that theirs does, since this node started; one
// that is off and was never heard of holds the clock up until it is back or removed. Before
// it has begun that costs nothing but time: nothing is purged then. A member cannot go back
// to an older program once it has, for that does not open the catalogue.
func (p *Purger) mayBegin(stands catalog.Clock) error {
	if stands.Seconds > 0 {
		return nil
	}
	lacking, err := p.cannotRead(catalog.MinReader(&catalog.TickFact{}))
	if err != nil {
		return err
	}
	said := strings.Join(lacking, " ")
	if said != p.unread {
		p.unread = said
		if len(lacking) > 0 {
			p.o.Log.Warn("the network's time does not begin yet, and nothing is purged: nodes have not said that their program knows it; upgrade or start them, or remove those that are gone", "nodes", lacking)
		}
	}
	if len(lacking) > 0 {
		return fault.New(fault.Unavailable, "%w: nodes have not said that their program knows it: %s", errUnread, said)
	}
	return nil
}

// cannotRead are the members of which it is not known that their programs read entries of a
// version, in order. What was heard of one last counts while it is off.
func (p *Purger) cannotRead(version uint32) (lacking []string, err error) {
	members, err := p.o.Catalog.Registry(catalog.KindMember)
	if err != nil {
		return nil, err
	}
	revoked, err := p.o.Catalog.Registry(catalog.KindRevoked)
	if err != nil {
		return nil, err
	}
	for node := range members {
		if _, gone := revoked[node]; gone || node == p.o.Node {
			continue
		}
		if reads, heard := p.o.Reads(node); heard {
			p.reads[node] = reads
		}
		if p.reads[node] < version {
			lacking = append(lacking, node)
		}
	}
	slices.Sort(lacking)
	return lacking, nil
}
