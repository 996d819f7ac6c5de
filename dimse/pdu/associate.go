package pdu

import (
	"encoding/binary"
	"strings"

	"pelago/cluster/fault"
)

// ApplicationContext is the DICOM application context name (PS3.7 Annex A).
const ApplicationContext = "1.2.840.10008.3.1.1.1"

// Version is the protocol version, bit 0 of the field (PS3.8 table 9-11).
const Version = 0x0001

// fixedBytes is the fixed head of an A-ASSOCIATE body: version, reserved, two
// titles, 32 reserved bytes.
const fixedBytes = 68

// Item types (PS3.8 §9.3.2, §9.3.3).
const (
	itemApplication = 0x10
	itemContextRQ   = 0x20
	itemContextAC   = 0x21
	itemAbstract    = 0x30
	itemTransfer    = 0x40
	itemUser        = 0x50
)

// Context is a presentation context item of either PDU.
type Context struct {
	ID       byte
	Result   byte     // A-ASSOCIATE-AC only (PS3.8 table 9-18)
	Abstract string   // A-ASSOCIATE-RQ only
	Syntaxes []string // one in an A-ASSOCIATE-AC
}

// Associate is an A-ASSOCIATE-RQ or an A-ASSOCIATE-AC (PS3.8 §9.3.2, §9.3.3),
// which share their form.
type Associate struct {
	Version         uint16
	Called, Calling string // without padding
	Application     string
	Contexts        []Context // in the order of the PDU
	User            User
}

// AppendRQ appends the A-ASSOCIATE-RQ; fault.Invalid when a field does not fit.
func (a *Associate) AppendRQ(b []byte) ([]byte, error) {
	return a.append(b, TypeAssociateRQ)
}

// AppendAC appends the A-ASSOCIATE-AC; fault.Invalid when a field does not fit.
func (a *Associate) AppendAC(b []byte) ([]byte, error) {
	return a.append(b, TypeAssociateAC)
}

// append appends the PDU of the type.
func (a *Associate) append(b []byte, t Type) ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	start := len(b)
	b = appendHeader(b, t)
	b = binary.BigEndian.AppendUint16(b, a.Version)
	b = append(b, 0, 0)
	b = appendTitle(b, a.Called)
	b = appendTitle(b, a.Calling)
	b = append(b, make([]byte, 32)...)
	b = appendItem(b, itemApplication, a.Application)
	for _, c := range a.Contexts {
		kind := byte(itemContextRQ)
		if t == TypeAssociateAC {
			kind = itemContextAC
		}
		at := len(b)
		b = append(b, kind, 0, 0, 0, c.ID, 0, c.Result, 0)
		if t == TypeAssociateRQ {
			b = appendItem(b, itemAbstract, c.Abstract)
		}
		for _, s := range c.Syntaxes {
			b = appendItem(b, itemTransfer, s)
		}
		b = finishItem(b, at)
	}
	b = a.User.append(b)
	if len(b)-start-HeaderBytes > MaxAssociateBytes {
		return nil, fault.New(fault.Invalid, "%v of %d bytes is longer than %d", t, len(b)-start-HeaderBytes, MaxAssociateBytes)
	}
	return finish(b, start), nil
}

// check tells of a field that its place cannot hold.
func (a *Associate) check() error {
	for _, title := range []string{a.Called, a.Calling} {
		if len(title) > MaxTitle {
			return fault.New(fault.Invalid, "AE title of %d characters", len(title))
		}
	}
	if len(a.Contexts) > MaxContexts {
		return fault.New(fault.Invalid, "%d presentation contexts", len(a.Contexts))
	}
	uids := []string{a.Application}
	for _, c := range a.Contexts {
		if len(c.Syntaxes) > MaxSyntaxes {
			return fault.New(fault.Invalid, "%d transfer syntaxes in a context", len(c.Syntaxes))
		}
		uids = append(append(uids, c.Abstract), c.Syntaxes...)
	}
	if err := checkUIDs(uids...); err != nil {
		return err
	}
	return a.User.check()
}

