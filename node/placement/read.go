package placement

import (
	"bytes"
	"slices"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/member"
	"pelago/shard"
)

// read reads the records. One that does not parse is told of once and counts for
// little: a pledge as the newest layout has it, a code as the rule has it, a node's
// completion as none; who is declared lost is so whatever the record holds.
func (p *Placement) read() (*facts, error) {
	f := &facts{pledges: map[string]int64{}, lost: map[string]loss{}, placed: map[string]uint64{}}
	for _, m := range p.o.Members.Members() {
		if len(m.Public) > 0 { // of a hint nobody knows what it is
			f.members = append(f.members, m)
		}
	}
	f.removed = p.o.Members.Removed()
	if err := p.readLayouts(f); err != nil {
		return nil, err
	}
	if err := p.readCode(f); err != nil {
		return nil, err
	}
	err := p.each(kindPledge, func(node string, value []byte) error {
		one, err := parsePledge(value)
		if err == nil {
			f.pledges[node] = one.Bytes
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = p.each(kindLost, func(node string, value []byte) (err error) {
		f.lost[node], err = parseLoss(value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, p.each(kindPlaced, func(node string, value []byte) error {
		one, err := parsePlaced(value)
		if err == nil {
			f.placed[node] = one.Layout
		}
		return err
	})
}

// each visits the records of a kind.
func (p *Placement) each(kind string, visit func(name string, value []byte) error) error {
	records, err := p.o.Catalog.Registry(kind)
	if err != nil {
		return readError(err)
	}
	for name, value := range records {
		if err := visit(name, value); err != nil {
			p.once(kind+" "+name, "a record of the registry does not parse", "record", kind, "name", name, "error", err)
		}
	}
	return nil
}

func readError(err error) error {
	return fault.New(fault.KindOf(err), "placement: read the registry: %w", err)
}

// readLayouts reads all layouts that parse, ascending. There are two at most, that
// follow each other, as all changes are made; of others the newest two are valid.
func (p *Placement) readLayouts(f *facts) error {
	records, err := p.o.Catalog.Registry(layout.Kind)
	if err != nil {
		return readError(err)
	}
	f.spoilt = map[string][]byte{}
	for name, value := range records {
		l, err := p.parseLayout(value)
		if err == nil && layout.RecordName(l.Version) != name {
			err = fault.New(fault.Invalid, "placement: layout %d under another name", l.Version)
		}
		switch {
		case err == nil:
			f.layouts = append(f.layouts, written{l, value})
			continue
		case fault.Is(err, fault.Unsupported):
			f.foreign = true
		default:
			f.spoilt[name] = value
		}
		p.once("layout "+name, "a layout does not parse: what it says of where shards belong is not known here", "name", name, "error", err)
	}
	slices.SortFunc(f.layouts, byVersion)
	p.remember(f.layouts)
	return nil
}

// parseLayout parses a layout, or finds it among those that were read last: a layout
// is large, and is read again at every change of any record.
func (p *Placement) parseLayout(value []byte) (*layout.Layout, error) {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	for _, w := range known {
		if bytes.Equal(w.raw, value) {
			return w.Layout, nil
		}
	}
	return layout.Parse(value)
}

func (p *Placement) remember(layouts []written) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = layouts
}

// readCode reads the code. Where the record says none, that of the rule is meant, so
// that nobody takes the network for one that survives nothing.
func (p *Placement) readCode(f *facts) error {
	value, err := p.o.Catalog.RegistryRecord(kindCode, nameCode)
	if err != nil {
		return readError(err)
	}
	if value == nil {
		return nil
	}
	f.codeRaw = value
	c, err := parseCode(value)
	if err == nil {
		f.code = &c
		return nil
	}
	f.foreign, f.unread = f.foreign || fault.Is(err, fault.Unsupported), true
	p.once("code", "the network's code does not parse: it is taken to be that of the rule", "error", err)
	width := 2
	if l := f.newest(); l != nil {
		width = max(width, siteCount(l.Nodes))
	}
	made, survives := shard.Default(width)
	f.code = &code{Version: recordVersion, K: made.K, M: made.M, Survives: survives, Sites: width}
	return nil
}

func siteCount(nodes []layout.Node) int {
	seen := map[string]bool{}
	for _, n := range nodes {
		seen[n.Site] = true
	}
	return len(seen)
}

// Members are the members of the network. *member.Registry has them.
type Members interface {
	// Members are those in good standing, Removed those that are none any more.
	Members() []member.Member
	Removed() []member.Member
	// Changed is closed when either answers otherwise than now.
	Changed() <-chan struct{}
}
