package command

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// HasData tells whether a data set follows an encoded command set, without
// parsing the rest of it; the upper layer needs to know no more. The errors are
// those of [Parse] for bytes without element structure or without (0000,0800).
func HasData(b []byte) (bool, error) {
	for len(b) > 0 {
		group, element, value, rest, err := split(b)
		if err != nil {
			return false, err
		}
		if group == 0 && element == elDataSetType && len(value) > 0 {
			v, _, err := parseShort(element, value)
			return v != noDataSet, err
		}
		b = rest
	}
	return false, fault.New(fault.Protocol, "command set: element (0000,%04X) is missing", elDataSetType)
}

// split cuts the first element off b.
func split(b []byte) (group, element uint16, value, rest []byte, err error) {
	if len(b) < headerBytes {
		return 0, 0, nil, nil, fault.New(fault.Invalid, "command set: %d stray bytes", len(b))
	}
	group = binary.LittleEndian.Uint16(b)
	element = binary.LittleEndian.Uint16(b[2:])
	length := binary.LittleEndian.Uint32(b[4:])
	rest = b[headerBytes:]
	if uint64(length) > uint64(len(rest)) {
		return 0, 0, nil, nil, fault.New(fault.Invalid, "command set: element (%04X,%04X) claims %d bytes of %d", group, element, length, len(rest))
	}
	return group, element, rest[:length:length], rest[length:], nil
}
