package placement

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/member"
	"pelago/shard"
)

// operator is who changed something where nobody had to say who they are: a record
// without a name is the network's own.
const operator = "operator"

func named(by string) string {
	if by = strings.ToValidUTF8(by, ""); by == "" {
		return operator
	}
	return strings.ToValidUTF8(by[:min(len(by), maxText)], "")
}

// Lose declares nodes lost in an operator's name, or with back no longer so, and
// returns their ids: the node of an id, or all of a site by its name. It deletes
// nothing: what they held is made anew elsewhere, and counts again once they are back.
// fault.NotFound for who is no member, fault.Conflict for this node, which answers,
// fault.Invalid for a witness, which holds nothing; fault.Unavailable without a
// majority.
func (p *Placement) Lose(ctx context.Context, node, site string, back bool, by string) ([]string, error) {
	var nodes []string
	for _, m := range p.now.Load().members {
		switch {
		case site == "" && m.Node == node && m.Witness:
			return nil, fault.New(fault.Invalid, "node %s is a witness: it holds nothing that could be lost", node)
		case m.Witness, site == "" && m.Node != node, site != "" && m.Site != site:
			continue
		case !back && m.Node == p.o.Self:
			return nil, fault.New(fault.Conflict, "this node answers, so it is not lost: ask a node that stays, or drain this one")
		}
		nodes = append(nodes, m.Node)
	}
	if len(nodes) == 0 {
		return nil, fault.New(fault.NotFound, "the network has no such node: %s", cmp.Or(site, node))
	}
	as := &loss{By: named(by)}
	if back {
		as = nil
	}
	for left := nodes; len(left) > 0; left = left[min(len(left), maxNamed):] {
		if err := p.declare(ctx, left[:min(len(left), maxNamed)], as); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// SetCode sets the code of new stripes, and how many sites the network survives by
// it; 0: one fewer than there are parity shards, but at least one. It then stays until
// it is set again, and is the only way in which either falls. fault.Invalid for a code
// that survives less than it says or nothing, or that needs more sites than hold
// shards.
func (p *Placement) SetCode(ctx context.Context, c shard.Code, survives int, by string) error {
	if err := c.Check(); err != nil {
		return err
	}
	if survives == 0 {
		survives = max(1, c.M-1)
	}
	if c.M < 1 || survives < 1 || survives > c.M {
		return fault.New(fault.Invalid, "placement: stripes of %s survive the loss of 1 to %d sites, not of %d", c, c.M, survives)
	}
	return p.setCode(ctx, func(sites int) (*code, error) {
		if c.N() > sites {
			return nil, fault.New(fault.Invalid, "placement: stripes of %s need %d sites, and %d hold shards", c, c.N(), sites)
		}
		return &code{Version: recordVersion, K: c.K, M: c.M, Survives: survives, Sites: sites, By: named(by)}, nil
	})
}

// AutoCode has the code chosen by rule: now for the sites that hold shards, and better
// ones as sites join. In a network of one site there is none then.
func (p *Placement) AutoCode(ctx context.Context) error {
	return p.setCode(ctx, func(sites int) (*code, error) {
		if sites < 2 {
			return nil, nil
		}
		c, survives := shard.Default(sites)
		return &code{Version: recordVersion, K: c.K, M: c.M, Survives: survives, Sites: sites}, nil
	})
}

// setCode sets what choose makes of the number of sites that hold shards; nil: no code.
func (p *Placement) setCode(ctx context.Context, choose func(sites int) (*code, error)) error {
	return p.make(ctx, func(s *member.Step) error {
		f, err := p.read()
		if err != nil {
			return err
		}
		if f.foreign {
			return fault.New(fault.Unsupported, "placement: a newer program decides of the layout in this network: ask one of its nodes")
		}
		c, err := choose(sites(f.holders()))
		if err != nil || c == nil && f.codeRaw == nil {
			return err
		}
		s.Given(kindCode, nameCode, f.codeRaw)
		if c == nil {
			s.Put(kindCode, nameCode, nil)
			return nil
		}
		s.Put(kindCode, nameCode, encode(c))
		return nil
	})
}

// Status is what operators need to know.
type Status struct {
	Version uint64 // of the layout by which shards belong; 0: there is none
	From    uint64 // the version that it is changed from; 0: no change is under way
	Code    shard.Code
	// Survives is the number of sites that the network survives by its code.
	Survives int
	By       string // the operator who set the code; "": it was chosen by rule
	Sites    int    // that hold shards
	// Waiting are the nodes that have not yet all that the layout gives them, nor
	// given up the rest: a change under way ends when there is none.
	Waiting []string
	Lost    []Loss
	// Capacity is that of the layout; zero without one.
	Capacity layout.Capacity
	// Limits says what keeps the network from surviving or holding more, in words.
	Limits []string
}

// Loss is a node that is declared lost.
type Loss struct {
	Node, Site string
	By         string // the operator; "": the network, by its absence
	Since      time.Time
}

// Status returns it.
func (p *Placement) Status() Status { return p.now.Load().status() }

func (f *facts) status() Status {
	holders := f.holders()
	s := Status{Sites: sites(holders)}
	if f.code != nil {
		s.Code, s.Survives, s.By = f.code.code(), f.code.Survives, f.code.By
	}
	for _, m := range f.members {
		if l, lost := f.lost[m.Node]; lost {
			s.Lost = append(s.Lost, Loss{Node: m.Node, Site: m.Site, By: l.By, Since: l.Since})
		}
	}
	l := f.newest()
	if l == nil {
		return s
	}
	s.Version, s.Capacity = l.Version, l.Capacity()
	if f.changing() {
		s.From = f.layouts[len(f.layouts)-2].Version
	}
	for _, m := range f.waiting() {
		s.Waiting = append(s.Waiting, m.Node)
	}
	s.Limits = f.limits(s)
	return s
}

// limits says what limits the network.
func (f *facts) limits(s Status) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if s.Code.K > 0 && s.Sites < s.Code.N() {
		add("%d sites hold shards, and stripes of %s need %d: the shards beyond wait for sites", s.Sites, s.Code, s.Code.N())
	}
	if s.Code.K > 0 && s.Sites < s.Code.K+s.Survives {
		add("what is stored now is not reported safe before %d sites hold shards", s.Code.K+s.Survives)
	}
	// Equal disks are never quite equal: a twentieth of the pledges is not worth a word.
	if c := s.Capacity; c.EverySite && c.Bytes < c.Pledged-c.Pledged/20 {
		add("each site holds a shard of every stripe, so the smallest pledge is the limit: that of node %s at %s", c.Limit.ID, c.Limit.Site)
	}
	if f.foreign {
		add("the layout was written by a newer program: this node changes nothing of it")
	}
	return all
}

// Holding is who is declared lost of the members, and what each node pledges.
func (p *Placement) Holding() (lost map[string]bool, pledges map[string]int64) {
	v := p.now.Load()
	lost = map[string]bool{}
	for node := range v.lost {
		lost[node] = true
	}
	return lost, maps.Clone(v.pledges)
}
