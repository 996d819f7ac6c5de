package dimse

import (
	"pelago/cluster/fault"
	"pelago/dimse/command"
)

// Statuses of the service classes (PS3.4 B.2.3, C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)
// that the node answers with.
const (
	OutOfResources              command.Status = 0xA700
	UnableToPerformSubs         command.Status = 0xA702
	MoveDestinationUnknown      command.Status = 0xA801
	DataSetDoesNotMatch         command.Status = 0xA900
	SubsCompleteWithFailures    command.Status = 0xB000
	CoercionOfElements          command.Status = 0xB000
	CannotUnderstand            command.Status = 0xC000
	UnableToProcess             command.Status = 0xC001
	UnableToProcessNotAnswering command.Status = 0xC002
)

// row is a line of the table: what one kind of failure is called by each
// service. C-MOVE and C-GET share a column.
type row struct {
	store, find, retrieve, commit command.Status
}

// statusTable turns a kind of failure into a status, by service. Cells that a
// service cannot meet by its own rules have the general processing failure, so
// that no failure ever leaves as a success.
//
// The exceptions of C-MOVE and C-GET stand beside the retrieval itself, which
// knows the counts: nothing found is a success that sends nothing, and a
// retrieval of which some sub-operations were done ends with B000.
var statusTable = map[fault.Kind]row{
	fault.Other:       {command.ProcessingFailure, command.ProcessingFailure, command.ProcessingFailure, command.ProcessingFailure},
	fault.Invalid:     {CannotUnderstand, UnableToProcess, UnableToProcess, command.InvalidArgument},
	fault.Mismatch:    {DataSetDoesNotMatch, DataSetDoesNotMatch, DataSetDoesNotMatch, command.MissingAttribute},
	fault.Unsupported: {command.ClassNotSupported, command.ClassNotSupported, command.ClassNotSupported, command.ClassNotSupported},
	fault.Denied:      {command.NotAuthorized, command.NotAuthorized, command.NotAuthorized, command.NotAuthorized},
	fault.NotFound:    {command.ProcessingFailure, command.Success, command.Success, command.NoSuchInstance},
	fault.Conflict:    {command.Success, command.ProcessingFailure, command.ProcessingFailure, command.ProcessingFailure},
	fault.Full:        {OutOfResources, OutOfResources, UnableToPerformSubs, command.ResourceLimitation},
	fault.Unavailable: {OutOfResources, UnableToProcessNotAnswering, UnableToPerformSubs, command.ResourceLimitation},
	fault.Corrupt:     {command.ProcessingFailure, UnableToProcess, UnableToPerformSubs, command.ProcessingFailure},
	fault.Canceled:    {OutOfResources, command.Cancel, command.Cancel, command.ProcessingFailure},
	fault.Protocol:    {command.MistypedArgument, command.MistypedArgument, command.MistypedArgument, command.MistypedArgument},
}

// KindStatus returns the status by which a service reports a kind of failure
// (DESIGN §9). Unknown kinds are processing failures.
func KindStatus(o Operation, kind fault.Kind) command.Status {
	r, ok := statusTable[kind]
	if !ok {
		return command.ProcessingFailure
	}
	switch o {
	case Store:
		return r.store
	case Find:
		return r.find
	case Move, Get:
		return r.retrieve
	}
	return r.commit
}
