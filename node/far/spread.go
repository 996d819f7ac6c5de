package far

import (
	"container/list"
	"slices"
	"sync"

	"pelago/cluster/authority"
	"pelago/shard/pack"
)

// spread remembers which nodes have fetched a pack whole, so that others can be
// sent to them: the nodes of a site to the one of them that has it, and, when
// this node is busy, anybody to anybody. It is a hint: who is sent in vain comes
// back and says so.
type spread struct {
	mu    sync.Mutex
	packs map[pack.ID]*list.Element
	order list.List // of *spreadPack, the last used in front
}

type spreadPack struct {
	id    pack.ID
	nodes []spreadNode // the last that fetched in front
}

type spreadNode struct {
	authority.Name
	bytes int64 // sent
}

const (
	spreadPacks = 4096
	spreadNodes = 16
	// spreadBytes: smaller packs are sent sooner than found elsewhere.
	spreadBytes = 1 << 20
	maxHolders  = 4 // told of at once
)

func newSpread() *spread { return &spread{packs: map[pack.ID]*list.Element{}} }

// sent notes that a node was sent n bytes of a pack.
func (s *spread) sent(id pack.ID, to authority.Name, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.packs[id]
	if e == nil {
		if len(s.packs) == spreadPacks {
			delete(s.packs, s.order.Remove(s.order.Back()).(*spreadPack).id)
		}
		e = s.order.PushFront(&spreadPack{id: id})
		s.packs[id] = e
	}
	s.order.MoveToFront(e)
	p := e.Value.(*spreadPack)
	i := slices.IndexFunc(p.nodes, func(n spreadNode) bool { return n.Node == to.Node })
	one := spreadNode{Name: to}
	if i >= 0 {
		one = p.nodes[i]
		p.nodes = slices.Delete(p.nodes, i, i+1)
	}
	one.bytes += n
	p.nodes = slices.Insert(p.nodes, 0, one)
	p.nodes = p.nodes[:min(len(p.nodes), spreadNodes)]
}

// holders returns who may be asked for a pack of a size instead of this node:
// nodes of the asker's site, and with any all of them.
func (s *spread) holders(id pack.ID, size int64, asker authority.Name, any bool) (nodes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.packs[id]
	if e == nil || size < spreadBytes {
		return nil
	}
	for _, n := range e.Value.(*spreadPack).nodes {
		if n.bytes < size || n.Node == asker.Node || !any && n.Site != asker.Site {
			continue
		}
		if n.Site == asker.Site {
			nodes = slices.Insert(nodes, 0, n.Node)
		} else {
			nodes = append(nodes, n.Node)
		}
	}
	return nodes[:min(len(nodes), maxHolders)]
}
