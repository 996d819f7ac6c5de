package virtual

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/recent"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Hot has the packs that arrived here; *archive.Archive does.
type Hot interface {
	// Ciphertext returns a pack as it rests, and its record: fault.NotFound if it is
	// not here, fault.Corrupt if it is lost.
	Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error)
}

// Heads has the heads of stripes of the packs that arrived here; node/spread does.
type Heads interface {
	// Head returns a stripe's, which must not be changed; fault.NotFound.
	Head(of shard.Stripe) (*stripe.Head, error)
}

// Options are what a source is made of.
type Options struct {
	Held  held.Source // what rests as shards
	Hot   Hot
	Heads Heads

	// Bytes bounds what is kept of copies that were verified: 64 MiB, which is for
	// 30 GB of packs.
	Bytes int64
	// Readers is how many copies are read at one time to be verified: 2.
	Readers int
	// Rotten is told of a hot copy that is not what its record says, once for each
	// time it is read whole. What bulk/ finds rotten, the archive is told by bulk/.
	// It must not block for long. nil: nobody.
	Rotten func(of shard.Stripe, cause error)
	Log    *slog.Logger // nil is silent
}

// Source finds shards here. It implements [held.Source].
type Source struct {
	o     Options
	coder *stripe.Coder
	turns chan struct{} // capacity: Options.Readers
	ended context.Context
	end   context.CancelFunc
	work  sync.WaitGroup // of flights

	// verified are copies and what was cut from them, by what they are of; the
	// index of a copy is whole.
	verified recent.Values[held.Name, *cut]

	mu      sync.Mutex // guards what follows
	closed  bool
	flights map[held.Name]*flight // what is being made
}

// whole is the index under which a copy is kept that shards are cut from.
const whole = -1

// cut is a verified copy, a shard that is cut from one, or why there is none.
type cut struct {
	at     bulk.Ref // where the pack rested when it was verified
	copy   *stripe.Copy
	shard  *stripe.Shard // nil for a copy
	failed error
	when   time.Time // of failed
}

// doubted is how long a copy that failed is not read whole again, whoever asks.
const doubted = time.Minute

// flight is the making of a cut, for all who wait for it.
type flight struct {
	done chan struct{} // closed at its end
	at   bulk.Ref
	made *cut
	err  error
}

const (
	defaultBytes   = 64 << 20
	defaultReaders = 2
)

// New returns a source.
func New(o Options) *Source {
	if o.Bytes == 0 {
		o.Bytes = defaultBytes
	}
	if o.Readers == 0 {
		o.Readers = defaultReaders
	}
	if o.Rotten == nil {
		o.Rotten = func(shard.Stripe, error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{o: o, coder: stripe.NewCoder(), turns: make(chan struct{}, o.Readers), flights: map[held.Name]*flight{}}
	s.verified.Limit = o.Bytes
	s.ended, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends what is being verified, and returns when it has ended. Who waits for
// it gets fault.Unavailable, as does who asks afterwards.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.work.Wait()
}

// Shard implements [held.Source]: a shard that rests here, or any of a stripe whose
// pack has a hot copy here. fault.NotFound if there is neither, fault.Corrupt if the
// only one of them is lost or is not what the stripe's root stands for.
func (s *Source) Shard(n held.Name) (held.Shard, error) {
	if n.Index < 0 || n.Index >= shard.MaxShards {
		return nil, fault.New(fault.NotFound, "virtual: no stripe has shard %d", n.Index)
	}
	rests, err := s.o.Held.Shard(n)
	if err == nil {
		return rests, nil
	}
	if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Corrupt) {
		return nil, err
	}
	made, hot := s.cut(s.ended, n)
	switch {
	case hot == nil:
		return &readable{made.shard, s, n}, nil
	case fault.Is(hot, fault.NotFound):
		return nil, err // what is known of the one at rest says more
	}
	return nil, hot
}

// Verify reads the hot copy of a stripe's pack, and compares it with the stripe's
// root: nil means that it stands for its virtual shard now. fault.NotFound if there
// is no copy or no head, fault.Corrupt if it is not what the root stands for.
func (s *Source) Verify(ctx context.Context, of shard.Stripe) error {
	head, p, from, err := s.find(of)
	if err != nil {
		return err
	}
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return canceled(ctx)
	}
	made, err := s.coder.Copy(ctx, from, head)
	if err != nil {
		return s.failed(ctx, of, head, p, from, err)
	}
	s.keep(held.Name{Stripe: of, Index: whole}, &cut{at: refOf(p), copy: made})
	return nil
}

