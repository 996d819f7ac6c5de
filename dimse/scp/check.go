package scp

import (
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
)

// requests names the operation of each request that is served, and whether it
// has a data set (PS3.7 §9.3, §10.3).
var requests = map[command.Field]struct {
	operation dimse.Operation
	hasData   bool
}{
	command.CEchoRQ:        {dimse.Echo, false},
	command.CStoreRQ:       {dimse.Store, true},
	command.CFindRQ:        {dimse.Find, true},
	command.CMoveRQ:        {dimse.Move, true},
	command.CGetRQ:         {dimse.Get, true},
	command.NActionRQ:      {dimse.Commit, true},
	command.NEventReportRQ: {dimse.Report, true},
}

// reasons says in words why a request is out of place: at most
// [dimse.MaxComment] characters.
var reasons = map[command.Status]string{
	command.UnrecognizedOperation: "no command that is served on this presentation context",
	command.DuplicateInvocation:   "a request with this message id is under way",
	command.ClassNotSupported:     "the SOP class is not that of the presentation context",
	command.NoSuchSOPClass:        "the SOP class is not that of the presentation context",
	command.MistypedArgument:      "a data set is missing, or there is one too many",
	command.ResourceLimitation:    "more operations at once than were negotiated",
}

// check tells which operation a request asks for on which context, or the
// status that refuses it: 0211 unknown command, or none of the context's
// service; 0210 message id in use; 0122 or 0118 class is not that of the
// context; 0212 data set missing or out of place.
func (a *association) check(set *command.Set, m *assoc.Message) (assoc.Context, dimse.Operation, command.Status) {
	r, known := requests[set.Field]
	if !known {
		return assoc.Context{}, 0, command.UnrecognizedOperation
	}
	a.mu.Lock()
	inUse := a.running[set.MessageID] != nil
	a.mu.Unlock()
	if inUse {
		return assoc.Context{}, 0, command.DuplicateInvocation
	}
	pc, ok := a.Context(m.ContextID)
	if !ok || set.Class != pc.Abstract {
		if r.operation == dimse.Commit || r.operation == dimse.Report {
			return assoc.Context{}, 0, command.NoSuchSOPClass
		}
		return assoc.Context{}, 0, command.ClassNotSupported
	}
	if !serves(pc, r.operation) {
		return assoc.Context{}, 0, command.UnrecognizedOperation
	}
	if r.hasData != (m.Data != nil) {
		return assoc.Context{}, 0, command.MistypedArgument
	}
	return pc, r.operation, command.Success
}

// serves reports whether an operation belongs to a context's class and to the
// role that the requestor has in it.
func serves(pc assoc.Context, o dimse.Operation) bool {
	if _, query, ok := dimse.QueryClass(pc.Abstract); ok {
		return o == query
	}
	switch pc.Abstract {
	case dimse.Verification:
		return o == dimse.Echo
	case dimse.StorageCommitment:
		return o == dimse.Commit && pc.SCU || o == dimse.Report && pc.SCP
	}
	// Nothing else but storage was accepted.
	return o == dimse.Store && pc.SCU
}
