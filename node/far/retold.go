package far

import (
	"context"
	"io"
	"iter"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// retold is a source of what another node told this one: while that is away, what
// was opened here opens elsewhere too. Copies of packs come from here, what is not
// packed from nowhere.
type retold struct {
	Source
	m     *Manifest
	packs map[pack.ID]*Pack
	keys  map[[16]byte]seal.Key
}

func newRetold(from Source, m *Manifest) *retold {
	r := &retold{Source: from, m: m, packs: map[pack.ID]*Pack{}, keys: map[[16]byte]seal.Key{}}
	for i := range m.Packs {
		p := &m.Packs[i]
		r.packs[p.ID], r.keys[p.KeyID] = p, p.Key
	}
	return r
}

// Holdings implements [Source].
func (r *retold) Holdings(ctx context.Context, _, _, sop string) iter.Seq2[Holding, error] {
	return func(yield func(Holding, error) bool) {
		found := false
		for i := range r.m.Instances {
			in := &r.m.Instances[i]
			if sop != "" && in.Record.Sop != sop {
				continue
			}
			found = true
			if ctx.Err() != nil {
				yield(Holding{}, context.Cause(ctx))
				return
			}
			at := &archivepb.Location{}
			if in.Pack >= 0 {
				at.Pack, at.Chunks = r.m.Packs[in.Pack].ID[:], archivepb.Chunks(in.Chunks)
			}
			if !yield(Holding{Record: in.Record, Header: in.Header, Location: at}, nil) {
				return
			}
		}
		if !found {
			yield(Holding{}, fault.New(fault.NotFound, "far: no such instance was told of"))
		}
	}
}

// Ciphertext implements [Source]. Of a pack of which no copy is here the reader is
// nil.
func (r *retold) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	_, bytes, err := r.Source.Ciphertext(id)
	p, ok := r.packs[id]
	if !ok {
		return nil, nil, fault.New(fault.NotFound, "far: no such pack was told of")
	}
	if err != nil { // lost here, or never read whole
		bytes = nil
	}
	return p.Record(), bytes, nil
}

// StudyKey implements [Source].
func (r *retold) StudyKey(id [16]byte) (seal.Key, error) {
	key, ok := r.keys[id]
	if !ok {
		return seal.Key{}, fault.New(fault.NotFound, "far: no such key was told of")
	}
	return key, nil
}

// Stored implements [Source].
func (r *retold) Stored(context.Context, uint64, string) (*archivepb.Instance, io.ReaderAt, func() error, error) {
	return nil, nil, nil, fault.New(fault.NotFound, "far: what is not packed is where it was stored only")
}
