package layout

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"

	"pelago/cluster/fault"
)

// MaxBytes bounds an encoded layout, which travels in a decision of 256 KiB.
const MaxBytes = 200 << 10

const formatVersion = 1

// AppendBinary appends the layout in its one form (docs/formats/layout.md), of at most
// [MaxBytes]. The error is nil.
func (l *Layout) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, formatVersion)
	b = binary.AppendUvarint(b, l.Version)
	b = append(b, byte(l.Shards), byte(bits.Len(uint(l.Groups))-1))
	b = binary.AppendUvarint(b, uint64(siteCount(l.Nodes)))
	for left := l.Nodes; len(left) > 0; {
		there := 1 // nodes of the first one's site
		for there < len(left) && left[there].Site == left[0].Site {
			there++
		}
		b = appendText(b, left[0].Site)
		b = binary.AppendUvarint(b, uint64(there))
		for _, node := range left[:there] {
			b = appendText(b, node.ID)
			b = binary.AppendUvarint(b, uint64(node.Pledge))
		}
		left = left[there:]
	}
	return appendRows(b, l.rows, l.indexBits()), nil
}

// MarshalBinary is AppendBinary to a new slice.
func (l *Layout) MarshalBinary() ([]byte, error) { return l.AppendBinary(nil) }

// indexBits is the length of a number of a node in a row.
func (l *Layout) indexBits() int { return bits.Len(uint(len(l.Nodes) - 1)) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendRows packs numbers of so many bits, highest bit first. They end on a byte,
// since a multiple of 1,024 of them do.
func appendRows(b []byte, rows []int16, each int) []byte {
	held, n := uint64(0), 0
	for _, v := range rows {
		held, n = held<<each|uint64(v), n+each
		for ; n >= 8; n -= 8 {
			b = append(b, byte(held>>(n-8)))
		}
	}
	return b
}

// size is the length of the encoded form.
func (l *Layout) size() int {
	nodes := *l
	nodes.rows = nil
	b, _ := nodes.AppendBinary(nil)
	return len(b) + l.rowBytes()
}

func (l *Layout) rowBytes() int { return l.Groups * l.width * l.indexBits() / 8 }

// Parse reads an encoded layout. fault.Unsupported is for a newer version of the
// format, and fault.Invalid for everything that AppendBinary does not write: bytes
// that are too few or too many or another spelling, nodes out of order or bounds, a
// site twice in a row.
func Parse(b []byte) (*Layout, error) {
	if len(b) == 0 || len(b) > MaxBytes {
		return nil, fault.New(fault.Invalid, "layout: %d bytes are no layout", len(b))
	}
	if b[0] != formatVersion {
		return nil, fault.New(fault.Unsupported, "layout: format version %d", b[0])
	}
	d := &decoder{b: b[1:]}
	l := d.head()
	if d.bad {
		return nil, fault.New(fault.Invalid, "layout: no layout, or cut short")
	}
	if err := checkNodes(l.Nodes); err != nil {
		return nil, err
	}
	sites := siteCount(l.Nodes)
	l.width = min(sites, MaxRow)
	if l.Version == 0 || l.Shards < 1 || l.Shards > l.width || l.Groups != FewGroups && l.Groups != ManyGroups {
		return nil, fault.New(fault.Invalid, "layout: version %d, %d shards and %d groups on %d sites", l.Version, l.Shards, l.Groups, sites)
	}
	if len(d.b) != l.rowBytes() {
		return nil, fault.New(fault.Invalid, "layout: %d bytes of rows, not %d", len(d.b), l.rowBytes())
	}
	if err := l.parseRows(d.b); err != nil {
		return nil, err
	}
	if again, _ := l.AppendBinary(make([]byte, 0, len(b))); !bytes.Equal(again, b) {
		return nil, fault.New(fault.Invalid, "layout: another spelling")
	}
	return l, nil
}

// parseRows reads rows of the right length.
func (l *Layout) parseRows(b []byte) error {
	each := l.indexBits()
	l.rows = make([]int16, l.Groups*l.width)
	held, n := uint64(0), 0
	for c := range l.rows {
		for ; n < each; n += 8 {
			held, b = held<<8|uint64(b[0]), b[1:]
		}
		n -= each
		v := int(held >> n & (1<<each - 1))
		if v >= len(l.Nodes) {
			return fault.New(fault.Invalid, "layout: node %d of %d in group %d", v, len(l.Nodes), c/l.width)
		}
		l.rows[c] = int16(v)
		for other := c - c%l.width; other < c; other++ {
			if l.Nodes[l.rows[other]].Site == l.Nodes[v].Site {
				return fault.New(fault.Invalid, "layout: a site is twice in the row of group %d", c/l.width)
			}
		}
	}
	return nil
}

// decoder takes fields from b, until one is not there: then bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) head() *Layout {
	l := &Layout{Version: d.uvarint(math.MaxUint64)}
	l.Shards = int(d.byte())
	l.Groups = 1 << (d.byte() % 32)
	for range d.uvarint(MaxSites) {
		site := d.text(maxSite)
		nodes := d.uvarint(MaxNodes)
		if d.bad || nodes == 0 || len(l.Nodes) > MaxNodes {
			d.bad = true
			return l
		}
		for range nodes {
			id := d.text(maxID)
			l.Nodes = append(l.Nodes, Node{ID: id, Site: site, Pledge: int64(d.uvarint(MaxPledge))})
			if d.bad {
				return l
			}
		}
	}
	return l
}

// uvarint takes a number of at most so much.
func (d *decoder) uvarint(most uint64) uint64 {
	x, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || x > most {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) byte() byte {
	if d.bad || len(d.b) == 0 {
		d.bad = true
		return 0
	}
	x := d.b[0]
	d.b = d.b[1:]
	return x
}

func (d *decoder) text(most uint64) string {
	n := d.uvarint(most)
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
