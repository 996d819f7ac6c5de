package archive

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Limits of one look at the queue and of the table that comes of it. They keep
// a look cheap and small in memory however much is queued: what a look does not
// reach the next one begins with. A table keeps something of each pack in memory
// until it is committed, and of tiny series there are very many in one.
const (
	maxLook  = 200_000 // rows
	maxTable = 10_000  // instances of one table
)

// SeriesName names a series.
type SeriesName struct{ Study, Series string }

// seriesName names a series.
type seriesName struct{ study, series string }

// burst is the queued instances of one series.
type burst struct {
	seriesName
	numbers     []uint64
	bytes       int64
	first, last int64 // arrival, Unix microseconds
}

func (b *burst) add(number uint64, bytes, arrived int64) {
	b.numbers = append(b.numbers, number)
	b.bytes += bytes
	b.last = max(b.last, arrived)
	if len(b.numbers) == 1 || arrived < b.first {
		b.first = arrived
	}
}

// ended reports whether a burst may be packed, by the sealing rules of DESIGN §7.
func (b *burst) ended(o *Options, now time.Time) bool {
	return b.bytes >= o.PackBytes || waited(b.last, now, o.Quiet) || waited(b.first, now, o.Age)
}

// waited reports whether so long has passed since a time in Unix microseconds.
// A time that is still to come was written before the clock was set back.
func waited(since int64, now time.Time, long time.Duration) bool {
	passed := now.Sub(time.UnixMicro(since))
	return passed >= long || passed < 0
}

// look is what one look at the queue found.
type look struct {
	bursts    []burst // that may be packed
	bytes     int64   // of their instances
	instances int
	oldest    int64  // arrival of the oldest instance in bursts, Unix microseconds; 0: none
	waiting   int64  // the same of those that may not be packed yet
	next      []byte // where the next look begins; nil: the queue was seen to its end
}

func (l *look) take(b burst) {
	l.bursts = append(l.bursts, b)
	l.bytes += b.bytes
	l.instances += len(b.numbers)
	l.oldest = earlier(l.oldest, b.first)
}

// earlier is the earlier of two times, of which 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// queueValue is the value of a queue row: what the packer must know of an
// instance to decide when it is packed.
//
//	bytes BE64 | arrived BE64, Unix microseconds
func queueValue(bytes, arrived int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(bytes))
	return binary.BigEndian.AppendUint64(b, uint64(arrived))
}

func parseQueue(key, value []byte) (name seriesName, number uint64, bytes, arrived int64, ok bool) {
	uids, rest, ok := splitUIDs(key[1:], 2)
	if !ok || len(rest) != 8 || len(value) != 16 {
		return seriesName{}, 0, 0, 0, false
	}
	return seriesName{uids[0], uids[1]}, binary.BigEndian.Uint64(rest),
		int64(binary.BigEndian.Uint64(value)), int64(binary.BigEndian.Uint64(value[8:])), true
}

// lookAt reads the queue from a key (nil: its begin) until enough bytes or
// instances are found for a table, or [maxLook] rows were read. pressed takes
// bursts that have not ended too; skip leaves instances and series out.
func (a *Archive) lookAt(ctx context.Context, from []byte, enough int64, pressed bool, skip skipping) (*look, error) {
	lower := []byte{rowQueue}
	if from != nil {
		lower = from
	}
	return a.lookIn(ctx, lower, []byte{rowQueue + 1}, enough, pressed, skip)
}

// lookIn is lookAt of a part of the queue.
func (a *Archive) lookIn(ctx context.Context, lower, upper []byte, enough int64, pressed bool, skip skipping) (*look, error) {
	it, err := a.store.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmtStore(err)
	}
	defer it.Close()
	l := &look{}
	now := time.Now()
	var b burst
	// settle decides about the burst that was being read.
	settle := func() {
		switch {
		case len(b.numbers) == 0:
		case pressed || b.ended(&a.o, now):
			l.take(b)
		default:
			l.waiting = earlier(l.waiting, b.first)
		}
		b = burst{}
	}
	rows := 0
	for ok := it.First(); ok; ok = it.Next() {
		if rows++; rows%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, fmtStore(err)
		}
		name, number, bytes, arrived, fine := parseQueue(it.Key(), value)
		if !fine { // the others must not wait for it; verify reads what it stands for
			a.log.Error("a queue row does not parse", "row", hex.EncodeToString(it.Key()))
			continue
		}
		if name != b.seriesName || len(b.numbers) >= maxTable {
			settle()
			if l.bytes >= enough || l.instances >= maxTable || rows > maxLook {
				l.next = append([]byte(nil), it.Key()...)
				return l, nil
			}
			b.seriesName = name
		}
		if !skip.has(name, number, now) {
			b.add(number, bytes, arrived)
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmtStore(err)
	}
	settle()
	return l, nil
}

// skipping is what the packer leaves out: instances whose staged bytes fail
// their hash, for good, and series that could not be packed, for a while. It
// belongs to the packer's goroutine. Both stay in staging.
type skipping struct {
	corrupt map[uint64]bool
	aside   map[seriesName]time.Time // until when
}

// asideFor is how long a series that could not be packed is left out, so that
// it does not keep the others waiting.
const asideFor = 10 * time.Minute

func newSkipping() skipping {
	return skipping{corrupt: map[uint64]bool{}, aside: map[seriesName]time.Time{}}
}

func (s skipping) has(name seriesName, number uint64, now time.Time) bool {
	if s.corrupt[number] {
		return true
	}
	until, ok := s.aside[name]
	if ok && now.After(until) {
		delete(s.aside, name)
		return false
	}
	return ok
}

// errStop ends an iteration early.
var errStop = errors.New("stop")
