package archive

import (
	"context"
	"io"
	"iter"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

var _ far.Source = (*Archive)(nil)

// Holdings implements [far.Source].
func (a *Archive) Holdings(ctx context.Context, study, series, sop string) iter.Seq2[far.Holding, error] {
	return func(yield func(far.Holding, error) bool) {
		for ref, err := range a.Select(ctx, study, series, sop) {
			var h far.Holding
			if err == nil {
				h, err = a.holding(ctx, ref.Number)
			}
			if ref.SOP != "" && fault.Is(err, fault.NotFound) {
				continue // dropped since it was listed
			}
			if !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// holding reads what a peer is told of an instance.
func (a *Archive) holding(ctx context.Context, number uint64) (far.Holding, error) {
	r, location, err := a.held(number)
	if err != nil {
		return far.Holding{}, err
	}
	if r == nil {
		return far.Holding{}, errNoNumber(number)
	}
	record, ok, err := a.headerRecord(number)
	if err != nil || !ok { // rotten, or being mended
		_, record, err = a.readHeader(ctx, r)
		if fault.Is(err, fault.Corrupt) {
			record, err = nil, nil // its bytes are rotten too: that is its own trouble, not its series'
		}
		if err != nil {
			return far.Holding{}, err
		}
	}
	return far.Holding{Record: r, Header: record, Location: location}, nil
}

func errNoNumber(number uint64) error {
	return fault.New(fault.NotFound, "no instance numbered %d", number)
}

// Ciphertext implements [far.Source]: fault.NotFound for a pack that was evicted too.
func (a *Archive) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, nil, err
	}
	if p.Lost {
		return nil, nil, fault.New(fault.Corrupt, "the pack is lost to a rotten or missing table")
	}
	if p.Evicted {
		return nil, nil, fault.New(fault.NotFound, "the pack is evicted: it is read from its shards")
	}
	return p, a.bulk.Reader(packRef(p)), nil
}

// StudyKey implements [far.Source].
func (a *Archive) StudyKey(id [16]byte) (seal.Key, error) { return a.o.Keys.Key(id) }

// Stored implements [far.Source].
func (a *Archive) Stored(_ context.Context, number uint64, sop string) (*archivepb.Instance, io.ReaderAt, func() error, error) {
	r, ok, err := a.instance(number)
	if err != nil {
		return nil, nil, nil, err
	}
	if !ok || r.Sop != sop || r.State != archivepb.State_CANONICAL || a.covered(r) {
		return nil, nil, nil, errNoNumber(number)
	}
	bytes, done, err := a.bytesOf(r)
	return r, bytes, done, err
}
