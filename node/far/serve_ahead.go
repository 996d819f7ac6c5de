package far

import (
	"encoding/binary"
	"io"

	"pelago/node/archive/archivepb"
	"pelago/node/far/farpb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// ahead is what is sent of a series behind its manifest, to who will read all of
// it: his first ranges are asked for a round trip later.
type ahead struct {
	left  int64                   // bytes
	packs map[pack.ID]io.ReaderAt // that are here
	sent  map[aheadUnit]bool
	runs  []aheadRun
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
	a := ahead{packs: map[pack.ID]io.ReaderAt{}, sent: map[aheadUnit]bool{}}
	if asked.Sop == "" {
		a.left = int64(min(asked.Bytes, maxAheadUnits*segmentBytes))
	}
	return a
}

// add adds the units of an instance that follows those before it.
func (a *ahead) add(id pack.ID, chunks []*archivepb.Chunk) {
	if a.packs[id] == nil {
		return
	}
	for _, c := range chunks {
		for u := c.At / seal.SegmentBytes; u*seal.SegmentBytes < c.At+c.Compressed; u++ {
			one := aheadUnit{id, u}
			if a.left < segmentBytes {
				return
			}
			if a.sent[one] {
				continue
			}
			a.sent[one] = true
			a.left -= segmentBytes
			if last := len(a.runs) - 1; last >= 0 && a.runs[last].pack == id && a.runs[last].units < unitsAtOnce && a.runs[last].first+a.runs[last].units == u {
				a.runs[last].units++
				continue
			}
			a.runs = append(a.runs, aheadRun{id, u, 1})
		}
	}
}

// announce appends the message that says what follows the end, if anything does.
func (a *ahead) announce(b []byte) []byte {
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
	if err := t.w.flush(); err != nil {
		return errGone(err)
	}
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
