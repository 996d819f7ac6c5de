package archive

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
	"pelago/node/work"
)

// A header record is a part of the instance's bytes, which staging or a pack
// holds: one that store/ has lost is read from them again. Whoever meets it
// does, and in the background it is done for all that a rotten table of store/
// may have held.

// rot collects where store/ was found rotten, for the background.
type rot struct {
	mu    sync.Mutex
	spans []numbers // of header rows that may be rotten
	gone  []numbers // those that were taken: what could not be mended there must not call for it for ever
	found chan struct{}
}

// numbers are local numbers, both ends included.
type numbers struct{ first, last uint64 }

// maxRot bounds the spans that are remembered; more are one.
const maxRot = 64

// note takes the bounds of a damaged table of store/. It is called by Pebble and
// does not block.
func (r *rot) note(info pebble.DataCorruptionInfo) {
	span, ok := headersIn(info.Bounds.Start, info.Bounds.End.Key)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.gone, span.within) || slices.ContainsFunc(r.spans, span.within) {
		return
	}
	r.spans = remember(r.spans, span)
	select {
	case r.found <- struct{}{}:
	default:
	}
}

// take returns what was noted. It is not noted again until the next start: going
// through it meets what is rotten once more, and who reads a header mends it by
// itself.
func (r *rot) take() []numbers {
	r.mu.Lock()
	defer r.mu.Unlock()
	spans := r.spans
	r.spans = nil
	for _, span := range spans {
		r.gone = remember(r.gone, span)
	}
	return spans
}

// remember appends a span; beyond maxRot it widens the last. Of what was taken,
// that counts what lies between as taken too: a disk that rots in so many places
// is left to those who read, and to the next start.
func remember(spans []numbers, span numbers) []numbers {
	if len(spans) < maxRot {
		return append(spans, span)
	}
	last := &spans[len(spans)-1]
	last.first, last.last = min(last.first, span.first), max(last.last, span.last)
	return spans
}

// within reports whether all of n is in another span.
func (n numbers) within(other numbers) bool { return other.first <= n.first && n.last <= other.last }

// headersIn returns whose header rows lie between two keys; false if none.
func headersIn(first, last []byte) (numbers, bool) {
	if len(last) == 0 || bytes.Compare(first, []byte{rowHeader + 1}) >= 0 || bytes.Compare(last, []byte{rowHeader}) < 0 {
		return numbers{}, false
	}
	span := numbers{last: 1<<64 - 1}
	if len(first) == 9 && first[0] == rowHeader {
		span.first = numberOf(first)
	}
	if len(last) == 9 && last[0] == rowHeader {
		span.last = numberOf(last)
	}
	return span, true
}

// isRot reports whether an error says that bytes are not what was written.
func isRot(err error) bool {
	return fault.Is(err, fault.Corrupt) || pebble.IsCorruptionError(err)
}

// readHeader returns an instance's header and its record. If store/ does not
// give it, it is read from the instance's bytes.
func (a *Archive) readHeader(ctx context.Context, r *archivepb.Instance) (*dicom.Header, []byte, error) {
	h, record, err := a.storedHeader(r.Number)
	if err == nil || !isRot(err) {
		return h, record, err
	}
	return a.mendHeader(ctx, r)
}

// storedHeader returns an instance's header as store/ has it: fault.Corrupt if
// it is rotten or missing.
func (a *Archive) storedHeader(number uint64) (*dicom.Header, []byte, error) {
	record, ok, err := a.headerRecord(number)
	if err == nil && !ok {
		err = fault.New(fault.Corrupt, "store: instance %d has no header record", number)
	}
	if err != nil {
		return nil, nil, err
	}
	h, err := dicom.ParseHeader(record)
	return h, record, err
}

