package audit

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// The x types are the schema of PS3.15 A.5.1, in its order of elements.

type xMessage struct {
	XMLName      xml.Name       `xml:"AuditMessage"`
	Event        xEvent         `xml:"EventIdentification"`
	Participants []xParticipant `xml:"ActiveParticipant"`
	Source       xSource        `xml:"AuditSourceIdentification"`
	Objects      []xObject      `xml:"ParticipantObjectIdentification"`
}

type xCode struct {
	Value   string `xml:"csd-code,attr"`
	System  string `xml:"codeSystemName,attr"`
	Meaning string `xml:"originalText,attr"`
}

type xEvent struct {
	Action      string  `xml:"EventActionCode,attr,omitempty"`
	Time        string  `xml:"EventDateTime,attr"`
	Outcome     string  `xml:"EventOutcomeIndicator,attr"`
	ID          xCode   `xml:"EventID"`
	Types       []xCode `xml:"EventTypeCode"`
	OutcomeText string  `xml:"EventOutcomeDescription,omitempty"`
}

type xParticipant struct {
	UserID        string  `xml:"UserID,attr"`
	AlternativeID string  `xml:"AlternativeUserID,attr,omitempty"`
	UserName      string  `xml:"UserName,attr,omitempty"`
	Requestor     bool    `xml:"UserIsRequestor,attr"`
	Address       string  `xml:"NetworkAccessPointID,attr,omitempty"`
	AddressType   string  `xml:"NetworkAccessPointTypeCode,attr,omitempty"`
	Roles         []xCode `xml:"RoleIDCode"`
}

type xSource struct {
	Site  string      `xml:"AuditEnterpriseSiteID,attr,omitempty"`
	ID    string      `xml:"AuditSourceID,attr"`
	Types xSourceType `xml:"AuditSourceTypeCode"`
}

type xSourceType struct {
	Value string `xml:"csd-code,attr"`
}

type xObject struct {
	ID          string        `xml:"ParticipantObjectID,attr"`
	Type        string        `xml:"ParticipantObjectTypeCode,attr,omitempty"`
	Role        string        `xml:"ParticipantObjectTypeCodeRole,attr,omitempty"`
	LifeCycle   string        `xml:"ParticipantObjectDataLifeCycle,attr,omitempty"`
	IDType      xCode         `xml:"ParticipantObjectIDTypeCode"`
	Name        *string       `xml:"ParticipantObjectName"`
	Query       *string       `xml:"ParticipantObjectQuery"`
	Details     []xDetail     `xml:"ParticipantObjectDetail"`
	Description *xDescription `xml:"ParticipantObjectDescription"`
}

type xDetail struct {
	Type  string `xml:"type,attr"`
	Value string `xml:"value,attr"`
}

type xDescription struct {
	Accessions []xAccession `xml:"Accession"`
	Classes    []xClass     `xml:"SOPClass"`
	Studies    *xStudies    `xml:"ParticipantObjectContainsStudy"`
	Encrypted  bool         `xml:"Encrypted,omitempty"`
	Anonymized bool         `xml:"Anonymized,omitempty"`
}

type xAccession struct {
	Number string `xml:"Number,attr"`
}

type xClass struct {
	UID       string `xml:"UID,attr,omitempty"`
	Count     int    `xml:"NumberOfInstances,attr"`
	Instances []xUID `xml:"Instance"`
}

type xStudies struct {
	IDs []xUID `xml:"StudyIDs"`
}

type xUID struct {
	UID string `xml:"UID,attr"`
}

// XML encodes an event as an AuditMessage of PS3.15 A.5.1, on one line, UTF-8,
// without an XML declaration. Characters that XML cannot hold become U+FFFD.
func (e *Event) XML(source Source) ([]byte, error) {
	m := xMessage{
		Event: xEvent{
			Action:      string(e.Action),
			Time:        e.Time.UTC().Format(time.RFC3339Nano),
			Outcome:     strconv.Itoa(int(e.Outcome)),
			ID:          xCode(e.ID),
			Types:       xCodes(e.Types),
			OutcomeText: e.OutcomeText,
		},
		Source: xSource{Site: source.Site, ID: source.ID, Types: xSourceType{"4"}}, // application server process
	}
	for _, p := range e.Participants {
		m.Participants = append(m.Participants, p.xml())
	}
	for _, o := range e.Objects {
		m.Objects = append(m.Objects, o.xml())
	}
	b, err := xml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("audit: encode event: %w", err)
	}
	return b, nil
}

func xCodes(codes []Code) []xCode {
	var all []xCode
	for _, c := range codes {
		all = append(all, xCode(c))
	}
	return all
}

func (p Participant) xml() xParticipant {
	x := xParticipant{UserID: p.UserID, AlternativeID: p.AlternativeID, UserName: p.UserName,
		Requestor: p.Requestor, Address: p.Address, Roles: xCodes(p.Roles)}
	if p.Address != "" {
		x.AddressType = "1" // machine name
		if _, err := netip.ParseAddr(p.Address); err == nil {
			x.AddressType = "2" // IP address
		}
	}
	return x
}

func (o Object) xml() xObject {
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	x := xObject{ID: o.ID, Type: number(o.Type), Role: number(o.Role), LifeCycle: number(o.LifeCycle), IDType: xCode(o.IDType)}
	if o.Query != nil { // the schema asks for either, the name even if it is empty
		q := base64.StdEncoding.EncodeToString(o.Query)
		x.Query = &q
	} else {
		x.Name = &o.Name
	}
	for _, d := range o.Details {
		x.Details = append(x.Details, xDetail{d.Type, base64.StdEncoding.EncodeToString(d.Value)})
	}
	if d := o.Description; d != nil {
		x.Description = d.xml()
	}
	return x
}

func (d *Description) xml() *xDescription {
	x := &xDescription{Encrypted: d.Encrypted, Anonymized: d.Anonymized}
	for _, n := range d.Accessions {
		x.Accessions = append(x.Accessions, xAccession{n})
	}
	for _, c := range d.Classes {
		class := xClass{UID: c.UID, Count: c.Count}
		for _, uid := range c.Instances {
			class.Instances = append(class.Instances, xUID{uid})
		}
		x.Classes = append(x.Classes, class)
	}
	if len(d.Studies) > 0 {
		x.Studies = &xStudies{}
		for _, uid := range d.Studies {
			x.Studies.IDs = append(x.Studies.IDs, xUID{uid})
		}
	}
	return x
}
