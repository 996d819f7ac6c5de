package command

import "encoding/binary"

const (
	noDataSet  = 0x0101 // (0000,0800): no data set follows (PS3.7 §E.1)
	hasDataSet = 0x0001 // any other value: one does

	// commentChars is the longest value of (0000,0902), VR LO.
	commentChars = 64
	// headerBytes is an element's tag and length in implicit VR.
	headerBytes = 8
)

// Encode appends the set in implicit little endian, group length first.
func (s *Set) Encode(b []byte) []byte {
	start := len(b)
	b = appendHeader(b, elGroupLength, 4)
	b = append(b, 0, 0, 0, 0)
	l, _ := layoutOf(s.Field)
	for _, slot := range l.slots {
		if slot.use == always || s.has(slot.element) {
			b = s.appendElement(b, slot.element)
		}
	}
	body := start + headerBytes + 4
	binary.LittleEndian.PutUint32(b[start+headerBytes:], uint32(len(b)-body))
	return b
}

// has reports whether a conditional element has a value.
func (s *Set) has(element uint16) bool {
	switch element {
	case elAffectedClass, elRequestedClass:
		return s.Class != ""
	case elAffectedInstance, elRequestedInstance:
		return s.Instance != ""
	case elOffendingElement:
		return len(s.OffendingElements) > 0
	case elErrorComment:
		return s.ErrorComment != ""
	case elEventType:
		return s.EventType != 0
	case elActionType:
		return s.ActionType != 0
	case elMoveOriginator:
		return s.MoveOriginator != ""
	case elMoveOriginatorMessage: // goes with the originator's title; a message id may be zero
		return s.MoveOriginator != "" || s.MoveOriginatorMessage != 0
	}
	if count := s.count(element); count != nil {
		return *count != nil
	}
	return true
}

// count returns the place of a number of sub-operations, or nil.
func (s *Set) count(element uint16) **uint16 {
	switch element {
	case elRemaining:
		return &s.Remaining
	case elCompleted:
		return &s.Completed
	case elFailed:
		return &s.Failed
	case elWarning:
		return &s.Warning
	}
	return nil
}

// short returns the place of an element with VR US, or nil.
func (s *Set) short(element uint16) *uint16 {
	switch element {
	case elCommandField:
		return (*uint16)(&s.Field)
	case elMessageID:
		return &s.MessageID
	case elRespondedTo:
		return &s.RespondedTo
	case elPriority:
		return &s.Priority
	case elStatus:
		return (*uint16)(&s.Status)
	case elEventType:
		return &s.EventType
	case elActionType:
		return &s.ActionType
	case elMoveOriginatorMessage:
		return &s.MoveOriginatorMessage
	}
	if count := s.count(element); count != nil {
		return *count
	}
	return nil
}

// appendElement appends one element.
func (s *Set) appendElement(b []byte, element uint16) []byte {
	switch element {
	case elAffectedClass, elRequestedClass:
		return appendText(b, element, s.Class, 0)
	case elAffectedInstance, elRequestedInstance:
		return appendText(b, element, s.Instance, 0)
	case elMoveDestination:
		return appendText(b, element, s.MoveDestination, ' ')
	case elMoveOriginator:
		return appendText(b, element, s.MoveOriginator, ' ')
	case elErrorComment:
		return appendText(b, element, comment(s.ErrorComment), ' ')
	case elOffendingElement:
		b = appendHeader(b, element, 4*len(s.OffendingElements))
		for _, tag := range s.OffendingElements { // AT: group, then element (PS3.5 §6.2)
			b = binary.LittleEndian.AppendUint16(b, uint16(tag>>16))
			b = binary.LittleEndian.AppendUint16(b, uint16(tag))
		}
		return b
	case elDataSetType:
		value := uint16(noDataSet)
		if s.HasData {
			value = hasDataSet
		}
		b = appendHeader(b, element, 2)
		return binary.LittleEndian.AppendUint16(b, value)
	}
	b = appendHeader(b, element, 2)
	return binary.LittleEndian.AppendUint16(b, *s.short(element))
}

// appendHeader appends a tag of group 0000 and a length.
func appendHeader(b []byte, element uint16, length int) []byte {
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, element)
	return binary.LittleEndian.AppendUint32(b, uint32(length))
}

// appendText appends a text or UID, padded to even length (PS3.5 §6.2).
func appendText(b []byte, element uint16, value string, pad byte) []byte {
	b = appendHeader(b, element, len(value)+len(value)&1)
	b = append(b, value...)
	if len(value)&1 == 1 {
		b = append(b, pad)
	}
	return b
}

// comment returns text as (0000,0902) can hold it: the default character
// repertoire without backslash and control characters, at most 64 characters.
// A command set has no Specific Character Set.
func comment(text string) string {
	out := make([]byte, 0, commentChars)
	for _, r := range text {
		if len(out) == commentChars {
			break
		}
		if r < ' ' || r > '~' || r == '\\' {
			r = '?'
		}
		out = append(out, byte(r))
	}
	return string(out)
}