// mendHeader writes an instance's header row anew from its bytes, and before it
// the row that it refers to. An instance that was dropped meanwhile is
// fault.NotFound.
func (a *Archive) mendHeader(ctx context.Context, r *archivepb.Instance) (*dicom.Header, []byte, error) {
	a.headers.mending.Lock()
	defer a.headers.mending.Unlock()
	if h, record, err := a.storedHeader(r.Number); err == nil || !isRot(err) {
		return h, record, err // somebody else has mended it
	}
	if row, ok, err := a.get(keyNumber(rowHeader, r.Number)); err == nil && ok {
		if of, _, like := refersTo(row); like && a.mendReference(ctx, of) {
			if h, record, err := a.storedHeader(r.Number); err == nil {
				return h, record, nil
			}
		}
	}
	h, record, err := a.remakeHeader(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	return h, record, a.putMended(r.Number, record)
}

// mendReference mends the row that others refer to, and reports whether it did:
// all of them are readable again by that.
func (a *Archive) mendReference(ctx context.Context, number uint64) bool {
	if _, _, err := a.storedHeader(number); err == nil || !isRot(err) {
		return false
	}
	r, _, err := a.held(number)
	if err != nil || r == nil {
		return false // dropped: its bytes are gone, only the row was left
	}
	_, record, err := a.remakeHeader(ctx, r)
	return err == nil && a.putMended(number, record) == nil
}

// remakeHeader reads an instance's header from its bytes, all of them, whose
// hash must be right.
func (a *Archive) remakeHeader(ctx context.Context, r *archivepb.Instance) (*dicom.Header, []byte, error) {
	syntax, err := storedSyntax(r.Syntax)
	if err != nil {
		return nil, nil, err
	}
	stored, done, err := a.bytesOf(r)
	if err != nil {
		return nil, nil, err
	}
	defer done() //nolint:errcheck // only read
	hash := blake3.New()
	read := io.TeeReader(io.NewSectionReader(stored, 0, r.Bytes), hash)
	h, err := dicom.ReadHeader(untilDone{ctx, read}, syntax, a.o.Limits)
	if err == nil {
		_, err = io.Copy(io.Discard, untilDone{ctx, read})
	}
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(hash.Sum(nil), r.Hash) {
		return nil, nil, fault.New(fault.Corrupt, "the bytes are not those that were received")
	}
	record, err := h.AppendBinary(nil)
	if err != nil {
		return nil, nil, err
	}
	return h, record, nil
}

// untilDone ends a stream with its context.
type untilDone struct {
	ctx context.Context //nolint:containedctx // lives as long as one read of an instance
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// putMended writes a header row that depends on no other. Unsynced: a crash
// takes no more than this work. A row that names what the old one referred to
// stays until [Archive.dropKept] looks.
func (a *Archive) putMended(number uint64, record []byte) error {
	a.changing.Lock() // a dropped instance's header must not come back
	defer a.changing.Unlock()
	r, _, err := a.held(number)
	if err != nil {
		return err
	}
	if r == nil {
		return fault.New(fault.NotFound, "no instance numbered %d", number)
	}
	if err := a.store.Set(keyNumber(rowHeader, number), wholeHeader(record), pebble.NoSync); err != nil {
		return fmtStore(err)
	}
	a.headers.read.Forget(number, func(*reference) bool { return true })
	a.stats.HeadersMended.Add(1)
	return nil
}

// runMender mends header rows wherever store/ is found rotten.
func (a *Archive) runMender(ctx context.Context, p *work.Progress) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.rot.found:
		}
		for _, span := range a.rot.take() {
			err := a.observe("mend", func() error { return a.mend(ctx, p, span) })
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				p.Note(err)
				a.log.Error("header records were not mended", "error", err)
			}
		}
	}
}

// mend mends the header rows of a span. What cannot be mended is left as it is,
// and counted.
func (a *Archive) mend(ctx context.Context, p *work.Progress, span numbers) error {
	mended, left := 0, 0
	err := a.pagesFrom(keyNumber(rowInstance, span.first), afterNumber(rowInstance, span.last), func(key, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var r archivepb.Instance
		parses := unmarshal(value, &r) == nil // verify names one that does not
		if !parses || r.State == archivepb.State_DROPPED {
			return nil
		}
		_, _, err := a.storedHeader(numberOf(key))
		if err == nil || !isRot(err) {
			return err
		}
		_, _, err = a.mendHeader(ctx, &r)
		switch {
		case err == nil:
			mended++
			p.Add(1)
		case !fault.Is(err, fault.NotFound):
			left++
			a.log.Error("an instance's header record is rotten, and not to be made from its bytes", "number", r.Number, "error", err)
		}
		return nil
	})
	if mended+left > 0 {
		a.log.Warn("store/ was rotten: header records were made anew from the instances' bytes", "mended", mended, "left", left)
	}
	return err
}

// afterNumber is the first key behind a number's of a kind of rows.
func afterNumber(row byte, number uint64) []byte {
	return append(keyNumber(row, number), 0)
}

// stillRefers reports whether the header row of an instance refers to that of
// another. One that cannot be read may.
func (a *Archive) stillRefers(from, to uint64) (bool, error) {
	row, ok, err := a.get(keyNumber(rowHeader, from))
	if err != nil {
		if isRot(err) {
			err = nil
		}
		return true, err
	}
	of, _, like := refersTo(row)
	return ok && like && of == to, nil
}

// dropReferences takes the rows that name header rows which no longer refer to
// one that is kept, since they were mended, and reports whether none is left.
func (a *Archive) dropReferences(b *pebble.Batch, to uint64) (none bool, err error) {
	none = true
	err = a.each(keyNumber(rowReference, to), func(key, _ []byte) error {
		refers, err := a.stillRefers(numberOf(key), to)
		if err != nil || refers {
			none = false
			return err
		}
		return b.Delete(key, nil)
	})
	return none, err
}
