package far

import (
	"cmp"
	"encoding/binary"
	"io"
	"slices"

	"pelago/node/archive/archivepb"
	"pelago/node/far/farpb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// ahead is what is sent of a series behind its manifest, to who will read all of
// it: his first ranges are asked for a round trip later. It is what rests in front:
// who reads a series whole reads it as it rests (archive.Arrange).
type ahead struct {
	left  int64                   // bytes
	packs map[pack.ID]io.ReaderAt // that are here
	front []inFront
	bytes int64 // of front
	runs  []aheadRun
}

// inFront is an instance that may be sent ahead.
type inFront struct {
	number uint64
	pack   pack.ID
	chunks []*archivepb.Chunk
	bytes  int64
}

type aheadUnit struct {
	pack pack.ID
	unit int64
}

// aheadRun is units of a pack, sent as one message.
type aheadRun struct {
	pack         pack.ID
	first, units int64
}

func newAhead(asked *farpb.Open) ahead {
	a := ahead{packs: map[pack.ID]io.ReaderAt{}}
	if asked.Sop == "" {
		a.left = int64(min(asked.Bytes, maxAheadUnits*segmentBytes))
	}
	return a
}

// add takes an instance in, by its local number.
func (a *ahead) add(number uint64, id pack.ID, chunks []*archivepb.Chunk) {
	if a.left < segmentBytes || a.packs[id] == nil {
		return
	}
	one := inFront{number: number, pack: id, chunks: chunks}
	for _, c := range chunks {
		one.bytes += c.Compressed
	}
	a.front = append(a.front, one)
	if a.bytes += one.bytes; a.bytes > 2*a.left {
		a.trim()
	}
}

// trim leaves what rests in front, as much as will be sent.
func (a *ahead) trim() {
	slices.SortFunc(a.front, func(x, y inFront) int { return cmp.Compare(x.number, y.number) })
	a.bytes = 0
	for i, one := range a.front {
		if a.bytes >= a.left {
			clear(a.front[i:])
			a.front = a.front[:i]
			return
		}
		a.bytes += one.bytes
	}
}

// settle makes runs of what rests in front.
func (a *ahead) settle() {
	a.trim()
	sent := map[aheadUnit]bool{}
	for _, one := range a.front {
		for _, c := range one.chunks {
			for u := c.At / seal.SegmentBytes; u*seal.SegmentBytes < c.At+c.Compressed; u++ {
				unit := aheadUnit{one.pack, u}
				if a.left < segmentBytes {
					return
				}
				if sent[unit] {
					continue
				}
				sent[unit] = true
				a.left -= segmentBytes
				a.send(unit)
			}
		}
	}
}

// send adds a unit to the last run, or begins another.
func (a *ahead) send(u aheadUnit) {
	if last := len(a.runs) - 1; last >= 0 {
		if r := &a.runs[last]; r.pack == u.pack && r.units < unitsAtOnce && r.first+r.units == u.unit {
			r.units++
			return
		}
	}
	a.runs = append(a.runs, aheadRun{u.pack, u.unit, 1})
}

// announce appends the message that says what follows the end, if anything does.
func (a *ahead) announce(b []byte) []byte {
	a.settle()
	if len(a.runs) == 0 {
		return b
	}
	var all []byte
	for _, r := range a.runs {
		all = binary.BigEndian.AppendUint32(append(all, packHead(r.pack, r.first)...), uint32(r.units))
	}
	return appendMessage(b, messageAhead, all)
}

// sendAhead sends what was announced.
func (t *telling) sendAhead() error {
	if len(t.ahead.runs) == 0 {
		return nil
	}
	leave, err := t.handler.turn(t.w, 0)
	if err != nil {
		return err
	}
	defer leave()
	buffer := t.handler.buffers.Get().(*[]byte)
	defer t.handler.buffers.Put(buffer)
	for _, r := range t.ahead.runs {
		n, err := t.ahead.packs[r.pack].ReadAt((*buffer)[:r.units*segmentBytes], r.first*segmentBytes)
		if err != nil && err != io.EOF || n == 0 { //nolint:errorlint // ReadAt's own
			return readError(err)
		}
		if err := t.write(appendMessage(nil, messagePack, packHead(r.pack, r.first), (*buffer)[:n])); err != nil {
			return err
		}
		t.handler.spread.sent(r.pack, t.w.peer, int64(n))
	}
	return nil
}
