package scu

import (
	"bytes"
	"context"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// RequestCommitment asks the peer to commit to storing instances (N-ACTION,
// PS3.4 J.3.2). nil means that it has taken the request; the result comes
// later, on this association or another.
func (c *Client) RequestCommitment(ctx context.Context, r *dimse.CommitmentRequest) error {
	pc, err := c.contextOf(dimse.StorageCommitment)
	if err != nil {
		return err
	}
	set := &command.Set{
		Field:      command.NActionRQ,
		Class:      dimse.StorageCommitment,
		Instance:   dimse.StorageCommitmentInstance,
		ActionType: dimse.CommitmentRequestAction,
	}
	answer, err := c.onceWith(ctx, pc, set, r.Dataset())
	if err != nil {
		return err
	}
	return statusError(dimse.Commit, answer)
}

// SendCommitmentResult reports a storage commitment result (N-EVENT-REPORT,
// PS3.4 J.3.3) in the SCP role: as the acceptor of the association on which it
// was asked for, or as the requestor of a new one whose SCP role the peer
// accepted. nil means that the peer has taken it.
func (i *Invoker) SendCommitmentResult(ctx context.Context, r *dimse.CommitmentResult) error {
	var pc assoc.Context
	found := false
	for _, c := range i.association.Contexts() {
		// The SCP of this end is the SCU of the other.
		if c.Abstract == dimse.StorageCommitment && usable(c, !i.requestor) {
			pc, found = c, true
			break
		}
	}
	if !found {
		return fault.New(fault.Unsupported, "storage commitment: the SCP role was not negotiated")
	}
	set := &command.Set{
		Field:     command.NEventReportRQ,
		Class:     dimse.StorageCommitment,
		Instance:  dimse.StorageCommitmentInstance,
		EventType: r.EventType(),
	}
	answer, err := i.onceWith(ctx, pc, set, r.Dataset())
	if err != nil {
		return err
	}
	return statusError(dimse.Report, answer)
}

// onceWith is once with a data set in the context's syntax.
func (i *Invoker) onceWith(ctx context.Context, pc assoc.Context, set *command.Set, d *dicom.Dataset) (*command.Set, error) {
	syntax, _ := dict.Syntax(pc.Syntax)
	b, err := d.Encode(nil, syntax)
	if err != nil {
		return nil, err
	}
	set.HasData = true
	return i.once(ctx, pc.ID, set, bytes.NewReader(b))
}

// ServeReport answers an N-EVENT-REPORT of storage commitment; nil committed
// refuses it. Package scp uses it for associations that a storage commitment
// SCP opens.
func ServeReport(ctx context.Context, a *assoc.Association, set *command.Set, m *assoc.Message,
	committed func(context.Context, *dimse.CommitmentResult) error,
) *command.Set {
	pc, accepted := a.Context(m.ContextID)
	switch {
	case committed == nil || !accepted || pc.Abstract != dimse.StorageCommitment || set.Class != dimse.StorageCommitment:
		return set.Reply(command.NoSuchSOPClass)
	case set.Instance != dimse.StorageCommitmentInstance:
		return set.Reply(command.NoSuchInstance)
	case set.EventType != dimse.CommitmentSuccessEvent && set.EventType != dimse.CommitmentFailuresEvent:
		return set.Reply(command.Status(0x0113)) // no such event type, PS3.7 C.5.10
	case m.Data == nil:
		return set.Reply(command.MistypedArgument)
	}
	status, comment := dimse.StatusOf(dimse.Report, takeReport(ctx, pc.Syntax, m, committed))
	reply := set.Reply(status)
	reply.ErrorComment = comment
	return reply
}

func takeReport(ctx context.Context, syntax string, m *assoc.Message, committed func(context.Context, *dimse.CommitmentResult) error) error {
	b, err := ReadIdentifier(m.Data)
	if err != nil {
		return err
	}
	s, _ := dict.Syntax(syntax)
	d, err := dicom.ParseDataset(b, s, dicom.DefaultLimits)
	if err != nil {
		return err
	}
	result, err := dimse.ParseCommitmentResult(d)
	if err != nil {
		return err
	}
	return committed(ctx, result)
}
