package engine

import (
	"context"
	"errors"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
)

// errGone says that an instance was deleted while it was looked at.
var errGone = errors.New("query: instance is gone")

// readHeader reads an instance's header: errGone when the instance is no longer
// there.
func (t *scan) readHeader(m *matched) error {
	if m.header != nil {
		return nil
	}
	h, err := t.headerOf(m)
	if fault.Is(err, fault.NotFound) {
		return errGone
	}
	if err != nil {
		return err
	}
	m.header = h
	return nil
}

func (t *scan) headerOf(m *matched) (*dicom.Header, error) {
	if m.instance.Origin == "" {
		return t.engine.header(t.ctx, m.instance.Number)
	}
	return t.remoteHeader(m)
}

// header reads a header of this node's own under the gate.
func (e *Engine) header(ctx context.Context, number uint64) (*dicom.Header, error) {
	if err := e.gate.Acquire(ctx, 1); err != nil {
		return nil, fault.New(fault.KindOf(err), "query: %w", err)
	}
	defer e.gate.Release(1)
	return e.instances.Header(ctx, number)
}
