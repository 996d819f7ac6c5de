package audit

// Peer is the other side of an event, or this one: an application entity, a web
// user, a node.
type Peer struct {
	AE      string // AE title, if any
	User    string // login, if any
	Address string // IP address or host name
}

func (p Peer) participant(requestor bool, roles ...Code) Participant {
	id := p.User
	if id == "" {
		id = p.AE
	}
	if id == "" {
		id = p.Address
	}
	a := Participant{UserID: id, Requestor: requestor, Address: p.Address, Roles: roles}
	if p.AE != "" {
		a.AlternativeID = "AETITLES=" + p.AE
	}
	return a
}

// Patient names whose data an event was about.
type Patient struct {
	ID     string
	Issuer string // of the id; "" = not known
	Name   string // may be empty
}

func (p Patient) object() Object {
	id := p.ID
	if p.Issuer != "" {
		id += "^^^" + p.Issuer // as in HL7 CX
	}
	return Object{ID: id, IDType: idPatient(), Type: 1, Role: 1, Name: p.Name}
}

// Study names what an event was about.
type Study struct {
	UID        string
	Accessions []string
	Classes    []Class
}

func (s Study) object(lifeCycle int) Object {
	o := Object{ID: s.UID, IDType: idStudy(), Type: 2, Role: 3, LifeCycle: lifeCycle}
	if len(s.Accessions) > 0 || len(s.Classes) > 0 {
		o.Description = &Description{Accessions: s.Accessions, Classes: s.Classes}
	}
	return o
}

// Subject is a patient and studies of that patient.
type Subject struct {
	Patient Patient
	Studies []Study
}

// objects lists the studies, then the patient if there is one.
func (s Subject) objects(lifeCycle int) []Object {
	var all []Object
	for _, study := range s.Studies {
		all = append(all, study.object(lifeCycle))
	}
	if s.Patient != (Patient{}) {
		all = append(all, s.Patient.object())
	}
	return all
}

// Started is Application Activity, start (A.5.3.1). by is who started it.
func Started(app, by Peer) Event { return activity(codeApplicationStart(), app, by) }

// Stopped is Application Activity, stop (A.5.3.1).
func Stopped(app, by Peer) Event { return activity(codeApplicationStop(), app, by) }

func activity(kind Code, app, by Peer) Event {
	e := Event{ID: codeApplicationActivity(), Types: []Code{kind}, Action: Execute,
		Participants: []Participant{app.participant(false, roleApplication())}}
	if by != (Peer{}) {
		e.Participants = append(e.Participants, by.participant(true, roleLauncher()))
	}
	return e
}

// LogUsed is Audit Log Used (A.5.3.2): by read the log that uri names.
func LogUsed(by Peer, uri string, outcome Outcome) Event {
	return Event{ID: codeAuditLogUsed(), Action: Read, Outcome: outcome,
		Participants: []Participant{by.participant(true)},
		Objects:      []Object{{ID: uri, IDType: idURI(), Type: 2, Role: 13, Name: "Security Audit Log"}}}
}

// Transferring is Begin Transferring DICOM Instances (A.5.3.3). requestor is a
// third party that asked for it, as in C-MOVE; the zero Peer: the destination.
func Transferring(source, destination, requestor Peer, what Subject) Event {
	return transfer(codeBeginTransferring(), Execute, source, destination, requestor, what, Success)
}

// Transferred is DICOM Instances Transferred (A.5.3.7): action is Create or
// Update at the receiving side, Read at the sending one. requestor as in
// [Transferring].
func Transferred(action Action, source, destination, requestor Peer, what Subject, outcome Outcome) Event {
	return transfer(codeInstancesTransferred(), action, source, destination, requestor, what, outcome)
}

func transfer(id Code, action Action, source, destination, requestor Peer, what Subject, outcome Outcome) Event {
	third := requestor != (Peer{})
	storing := action == Create || action == Update // then the source came by itself
	e := Event{ID: id, Action: action, Outcome: outcome, Participants: []Participant{
		source.participant(!third && storing, roleSource()),
		destination.participant(!third && !storing, roleDestination()),
	}}
	if third {
		e.Participants = append(e.Participants, requestor.participant(true))
	}
	life := 6 // access or use
	if storing {
		life = 1 // origination
	}
	e.Objects = what.objects(life)
	return e
}

// Accessed is DICOM Instances Accessed (A.5.3.6).
func Accessed(by Peer, action Action, what Subject, outcome Outcome) Event {
	return Event{ID: codeInstancesAccessed(), Action: action, Outcome: outcome,
		Participants: []Participant{by.participant(true)}, Objects: what.objects(6)}
}