// Cut returns a shard that is cut from the hot copy, whether it rests here too or not,
// for who writes it. Errors are those of [Source.Shard].
func (s *Source) Cut(ctx context.Context, n held.Name) (*stripe.Shard, error) {
	if n.Index < 0 || n.Index >= shard.MaxShards {
		return nil, fault.New(fault.NotFound, "virtual: no stripe has shard %d", n.Index)
	}
	made, err := s.cut(ctx, n)
	if err != nil {
		return nil, err
	}
	return made.shard, nil
}

// Forget has what was verified of a pack be verified anew: something was heard of it.
func (s *Source) Forget(id pack.ID) {
	s.verified.ForgetIf(func(n held.Name) bool { return n.Pack == id })
}

// find returns a stripe's head, and its pack where it rests now.
func (s *Source) find(of shard.Stripe) (*stripe.Head, *archivepb.Pack, io.ReaderAt, error) {
	p, from, err := s.o.Hot.Ciphertext(pack.ID(of.Pack))
	if err != nil {
		return nil, nil, nil, err
	}
	head, err := s.o.Heads.Head(of)
	if err != nil {
		return nil, nil, nil, err
	}
	if head.Stripe != of || head.Size != p.BlobBytes {
		return nil, nil, nil, fault.New(fault.Corrupt, "virtual: the head of %v is not of the copy that is here", of)
	}
	return head, p, from, nil
}

func refOf(p *archivepb.Pack) bulk.Ref {
	return bulk.Ref{Space: bulk.Space(p.Space), Table: p.Table, Blob: p.Blob, Bytes: p.BlobBytes}
}

// cut returns a shard of a copy as it rests now, made by one for all who ask.
func (s *Source) cut(ctx context.Context, n held.Name) (*cut, error) {
	p, _, err := s.o.Hot.Ciphertext(pack.ID(n.Pack))
	if err != nil {
		return nil, err
	}
	at := refOf(p)
	for {
		if c, ok := s.verified.Get(n); ok {
			if c.at == at && c.failed == nil {
				return c, nil
			}
			if c.at == at && time.Since(c.when) < doubted {
				return nil, c.failed
			}
			s.verified.Forget(n, func(known *cut) bool { return known == c })
		}
		f, err := s.join(n, at)
		if err != nil {
			return nil, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, canceled(ctx)
		}
		if f.at == at || f.err != nil {
			return f.made, f.err
		}
	}
}

