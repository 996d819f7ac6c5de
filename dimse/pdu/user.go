package pdu

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// User information sub-items (PS3.8 Annex D.1, PS3.7 Annex D.3.3).
const (
	itemMaxLength        = 0x51
	itemImplementation   = 0x52
	itemWindow           = 0x53
	itemRole             = 0x54
	itemVersion          = 0x55
	itemExtended         = 0x56
	itemCommon           = 0x57
	itemIdentity         = 0x58
	itemIdentityResponse = 0x59
)

// absentMaxLength stands for a maximum length that the peer did not tell,
// although it must (PS3.8 §D.1): what every implementation takes.
const absentMaxLength = 16 << 10

// maxVersion is the length of the implementation version name (PS3.7 D.3.3.2).
const maxVersion = 16

// User is the user information item.
type User struct {
	MaxLength              uint32 // longest P-DATA-TF body that the sender takes; 0 = unlimited
	ImplementationClassUID string
	ImplementationVersion  string
	Window                 *Window // nil: no item
	Roles                  []Role
	Extended               []Extended
	Common                 []CommonExtended // A-ASSOCIATE-RQ only
	Identity               *Identity        // A-ASSOCIATE-RQ only
	IdentityResponse       []byte           // A-ASSOCIATE-AC only; nil: no item
}

// Window is an asynchronous operations window item (PS3.7 D.3.3.3); 0 = unlimited.
type Window struct{ Invoked, Performed uint16 }

// Role is an SCP/SCU role selection item (PS3.7 D.3.3.4).
type Role struct {
	Class    string
	SCU, SCP bool
}

// Extended is a SOP class extended negotiation item (PS3.7 D.3.3.5).
type Extended struct {
	Class       string
	Information []byte
}

// CommonExtended is a SOP class common extended negotiation item (PS3.7 D.3.3.6).
type CommonExtended struct {
	Class, ServiceClass string
	Related             []string
}

// Identity is a user identity item (PS3.7 D.3.3.7.1).
type Identity struct {
	Type              byte
	ResponseRequested bool
	Primary           []byte
	Secondary         []byte
}

// check tells of a field that its place cannot hold.
func (u *User) check() error {
	if len(u.ImplementationVersion) > maxVersion {
		return fault.New(fault.Invalid, "implementation version name of %d characters", len(u.ImplementationVersion))
	}
	if n := max(len(u.Roles), len(u.Extended), len(u.Common)); n > MaxUserItems {
		return fault.New(fault.Invalid, "%d user information items of a kind", n)
	}
	uids := []string{u.ImplementationClassUID}
	for _, r := range u.Roles {
		uids = append(uids, r.Class)
	}
	for _, e := range u.Extended {
		uids = append(uids, e.Class)
	}
	for _, c := range u.Common {
		if len(c.Related) > MaxRelated {
			return fault.New(fault.Invalid, "%d related general SOP classes", len(c.Related))
		}
		uids = append(append(uids, c.Class, c.ServiceClass), c.Related...)
	}
	if err := checkUIDs(uids...); err != nil {
		return err
	}
	if n := len(u.append(nil)) - 4; n > 0xFFFF {
		return fault.New(fault.Invalid, "user information of %d bytes", n)
	}
	return nil
}

// append appends the item, its sub-items in ascending order of type.
func (u *User) append(b []byte) []byte {
	start := len(b)
	b = append(b, itemUser, 0, 0, 0)
	b = append(b, itemMaxLength, 0, 0, 4)
	b = binary.BigEndian.AppendUint32(b, u.MaxLength)
	b = appendItem(b, itemImplementation, u.ImplementationClassUID)
	if u.Window != nil {
		b = append(b, itemWindow, 0, 0, 4)
		b = binary.BigEndian.AppendUint16(b, u.Window.Invoked)
		b = binary.BigEndian.AppendUint16(b, u.Window.Performed)
	}
	for _, r := range u.Roles {
		at := len(b)
		b = append(b, itemRole, 0, 0, 0)
		b = appendField(b, r.Class)
		b = finishItem(append(b, bit(r.SCU), bit(r.SCP)), at)
	}
	if u.ImplementationVersion != "" {
		b = appendItem(b, itemVersion, u.ImplementationVersion)
	}
	for _, e := range u.Extended {
		at := len(b)
		b = append(b, itemExtended, 0, 0, 0)
		b = appendField(b, e.Class)
		b = finishItem(append(b, e.Information...), at)
	}
	for _, c := range u.Common {
		at := len(b)
		b = append(b, itemCommon, 0, 0, 0)
		b = appendField(b, c.Class)
		b = appendField(b, c.ServiceClass)
		list := len(b)
		b = append(b, 0, 0)
		for _, uid := range c.Related {
			b = appendField(b, uid)
		}
		binary.BigEndian.PutUint16(b[list:], uint16(len(b)-list-2))
		b = finishItem(b, at)
	}
	if i := u.Identity; i != nil {
		at := len(b)
		b = append(b, itemIdentity, 0, 0, 0, i.Type, bit(i.ResponseRequested))
		b = appendField(b, string(i.Primary))
		b = finishItem(appendField(b, string(i.Secondary)), at)
	}
	if u.IdentityResponse != nil {
		at := len(b)
		b = append(b, itemIdentityResponse, 0, 0, 0)
		b = finishItem(appendField(b, string(u.IdentityResponse)), at)
	}
	return finishItem(b, start)
}

