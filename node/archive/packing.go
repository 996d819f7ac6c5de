package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/work"
	"pelago/shard/bulk"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// The packer moves instances from staging into packs, and packs into tables of
// about Options.TableBytes. It is the only writer of hot tables. Until a table
// is committed and its rows are synced, everything is read from staging; so a
// crash at any point costs work, never bytes.

const (
	// lookEvery is how often the queue is looked at.
	lookEvery = 5 * time.Second
	// shrink is what real images shrink to by packing, about: a table that comes
	// out smaller or larger does no harm.
	shrink = 3
	// pressedEvery is how often a staging that is more than half full, of which
	// little is waiting to be packed, makes a table smaller than it should be.
	pressedEvery = time.Minute
)

// packer is the state of the packer's goroutine.
type packer struct {
	*Archive
	next   []byte // of the queue: where the next look begins
	oldest int64  // nothing queued arrived earlier, Unix microseconds; 0: not known
	table  time.Time
	skip   skipping
}

// runPacker packs what is due until ctx ends, and everything when it is asked.
func (a *Archive) runPacker(ctx context.Context, progress *work.Progress) error {
	defer close(a.stopped)
	p := &packer{Archive: a, skip: newSkipping()}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			progress.Note(p.packDue(ctx)) // counted and logged, and tried again
		case <-a.hurry:
			progress.Note(p.packDue(ctx))
		case k := <-a.kick:
			if k.of == nil {
				k.answer <- p.packAll(ctx)
			} else {
				k.answer <- p.packOnly(ctx, k.of)
			}
		}
		progress.Set(int64(a.stats.PackedInstances.Load()), 0)
	}
}

// kick asks the packer to pack what is queued now, whatever its age.
type kick struct {
	of     []SeriesName // nil: everything
	answer chan<- error
}

// Pack packs everything that rests in staging now, whatever its age. Run must
// be running.
func (a *Archive) Pack(ctx context.Context) error { return a.kicked(ctx, nil) }

// PackSeries packs what of some series rests in staging now, whatever its age:
// somebody waits for it (DESIGN §7, Pack). What could not be packed for a reason of
// its series stays in staging, and is an error once the others are packed. Run must
// be running.
func (a *Archive) PackSeries(ctx context.Context, of ...SeriesName) error {
	if len(of) == 0 {
		return nil
	}
	return a.kicked(ctx, of)
}

