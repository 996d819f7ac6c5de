package staging

import (
	"context"
	"fmt"

	"pelago/cluster/fault"
)

const (
	// gatherBytes is the payload that an arrival gathers into one frame. Larger
	// writes go out as they are, without a copy.
	gatherBytes = 256 << 10

	// writebackStep is how much of the log an arrival lets come together, with what
	// others write in between, before it asks for it to be written.
	writebackStep = 4 << 20

	// inlineRecord is the room that a buffer keeps for the commit frame, so that
	// the last payload and a record of common size leave in one write.
	inlineRecord = 32 << 10

	bufferBytes = frameHeaderBytes + gatherBytes + frameHeaderBytes + commitFixedBytes + inlineRecord
)

// Arrival is one instance on its way in. Not for concurrent use. It must end in
// Commit or Abort, or it holds its segments.
type Arrival struct {
	log *Log
	id  uint64

	buffer *[]byte // nil while nothing is gathered
	filled int     // payload bytes in buffer, behind room for a frame header
	head   [frameHeaderBytes]byte

	frames  uint32
	bytes   int64
	extents []Extent
	pinned  []*segment // in ascending order
	early   position   // from here on writeback was not asked for; segment 0: nowhere
	done    error      // why nothing more is taken; nil while it is under way
}

// Begin starts an arrival. It never blocks on other arrivals' syncs. Beyond
// Options.MaxBytes it is fault.Full; after a failure or Close fault.Unavailable.
func (l *Log) Begin() (*Arrival, error) {
	if err := l.poisoned(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed()
	}
	if used := l.usedLocked(); used >= l.options.MaxBytes {
		return nil, fault.New(fault.Full, "staging: segments hold %d of at most %d bytes", used, l.options.MaxBytes)
	}
	l.nextArrival++
	return &Arrival{log: l, id: l.nextArrival}, nil
}

// Write appends payload; small writes are gathered. p is not kept. A full disk
// is fault.Full and the arrival is dead; any other write error poisons the log
// (see Failed) and is fault.Unavailable.
func (a *Arrival) Write(p []byte) (int, error) {
	if err := a.usable(); err != nil {
		return 0, err
	}
	taken := 0
	for len(p) > 0 {
		n, err := a.take(p)
		if err != nil {
			a.end(err)
			return taken, err
		}
		taken += n
		p = p[n:]
	}
	return taken, nil
}

// usable reports why the arrival takes nothing more.
func (a *Arrival) usable() error {
	if a.done != nil {
		return a.done
	}
	if err := a.log.poisoned(); err != nil {
		a.end(err)
		return err
	}
	return nil
}

// take moves a part of p into the buffer, or writes it out where copying it
// would gain nothing.
func (a *Arrival) take(p []byte) (int, error) {
	gather := a.log.options.gather
	if a.filled == 0 && len(p) >= gather {
		n := min(len(p), maxPayloadBody)
		return n, a.writeDirect(p[:n])
	}
	if a.buffer == nil {
		a.buffer = a.log.buffers.Get().(*[]byte)
	}
	n := copy((*a.buffer)[frameHeaderBytes+a.filled:frameHeaderBytes+gather], p)
	a.filled += n
	if a.filled < gather {
		return n, nil
	}
	return n, a.flush()
}

// writeDirect writes body as a frame of its own from where it lies.
func (a *Arrival) writeDirect(body []byte) error {
	a.payloadHeader(a.head[:], body)
	u := unit{chunks: [][]byte{a.head[:], body}, frames: []int64{0}}
	at, end, err := a.log.append(a, &u)
	if err != nil {
		return err
	}
	a.placed(at, 0, len(body))
	return a.writeEarly(at, end)
}

// flush writes what was gathered as one frame.
func (a *Arrival) flush() error {
	b := (*a.buffer)[:frameHeaderBytes+a.filled]
	a.payloadHeader(b, b[frameHeaderBytes:])
	u := unit{chunks: [][]byte{b}, frames: []int64{0}}
	at, end, err := a.log.append(a, &u)
	if err != nil {
		return err
	}
	a.placed(at, 0, a.filled)
	a.filled = 0
	return a.writeEarly(at, end)
}

// writeEarly lets the disk begin on a large arrival while it comes in. A small
// one is left to its commit's sync, or to that of another that comes before: one
// write of all of it costs less than several of its parts.
func (a *Arrival) writeEarly(at, end position) error {
	if a.early.segment != at.segment {
		a.early = at
	}
	if end.offset-a.early.offset < writebackStep {
		return nil
	}
	from := a.early.offset
	a.early = end
	return a.log.startWriteback(a.pinned[len(a.pinned)-1], from, end.offset)
}

func (a *Arrival) payloadHeader(dst, body []byte) {
	frameHeader{
		kind:    framePayload,
		arrival: a.id,
		index:   a.frames,
		length:  uint32(len(body)),
		bodyCRC: checksum(0, body),
	}.put(dst)
}

