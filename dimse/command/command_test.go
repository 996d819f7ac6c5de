package command

import (
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

func ptr(n uint16) *uint16 { return &n }

// full is a set with a value in every field, so that only the command's table
// decides what is encoded.
func full(f Field) *Set {
	return &Set{
		Field: f, MessageID: 7, RespondedTo: 8, Class: "1.2.840.10008.1.1", Instance: "1.2.3",
		Priority: PriorityHigh, HasData: true, Status: 0xB000,
		MoveDestination: "DEST", MoveOriginator: "ORIG", MoveOriginatorMessage: 9,
		EventType: 1, ActionType: 2, ErrorComment: "why", OffendingElements: []uint32{0x00080018},
		Remaining: ptr(1), Completed: ptr(2), Failed: ptr(3), Warning: ptr(4),
	}
}

// elements lists the element numbers of an encoded set and fails on a wrong
// group, an odd length or descending order.
func elements(t *testing.T, b []byte) []uint16 {
	t.Helper()
	var list []uint16
	last := -1
	for len(b) > 0 {
		if len(b) < 8 || binary.LittleEndian.Uint16(b) != 0 {
			t.Fatalf("no element of group 0000: %x", b)
		}
		element, length := binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		if int(element) <= last || length&1 == 1 || int(length) > len(b)-8 {
			t.Fatalf("element %04X after %04X, length %d of %d", element, last, length, len(b)-8)
		}
		last = int(element)
		list = append(list, element)
		b = b[8+length:]
	}
	return list
}

// The elements of every command, copied from the tables of PS3.7 §9.3 and §10.3.
func TestEncodePutsTheElementsOfTheCommand(t *testing.T) {
	tests := map[Field][]uint16{
		CStoreRQ:        {0, 2, 0x100, 0x110, 0x700, 0x800, 0x1000, 0x1030, 0x1031},
		CStoreRSP:       {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000},
		CFindRQ:         {0, 2, 0x100, 0x110, 0x700, 0x800},
		CFindRSP:        {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902},
		CCancelRQ:       {0, 0x100, 0x120, 0x800},
		CGetRQ:          {0, 2, 0x100, 0x110, 0x700, 0x800},
		CGetRSP:         {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1020, 0x1021, 0x1022, 0x1023},
		CMoveRQ:         {0, 2, 0x100, 0x110, 0x600, 0x700, 0x800},
		CMoveRSP:        {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1020, 0x1021, 0x1022, 0x1023},
		CEchoRQ:         {0, 2, 0x100, 0x110, 0x800},
		CEchoRSP:        {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902},
		NEventReportRQ:  {0, 2, 0x100, 0x110, 0x800, 0x1000, 0x1002},
		NEventReportRSP: {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000, 0x1002},
		NGetRQ:          {0, 3, 0x100, 0x110, 0x800, 0x1001},
		NGetRSP:         {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000},
		NSetRQ:          {0, 3, 0x100, 0x110, 0x800, 0x1001},
		NSetRSP:         {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000},
		NActionRQ:       {0, 3, 0x100, 0x110, 0x800, 0x1001, 0x1008},
		NActionRSP:      {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000, 0x1008},
		NCreateRQ:       {0, 2, 0x100, 0x110, 0x800, 0x1000},
		NCreateRSP:      {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000},
		NDeleteRQ:       {0, 3, 0x100, 0x110, 0x800, 0x1001},
		NDeleteRSP:      {0, 2, 0x100, 0x120, 0x800, 0x900, 0x901, 0x902, 0x1000},
	}
	if len(tests) != len(layouts) {
		t.Fatalf("%d commands tested, %d known", len(tests), len(layouts))
	}
	for field, want := range tests {
		t.Run(field.String(), func(t *testing.T) {
			b := full(field).Encode(nil)
			if got := elements(t, b); !reflect.DeepEqual(got, want) {
				t.Errorf("elements %04X, want %04X", got, want)
			}
			if got := binary.LittleEndian.Uint32(b[8:]); int(got) != len(b)-12 {
				t.Errorf("group length %d, want %d", got, len(b)-12)
			}
			again, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again.Encode(nil), b) {
				t.Errorf("parsed and encoded again: %+v", again)
			}
		})
	}
}