func (a *Archive) kicked(ctx context.Context, of []SeriesName) error {
	answer := make(chan error, 1)
	select {
	case a.kick <- kick{of, answer}:
	case <-a.stopped:
		return fault.New(fault.Unavailable, "the archive is stopping")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// packDue packs until nothing more is due. Nothing is due while it would not
// fill a table, unless it has waited for Options.Gather or staging needs the
// room.
func (p *packer) packDue(ctx context.Context) error {
	for {
		total, live := p.staging.Bytes()
		enough := shrink * p.o.TableBytes
		now := time.Now()
		pressed := total > p.o.StagingBytes/2 && (live >= enough/4 || now.Sub(p.table) >= pressedEvery || p.crowded())
		if live == 0 || !pressed && live < enough && p.oldest != 0 && !waited(p.oldest, now, p.gather()) {
			return nil
		}
		began := p.next
		l, err := p.lookAt(ctx, p.next, enough, pressed, p.skip)
		if err != nil {
			return p.failed(ctx, err)
		}
		p.next = l.next
		p.oldest = 0
		if began == nil && l.next == nil {
			p.oldest = earlier(l.oldest, l.waiting)
		}
		full := l.bytes >= enough || l.instances >= maxTable
		if len(l.bursts) == 0 || !full && !pressed && !waited(l.oldest, now, p.gather()) {
			return nil
		}
		if p.awaitsKeys() != nil {
			return nil //nolint:nilerr // told of once, and looked at again at the next tick
		}
		if err := p.observe("pack_table", func() error { return p.packTable(ctx, l.bursts, pressed) }); err != nil {
			return p.failed(ctx, err)
		}
	}
}

// spreadGather is the most that a pack waits for a table to fill where packs go to
// other sites: until it is there it is not safe from the loss of this one. It makes
// small tables of a quiet site's arrivals (decision 0046).
const spreadGather = 2 * time.Minute

// gather is how long a pack may wait for its table now.
func (p *packer) gather() time.Duration {
	if p.o.Spread() {
		return min(p.o.Gather, spreadGather)
	}
	return p.o.Gather
}

// awaitsKeys reports why nothing can be packed yet, and tells the log when that
// begins and ends: a node that has just joined waits for its epoch keys.
func (p *packer) awaitsKeys() error {
	err := p.o.Keys.Ready()
	if waits := err != nil; p.keyless.Swap(waits) != waits {
		p.stuck.Store(waits)
		if waits {
			p.log.Warn("packing waits for keys; instances stay in staging", "error", err)
		} else {
			p.log.Info("keys are here; packing goes on")
		}
	}
	return err
}

// PackingWaits reports whether instances that should be packed wait for the node's
// epoch keys.
func (a *Archive) PackingWaits() bool { return a.keyless.Load() }

// errAside is in the tree of an error about one series, which was set aside:
// the others can be packed.
var errAside = errors.New("set aside")

// packAll packs all that is queued. An error about one series comes back once
// everything else is packed.
func (p *packer) packAll(ctx context.Context) error {
	var next []byte
	var aside error
	for {
		l, err := p.lookAt(ctx, next, shrink*p.o.TableBytes, true, p.skip)
		if err == nil && len(l.bursts) > 0 {
			if err := p.awaitsKeys(); err != nil {
				return err
			}
			err = p.observe("pack_table", func() error { return p.packTable(ctx, l.bursts, false) })
		}
		switch {
		case errors.Is(err, errAside):
			aside = p.failed(ctx, err)
			continue // the same part of the queue again, without it
		case err != nil:
			return p.failed(ctx, err)
		}
		if next = l.next; next == nil {
			p.oldest = 0
			return aside
		}
	}
}

// packOnly packs all that is queued of some series, into as few tables as it is of.
func (p *packer) packOnly(ctx context.Context, of []SeriesName) error {
	var all look // of one table
	var aside error
	flush := func() error {
		if len(all.bursts) == 0 {
			return nil
		}
		if err := p.awaitsKeys(); err != nil {
			return err
		}
		for len(all.bursts) > 0 {
			err := p.observe("pack_table", func() error { return p.packTable(ctx, all.bursts, false) })
			if err == nil {
				break
			}
			if err = p.failed(ctx, err); !errors.Is(err, errAside) {
				return err
			}
			aside = err
			if err := p.leaveOut(&all); err != nil { // the same without it
				return err
			}
		}
		all = look{}
		return nil
	}
	for _, name := range of {
		prefix := prefixQueue(name.Study, name.Series)
		for from := prefix; from != nil; {
			l, err := p.lookIn(ctx, from, after(prefix), shrink*p.o.TableBytes, true, p.skip)
			if err != nil {
				return p.failed(ctx, err)
			}
			for _, b := range l.bursts {
				all.take(b)
			}
			from = l.next
			if all.bytes >= shrink*p.o.TableBytes || all.instances >= maxTable {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return aside
}

// leaveOut takes out of a look what was set aside since.
func (p *packer) leaveOut(l *look) error {
	now := time.Now()
	left := look{}
	for _, b := range l.bursts {
		kept := burst{seriesName: b.seriesName}
		for _, number := range b.numbers {
			if !p.skip.has(b.seriesName, number, now) {
				kept.numbers = append(kept.numbers, number)
			}
		}
		if len(kept.numbers) > 0 {
			left.take(kept)
		}
	}
	if left.instances == l.instances {
		return fault.New(fault.Other, "archive: a series that cannot be packed is not set aside")
	}
	*l = left
	return nil
}

func (p *packer) failed(ctx context.Context, err error) error {
	if !errors.Is(err, errAside) {
		p.stuck.Store(true)
	}
	if ctx.Err() == nil {
		p.stats.PackErrors.Add(1)
		p.log.Error("packing failed; the instances stay in staging", "error", err, "kind", fault.KindOf(err).String())
	}
	return err
}

// building is a pack in a table that is not yet committed.
type building struct {
	record  *archivepb.Pack
	id      pack.ID
	numbers []uint64
	entries []pack.Entry
}

// packTable writes bursts into one table, commits it and moves the instances'
// locations there. It holds still for the whole of it: what it reads from
// staging must not be dropped meanwhile, and no backup may see a table without
// its rows.
func (p *packer) packTable(ctx context.Context, bursts []burst, hurry bool) error {
	p.still.Lock()
	defer p.still.Unlock()
	p.table = time.Now()
	bursts, err := p.present(bursts)
	if err != nil || len(bursts) == 0 {
		return err
	}
	studies := make([]string, len(bursts))
	for i, b := range bursts {
		studies[i] = b.study
	}
	if err := p.o.Keys.Prepare(studies...); err != nil {
		return err
	}
	table, err := p.bulk.NewTable(bulk.Hot)
	if err != nil {
		return err
	}
	defer table.Abort()
	effort := pack.Best
	if hurry {
		effort = pack.Fast
	}
	var built []*building
	for _, b := range bursts {
		for numbers := b.numbers; len(numbers) > 0; { // a pack a turn
			one, n, err := p.packBurst(ctx, table, b.seriesName, numbers, effort)
			if err != nil {
				return p.setAside(ctx, b, err)
			}
			numbers = numbers[n:]
			built = append(built, one)
		}
	}
	if len(built) == 0 {
		return nil
	}
	if err := p.announce(table.Number()); err != nil {
		return err
	}
	refs, err := table.Commit(ctx)
	if err != nil {
		return err
	}
	if len(refs) != len(built) {
		return fault.New(fault.Corrupt, "bulk: %d blobs for %d packs", len(refs), len(built))
	}
	if err := p.adopt(built, refs); err != nil {
		return err
	}
	ids := make([]pack.ID, len(built))
	for i, one := range built {
		ids[i] = one.id
	}
	p.o.Packed(ids)
	p.stuck.Store(false)
	return nil
}

// present leaves out bursts of which nothing is queued any more: since the queue
// was looked at, a purge may have taken them and forgotten the key of their
// study, and a new one must not be made for nothing.
func (p *packer) present(bursts []burst) ([]burst, error) {
	var left []burst
	for _, b := range bursts {
		for _, number := range b.numbers {
			_, queued, err := p.get(keyQueue(b.study, b.series, number))
			if err != nil {
				return nil, err
			}
			if queued {
				left = append(left, b)
				break
			}
		}
	}
	return left, nil
}

// setAside sees to it that what cannot be packed does not keep the rest
// waiting: instances whose staged bytes fail their hash are left out for good,
// a series with any other fault of its own for a while. It returns err, with
// errAside in its tree if it was that.
func (p *packer) setAside(ctx context.Context, b burst, err error) error {
	switch fault.KindOf(err) {
	case fault.Full, fault.Unavailable, fault.Canceled:
		return err // not the series' fault
	}
	if ctx.Err() != nil {
		return err
	}
	found := 0
	for _, number := range b.numbers {
		r, ok, err := p.instance(number)
		if err == nil && ok {
			err = p.readBack(ctx, r)
		}
		if fault.Is(err, fault.Corrupt) {
			p.skip.corrupt[number] = true
			found++
		}
	}
	if found == 0 {
		p.skip.aside[b.seriesName] = time.Now().Add(asideFor)
	}
	p.log.Error("a series is left in staging", "study", b.study, "series", b.series, "corrupt_instances", found, "error", err)
	return fault.New(fault.KindOf(err), "series %s: %w: %w", b.series, errAside, err)
}

// packBurst writes one pack from the front of a burst and says how many
// instances it took off it.
func (p *packer) packBurst(ctx context.Context, table *bulk.Table, of seriesName, numbers []uint64, effort pack.Effort) (*building, int, error) {
	keyID, study, err := p.o.Keys.ForStudy(of.study)
	if err != nil {
		return nil, 0, err
	}
	one := &building{record: &archivepb.Pack{
		Version: recordVersion, Study: of.study, Series: of.series, Key: keyID[:],
	}}
	if _, err := rand.Read(one.id[:]); err != nil {
		return nil, 0, err
	}
	one.record.Id = one.id[:]
	blob, err := table.Add()
	if err != nil {
		return nil, 0, err
	}
	sealed := seal.NewWriter(blob, seal.PackKey(study, one.id))
	writer := p.codec.NewWriter(sealed, one.id)
	taken := 0
	for _, number := range numbers {
		if err := context.Cause(ctx); err != nil {
			return nil, 0, err
		}
		if len(one.numbers) > 0 && writer.Bytes() >= p.o.PackBytes {
			break
		}
		taken++
		packed, err := p.packInstance(ctx, writer, number, effort)
		if err != nil {
			return nil, 0, err
		}
		if packed {
			one.numbers = append(one.numbers, number)
		}
	}
	if err := one.finish(writer, sealed); err != nil {
		return nil, 0, err
	}
	return one, taken, blob.Close()
}

// finish writes the manifest behind the instances and closes the pack.
func (one *building) finish(writer *pack.Writer, sealed *seal.Writer) error {
	manifest, err := writer.Close()
	if err != nil {
		return err
	}
	durable, err := manifest.AppendBinary(nil)
	if err != nil {
		return err
	}
	one.entries = manifest.Entries
	for i := range one.entries {
		one.entries[i].Record = nil // written; a table may hold many instances
	}
	one.record.Manifest = manifest.Bytes
	one.record.Plaintext = manifest.Bytes + int64(len(durable))
	if _, err := sealed.Write(durable); err != nil {
		return err
	}
	root, _, err := sealed.Close()
	if err != nil {
		return err
	}
	one.record.Root = root[:]
	one.record.Instances = uint32(len(one.numbers))
	return nil
}

// storedAsIs is the size from which encapsulated instances are not compressed
// again: their pixels are most of them.
const storedAsIs = 64 << 10

// packInstance adds an instance to a pack; false when it was dropped since the
// queue was read.
func (p *packer) packInstance(ctx context.Context, w *pack.Writer, number uint64, effort pack.Effort) (bool, error) {
	one, err := p.toPack(ctx, number)
	if err != nil {
		if r, _, held := p.held(number); held == nil && r == nil {
			return false, nil
		}
		return false, err
	}
	defer one.Close() //nolint:errcheck // only read
	syntax := one.header.Syntax
	if syntax.Deflated || syntax.Encapsulated && one.ref.Bytes > storedAsIs {
		effort = pack.Store
	}
	return true, w.Add(one.stored, one.ref.Bytes, one.hash, nativeSamples(one.header), effort, one.record)
}

// queued is an instance to be packed.
type queued struct {
	*opened
	record []byte // of the manifest
}

func (p *packer) toPack(ctx context.Context, number uint64) (*queued, error) {
	r, ok, err := p.instance(number)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.Corrupt, "store: instance %d is queued and has no record", number)
	}
	header, record, err := p.readHeader(ctx, r)
	if err != nil {
		return nil, err
	}
	one, err := p.open(r, header)
	if err != nil {
		return nil, err
	}
	return &queued{opened: one, record: marshal(&archivepb.Arrival{Instance: r, Header: record})}, nil
}
