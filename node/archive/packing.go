package archive

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// The packer moves instances from staging into packs, and packs into tables of
// about Options.TableBytes. It is the only writer of hot tables. Until a table
// is committed and its rows are synced, everything is read from staging; so a
// crash at any point costs work, never bytes.

// lookEvery is how often the queue is looked at.
const lookEvery = 5 * time.Second

func (a *Archive) runPacker(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			a.packAll(ctx, false) // failures are counted and logged, and tried again
		case answer := <-a.kick:
			answer <- a.packAll(ctx, true)
		}
	}
}

// Pack packs everything that rests in staging now, whatever its age. Run must
// be running.
func (a *Archive) Pack(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case a.kick <- answer:
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

// burst is the queued instances of one series.
type burst struct {
	study, series string
	numbers       []uint64
	bytes         int64
	first, last   int64 // arrival, Unix microseconds
}

// packAll packs what is due until nothing is; all packs the rest too.
func (a *Archive) packAll(ctx context.Context, all bool) error {
	a.still.Lock()
	defer a.still.Unlock()
	for {
		bursts, more, err := a.due(ctx, all)
		if err == nil && len(bursts) > 0 {
			err = a.packTable(ctx, bursts)
		}
		if err != nil {
			if ctx.Err() == nil {
				a.stats.PackErrors.Add(1)
				a.log.Error("packing failed; the instances stay in staging", "error", err, "kind", fault.KindOf(err).String())
			}
			return err
		}
		if len(bursts) == 0 || !more {
			return nil
		}
	}
}

// due reads from the queue the series that may be packed, up to about a table's
// worth. Nothing is due while it would not fill a table, unless it has waited
// for Options.Gather or staging needs the room. more says that the queue held
// still more.
func (a *Archive) due(ctx context.Context, all bool) (bursts []burst, more bool, err error) {
	now := time.Now()
	total, _ := a.staging.Bytes()
	pressed := all || total > a.o.StagingBytes/2
	// Raw bytes that make a table; real images shrink about threefold, and a
	// table that comes out smaller or larger does no harm.
	enough := 3 * a.o.TableBytes
	var sum int64
	var oldest int64
	full := errors.New("full")
	err = a.each([]byte{rowQueue}, func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		uids, _, ok := splitUIDs(key[1:], 2)
		if !ok {
			return fault.New(fault.Corrupt, "store: a queue row that does not parse")
		}
		if n := len(bursts); n == 0 || bursts[n-1].study != uids[0] || bursts[n-1].series != uids[1] {
			if n > 0 {
				if a.ready(bursts[n-1], now, pressed) {
					sum += bursts[n-1].bytes
					if oldest == 0 || bursts[n-1].first < oldest {
						oldest = bursts[n-1].first
					}
				} else {
					bursts = bursts[:n-1]
				}
			}
			if sum >= enough {
				more = true
				return full
			}
			bursts = append(bursts, burst{study: uids[0], series: uids[1]})
		}
		if a.corrupt.has(numberOf(key)) {
			return nil
		}
		r, ok, err := a.instance(numberOf(key))
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Corrupt, "store: a queue row without its instance")
		}
		b := &bursts[len(bursts)-1]
		b.numbers = append(b.numbers, r.Number)
		b.bytes += r.Bytes
		b.last = max(b.last, r.Arrived)
		if b.first == 0 || r.Arrived < b.first {
			b.first = r.Arrived
		}
		return nil
	})
	if err != nil && err != full {
		return nil, false, err
	}
	if n := len(bursts); n > 0 && !more {
		if a.ready(bursts[n-1], now, pressed) {
			sum += bursts[n-1].bytes
			if oldest == 0 || bursts[n-1].first < oldest {
				oldest = bursts[n-1].first
			}
		} else {
			bursts = bursts[:n-1]
		}
	}
	if !pressed && sum < enough && now.Sub(time.UnixMicro(oldest)) < a.o.Gather {
		return nil, false, nil
	}
	return bursts, more, nil
}

// ready reports whether a burst has ended, by the sealing rules of DESIGN §7.
func (a *Archive) ready(b burst, now time.Time, pressed bool) bool {
	return pressed || b.bytes >= a.o.PackBytes ||
		now.Sub(time.UnixMicro(b.last)) >= a.o.Quiet || now.Sub(time.UnixMicro(b.first)) >= a.o.Age
}