// Deleted is DICOM Study Deleted (A.5.3.8).
func Deleted(by Peer, what Subject, outcome Outcome) Event {
	return Event{ID: codeStudyDeleted(), Action: Delete, Outcome: outcome,
		Participants: []Participant{by.participant(true)}, Objects: what.objects(14)}
}

// Exported is Export (A.5.3.4): data left the archive for media or a place that
// is no DICOM node.
func Exported(by, app Peer, destination string, what Subject, outcome Outcome) Event {
	return Event{ID: codeExport(), Action: Read, Outcome: outcome, Participants: []Participant{
		by.participant(true), app.participant(false, roleSource()),
		{UserID: destination, Roles: []Code{roleDestinationMedia()}},
	}, Objects: what.objects(10)}
}

// Imported is Import (A.5.3.5): data came in from media or a place that is no
// DICOM node.
func Imported(by, app Peer, source string, what Subject, outcome Outcome) Event {
	return Event{ID: codeImport(), Action: Create, Outcome: outcome, Participants: []Participant{
		by.participant(true), app.participant(false, roleDestination()),
		{UserID: source, Roles: []Code{roleSourceMedia()}},
	}, Objects: what.objects(2)}
}

// Attached is Network Entry (A.5.3.9): a node joined the network.
func Attached(node Peer, outcome Outcome) Event { return entry(codeAttach(), node, outcome) }

// Detached is Network Entry (A.5.3.9): a node left the network.
func Detached(node Peer, outcome Outcome) Event { return entry(codeDetach(), node, outcome) }

func entry(kind Code, node Peer, outcome Outcome) Event {
	return Event{ID: codeNetworkEntry(), Types: []Code{kind}, Action: Execute, Outcome: outcome,
		Participants: []Participant{node.participant(false)}}
}

// Queried is Query (A.5.3.10). class is the SOP class of the information model,
// key the identifier as it was sent in the transfer syntax.
func Queried(by, app Peer, class, syntax string, key []byte, outcome Outcome) Event {
	return Event{ID: codeQuery(), Action: Execute, Outcome: outcome, Participants: []Participant{
		by.participant(true, roleSource()), app.participant(false, roleDestination()),
	}, Objects: []Object{{
		ID: class, IDType: idClass(), Type: 2, Role: 3, Query: key,
		Details: []Detail{{Type: "TransferSyntax", Value: []byte(syntax)}},
	}}}
}

// Searched is Query (A.5.3.10) by QIDO-RS; key is the request's path and query.
func Searched(by, app Peer, key string, outcome Outcome) Event {
	return Event{ID: codeQuery(), Action: Execute, Outcome: outcome, Participants: []Participant{
		by.participant(true, roleSource()), app.participant(false, roleDestination()),
	}, Objects: []Object{{
		ID: "QIDO-RS", IDType: idURI(), Type: 2, Role: 24, Query: []byte(key),
		Details: []Detail{{Type: "QueryEncoding", Value: []byte("UTF-8")}},
	}}}
}

// Associated is User Authentication (A.5.3.12) of a node: an association was
// accepted, or (with an outcome other than Success, and why) refused.
func Associated(by, app Peer, outcome Outcome, why string) Event {
	return authentication(NodeAuthentication(), by, app, outcome, why)
}

// LoggedIn is User Authentication, login (A.5.3.12), successful or not.
func LoggedIn(by, app Peer, outcome Outcome, why string) Event {
	return authentication(codeLogin(), by, app, outcome, why)
}

// LoggedOut is User Authentication, logout (A.5.3.12).
func LoggedOut(by, app Peer) Event {
	return authentication(codeLogout(), by, app, Success, "")
}

func authentication(kind Code, by, app Peer, outcome Outcome, why string) Event {
	return Event{ID: codeUserAuthentication(), Types: []Code{kind}, Action: Execute, Outcome: outcome, OutcomeText: why,
		Participants: []Participant{by.participant(true), app.participant(false)}}
}

// Alert is Security Alert (A.5.3.11): kind is one of the exported codes, about
// names the resource that it concerns ("" = none).
func Alert(kind Code, by, app Peer, outcome Outcome, about, why string) Event {
	e := Event{ID: codeSecurityAlert(), Types: []Code{kind}, Action: Execute, Outcome: outcome, OutcomeText: why,
		Participants: []Participant{by.participant(true), app.participant(false)}}
	if about != "" {
		e.Objects = []Object{{ID: about, IDType: idSecurity(), Type: 2, Role: 13, Name: about}}
	}
	return e
}
