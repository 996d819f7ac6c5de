package scp

import (
	"bytes"
	"context"
	"errors"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dict"
)

// find answers a C-FIND: a pending response per match, then the final one.
func (a *association) find(ctx context.Context, r request) error {
	sendErr, err := a.findAll(ctx, r)
	if sendErr != nil {
		return sendErr
	}
	r.end()
	if err != nil && errors.Is(context.Cause(ctx), errCanceled) {
		err = errCanceled
	}
	if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Canceled) {
		a.log.Warn("query failed", "error", err)
	}
	// The association's context: the operation's may have been canceled.
	return a.reply(context.WithoutCancel(ctx), r.set, r.pc.ID, dimse.Find, err)
}

// findAll sends the matches. sendErr is an error of the association, err one of
// the query.
func (a *association) findAll(ctx context.Context, r request) (sendErr, err error) {
	root, _, _ := dimse.QueryClass(r.pc.Abstract)
	matches, err := a.session.Find.Find(ctx, &FindRequest{
		Root: root, Identifier: r.identifier, Options: a.options(r), Priority: r.set.Priority,
	})
	if err != nil {
		return nil, err
	}
	whole, partial := pendingHead(r, command.Pending), pendingHead(r, command.PendingOptionalKeys)
	syntax, _ := dict.Syntax(r.pc.Syntax)
	sending := context.WithoutCancel(ctx)
	var body []byte
	sent := 0
	for d, err := range matches.Datasets {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		if body, err = d.Encode(body[:0], syntax); err != nil {
			return nil, err
		}
		head := whole
		if matches.Partial != nil && matches.Partial() {
			head = partial
		}
		if sent++; sent == 1 { // somebody waits to see anything at all
			err = a.Send(sending, r.pc.ID, head, bytes.NewReader(body))
		} else {
			err = a.SendSoon(sending, r.pc.ID, head, body)
		}
		if err != nil {
			return err, nil
		}
	}
	return nil, nil
}

// pendingHead is the command set of a pending response.
func pendingHead(r request, status command.Status) []byte {
	pending := r.set.Reply(status)
	pending.HasData = true
	return pending.Encode(nil)
}

// options returns what was negotiated for the class of a request.
func (a *association) options(r request) dimse.QueryOptions {
	return dimse.ParseQueryOptions(r.operation, a.Extended()[r.pc.Abstract])
}
