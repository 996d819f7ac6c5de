package scp

import (
	"context"
	"io"
	"iter"
	"sync"

	"pelago/dimse/dicom"
)

// provider is every provider at once; what a test does not set answers success.
type provider struct {
	echo   func(context.Context) error
	store  func(context.Context, *StoreRequest) error
	find   func(context.Context, *FindRequest) (*Matches, error)
	move   func(context.Context, *RetrieveRequest) (*Retrieval, error)
	get    func(context.Context, *RetrieveRequest) (*Retrieval, error)
	commit func(context.Context, *CommitRequest) error

	mu     sync.Mutex // guards stored
	stored []received
}

// received is an instance that a provider has taken.
type received struct {
	class, instance, syntax string
	originator              string
	data                    []byte
}

func (p *provider) Echo(ctx context.Context) error {
	if p.echo != nil {
		return p.echo(ctx)
	}
	return nil
}

func (p *provider) Store(ctx context.Context, r *StoreRequest) error {
	if p.store != nil {
		return p.store(ctx, r)
	}
	data, err := io.ReadAll(r.Data)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored = append(p.stored, received{r.Class, r.Instance, r.Syntax, r.MoveOriginator, data})
	return nil
}

func (p *provider) taken() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]received(nil), p.stored...)
}

func (p *provider) Find(ctx context.Context, r *FindRequest) (*Matches, error) {
	if p.find != nil {
		return p.find(ctx, r)
	}
	return &Matches{Datasets: matches()}, nil
}

// matches yields data sets.
func matches(all ...*dicom.Dataset) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		for _, d := range all {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (p *provider) Move(ctx context.Context, r *RetrieveRequest) (*Retrieval, error) {
	return p.move(ctx, r)
}

func (p *provider) Get(ctx context.Context, r *RetrieveRequest) (*Retrieval, error) {
	return p.get(ctx, r)
}

func (p *provider) Commit(ctx context.Context, r *CommitRequest) error {
	if p.commit != nil {
		return p.commit(ctx, r)
	}
	return nil
}