// checkUIDs tells of a UID that is too long.
func checkUIDs(uids ...string) error {
	for _, uid := range uids {
		if len(uid) > MaxUID {
			return fault.New(fault.Invalid, "UID of %d characters", len(uid))
		}
	}
	return nil
}

// ParseAssociateRQ reads the body of an A-ASSOCIATE-RQ.
func ParseAssociateRQ(body []byte) (*Associate, error) {
	return parseAssociate(body, itemContextRQ)
}

// ParseAssociateAC reads the body of an A-ASSOCIATE-AC.
func ParseAssociateAC(body []byte) (*Associate, error) {
	return parseAssociate(body, itemContextAC)
}

// parseAssociate reads a body whose contexts are items of the kind.
func parseAssociate(body []byte, kind byte) (*Associate, error) {
	if len(body) < fixedBytes {
		return nil, fault.New(fault.Invalid, "A-ASSOCIATE of %d bytes", len(body))
	}
	if len(body) > MaxAssociateBytes {
		return nil, fault.New(fault.Invalid, "A-ASSOCIATE of %d bytes is longer than %d", len(body), MaxAssociateBytes)
	}
	a := &Associate{
		Version: binary.BigEndian.Uint16(body),
		Called:  trim(body[4:20]),
		Calling: trim(body[20:36]),
		User:    User{MaxLength: absentMaxLength},
	}
	err := items(body[fixedBytes:], func(item byte, value []byte) error {
		switch item {
		case itemApplication:
			a.Application = trim(value)
		case kind:
			return a.parseContext(kind, value)
		case itemUser:
			return a.User.parse(value)
		}
		return nil
	})
	return a, err
}

// parseContext reads a presentation context item of the kind.
func (a *Associate) parseContext(kind byte, value []byte) error {
	if len(value) < 4 {
		return fault.New(fault.Invalid, "presentation context item of %d bytes", len(value))
	}
	if len(a.Contexts) == MaxContexts {
		return fault.New(fault.Invalid, "more than %d presentation contexts", MaxContexts)
	}
	c := Context{ID: value[0]}
	if kind == itemContextAC { // reserved in an A-ASSOCIATE-RQ, where dcmtk puts FFH
		c.Result = value[2]
	}
	for _, other := range a.Contexts {
		if other.ID == c.ID {
			return fault.New(fault.Invalid, "presentation context id %d twice", c.ID)
		}
	}
	err := items(value[4:], func(item byte, value []byte) error {
		switch item {
		case itemAbstract:
			c.Abstract = trim(value)
		case itemTransfer:
			if len(c.Syntaxes) == MaxSyntaxes {
				return fault.New(fault.Invalid, "more than %d transfer syntaxes in a context", MaxSyntaxes)
			}
			c.Syntaxes = append(c.Syntaxes, trim(value))
		}
		return nil
	})
	a.Contexts = append(a.Contexts, c)
	return err
}

// items calls f for each item of b: type, reserved byte, 16-bit length, value.
func items(b []byte, f func(item byte, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fault.New(fault.Invalid, "%d stray bytes after an item", len(b))
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length > len(b)-4 {
			return fault.New(fault.Invalid, "item %02XH claims %d bytes of %d", b[0], length, len(b)-4)
		}
		if err := f(b[0], b[4:4+length]); err != nil {
			return err
		}
		b = b[4+length:]
	}
	return nil
}

// appendItem appends an item with a text value.
func appendItem(b []byte, item byte, value string) []byte {
	b = append(b, item, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// finishItem sets the length of the item that starts at at.
func finishItem(b []byte, at int) []byte {
	binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at-4))
	return b
}

// appendTitle appends an AE title, padded with spaces.
func appendTitle(b []byte, title string) []byte {
	return append(append(b, title...), strings.Repeat(" ", MaxTitle-len(title))...)
}

// trim drops the padding of a title or UID: spaces, and the NUL that careless
// peers use.
func trim(b []byte) string { return strings.Trim(string(b), "\x00 ") }
