package far

import (
	"cmp"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far/farpb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// recordVersion is the highest version of instance records that is read.
const recordVersion = 1

const (
	maxUID      = 64
	maxRecorded = 1 << 10 // bytes of what a record says beside UIDs
)

// gathering is a manifest as it comes, checked as far as it has.
type gathering struct {
	node   string
	want   Want
	m      *Manifest
	packs  map[pack.ID]int
	keys   map[[16]byte]seal.Key
	chunks int
}

func newGathering(node string, want Want) *gathering {
	return &gathering{
		node: node, want: want, m: &Manifest{Node: cmp.Or(want.Origin, node), Study: want.Study, Series: want.Series},
		packs: map[pack.ID]int{}, keys: map[[16]byte]seal.Key{},
	}
}

// complete reports whether the wanted instance is here.
func (g *gathering) complete() bool { return len(g.m.Instances) > 0 }

// soFar is what has come, as a manifest of its own.
func (g *gathering) soFar() *Manifest {
	m := *g.m
	m.Packs, m.Instances = slices.Clone(m.Packs), slices.Clone(m.Instances[:1])
	return &m
}

// part takes a part in.
func (g *gathering) part(raw []byte, self Self) error {
	var part farpb.Part
	if err := parse(raw, &part); err != nil {
		return err
	}
	for _, k := range part.Keys {
		if err := g.key(k, self); err != nil {
			return err
		}
	}
	if len(part.Packs) > maxPacks-len(g.m.Packs) || len(part.Instances) > maxInstances-len(g.m.Instances) {
		return errManifest("a manifest of over %d packs or %d instances", maxPacks, maxInstances)
	}
	if len(part.Instances) == 0 {
		return errManifest("a part without instances")
	}
	if sop := part.Instances[0].GetRecord().GetSop(); !g.complete() && g.want.SOP != "" && sop != g.want.SOP {
		return errManifest("another instance than was asked for comes first")
	}
	for _, in := range part.Instances {
		if err := g.name(in.GetRecord()); err != nil {
			return err
		}
	}
	for _, p := range part.Packs {
		if err := g.pack(p); err != nil {
			return err
		}
	}
	for _, in := range part.Instances {
		if err := g.instance(in); err != nil {
			return err
		}
	}
	return nil
}

// key opens a study key.
func (g *gathering) key(k *farpb.Key, self Self) error {
	if len(k.Id) != len([16]byte{}) {
		return errManifest("a key's id of %d bytes", len(k.Id))
	}
	id := [16]byte(k.Id)
	if _, ok := g.keys[id]; ok || len(g.keys) == maxPacks {
		return errManifest("a key twice, or too many")
	}
	opened, err := self.Unseal(keyInfo(id, self.ID()), k.Sealed)
	if err != nil {
		return errManifest("a key that does not open: %w", err)
	}
	if len(opened) != len(seal.Key{}) {
		return errManifest("a key of %d bytes", len(opened))
	}
	g.keys[id] = seal.Key(opened)
	return nil
}

// name checks that an instance is of the series that was asked for; if that was
// by an instance, the first tells which it is.
func (g *gathering) name(r *archivepb.Instance) error {
	if r == nil {
		return errManifest("an instance without a record")
	}
	if r.Version > recordVersion {
		return fault.New(fault.Unsupported, "far: a record of version %d, newer than %d", r.Version, recordVersion)
	}
	if !validUID(r.Study) || !validUID(r.Series) || !validUID(r.Sop) || !validUID(r.Class) || !validUID(r.Syntax) {
		return errManifest("an instance without UIDs")
	}
	if g.m.Series == "" {
		g.m.Study, g.m.Series = r.Study, r.Series
	}
	if r.Study != g.m.Study || r.Series != g.m.Series {
		return errManifest("an instance of another series")
	}
	return nil
}

// validUID takes what the archive takes: printable, no more than 64 characters.
func validUID(uid string) bool {
	return uid != "" && len(uid) <= maxUID && !strings.ContainsFunc(uid, func(c rune) bool { return c <= ' ' || c > '~' })
}

// pack takes a pack in.
func (g *gathering) pack(p *farpb.Pack) error {
	if len(p.Id) != len(pack.ID{}) || len(p.Root) != 32 || len(p.Key) != 16 {
		return errManifest("a pack without id, root or key")
	}
	one := Pack{
		ID: pack.ID(p.Id), Study: g.m.Study, Series: g.m.Series, Bytes: p.Bytes, Plaintext: p.Plaintext,
		Manifest: p.Manifest, Root: [32]byte(p.Root), KeyID: [16]byte(p.Key), Instances: p.Instances,
	}
	key, ok := g.keys[one.KeyID]
	if !ok {
		return errManifest("a pack whose key did not come")
	}
	one.Key = key
	if one.Plaintext < 0 || one.Plaintext > maxObject || one.Bytes != seal.Size(one.Plaintext) ||
		one.Manifest < 0 || one.Manifest > one.Plaintext {
		return errManifest("a pack of %d bytes that holds %d", one.Bytes, one.Plaintext)
	}
	if _, ok := g.packs[one.ID]; ok {
		return errManifest("a pack twice")
	}
	g.packs[one.ID] = len(g.m.Packs)
	g.m.Packs = append(g.m.Packs, one)
	return nil
}

// instance takes an instance in, whose name was checked.
func (g *gathering) instance(in *farpb.Instance) error {
	r := in.Record
	if len(r.Hash) != 32 || r.Bytes < 0 || r.Bytes > maxObject || r.State != archivepb.State_CANONICAL {
		return errManifest("an instance that is none")
	}
	for _, s := range []string{r.CallingAe, r.Remote, r.User, r.Issuer, r.Charset} {
		if len(s) > maxRecorded {
			return errManifest("a record with a text of %d bytes", len(s))
		}
	}
	if len(in.Header) > maxHeader {
		return errManifest("a header of %d bytes", len(in.Header))
	}
	one := Instance{Record: r, Header: in.Header, Pack: int(in.Pack) - 1, Lost: in.Lost}
	if one.Pack >= len(g.m.Packs) || one.Pack < 0 && len(in.Chunks) > 0 || one.Pack >= 0 && one.Lost {
		return errManifest("an instance in a pack that did not come")
	}
	if one.Pack >= 0 {
		if g.chunks += len(in.Chunks); g.chunks > maxChunks {
			return errManifest("over %d chunks", maxChunks)
		}
		var err error
		if one.Chunks, err = chunksOf(in.Chunks, r.Bytes, g.m.Packs[one.Pack].Manifest); err != nil {
			return err
		}
	}
	g.m.Instances = append(g.m.Instances, one)
	return nil
}

// chunksOf checks that chunks are an instance, and lie in the pack's instances.
func chunksOf(from []*archivepb.Chunk, size, within int64) ([]pack.Chunk, error) {
	chunks := make([]pack.Chunk, len(from))
	next := int64(0)
	for i, c := range from {
		if c.Offset != next || c.Length < 1 || c.Length > pack.ChunkBytes || c.Compressed < 1 || c.Compressed > c.Length ||
			c.At < 0 || c.At > within-c.Compressed || c.Filter > 0xFF {
			return nil, errManifest("an impossible chunk at %d", c.At)
		}
		next += c.Length
		chunks[i] = pack.Chunk{Offset: c.Offset, Length: c.Length, At: c.At, Compressed: c.Compressed, Filter: byte(c.Filter)}
		if s := c.Samples; s != nil {
			chunks[i].Samples = pack.Samples{
				Offset: s.Offset, Length: s.Length, Width: int(s.Width),
				Bytes: int(s.Bytes), Stride: int(s.Stride), BigEndian: s.BigEndian,
			}
		}
	}
	if next != size {
		return nil, errManifest("an instance of %d bytes of which %d are in its pack", size, next)
	}
	return chunks, nil
}

// end closes the manifest: all of it came, and its instances are in order.
func (g *gathering) end(body []byte) (*Manifest, error) {
	var end farpb.End
	if err := parse(body, &end); err != nil {
		return nil, err
	}
	if !g.complete() || int(end.Packs) != len(g.m.Packs) || int(end.Instances) != len(g.m.Instances) {
		return nil, errManifest("%d packs and %d instances were told of, %d and %d came",
			end.Packs, end.Instances, len(g.m.Packs), len(g.m.Instances))
	}
	m := *g.m
	m.Packs, m.Instances = g.m.Packs, slices.Clone(g.m.Instances)
	slices.SortStableFunc(m.Instances, func(a, b Instance) int { return strings.Compare(a.Record.Sop, b.Record.Sop) })
	for i := range m.Instances[1:] {
		if m.Instances[i].Record.Sop == m.Instances[i+1].Record.Sop {
			return nil, errManifest("an instance twice")
		}
	}
	return &m, nil
}