func TestEncodeLeavesOutAbsentConditionals(t *testing.T) {
	for field, want := range map[Field][]uint16{
		CStoreRQ:   {0, 2, 0x100, 0x110, 0x700, 0x800, 0x1000},
		CMoveRSP:   {0, 0x100, 0x120, 0x800, 0x900},
		CEchoRSP:   {0, 0x100, 0x120, 0x800, 0x900},
		NActionRSP: {0, 0x100, 0x120, 0x800, 0x900},
		NCreateRQ:  {0, 2, 0x100, 0x110, 0x800},
		0x0555:     {0, 2, 0x100, 0x110, 0x800},
		0x8555:     {0, 0x100, 0x120, 0x800, 0x900},
	} {
		if got := elements(t, (&Set{Field: field}).Encode(nil)); !reflect.DeepEqual(got, want) {
			t.Errorf("%v: elements %04X, want %04X", field, got, want)
		}
	}
}

// Golden bytes. The C-ECHO-RQ is what dcmtk's echoscu sends.
func TestEncodeGoldenBytes(t *testing.T) {
	tests := []struct {
		name string
		set  Set
		want string
	}{
		{"C-ECHO-RQ as dcmtk", Set{Field: CEchoRQ, MessageID: 1, Class: "1.2.840.10008.1.1"}, `
			0000 0000 04000000 38000000
			0000 0200 12000000 312e322e3834302e31303030382e312e3100
			0000 0001 02000000 3000
			0000 1001 02000000 0100
			0000 0008 02000000 0101`},
		{"C-MOVE-RSP with counts, comment and offending element", Set{
			Field: CMoveRSP, RespondedTo: 0x1234, Class: "1.2.3.4", Status: 0xB000, HasData: true,
			ErrorComment: "odd", OffendingElements: []uint32{0x00200010, 0x00100020},
			Remaining: ptr(0), Completed: ptr(1), Failed: ptr(2), Warning: ptr(3),
		}, `
			0000 0000 04000000 7c000000
			0000 0200 08000000 312e322e332e3400
			0000 0001 02000000 2180
			0000 2001 02000000 3412
			0000 0008 02000000 0100
			0000 0009 02000000 00b0
			0000 0109 08000000 2000100010002000
			0000 0209 04000000 6f646420
			0000 2010 02000000 0000
			0000 2110 02000000 0100
			0000 2210 02000000 0200
			0000 2310 02000000 0300`},
		{"C-STORE-RQ of a C-MOVE", Set{
			Field: CStoreRQ, MessageID: 2, Class: "1.2", Instance: "1.2.3.4", HasData: true,
			MoveOriginator: "WORKSTATION", MoveOriginatorMessage: 5,
		}, `
			0000 0000 04000000 62000000
			0000 0200 04000000 312e3200
			0000 0001 02000000 0100
			0000 1001 02000000 0200
			0000 0007 02000000 0000
			0000 0008 02000000 0100
			0000 0010 08000000 312e322e332e3400
			0000 3010 0c000000 574f524b53544154494f4e20
			0000 3110 02000000 0500`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.Join(strings.Fields(tt.want), ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.set.Encode(nil); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			got, err := Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, tt.set) {
				t.Errorf("parsed %+v\nwant   %+v", *got, tt.set)
			}
			prefix := []byte("kept")
			if got := tt.set.Encode(prefix); string(got[:4]) != "kept" || !reflect.DeepEqual(got[4:], want) {
				t.Errorf("appended to a prefix: %x", got)
			}
		})
	}
}

