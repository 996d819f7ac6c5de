package far

import (
	"encoding/hex"
	"io"
	"net/url"
	"slices"
	"strconv"

	"pelago/shard/pack"
	"pelago/shard/seal"
)

// objectKey names what is read: a pack, which is the same at every node, or an
// instance in the staging of one.
type objectKey struct {
	pack   pack.ID
	node   string
	number uint64
	hash   [32]byte
}

// object is a pack, or a staged instance, of which something is in memory, or
// coming. Client.mu guards what is below the blank line.
type object struct {
	key      objectKey
	path     string // of its ranges
	size     int64
	unit     int64 // bytes: of a sealed segment, or of plaintext
	units    int
	pack     Pack           // of a pack
	verifier *seal.Verifier // of a pack; nil: staged

	blocks     map[int]*block
	here       int   // units
	resident   int64 // bytes of blocks
	fetches    int   // under way
	nodes      []string
	refused    map[string]bool // nodes that do not have it, or sent other bytes
	completing bool
	offered    bool      // to the Keeper
	came       *arrivals // of a pack that is too large for memory; nil: of others
	followed   bool      // a follower is at it
}

// maxNodes bounds whom an object is asked of: some who keep copies, its node, and its
// shards.
const maxNodes = 18

func packObject(p Pack) (*object, error) {
	v, err := seal.NewVerifier(p.Bytes, seal.PackKey(p.Key, p.ID))
	if err != nil {
		return nil, err
	}
	o := newObject(objectKey{pack: p.ID}, p.Bytes, segmentBytes)
	o.path, o.pack, o.verifier = pathPack+hex.EncodeToString(p.ID[:]), p, v
	if o.size > maxResident {
		o.came = &arrivals{units: map[int]uint64{}}
	}
	return o, nil
}

func stagedKey(node string, in *Instance) objectKey {
	return objectKey{node: node, number: in.Record.Number, hash: [32]byte(in.Record.Hash)}
}

func stagedObject(node string, in *Instance) *object {
	o := newObject(stagedKey(node, in), in.Record.Bytes, stagedBytes)
	o.path = pathStaged + strconv.FormatUint(in.Record.Number, 10) + "?sop=" + url.QueryEscape(in.Record.Sop)
	return o
}

func newObject(key objectKey, size, unit int64) *object {
	units := int((size + unit - 1) / unit)
	return &object{
		key: key, size: size, unit: unit, units: units,
		blocks: map[int]*block{}, refused: map[string]bool{},
	}
}

// coming returns the fetch that brings a unit.
func (o *object) coming(unit int) *fetch {
	if b := o.blocks[unit/unitsAtOnce]; b != nil {
		return b.by[unit%unitsAtOnce]
	}
	return nil
}

// gaps yields the runs of units in [from, to) that are neither here nor coming, of
// at most maxFetch bytes each, until yield returns false.
func (o *object) gaps(from, to int, yield func(from, to int) bool) {
	most := int(maxFetch / o.unit)
	start := -1 // of the run at hand
	for u := from; u < to; {
		b := o.blocks[u/unitsAtOnce]
		end := min(to, (u/unitsAtOnce+1)*unitsAtOnce) // of what the block says
		if b != nil && b.taken == 1<<unitsAtOnce-1 && start < 0 {
			u = end
			continue
		}
		for ; u < end; u++ {
			missing := b == nil || b.taken&(1<<(u%unitsAtOnce)) == 0
			if start >= 0 && (!missing || u-start == most) {
				if !yield(start, u) {
					return
				}
				start = -1
			}
			if missing && start < 0 {
				start = u
			}
		}
	}
	if start >= 0 {
		yield(start, to)
	}
}

// ask adds nodes to those that the object is asked of, the new ones in front if
// first.
func (o *object) ask(nodes []string, first bool) {
	for i, n := range nodes {
		switch {
		case n == "" || slices.Contains(o.nodes, n) || len(o.nodes) == maxNodes:
		case first:
			o.nodes = slices.Insert(o.nodes, min(i, len(o.nodes)), n)
		default:
			o.nodes = append(o.nodes, n)
		}
	}
}

// objectLocked returns an object, which make makes if nothing of it is here.
func (c *Client) objectLocked(key objectKey, make func() (*object, error)) (*object, error) {
	if c.closed {
		return nil, errClosed
	}
	if o := c.objects[key]; o != nil {
		return o, nil
	}
	o, err := make()
	if err != nil {
		return nil, err
	}
	c.objects[key] = o
	return o, nil
}

// forgetLocked drops an object of which nothing is here or coming.
func (c *Client) forgetLocked(o *object) {
	if o.resident == 0 && o.fetches == 0 && !o.followed && c.objects[o.key] == o {
		delete(c.objects, o.key)
	}
}

// pinned is an object whose blocks are all here and pinned.
type pinned struct{ o *object }

// ReadAt implements io.ReaderAt.
func (p pinned) ReadAt(b []byte, off int64) (int, error) {
	full := unitsAtOnce * p.o.unit
	done := 0
	for done < len(b) && off < p.o.size {
		n := copy(b[done:], p.o.blocks[int(off/full)].mem[off%full:])
		done, off = done+n, off+int64(n)
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}
