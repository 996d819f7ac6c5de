package audit

import "time"

// Action is what was done to the objects (EventActionCode).
type Action string

// The actions of PS3.15 A.5.1.
const (
	Create  Action = "C"
	Read    Action = "R"
	Update  Action = "U"
	Delete  Action = "D"
	Execute Action = "E"
)

// Outcome is how it ended (EventOutcomeIndicator).
type Outcome uint8

// The outcomes of PS3.15 A.5.1.
const (
	Success Outcome = 0
	Minor   Outcome = 4  // refused, or failed in part
	Serious Outcome = 8  // failed
	Major   Outcome = 12 // failed, and the application is unavailable
)

// Event is one audit message (PS3.15 A.5.1) without its source, which is the
// log's. IT MAY HOLD PATIENT DATA.
type Event struct {
	ID           Code          `json:"id"`
	Types        []Code        `json:"types,omitempty"`
	Action       Action        `json:"action,omitempty"`
	Time         time.Time     `json:"time"` // zero: when it is recorded
	Outcome      Outcome       `json:"outcome"`
	OutcomeText  string        `json:"outcome_text,omitempty"`
	Participants []Participant `json:"participants"`
	Objects      []Object      `json:"objects,omitempty"`
}

// Participant is a person or process that took part (ActiveParticipant).
type Participant struct {
	UserID        string `json:"user_id"`
	AlternativeID string `json:"alternative_id,omitempty"` // for a process: its AE titles, "AETITLES=a;b"
	UserName      string `json:"user_name,omitempty"`
	Requestor     bool   `json:"requestor"`
	Address       string `json:"address,omitempty"` // host name or IP address
	Roles         []Code `json:"roles,omitempty"`
}

// Object is a thing that the event was about (ParticipantObjectIdentification).
type Object struct {
	ID          string       `json:"id"`
	IDType      Code         `json:"id_type"`
	Type        int          `json:"type,omitempty"`       // 1 person, 2 system object, 3 organization, 4 other
	Role        int          `json:"role,omitempty"`       // A.5.1.2.2
	LifeCycle   int          `json:"life_cycle,omitempty"` // A.5.1.2.3
	Name        string       `json:"name,omitempty"`
	Query       []byte       `json:"query,omitempty"`
	Details     []Detail     `json:"details,omitempty"`
	Description *Description `json:"description,omitempty"`
}

// Detail is a pair of a type and any value (ParticipantObjectDetail).
type Detail struct {
	Type  string `json:"type"`
	Value []byte `json:"value"`
}

// Description tells of DICOM objects (ParticipantObjectDescription).
type Description struct {
	Accessions []string `json:"accessions,omitempty"`
	Classes    []Class  `json:"classes,omitempty"`
	Studies    []string `json:"studies,omitempty"` // UIDs that the object contains
	Encrypted  bool     `json:"encrypted,omitempty"`
	Anonymized bool     `json:"anonymized,omitempty"`
}

// Class counts instances of a SOP class.
type Class struct {
	UID       string   `json:"uid"`
	Count     int      `json:"count"`
	Instances []string `json:"instances,omitempty"` // SOP Instance UIDs, if they are told
}

// Source is who reports: the node (AuditSourceIdentification).
type Source struct {
	Site string // AuditEnterpriseSiteID
	ID   string // AuditSourceID
}