func TestErrorCommentFitsItsElement(t *testing.T) {
	set := Set{Field: CStoreRSP, ErrorComment: "é\\\n" + strings.Repeat("x", 100)}
	got, err := Parse(set.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	if want := "???" + strings.Repeat("x", 61); got.ErrorComment != want {
		t.Errorf("comment %q, want %q", got.ErrorComment, want)
	}
}

// el is an element for hand-made sets.
func el(element uint16, value string) string {
	b := appendHeader(nil, element, len(value))
	return string(b) + value
}

func TestParseIsLenient(t *testing.T) {
	want := Set{Field: CStoreRQ, MessageID: 3, Class: "1.2.3", Instance: "1.2.3.4", HasData: true, MoveOriginator: "ME"}
	field, id, data := el(0x100, "\x01\x00"), el(0x110, "\x03\x00"), el(0x800, "\x00\x00")
	class, instance, orig := el(2, "1.2.3\x00"), el(0x1000, "1.2.3.4\x00"), el(0x1030, "ME")
	for name, b := range map[string]string{
		"no group length":          class + field + id + data + instance + orig,
		"wrong group length":       el(0, "\xff\xff\xff\xff") + class + field + id + data + instance + orig,
		"empty group length":       el(0, "") + class + field + id + data + instance + orig,
		"any order":                orig + instance + data + id + field + class,
		"odd lengths":              el(2, "1.2.3") + field + id + data + el(0x1000, "1.2.3.4") + orig,
		"UIDs padded with spaces":  el(2, "1.2.3 ") + field + id + data + el(0x1000, " 1.2.3.4 ") + orig,
		"titles padded with NUL":   class + field + id + data + instance + el(0x1030, "ME\x00\x00"),
		"unknown elements":         class + field + el(0x105, "x") + id + data + el(0x900, "") + instance + orig + el(0x5110, "12"),
		"empty optional elements":  class + field + id + data + instance + orig + el(0x1020, "") + el(0x901, "") + el(0x700, ""),
		"requested for affected":   el(3, "1.2.3\x00") + field + id + data + el(0x1001, "1.2.3.4") + orig,
		"numbers longer than two":  class + field + el(0x110, "\x03\x00\x00\x00") + data + instance + orig,
		"AT of an odd number of b": class + field + id + data + el(0x901, "abc") + instance + orig,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(b))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got %+v\nwant %+v", *got, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	field, id, data := el(0x100, "\x01\x00"), el(0x110, "\x03\x00"), el(0x800, "\x00\x00")
	for name, tt := range map[string]struct {
		b    string
		kind fault.Kind
	}{
		"nothing":                     {"", fault.Protocol},
		"no command field":            {id + data, fault.Protocol},
		"empty command field":         {el(0x100, "") + id + data, fault.Protocol},
		"no data set type":            {field + id, fault.Protocol},
		"a request without id":        {field + data, fault.Protocol},
		"a response without id":       {el(0x100, "\x01\x80") + id + data, fault.Protocol},
		"a cancel without id":         {el(0x100, "\xff\x0f") + id + data, fault.Protocol},
		"stray bytes":                 {field + id + data + "\x00\x00\x00", fault.Invalid},
		"another group":               {field + id + data + "\x08\x00\x18\x00\x00\x00\x00\x00", fault.Invalid},
		"a length beyond the end":     {field + id + "\x00\x00\x00\x08\x03\x00\x00\x00\x00\x00", fault.Invalid},
		"an undefined length":         {field + id + "\x00\x00\x00\x08\xff\xff\xff\xff\x00\x00", fault.Invalid},
		"a number of one byte":        {field + id + el(0x800, "\x00"), fault.Invalid},
		"a set longer than the limit": {field + id + data + el(0x9999, strings.Repeat("x", MaxBytes)), fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Parse([]byte(tt.b))
			if !fault.Is(err, tt.kind) {
				t.Errorf("error %v (%v), want kind %v; set %+v", err, fault.KindOf(err), tt.kind, set)
			}
		})
	}
}

func TestReplyCopiesWhatTheResponseNeeds(t *testing.T) {
	got := full(NActionRQ).Reply(0x0112)
	want := &Set{Field: NActionRSP, RespondedTo: 7, Class: "1.2.840.10008.1.1", Instance: "1.2.3", EventType: 1, ActionType: 2, Status: 0x0112}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestStatusClasses(t *testing.T) {
	for status, class := range map[Status]string{
		0x0000: "success", 0xFF00: "pending", 0xFF01: "pending", 0xFE00: "cancel",
		0x0001: "warning", 0xB000: "warning", 0xB007: "warning", 0x0107: "warning", 0x0116: "warning",
		0xA700: "failure", 0xC000: "failure", 0x0110: "failure", 0x0122: "failure", 0x0211: "failure", 0xFF02: "failure", 0xD000: "failure",
	} {
		got := "cancel"
		switch {
		case status.IsPending():
			got = "pending"
		case status.IsWarning():
			got = "warning"
		case status.IsFailure():
			got = "failure"
		case status == Success:
			got = "success"
		}
		if got != class {
			t.Errorf("%v is %s, want %s", status, got, class)
		}
	}
	if got := Status(0xA700).String(); got != "A700" {
		t.Errorf("String %q", got)
	}
	if got := Field(0x0555).String(); got != "command 0555H" {
		t.Errorf("String %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range layouts {
		f.Add(full(l.field).Encode(nil))
		f.Add((&Set{Field: l.field}).Encode(nil))
	}
	f.Add([]byte(el(0x100, "\x01\x00") + el(0x800, "\x00\x00") + "\x00\x00\x10\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := Parse(b)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Protocol {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		once := set.Encode(nil)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("its own encoding: %v", err)
		}
		if twice := again.Encode(nil); !reflect.DeepEqual(once, twice) {
			t.Fatalf("encoded %x, then %x", once, twice)
		}
	})
}