// placed notes a payload frame of n bytes that begins at byte rel of a unit.
func (a *Arrival) placed(unit position, rel int64, n int) {
	a.extents = append(a.extents, Extent{
		Segment: unit.segment,
		Offset:  unit.offset + rel + frameHeaderBytes,
		Length:  int64(n),
	})
	a.frames++
	a.bytes += int64(n)
}

// Commit appends the commit frame with the caller's record (at most
// [MaxRecord]) and returns once it and all payload are durable by one fdatasync
// shared with the commits that wait at the same time. After Commit the arrival
// is done, whatever it returns, and live if there was no error.
//
// ctx is heeded until the commit frame is written; then Commit waits for the
// sync, for the outcome could not be told otherwise. fault.Full: no space, and
// nothing was stored. fault.Unavailable: the log has failed or is closed; a
// start may find the arrival whole or not at all.
func (a *Arrival) Commit(ctx context.Context, record []byte) (Placed, error) {
	defer a.Abort()
	if err := a.usable(); err != nil {
		return Placed{}, err
	}
	if len(record) > MaxRecord {
		return Placed{}, fault.New(fault.Invalid, "staging: record of %d bytes, at most %d", len(record), MaxRecord)
	}
	if err := ctx.Err(); err != nil {
		return Placed{}, fmt.Errorf("staging: commit: %w", err)
	}
	l := a.log
	if err := l.enterCommit(); err != nil {
		return Placed{}, err
	}
	defer l.leaveCommit()

	commit, end, err := a.appendCommit(record)
	if err != nil {
		return Placed{}, err
	}
	if err := l.syncTo(end); err != nil {
		return Placed{}, err
	}
	if len(a.extents) == 0 {
		a.extents = []Extent{{Segment: commit.segment, Offset: commit.offset + frameHeaderBytes}}
	}
	at := Placed{Extents: a.extents, Bytes: a.bytes}
	key, _ := at.key()
	l.mu.Lock()
	l.retainLocked(key, liveArrival{bytes: at.Bytes, last: commit.segment})
	l.mu.Unlock()
	return at, nil
}

// appendCommit writes what is still gathered, and behind it, in the same unit,
// the commit frame. It returns where the commit frame begins and the position
// behind it.
func (a *Arrival) appendCommit(record []byte) (commit, end position, err error) {
	if a.buffer == nil {
		a.buffer = a.log.buffers.Get().(*[]byte)
	}
	b, tail := *a.buffer, 0
	u := unit{frames: make([]int64, 0, 2)}
	frames, bytes := a.frames, a.bytes
	if a.filled > 0 {
		tail = frameHeaderBytes + a.filled
		a.payloadHeader(b, b[frameHeaderBytes:tail])
		u.frames = append(u.frames, 0)
		frames++
		bytes += int64(a.filled)
	}
	u.frames = append(u.frames, int64(tail))

	l := a.log
	l.mu.Lock()
	fixed := commitBody{synced: l.durable, bytes: uint64(bytes)}
	l.mu.Unlock()
	if len(a.pinned) > 0 {
		fixed.first = a.pinned[0].header.number
	} // else 0: this unit holds all of it
	body := b[tail+frameHeaderBytes:]
	fixed.put(body)
	crc := checksum(checksum(0, body[:commitFixedBytes]), record)
	frameHeader{kind: frameCommit, arrival: a.id, index: frames, length: uint32(commitFixedBytes + len(record)), bodyCRC: crc}.put(b[tail:])

	used := tail + frameHeaderBytes + commitFixedBytes
	if len(record) <= inlineRecord {
		used += copy(b[used:], record)
		u.chunks = [][]byte{b[:used]}
	} else {
		u.chunks = [][]byte{b[:used], record}
	}
	at, end, err := l.append(a, &u)
	if err != nil {
		return at, end, err
	}
	if tail > 0 {
		a.placed(at, 0, a.filled)
		a.filled = 0
	}
	return position{at.segment, at.offset + int64(tail)}, end, nil
}

// Abort gives the arrival up; its frames are dead. Safe after Commit or Abort.
func (a *Arrival) Abort() {
	a.end(fault.New(fault.Unavailable, "staging: the arrival has ended"))
}

// end gives back what the arrival holds.
func (a *Arrival) end(why error) {
	if a.done != nil {
		return
	}
	a.done = why
	if a.buffer != nil {
		a.log.buffers.Put(a.buffer)
		a.buffer = nil
	}
	l := a.log
	l.mu.Lock()
	defer l.mu.Unlock()
	// A file that could not be removed is no matter of this arrival.
	_ = l.unpinLocked(a.pinned)
	a.pinned = nil
}

func (l *Log) enterCommit() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed()
	}
	l.commits++
	return nil
}

func (l *Log) leaveCommit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits--
	l.cond.Broadcast()
}