// building is a pack in a table that is not yet committed.
type building struct {
	record  *archivepb.Pack
	id      pack.ID
	numbers []uint64
	entries []pack.Entry
}

// packTable writes bursts into one table, commits it and moves the instances'
// locations there.
func (a *Archive) packTable(ctx context.Context, bursts []burst) error {
	studies := make([]string, len(bursts))
	for i, b := range bursts {
		studies[i] = b.study
	}
	if err := a.o.Keys.Prepare(studies...); err != nil {
		return err
	}
	table, err := a.bulk.NewTable(bulk.Hot)
	if err != nil {
		return err
	}
	defer table.Abort()
	effort := pack.Best
	if total, _ := a.staging.Bytes(); total > a.o.StagingBytes/2 {
		effort = pack.Fast
	}
	var built []*building
	for _, b := range bursts {
		for len(b.numbers) > 0 { // a pack a turn
			one, n, err := a.packBurst(ctx, table, b, effort)
			if err != nil {
				return err
			}
			b.numbers = b.numbers[n:]
			if one != nil {
				built = append(built, one)
			}
		}
	}
	if len(built) == 0 {
		return nil
	}
	refs, err := table.Commit(ctx)
	if err != nil {
		return err
	}
	if len(refs) != len(built) {
		return fault.New(fault.Corrupt, "bulk: %d blobs for %d packs", len(refs), len(built))
	}
	return a.adopt(built, refs)
}

// packBurst writes one pack from the front of a burst and says how many
// instances it took off it.
func (a *Archive) packBurst(ctx context.Context, table *bulk.Table, b burst, effort pack.Effort) (*building, int, error) {
	keyID, study, err := a.o.Keys.ForStudy(b.study)
	if err != nil {
		return nil, 0, err
	}
	one := &building{record: &archivepb.Pack{
		Version: recordVersion, Study: b.study, Series: b.series, Key: keyID[:],
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
	writer := a.codec.NewWriter(sealed, one.id)
	taken := 0
	for _, number := range b.numbers {
		if err := context.Cause(ctx); err != nil {
			return nil, 0, err
		}
		if taken > 0 && writer.Bytes() >= a.o.PackBytes {
			break
		}
		taken++
		if err := a.packInstance(writer, number, effort); err != nil {
			if fault.Is(err, fault.Corrupt) {
				// The next round leaves it out; its bytes stay where they are.
				a.corrupt.add(number)
			}
			return nil, 0, err
		}
		one.numbers = append(one.numbers, number)
	}
	manifest, err := writer.Close()
	if err != nil {
		return nil, 0, err
	}
	one.entries = manifest.Entries
	durable, err := manifest.AppendBinary(nil)
	if err != nil {
		return nil, 0, err
	}
	one.record.Manifest = manifest.Bytes
	one.record.Plaintext = manifest.Bytes + int64(len(durable))
	if _, err := sealed.Write(durable); err != nil {
		return nil, 0, err
	}
	root, _, err := sealed.Close()
	if err != nil {
		return nil, 0, err
	}
	one.record.Root = root[:]
	one.record.Instances = uint32(len(one.numbers))
	return one, taken, blob.Close()
}

func (a *Archive) packInstance(w *pack.Writer, number uint64, effort pack.Effort) error {
	r, ok, err := a.instance(number)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Corrupt, "store: instance %d is queued and has no record", number)
	}
	header, ok, err := a.get(keyNumber(rowHeader, number))
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Corrupt, "store: instance %d has no header record", number)
	}
	instance, err := a.Open(context.Background(), version{r}.ref())
	if err != nil {
		return err
	}
	defer instance.Close()
	syntax, _ := dict.Syntax(r.Syntax)
	if syntax.Deflated || syntax.Encapsulated && r.Bytes > 64<<10 {
		effort = pack.Store
	}
	record := marshal(&archivepb.Arrival{Instance: r, Header: header})
	return w.Add(instance.Stored(), r.Bytes, [32]byte(r.Hash), nativeSamples(instance.Header()), effort, record)
}

