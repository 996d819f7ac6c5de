package reach

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/node/work"
)

// What is stored here may be lost here: its table is rotten or missing, or the
// disk does not give it. The same bytes may rest elsewhere: another node stores
// the instance too, or keeps a copy of our pack because it read it once. Readers
// get those, and the archive gets them back.

// Stats count since the start.
type Stats struct {
	Elsewhere atomic.Uint64 // instances of this node that were lost here and read from others
	Mended    atomic.Uint64 // instances that were lost here and were fetched back
}

// Counters are the reader's counters.
func (r *Reader) Counters() *Stats { return &r.stats }

// openHere opens an instance that is stored here. What is not read here, from the
// beginning or only later, is read from others who have it.
func (r *Reader) openHere(ctx context.Context, ref archive.Ref) (archive.Instance, error) {
	in, err := r.o.Archive.Open(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		if now, ok := r.mended(ctx, ref); ok {
			in, err = r.o.Archive.Open(ctx, now)
		}
	}
	if err == nil {
		return r.orElsewhere(ctx, in), nil
	}
	if ctx.Err() != nil || !lostHere(err) {
		return nil, err
	}
	record, failed := r.o.Archive.Record(ref.Number)
	if failed != nil {
		return nil, err
	}
	stored, header, failed := r.substitute(ctx, record, err)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return r.o.Archive.Assemble("", record, header, stored, func() error { return nil })
}

// lostHere reports whether an error says that this node's disk does not give what
// it should, and not that it should not.
func lostHere(err error) bool {
	switch fault.KindOf(err) {
	case fault.Corrupt, fault.Unavailable, fault.Other:
		return true
	}
	return false
}

// orElsewhere has what is not read here read elsewhere. While all is well it costs
// no more than the wrapper: nobody is looked for before.
func (r *Reader) orElsewhere(ctx context.Context, in archive.Instance) archive.Instance {
	ref := in.Ref()
	return r.o.Archive.ReadThrough(in, func(stored io.ReaderAt) io.ReaderAt {
		tried := false
		return anyOf(stored, func(cause error) (io.ReaderAt, error) {
			if tried {
				return nil, cause // the substitute has alternatives of its own
			}
			tried = true
			record, err := r.o.Archive.Record(ref.Number)
			if err != nil {
				return nil, cause
			}
			if stored, _, err = r.substitute(ctx, record, cause); err != nil {
				return nil, errors.Join(cause, err)
			}
			return stored, nil
		})
	})
}

// substitute returns the bytes and the header of an instance that is lost here,
// from who has them.
func (r *Reader) substitute(ctx context.Context, record *archivepb.Instance, cause error) (io.ReaderAt, *dicom.Header, error) {
	if r.deleted(record.Study, record.Series, record) {
		return nil, nil, errNothing()
	}
	v, stored, err := r.another(ctx, record)
	if err != nil {
		return nil, nil, err
	}
	header, err := r.headerFrom(v, stored, false)
	if err != nil {
		return nil, nil, err
	}
	r.stats.Elsewhere.Add(1)
	r.log.Warn("an instance that is lost here is read from another node",
		"series", record.Series, "number", record.Number, "node", v.Node, "cause", cause)
	r.lost.note(record.Number)
	return verify(stored, record.Bytes, [32]byte(record.Hash)), header, nil
}

// another returns an instance of this node as others have it: those that store it
// themselves, and then those that keep a copy of the pack it was in.
func (r *Reader) another(ctx context.Context, record *archivepb.Instance) (version, io.ReaderAt, error) {
	if len(record.Hash) != 32 {
		return version{}, nil, fault.New(fault.Corrupt, "an instance's record with a hash of %d bytes", len(record.Hash))
	}
	failed := fault.New(fault.NotFound, "reach: no other node is known to have it")
	rest := r.twins(ctx, record, r.o.Node)
	for {
		v, ok := rest()
		if !ok {
			break
		}
		stored, err := r.tryOpen(ctx, v)
		if err == nil {
			return v, anyOf(stored, r.nextOf(ctx, rest)), nil
		}
		failed = errors.Join(failed, err)
	}
	for v, err := range r.ownCopies(ctx, record) {
		if err == nil {
			stored := r.stored(ctx, v)
			var first [1]byte
			if _, err = stored.ReadAt(first[:], 0); err == nil || isEnd(err) {
				return v, stored, nil
			}
		}
		failed = errors.Join(failed, err)
	}
	return version{}, nil, failed
}

