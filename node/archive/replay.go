package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/staging"
)

// replayer takes what staging holds at a start: it writes the rows that a crash
// kept from store/ again, and lets go of arrivals whose bytes rest elsewhere.
type replayer struct {
	a        *Archive
	release  []staging.Placed
	dropped  map[uint64]bool // records that say an arrival was dropped, and must go on saying it
	rows     int
	restaged int
}

// arrival takes one arrival from staging's replay.
func (p *replayer) arrival(record []byte, at staging.Placed) error {
	var arrival archivepb.Arrival
	if err := unmarshal(record, &arrival); err != nil {
		return err
	}
	r := arrival.Instance
	if r == nil || len(r.Hash) < hashPrefix {
		return fault.New(fault.Corrupt, "staging: a commit record without an instance")
	}
	raise(&p.a.number, r.Number)
	known, ok, err := p.a.instance(r.Number)
	if err != nil {
		return err
	}
	if !ok {
		return p.put(r, arrival.HeaderRow, at)
	}
	if !bytes.Equal(known.Hash, r.Hash) || known.Sop != r.Sop {
		return fault.New(fault.Corrupt, "staging: the arrival numbered %d is not the one that store/ knows", r.Number)
	}
	if known.State == archivepb.State_DROPPED {
		p.dropped[known.Number] = true
		p.release = append(p.release, at)
		return nil
	}
	location, err := p.a.location(known.Number)
	switch {
	case fault.Is(err, fault.NotFound):
		return p.put(known, arrival.HeaderRow, at)
	case err != nil:
		return err
	case len(location.Pack) > 0:
		return p.packed(known, location, at)
	case known.State == archivepb.State_QUARANTINED && known.Against != 0:
		p.unsettled(known.Number)
	}
	return nil
}

// packed lets go of an arrival that rests in a pack, unless the pack is lost:
// then the staged bytes are what is left.
func (p *replayer) packed(r *archivepb.Instance, at *archivepb.Location, staged staging.Placed) error {
	id, err := packID(at.Pack)
	if err != nil {
		return err
	}
	in, err := p.a.pack(id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && !in.Lost {
		p.release = append(p.release, staged)
		return nil
	}
	batch := p.a.store.NewBatch()
	defer batch.Close()
	p.restaged++
	return errors.Join(
		leavePack(batch, at, r.Number),
		batch.Set(keyNumber(rowLocation, r.Number), marshal(stagedLocation(staged)), nil),
		batch.Set(keyQueue(r.Study, r.Series, r.Number), queueValue(r.Bytes, r.Arrived), nil),
		fmtStore(batch.Commit(pebble.NoSync)),
	)
}

// put writes the rows of an arrival that store/ does not know, its header row
// as its commit frame has it: whole.
func (p *replayer) put(r *archivepb.Instance, header []byte, at staging.Placed) error {
	p.rows++
	if err := p.yield(r); err != nil {
		return err
	}
	if r.State == archivepb.State_QUARANTINED && r.Against != 0 {
		p.unsettled(r.Number)
	}
	if _, err := openWhole(header); err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	batch := p.a.store.NewBatch()
	defer batch.Close()
	if err := errors.Join(
		p.a.replaceLost(batch, r),
		putInstance(batch, r, stagedLocation(at)),
		batch.Set(keyNumber(rowHeader, r.Number), header, nil),
	); err != nil {
		return err
	}
	return fmtStore(batch.Commit(pebble.NoSync))
}

// yield makes an arrival that was canonical when it came a quarantined one, if
// another has become it since: then its rows could not be written, its sender
// was told so, and what was sent again is known by now.
func (p *replayer) yield(r *archivepb.Instance) error {
	if r.State != archivepb.State_CANONICAL || r.Against != 0 {
		return nil
	}
	others, err := p.a.canonical(r.Sop)
	if err != nil {
		return err
	}
	for _, v := range others {
		if v.Number != r.Number && !p.a.covered(v.Instance) {
			r.State, r.Against = archivepb.State_QUARANTINED, v.Number
		}
	}
	return nil
}

// maxUnsettled bounds the versions that a start compares again. Others are
// compared when they are sent again.
const maxUnsettled = 10_000

// unsettled notes a version whose comparison the end of the process may have
// cut short.
func (p *replayer) unsettled(number uint64) {
	if len(p.a.unsettled) < maxUnsettled {
		p.a.unsettled = append(p.a.unsettled, number)
	}
}

// finish syncs what was written and lets go of what rests elsewhere.
func (p *replayer) finish() error {
	if err := p.forget(); err != nil {
		return err
	}
	if err := p.a.sync(); err != nil {
		return err
	}
	if p.rows > 0 {
		p.a.log.Info("staging replayed", "instances", p.rows)
	}
	if p.restaged > 0 {
		p.a.log.Warn("packs were lost whose instances staging still holds: they are taken from there", "instances", p.restaged)
	}
	for _, at := range p.release {
		if err := p.a.staging.Release(at); err != nil && !fault.Is(err, fault.NotFound) {
			p.a.log.Warn("a staging segment was not removed; the next start tries again", "error", err)
		}
	}
	return nil
}

// forget deletes the records of dropped instances that staging can replay no
// more. The one of the highest number stays, so that numbers are never given
// out twice.
func (p *replayer) forget() error {
	last := p.a.number.Load()
	return p.a.pages([]byte{rowDropped}, func(key, _ []byte) error {
		number := numberOf(key)
		if p.dropped[number] || number == last {
			return nil
		}
		batch := p.a.store.NewBatch()
		defer batch.Close()
		return errors.Join(
			batch.Delete(key, nil),
			batch.Delete(keyNumber(rowInstance, number), nil),
			fmtStore(batch.Commit(pebble.NoSync)),
		)
	})
}

// settleLeft compares the versions whose comparison the end of the last process
// may have cut short.
func (a *Archive) settleLeft(ctx context.Context) error {
	for _, number := range a.unsettled {
		if err := a.settleAgain(ctx, number); err != nil {
			return err
		}
	}
	a.unsettled = nil
	return nil
}

func (a *Archive) settleAgain(ctx context.Context, number uint64) error {
	r, ok, err := a.instance(number)
	if err != nil || !ok {
		return err
	}
	release, err := a.arrival.enter(ctx, r.Sop)
	if err != nil {
		return err
	}
	defer release()
	if r, ok, err = a.instance(number); err != nil || !ok || r.State != archivepb.State_QUARANTINED {
		return err
	}
	_, err = a.settleVersion(ctx, r)
	return err
}

// sync makes everything written to store/ so far durable.
func (a *Archive) sync() error {
	return fmtStore(a.store.LogData(nil, pebble.Sync))
}