// adopt points the instances at their packs with one synced batch, and only
// then lets staging and the packs that they came from go.
func (a *Archive) adopt(built []*building, refs []bulk.Ref) error {
	var release []*archivepb.Location
	batch := a.store.NewBatch()
	defer batch.Close()
	for i, one := range built {
		ref := refs[i]
		one.record.Space, one.record.Table = uint32(ref.Space), ref.Table
		one.record.Blob, one.record.BlobBytes = ref.Blob, ref.Bytes
		live := 0
		for j, number := range one.numbers {
			old, err := a.location(number)
			if fault.Is(err, fault.NotFound) {
				continue // purged meanwhile
			}
			if err != nil {
				return err
			}
			r, ok, err := a.instance(number)
			if err != nil {
				return err
			}
			if !ok || r.State == archivepb.State_DROPPED {
				continue
			}
			live++
			release = append(release, old)
			if err := leavePack(batch, old, number); err != nil {
				return err
			}
			location := packedLocation(one.id, &one.entries[j])
			if err := errors.Join(
				batch.Set(keyNumber(rowLocation, number), marshal(location), nil),
				batch.Set(keyMember(one.id, number), nil, nil),
				batch.Delete(keyQueue(r.Study, r.Series, number), nil),
			); err != nil {
				return err
			}
			a.stats.PackedInstances.Add(1)
			a.stats.PackedRaw.Add(uint64(r.Bytes))
		}
		a.stats.PackedBytes.Add(uint64(ref.Bytes))
		if err := batch.Set(keyPack(one.id), marshal(one.record), nil); err != nil {
			return err
		}
		if live == 0 {
			if err := batch.Set(append([]byte{rowEmpty}, one.id[:]...), nil, nil); err != nil {
				return err
			}
		}
	}
	last := slices.MaxFunc(refs, func(a, b bulk.Ref) int { return cmp.Compare(a.Table, b.Table) })
	if err := batch.Set([]byte{rowAdopted}, binary.BigEndian.AppendUint64(nil, last.Table), nil); err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	for _, old := range release {
		if len(old.Pack) > 0 {
			continue
		}
		if err := a.staging.Release(placed(old)); err != nil {
			return err
		}
	}
	return a.dropEmpty()
}

// leavePack notes in a batch that an instance no longer rests in its pack.
func leavePack(b *pebble.Batch, old *archivepb.Location, number uint64) error {
	if len(old.Pack) == 0 {
		return nil
	}
	id, err := packID(old.Pack)
	if err != nil {
		return err
	}
	return errors.Join(
		b.Delete(keyMember(id, number), nil),
		b.Set(append([]byte{rowEmpty}, id[:]...), nil, nil),
	)
}

// dropEmpty deletes the packs that the last instance has left by a synced
// batch. It runs at every start too, so that a crash in the middle is finished.
func (a *Archive) dropEmpty() error {
	var left []pack.ID
	if err := a.each([]byte{rowEmpty}, func(key, _ []byte) error {
		id, err := packID(key[1:])
		left = append(left, id)
		return err
	}); err != nil {
		return err
	}
	for _, id := range left {
		if err := a.dropPack(id); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) dropPack(id pack.ID) error {
	members := 0
	if err := a.each(prefixMember(id), func(_, _ []byte) error { members++; return nil }); err != nil {
		return err
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := batch.Delete(append([]byte{rowEmpty}, id[:]...), nil); err != nil {
		return err
	}
	if members == 0 {
		p, err := a.pack(id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil {
			if err := a.bulk.Delete(packRef(p)); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		if err := batch.Delete(keyPack(id), nil); err != nil {
			return err
		}
	}
	return batch.Commit(pebble.Sync)
}

// numbers is a set of local numbers.
type numbers struct {
	mu  sync.Mutex
	set map[uint64]bool
}

func (n *numbers) add(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = map[uint64]bool{}
	}
	n.set[number] = true
}

func (n *numbers) has(number uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.set[number]
}

// Manifest reads a pack's manifest back from bulk/.
func (a *Archive) Manifest(id pack.ID) (*pack.Manifest, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, err
	}
	plaintext, err := a.openPack(id)
	if err != nil {
		return nil, err
	}
	size := p.Plaintext - p.Manifest
	if size < 0 || size > maxManifest {
		return nil, fault.New(fault.Corrupt, "store: a pack with a manifest of %d bytes", size)
	}
	b := make([]byte, size)
	if err := readFull(io.NewSectionReader(plaintext, p.Manifest, size), b, 0); err != nil {
		return nil, err
	}
	return pack.ParseManifest(b)
}

// maxManifest bounds a manifest: the headers of a pack's instances, compressed.
const maxManifest = 1 << 30
