package engine

import (
	"errors"

	"pelago/cluster/fault"
)

// errGone says that an instance was deleted while it was looked at.
var errGone = errors.New("query: instance is gone")

// readHeader reads an instance's header under the gate: errGone when the
// instance is no longer there.
func (t *scan) readHeader(m *matched) error {
	if m.header != nil {
		return nil
	}
	if err := t.engine.gate.Acquire(t.ctx, 1); err != nil {
		return err
	}
	h, err := t.engine.instances.Header(t.ctx, m.instance.Number)
	t.engine.gate.Release(1)
	if fault.Is(err, fault.NotFound) {
		return errGone
	}
	if err != nil {
		return err
	}
	m.header = h
	return nil
}
