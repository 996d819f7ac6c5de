package scp

import (
	"context"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
)

// commit answers a storage commitment request (PS3.4 J.3.2).
func (a *association) commit(ctx context.Context, r request) error {
	answered := make(chan struct{})
	err := a.takeCommitment(ctx, r, answered)
	r.end()
	if err := a.reply(context.WithoutCancel(ctx), r.set, r.pc.ID, dimse.Commit, err); err != nil {
		return err
	}
	close(answered)
	return nil
}

func (a *association) takeCommitment(ctx context.Context, r request, answered <-chan struct{}) error {
	switch {
	case r.set.Instance != dimse.StorageCommitmentInstance:
		return &dimse.StatusError{Status: command.NoSuchInstance}
	case r.set.ActionType != dimse.CommitmentRequestAction:
		return &dimse.StatusError{Status: command.NoSuchActionType}
	}
	asked, err := dimse.ParseCommitmentRequest(r.identifier)
	if err != nil {
		return err
	}
	return a.session.Commit.Commit(ctx, &CommitRequest{
		CommitmentRequest: *asked,
		Report: func(ctx context.Context, result *dimse.CommitmentResult) error {
			select {
			case <-answered:
			case <-a.Done():
				return fault.New(fault.Unavailable, "the association has ended")
			case <-ctx.Done():
				return ctx.Err()
			}
			return a.invoker.SendCommitmentResult(ctx, result)
		},
	})
}