// parse reads the item's value.
func (u *User) parse(value []byte) error {
	return items(value, func(item byte, value []byte) error {
		f := fields{item: item, rest: value}
		switch item {
		case itemMaxLength:
			if len(value) != 4 {
				return fault.New(fault.Invalid, "maximum length item of %d bytes", len(value))
			}
			u.MaxLength = binary.BigEndian.Uint32(value)
		case itemImplementation:
			u.ImplementationClassUID = trim(value)
		case itemVersion:
			u.ImplementationVersion = trim(value)
		case itemWindow:
			if len(value) != 4 {
				return fault.New(fault.Invalid, "asynchronous operations window item of %d bytes", len(value))
			}
			u.Window = &Window{binary.BigEndian.Uint16(value), binary.BigEndian.Uint16(value[2:])}
		case itemRole:
			r := Role{Class: f.text(), SCU: f.byte() != 0, SCP: f.byte() != 0}
			f.room(len(u.Roles))
			u.Roles = append(u.Roles, r)
		case itemExtended:
			e := Extended{Class: f.text()}
			e.Information = append([]byte{}, f.rest...)
			f.room(len(u.Extended))
			u.Extended = append(u.Extended, e)
		case itemCommon:
			f.room(len(u.Common))
			u.Common = append(u.Common, f.common())
		case itemIdentity:
			u.Identity = &Identity{
				Type: f.byte(), ResponseRequested: f.byte() != 0, Primary: f.bytes(), Secondary: f.bytes(),
			}
		case itemIdentityResponse:
			u.IdentityResponse = f.bytes()
		}
		return f.err
	})
}

// fields reads the fields of a sub-item one after the other; the first failure
// sticks and every further field is empty.
type fields struct {
	item byte
	rest []byte
	err  error
}

// take returns the next n bytes.
func (f *fields) take(n int) []byte {
	if f.err != nil || n > len(f.rest) {
		if f.err == nil {
			f.err = fault.New(fault.Invalid, "user information item %02XH ends inside a field", f.item)
		}
		return make([]byte, min(n, 2))
	}
	value := f.rest[:n:n]
	f.rest = f.rest[n:]
	return value
}

// room fails when there are n items of the kind already and no more are taken.
func (f *fields) room(n int) {
	if n >= MaxUserItems && f.err == nil {
		f.err = fault.New(fault.Invalid, "more than %d user information items %02XH", MaxUserItems, f.item)
	}
}

// byte returns the next byte.
func (f *fields) byte() byte { return f.take(1)[0] }

// bytes returns a copy of the next field with a 16-bit length; never nil.
func (f *fields) bytes() []byte {
	n := int(binary.BigEndian.Uint16(f.take(2)))
	value := f.take(n)
	if f.err != nil {
		return []byte{}
	}
	return append([]byte{}, value...)
}

// text returns the next field with a 16-bit length, without padding.
func (f *fields) text() string { return trim(f.bytes()) }

// common reads a SOP class common extended negotiation item. What follows the
// list is reserved (PS3.7 table D.3-12).
func (f *fields) common() CommonExtended {
	c := CommonExtended{Class: f.text(), ServiceClass: f.text()}
	list := fields{item: f.item, rest: f.bytes()}
	for len(list.rest) > 0 && list.err == nil {
		if len(c.Related) == MaxRelated {
			list.err = fault.New(fault.Invalid, "more than %d related general SOP classes", MaxRelated)
			break
		}
		c.Related = append(c.Related, list.text())
	}
	if f.err == nil {
		f.err = list.err
	}
	return c
}

// appendField appends a field with a 16-bit length.
func appendField(b []byte, value string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// bit returns 1 for true.
func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}