// ownCopies yields an instance of this node as those hold it who may keep a copy
// of its pack, or its shards: the nodes that answer, some at a time.
func (r *Reader) ownCopies(ctx context.Context, record *archivepb.Instance) func(func(version, error) bool) {
	return func(yield func(version, error) bool) {
		holding, p, err := r.o.Archive.Packed(ctx, record.Number)
		if err == nil && p == nil {
			return // it was in staging, which nobody copies
		}
		if err != nil {
			yield(version{}, err)
			return
		}
		key, err := r.o.Archive.StudyKey([16]byte(p.Key))
		if err != nil {
			yield(version{}, err)
			return
		}
		one := far.PackOf(p, key)
		memo := "lost\x00" + string(p.Id)
		if _, bad := r.contact.ask(memo); bad {
			return // all who answer have just been asked
		}
		m := &far.Manifest{
			Study: record.Study, Series: record.Series, Packs: []far.Pack{one},
			Instances: []far.Instance{{Record: record, Header: holding.Header, Chunks: archivepb.PackChunks(holding.Location.Chunks)}},
		}
		from := slices.DeleteFunc(r.o.Nodes.Others(), func(node string) bool { return !r.o.Nodes.Alive(node) })
		if r.o.Shards != nil {
			from = append([]string{far.Shards}, from...)
		}
		for some := range slices.Chunk(from, mostHelpers) {
			k := newKnown(cached.Told{Manifest: m})
			// Nobody tells of it, and this node is not asked: it has lost it.
			k.bytes, k.packs, k.helpers = r.o.Client.Read(m, some...), map[int]*plaintext{}, true
			if !yield(version{k, 0}, nil) {
				return
			}
		}
		if ctx.Err() == nil {
			r.contact.note(memo, false)
		}
	}
}

// mended returns the instance that stands in the place of one that was dropped
// because it was lost: the same, fetched back or sent again since it was listed.
func (r *Reader) mended(ctx context.Context, ref archive.Ref) (archive.Ref, bool) {
	old, err := r.o.Archive.Record(ref.Number)
	if err != nil {
		return archive.Ref{}, false
	}
	for now, err := range r.o.Archive.Select(ctx, ref.Study, ref.Series, ref.SOP) {
		if err != nil {
			break
		}
		record, err := r.o.Archive.Record(now.Number)
		if err == nil && now.Number != ref.Number && string(record.Hash) == string(old.Hash) && record.Syntax == old.Syntax {
			return now, true
		}
	}
	return archive.Ref{}, false
}

// headersHere reads the header of an instance that is stored here: from another
// node if store/ has lost it, and the bytes are lost too.
func (r *Reader) headersHere(ctx context.Context, ref archive.Ref) (*dicom.Header, error) {
	h, err := r.o.Archive.Headers(ctx, ref)
	if err == nil || ctx.Err() != nil || !lostHere(err) {
		return h, err
	}
	record, failed := r.o.Archive.Record(ref.Number)
	if failed != nil {
		return nil, err
	}
	v, stored, failed := r.another(ctx, record)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return r.headerFrom(v, stored, true)
}

// lostInstances are those that readers met, to be fetched back.
type lostInstances struct {
	mu      sync.Mutex // guards numbers
	numbers map[uint64]bool
	met     chan struct{} // holds a token if there are any
}

// maxLost bounds those that are remembered. The others are met again, and those
// whose table is known to be lost are looked for anyway.
const maxLost = 4096

func (l *lostInstances) note(number uint64) {
	l.mu.Lock()
	if len(l.numbers) < maxLost {
		l.numbers[number] = true
	}
	l.mu.Unlock()
	select {
	case l.met <- struct{}{}:
	default:
	}
}

func (l *lostInstances) take() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]uint64, 0, len(l.numbers))
	for number := range l.numbers {
		all = append(all, number)
	}
	clear(l.numbers)
	slices.Sort(all)
	return all
}

// mendMet fetches back what readers found lost, as they find it.
func (r *Reader) mendMet(ctx context.Context, progress *work.Progress) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.lost.met:
		}
		all := r.lost.take()
		for i, number := range all {
			if ctx.Err() != nil {
				break
			}
			progress.Note(r.mend(ctx, number))
			progress.Set(int64(i+1), int64(len(all)))
		}
	}
}

// MendLost fetches back every instance whose pack is known to be lost here, as far
// as other nodes that answer have it.
func (r *Reader) MendLost(ctx context.Context) error {
	var failed error
	for number, err := range r.o.Archive.Lost(ctx) {
		if err != nil {
			return errors.Join(failed, err)
		}
		if err := r.mend(ctx, number); err != nil && !fault.Is(err, fault.NotFound) {
			failed = err // the last will do: each was in its place
		}
	}
	return failed
}

// mend fetches an instance back, if it is still lost: it is stored as if its
// sender had sent it again, and takes the lost one's place. fault.NotFound if
// nobody who answers has it.
func (r *Reader) mend(ctx context.Context, number uint64) error {
	record, err := r.o.Archive.Record(number)
	if err != nil {
		return err
	}
	if record.State != archivepb.State_CANONICAL || r.deleted(record.Study, record.Series, record) {
		return nil
	}
	// What is rotten in a way that the archive knows nothing of would be taken for a
	// copy too many.
	if lost, err := r.o.Archive.IsLost(ctx, number); err != nil || !lost {
		return err
	}
	_, stored, err := r.another(ctx, record)
	if err != nil {
		return err
	}
	body := verify(stored, record.Bytes, [32]byte(record.Hash))
	got, err := r.o.Archive.Store(ctx, archive.Incoming{
		Sender: archive.Sender{
			CallingAE: record.CallingAe, Remote: record.Remote, User: record.User, Issuer: record.Issuer, Charset: record.Charset,
		},
		Syntax: record.Syntax, Class: record.Class, Instance: record.Sop, Study: record.Study,
		Body: io.NewSectionReader(body, 0, record.Bytes),
	})
	if err != nil {
		return err
	}
	if got.Outcome == archive.New {
		r.stats.Mended.Add(1)
		r.log.Info("an instance that was lost here was fetched back", "series", record.Series, "number", got.Number)
	}
	return nil
}