// join returns the flight of a cut, of which one is begun if there is none.
func (s *Source) join(n held.Name, at bulk.Ref) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "virtual: closed")
	}
	if f := s.flights[n]; f != nil {
		return f, nil
	}
	f := &flight{done: make(chan struct{}), at: at}
	s.flights[n] = f
	s.work.Go(func() {
		f.made, f.at, f.err = s.make(n)
		switch {
		case f.err == nil:
			s.keep(n, f.made)
		case fault.Is(f.err, fault.Corrupt):
			s.verified.Put(n, &cut{at: f.at, failed: f.err, when: time.Now()}, failedBytes)
		}
		s.mu.Lock()
		delete(s.flights, n)
		s.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// make verifies a copy, or cuts a shard from one that is.
func (s *Source) make(n held.Name) (*cut, bulk.Ref, error) {
	if n.Index == whole {
		return s.verify(n.Stripe)
	}
	from, err := s.cut(s.ended, held.Name{Stripe: n.Stripe, Index: whole})
	if err != nil {
		return nil, bulk.Ref{}, err
	}
	if err := s.turn(); err != nil {
		return nil, from.at, err
	}
	defer func() { <-s.turns }()
	sh, err := from.copy.Shard(s.ended, n.Index)
	if fault.Is(err, fault.Invalid) {
		return nil, from.at, fault.New(fault.NotFound, "virtual: stripe %v has no shard %d", n.Stripe, n.Index)
	}
	if err != nil {
		return nil, from.at, s.met(n.Stripe, err)
	}
	return &cut{at: from.at, shard: sh}, from.at, nil
}

func (s *Source) verify(of shard.Stripe) (*cut, bulk.Ref, error) {
	head, p, from, err := s.find(of)
	if err != nil {
		return nil, bulk.Ref{}, err
	}
	if err := s.turn(); err != nil {
		return nil, refOf(p), err
	}
	defer func() { <-s.turns }()
	made, err := s.coder.Copy(s.ended, from, head)
	if err != nil {
		return nil, refOf(p), s.failed(s.ended, of, head, p, from, err)
	}
	return &cut{at: refOf(p), copy: made}, refOf(p), nil
}

// turn waits for one of Options.Readers.
func (s *Source) turn() error {
	select {
	case s.turns <- struct{}{}:
		return nil
	case <-s.ended.Done():
		return canceled(s.ended)
	}
}

// failedBytes is what remembering a failure takes, about.
const failedBytes = 512

// keep keeps what was made: 32 bytes for each leaf, and as much for the inner nodes
// of a shard's tree.
func (s *Source) keep(n held.Name, made *cut) {
	const around = 512 // the structures themselves
	leaves := made.at.Bytes/shard.LeafBytes + 1
	bytes := 32*leaves + around
	if made.shard != nil {
		bytes = 2*32*(leaves/int64(made.shard.Head().Code.K)+1) + around
	}
	s.verified.Put(n, made, bytes)
}

// failed judges a copy that did not lead to a head's root: it is read again, and
// compared with what its own record says. Only if that fails too it is the copy that
// is rotten, and not the head or the memory of the first reading.
func (s *Source) failed(ctx context.Context, of shard.Stripe, head *stripe.Head, p *archivepb.Pack, from io.ReaderAt, cause error) error {
	if ctx.Err() != nil {
		return canceled(ctx)
	}
	if !fault.Is(cause, fault.Corrupt) {
		return cause // it went, or the disk does not answer
	}
	if len(p.Root) != len(head.Pack) {
		return fault.New(fault.Corrupt, "virtual: a record without the root of %v", of)
	}
	switch err := seal.VerifyRoot(from, p.BlobBytes, [32]byte(p.Root)); {
	case ctx.Err() != nil:
		return canceled(ctx)
	case err == nil && [32]byte(p.Root) == head.Pack:
		return fault.New(fault.Unavailable, "virtual: the copy of %v was whole when it was read again: look at this node's memory: %w", of, cause)
	case err == nil:
		return fault.New(fault.Corrupt, "virtual: the head of %v is of other bytes than the copy that is here", of)
	case fault.Is(err, fault.NotFound): // bulk/ has told the archive, and forgot it
		s.Forget(pack.ID(of.Pack))
		return cause
	case !fault.Is(err, fault.Corrupt):
		return err
	}
	return s.met(of, cause)
}

// met takes a failure of a copy's bytes: what was verified of it counts no more, and
// who asked to be told of rot is.
func (s *Source) met(of shard.Stripe, cause error) error {
	if !fault.Is(cause, fault.Corrupt) && !fault.Is(cause, fault.NotFound) {
		return cause
	}
	s.Forget(pack.ID(of.Pack))
	if fault.Is(cause, fault.Corrupt) {
		s.o.Log.Error("a hot copy is not what its stripe's root stands for", "stripe", of.String(), "error", cause)
		s.o.Rotten(of, cause)
	}
	return cause
}

func canceled(ctx context.Context) error {
	return fault.New(fault.Unavailable, "virtual: %w", context.Cause(ctx))
}

// readable is a shard that is cut from a copy.
type readable struct {
	*stripe.Shard
	source *Source
	name   held.Name
}

// Range implements [held.Shard]; rot that it meets is told of.
func (r *readable) Range(first, count int64) ([]byte, [][32]byte, error) {
	data, proof, err := r.Shard.Range(first, count)
	if err != nil {
		return nil, nil, r.source.met(r.name.Stripe, err)
	}
	return data, proof, nil
}

var _ held.Source = (*Source)(nil)
