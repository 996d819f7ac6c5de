package scp

import (
	"context"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// store streams a C-STORE into the storer. Its response is sent whatever the
// storer says, once the rest of the data set has passed; only the loss of the
// association is an error.
func (a *association) store(ctx context.Context, set *command.Set, m *assoc.Message, pc assoc.Context) error {
	err := a.session.Store.Store(ctx, &StoreRequest{
		Class:                 set.Class,
		Instance:              set.Instance,
		Syntax:                pc.Syntax,
		MessageID:             set.MessageID,
		Priority:              set.Priority,
		MoveOriginator:        set.MoveOriginator,
		MoveOriginatorMessage: set.MoveOriginatorMessage,
		Data:                  m.Data,
	})
	if lost := m.Data.Discard(); lost != nil {
		return lost
	}
	if err != nil {
		a.log.Info("instance not stored", "instance", set.Instance, "error", err)
	}
	return a.reply(ctx, set, m.ContextID, dimse.Store, err)
}
