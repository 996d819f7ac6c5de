package command

// Element numbers of group 0000 (PS3.7 Annex E.1).
const (
	elGroupLength           = 0x0000
	elAffectedClass         = 0x0002
	elRequestedClass        = 0x0003
	elCommandField          = 0x0100
	elMessageID             = 0x0110
	elRespondedTo           = 0x0120
	elMoveDestination       = 0x0600
	elPriority              = 0x0700
	elDataSetType           = 0x0800
	elStatus                = 0x0900
	elOffendingElement      = 0x0901
	elErrorComment          = 0x0902
	elAffectedInstance      = 0x1000
	elRequestedInstance     = 0x1001
	elEventType             = 0x1002
	elActionType            = 0x1008
	elRemaining             = 0x1020
	elCompleted             = 0x1021
	elFailed                = 0x1022
	elWarning               = 0x1023
	elMoveOriginator        = 0x1030
	elMoveOriginatorMessage = 0x1031
)

// use tells when an element of a command is encoded.
type use byte

const (
	always  use = iota // required: even when zero or empty
	present            // conditional or optional: when it has a value
)

// slot is an element of a command and its use.
type slot struct {
	element uint16
	use     use
}

// layout is a command's name and its elements in tag order, less the group
// length, which every command has.
type layout struct {
	field Field
	name  string
	slots []slot
}

// layoutOf returns the elements of a command; false for a field that PS3.7 does
// not know, with the elements that any request or response has.
func layoutOf(f Field) (layout, bool) {
	for _, l := range layouts {
		if l.field == f {
			return l, true
		}
	}
	if f.IsResponse() {
		return layout{field: f, slots: affectedResponse}, false
	}
	return layout{field: f, slots: affectedRequest}, false
}

// The elements that several commands share.
var (
	affectedRequest = []slot{
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elDataSetType, always},
	}
	requestedRequest = []slot{
		{elRequestedClass, always}, {elCommandField, always}, {elMessageID, always}, {elDataSetType, always},
		{elRequestedInstance, always},
	}
	affectedResponse = []slot{
		{elAffectedClass, present}, {elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
		{elStatus, always}, {elOffendingElement, present}, {elErrorComment, present},
	}
	instanceResponse = []slot{
		{elAffectedClass, present}, {elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
		{elStatus, always}, {elOffendingElement, present}, {elErrorComment, present}, {elAffectedInstance, present},
	}
	queryRequest = []slot{
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elPriority, always},
		{elDataSetType, always},
	}
	retrieveResponse = []slot{
		{elAffectedClass, present}, {elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
		{elStatus, always}, {elOffendingElement, present}, {elErrorComment, present},
		{elRemaining, present}, {elCompleted, present}, {elFailed, present}, {elWarning, present},
	}
)

// layouts are the commands of PS3.7 §9.3 and §10.3. Group length apart, an
// element stands here exactly when its table lists it.
var layouts = []layout{
	{CStoreRQ, "C-STORE-RQ", []slot{ // table 9.3-1
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elPriority, always},
		{elDataSetType, always}, {elAffectedInstance, always},
		{elMoveOriginator, present}, {elMoveOriginatorMessage, present},
	}},
	{CStoreRSP, "C-STORE-RSP", instanceResponse}, // table 9.3-2
	{CFindRQ, "C-FIND-RQ", queryRequest},         // table 9.3-3
	{CFindRSP, "C-FIND-RSP", affectedResponse},   // table 9.3-4
	{CCancelRQ, "C-CANCEL-RQ", []slot{ // tables 9.3-5, 9.3-8, 9.3-11
		{elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
	}},
	{CGetRQ, "C-GET-RQ", queryRequest},       // table 9.3-6
	{CGetRSP, "C-GET-RSP", retrieveResponse}, // table 9.3-7
	{CMoveRQ, "C-MOVE-RQ", []slot{ // table 9.3-9
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elMoveDestination, always},
		{elPriority, always}, {elDataSetType, always},
	}},
	{CMoveRSP, "C-MOVE-RSP", retrieveResponse}, // table 9.3-10
	{CEchoRQ, "C-ECHO-RQ", affectedRequest},    // table 9.3-12
	{CEchoRSP, "C-ECHO-RSP", affectedResponse}, // table 9.3-13
	{NEventReportRQ, "N-EVENT-REPORT-RQ", []slot{ // table 10.3-1
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elDataSetType, always},
		{elAffectedInstance, always}, {elEventType, always},
	}},
	{NEventReportRSP, "N-EVENT-REPORT-RSP", []slot{ // table 10.3-2
		{elAffectedClass, present}, {elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
		{elStatus, always}, {elOffendingElement, present}, {elErrorComment, present},
		{elAffectedInstance, present}, {elEventType, present},
	}},
	{NGetRQ, "N-GET-RQ", requestedRequest},   // table 10.3-3
	{NGetRSP, "N-GET-RSP", instanceResponse}, // table 10.3-4
	{NSetRQ, "N-SET-RQ", requestedRequest},   // table 10.3-5
	{NSetRSP, "N-SET-RSP", instanceResponse}, // table 10.3-6
	{NActionRQ, "N-ACTION-RQ", []slot{ // table 10.3-7
		{elRequestedClass, always}, {elCommandField, always}, {elMessageID, always}, {elDataSetType, always},
		{elRequestedInstance, always}, {elActionType, always},
	}},
	{NActionRSP, "N-ACTION-RSP", []slot{ // table 10.3-8
		{elAffectedClass, present}, {elCommandField, always}, {elRespondedTo, always}, {elDataSetType, always},
		{elStatus, always}, {elOffendingElement, present}, {elErrorComment, present},
		{elAffectedInstance, present}, {elActionType, present},
	}},
	{NCreateRQ, "N-CREATE-RQ", []slot{ // table 10.3-9
		{elAffectedClass, always}, {elCommandField, always}, {elMessageID, always}, {elDataSetType, always},
		{elAffectedInstance, present},
	}},
	{NCreateRSP, "N-CREATE-RSP", instanceResponse}, // table 10.3-10
	{NDeleteRQ, "N-DELETE-RQ", requestedRequest},   // table 10.3-11
	{NDeleteRSP, "N-DELETE-RSP", instanceResponse}, // table 10.3-12
}
