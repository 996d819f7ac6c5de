package command

import (
	"encoding/binary"
	"strings"

	"pelago/cluster/fault"
)

// MaxBytes is the longest command set that is parsed. The longest sensible one
// has two UIDs, two AE titles, a comment and a list of offending tags: far
// below 4 KiB. 64 KiB leaves room for private elements.
const MaxBytes = 64 << 10

// Parse reads a command set; fault.Protocol or fault.Invalid if it is none.
// Unknown elements are passed over. The order of elements, the group length
// and odd value lengths are not relied on. fault.Invalid: bytes that are no
// elements of group 0000; fault.Protocol: no Command Field, no Data Set Type, or no
// message id where the command must have one.
func Parse(b []byte) (*Set, error) {
	if len(b) > MaxBytes {
		return nil, fault.New(fault.Invalid, "command set of %d bytes is longer than %d", len(b), MaxBytes)
	}
	s := &Set{}
	seen := map[uint16]bool{}
	for len(b) > 0 {
		group, element, value, rest, err := split(b)
		if err != nil {
			return nil, err
		}
		if group != 0 {
			return nil, fault.New(fault.Invalid, "command set: element (%04X,%04X) is not of group 0000", group, element)
		}
		if err := s.setElement(element, value); err != nil {
			return nil, err
		}
		seen[element] = len(value) > 0
		b = rest
	}
	return s, s.missing(seen)
}

// setElement takes a value.
func (s *Set) setElement(element uint16, value []byte) error {
	switch element {
	case elAffectedClass, elRequestedClass:
		s.Class = trimUID(value)
		return nil
	case elAffectedInstance, elRequestedInstance:
		s.Instance = trimUID(value)
		return nil
	case elMoveDestination:
		s.MoveDestination = trimText(value)
		return nil
	case elMoveOriginator:
		s.MoveOriginator = trimText(value)
		return nil
	case elErrorComment:
		s.ErrorComment = trimText(value)
		return nil
	case elOffendingElement:
		s.OffendingElements = nil
		for ; len(value) >= 4; value = value[4:] {
			tag := uint32(binary.LittleEndian.Uint16(value))<<16 | uint32(binary.LittleEndian.Uint16(value[2:]))
			s.OffendingElements = append(s.OffendingElements, tag)
		}
		return nil
	case elDataSetType:
		v, ok, err := parseShort(element, value)
		s.HasData = ok && v != noDataSet
		return err
	}
	place := s.short(element)
	if count := s.count(element); count != nil {
		place = new(uint16)
		*count = place
	}
	if place == nil {
		return nil
	}
	v, ok, err := parseShort(element, value)
	if !ok { // an empty value is as good as none
		if count := s.count(element); count != nil {
			*count = nil
		}
		return err
	}
	*place = v
	return nil
}

// parseShort reads a US value; false when it is empty.
func parseShort(element uint16, value []byte) (uint16, bool, error) {
	switch {
	case len(value) == 0:
		return 0, false, nil
	case len(value) < 2:
		return 0, false, fault.New(fault.Invalid, "command set: element (0000,%04X) has %d bytes instead of 2", element, len(value))
	}
	return binary.LittleEndian.Uint16(value), true, nil
}

// missing tells of an element without which the command cannot be acted on or
// answered.
func (s *Set) missing(seen map[uint16]bool) error {
	id := uint16(elMessageID)
	if s.Field.IsResponse() || s.Field == CCancelRQ {
		id = elRespondedTo
	}
	for _, element := range []uint16{elCommandField, elDataSetType, id} {
		if !seen[element] {
			return fault.New(fault.Protocol, "command set: element (0000,%04X) is missing", element)
		}
	}
	return nil
}

// trimUID drops the padding of a UID: NUL, and the space that careless peers use.
func trimUID(b []byte) string { return strings.Trim(string(b), "\x00 ") }

// trimText drops insignificant spaces, and the NUL that careless peers use.
func trimText(b []byte) string { return strings.Trim(string(b), "\x00 ") }
