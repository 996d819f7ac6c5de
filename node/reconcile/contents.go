package reconcile

import (
	"context"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
)

// Archive is what is stored here. *archive.Archive is one.
type Archive interface {
	archive.Reads
	// Record returns the record of an instance.
	Record(number uint64) (*archivepb.Instance, error)
}

// OwnOf is [Options.Own] of an archive.
func OwnOf(a Archive) func(ctx context.Context, study, series string) (map[string]Content, error) {
	return func(ctx context.Context, study, series string) (map[string]Content, error) {
		all := map[string]Content{}
		for ref, err := range a.Select(ctx, study, series, "") {
			if err != nil {
				return nil, err
			}
			record, err := a.Record(ref.Number)
			if fault.Is(err, fault.NotFound) {
				continue // deleted meanwhile
			}
			if err != nil {
				return nil, err
			}
			if err := put(all, record); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

// Manifests asks nodes what they hold. *far.Client is one.
type Manifests interface {
	Series(ctx context.Context, node, study, series string) (*far.Manifest, error)
}

// OtherOf is [Options.Other] by the manifests of nodes.
func OtherOf(m Manifests) func(ctx context.Context, node, study, series string) (map[string]Content, error) {
	return func(ctx context.Context, node, study, series string) (map[string]Content, error) {
		manifest, err := m.Series(ctx, node, study, series)
		if err != nil {
			return nil, err
		}
		all := map[string]Content{}
		for i := range manifest.Instances {
			if err := put(all, manifest.Instances[i].Record); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

func put(all map[string]Content, r *archivepb.Instance) error {
	if len(r.Hash) != len(Content{}.Hash) {
		return fault.New(fault.Corrupt, "an instance's record with a hash of %d bytes", len(r.Hash))
	}
	all[r.Sop] = Content{Hash: [32]byte(r.Hash), Syntax: r.Syntax}
	return nil
}
