package pdu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

// fromHex decodes hexadecimal text with spaces and line ends.
func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// captured returns a PDU that a program sent (testdata).
func captured(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return fromHex(t, string(text))
}

// What dcmtk 3.6.7 sends is understood, and encoded again to the same bytes but
// for the reserved byte that it sets to FFH.
func TestPDUsOfDcmtk(t *testing.T) {
	dcmtk := func(contexts ...Context) Associate {
		return Associate{
			Version: 1, Called: "PELAGO", Application: ApplicationContext, Contexts: contexts,
			User: User{MaxLength: 16384, ImplementationClassUID: "1.2.276.0.7230010.3.0.3.6.7", ImplementationVersion: "OFFIS_DCMTK_367"},
		}
	}
	t.Run("echoscu", func(t *testing.T) {
		want := dcmtk(Context{ID: 1, Abstract: "1.2.840.10008.1.1", Syntaxes: []string{"1.2.840.10008.1.2"}})
		want.Calling = "ECHOSCU"
		checkAgain(t, captured(t, "echoscu-rq.hex"), want)
	})
	t.Run("storescp", func(t *testing.T) {
		want := dcmtk(Context{ID: 1, Syntaxes: []string{"1.2.840.10008.1.2"}})
		want.Calling = "ECHOSCU"
		checkAgain(t, captured(t, "storescp-ac.hex"), want)
	})
	t.Run("getscu proposes the SCP role of every storage class", func(t *testing.T) {
		a := parse(t, captured(t, "getscu-rq.hex"))
		if len(a.Contexts) != 121 || len(a.User.Roles) != 120 {
			t.Fatalf("%d contexts, %d roles", len(a.Contexts), len(a.User.Roles))
		}
		for _, r := range a.User.Roles {
			if r.SCU || !r.SCP || !strings.HasPrefix(r.Class, "1.2.840.10008.5.1.") {
				t.Fatalf("role %+v", r)
			}
		}
		checkAgain(t, captured(t, "getscu-rq.hex"), *a)
	})
	t.Run("storescu with user name and passcode", func(t *testing.T) {
		a := parse(t, captured(t, "storescu-identity-rq.hex"))
		want := &Identity{Type: 2, ResponseRequested: true, Primary: []byte("alice"), Secondary: []byte("secret")}
		if !reflect.DeepEqual(a.User.Identity, want) {
			t.Fatalf("identity %+v", a.User.Identity)
		}
		checkAgain(t, captured(t, "storescu-identity-rq.hex"), *a)
	})
}

// parse decodes a whole A-ASSOCIATE PDU.
func parse(t testing.TB, b []byte) *Associate {
	t.Helper()
	h := ParseHeader(b)
	if err := h.Check(0); err != nil || int(h.Length) != len(b)-HeaderBytes {
		t.Fatalf("%v of %d bytes in %d: %v", h.Type, h.Length, len(b), err)
	}
	f := ParseAssociateRQ
	if h.Type == TypeAssociateAC {
		f = ParseAssociateAC
	}
	a, err := f(b[HeaderBytes:])
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// checkAgain decodes b, compares, encodes again and compares the bytes.
func checkAgain(t testing.TB, b []byte, want Associate) {
	t.Helper()
	got := parse(t, b)
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	encode := got.AppendRQ
	if Type(b[0]) == TypeAssociateAC {
		encode = got.AppendAC
	}
	again, err := encode([]byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	if again = again[4:]; !bytes.Equal(again, clearReserved(b)) {
		t.Errorf("encoded again:\n%x\nwant\n%x", again, clearReserved(b))
	}
}

// clearReserved sets the reserved byte of presentation context items to 0.
func clearReserved(b []byte) []byte {
	b = bytes.Clone(b)
	for at := HeaderBytes + fixedBytes; at < len(b); at += 4 + int(binary.BigEndian.Uint16(b[at+2:])) {
		if b[at] == itemContextRQ {
			b[at+6] = 0
		}
	}
	return b
}

// everything has a value in every item of an A-ASSOCIATE-RQ; its bytes are
// written out from PS3.8 §9.3.2 and PS3.7 D.3.3.
var everything = Associate{
	Version: 1, Called: "CALLED", Calling: "CALLING", Application: "1.2",
	Contexts: []Context{{ID: 1, Abstract: "1.1", Syntaxes: []string{"1.3", "1.4.5"}}},
	User: User{
		MaxLength: 0x12345678, ImplementationClassUID: "1.9", ImplementationVersion: "V",
		Window:   &Window{Invoked: 3, Performed: 4},
		Roles:    []Role{{"1.6", true, false}, {"1.7", false, true}},
		Extended: []Extended{{"1.8", []byte{1, 2, 3}}},
		Common:   []CommonExtended{{"2.1", "2.2", []string{"2.3", "2.4"}}, {"2.5", "2.6", nil}},
		Identity: &Identity{Type: 2, ResponseRequested: true, Primary: []byte("u"), Secondary: []byte("pw")},
	},
}

const everythingHex = `
01 00 000000e3 0001 0000
43414c4c454420202020202020202020 43414c4c494e47202020202020202020
0000000000000000000000000000000000000000000000000000000000000000
10 00 0003 312e32
20 00 001b 01 00 00 00
   30 00 0003 312e31
   40 00 0003 312e33
   40 00 0005 312e342e35
50 00 0075
   51 00 0004 12345678
   52 00 0003 312e39
   53 00 0004 0003 0004
   54 00 0007 0003 312e36 01 00
   54 00 0007 0003 312e37 00 01
   55 00 0001 56
   56 00 0008 0003 312e38 010203
   57 00 0016 0003 322e31 0003 322e32 000a 0003 322e33 0003 322e34
   57 00 000c 0003 322e35 0003 322e36 0000
   58 00 0009 02 01 0001 75 0002 7077
`

func TestGoldenAssociate(t *testing.T) {
	want := fromHex(t, everythingHex)
	got, err := everything.AppendRQ(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	checkAgain(t, want, everything)

	ac := Associate{
		Version: 1, Called: "CALLED", Calling: "CALLING", Application: "1.2",
		Contexts: []Context{{ID: 5, Result: 3, Syntaxes: []string{"1.3"}}},
		User:     User{MaxLength: 1, ImplementationClassUID: "1.9", IdentityResponse: []byte("ok")},
	}
	want = fromHex(t, `02 00 00000075 0001 0000
		43414c4c454420202020202020202020 43414c4c494e47202020202020202020
		0000000000000000000000000000000000000000000000000000000000000000
		10 00 0003 312e32
		21 00 000b 05 00 03 00
		   40 00 0003 312e33
		50 00 0017
		   51 00 0004 00000001
		   52 00 0003 312e39
		   59 00 0004 0002 6f6b`)
	if got, err = ac.AppendAC(nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got  %x, %v\nwant %x", got, err, want)
	}
	checkAgain(t, want, ac)
}

func TestGoldenShortPDUs(t *testing.T) {
	for want, got := range map[string][]byte{
		"0300000000040001 0203": Reject{1, 2, 3}.Append(nil),
		"0500000000040000 0000": AppendReleaseRQ(nil),
		"0600000000040000 0000": AppendReleaseRP(nil),
		"0700000000040000 0206": Abort{2, 6}.Append(nil),
		"040000001234":          AppendHeader(nil, Header{TypeData, 0x1234}),
		"0000 0012 05 03":       AppendDataHeader(nil, DataHeader{16, 5, true, true}),
		"0000 0002 07 02":       AppendDataHeader(nil, DataHeader{0, 7, false, true}),
		"0001 0002 09 01":       AppendDataHeader(nil, DataHeader{65536, 9, true, false}),
		"0000 0102 0b 00":       AppendDataHeader(nil, DataHeader{256, 11, false, false}),
	} {
		if !bytes.Equal(got, fromHex(t, want)) {
			t.Errorf("got %x, want %s", got, want)
		}
	}
	if r, err := ParseReject([]byte{0, 1, 2, 3}); err != nil || r != (Reject{1, 2, 3}) {
		t.Errorf("%+v, %v", r, err)
	}
	if a, err := ParseAbort([]byte{0, 0, 2, 6}); err != nil || a != (Abort{2, 6}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, b := range [][]byte{nil, make([]byte, 3), make([]byte, 5)} {
		if _, err := ParseReject(b); !fault.Is(err, fault.Invalid) {
			t.Errorf("A-ASSOCIATE-RJ of %d bytes: %v", len(b), err)
		}
		if _, err := ParseAbort(b); !fault.Is(err, fault.Invalid) {
			t.Errorf("A-ABORT of %d bytes: %v", len(b), err)
		}
	}
}

func TestHeaderCheck(t *testing.T) {
	for _, tt := range []struct {
		h  Header
		ok bool
	}{
		{Header{TypeAssociateRQ, 68}, true}, {Header{TypeAssociateRQ, 67}, false},
		{Header{TypeAssociateAC, MaxAssociateBytes}, true}, {Header{TypeAssociateAC, MaxAssociateBytes + 1}, false},
		{Header{TypeAssociateRJ, 4}, true}, {Header{TypeAssociateRJ, 5}, false},
		{Header{TypeReleaseRQ, 4}, true}, {Header{TypeReleaseRP, 3}, false}, {Header{TypeAbort, 4}, true},
		{Header{TypeData, 6}, true}, {Header{TypeData, 5}, false}, {Header{TypeData, 1000}, true}, {Header{TypeData, 1001}, false},
		{Header{0, 4}, false}, {Header{8, 4}, false}, {Header{0xFF, 0xFFFFFFFF}, false},
	} {
		if err := tt.h.Check(1000); (err == nil) != tt.ok || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", tt.h, err)
		}
	}
}

func TestDataHeaderBounds(t *testing.T) {
	for _, tt := range []struct {
		b    string
		left uint32
		ok   bool
	}{
		{"00000002 0100", 6, true}, {"00000001 0100", 6, false}, {"00000000 0100", 6, false},
		{"00000003 0100", 6, false}, {"00000003 0100", 7, true}, {"ffffffff 0100", 100, false}, {"fffffffe 0100", 6, false},
	} {
		h, err := ParseDataHeader(fromHex(t, tt.b), tt.left)
		if (err == nil) != tt.ok || tt.ok && h.Length+6 > tt.left {
			t.Errorf("%s with %d left: %+v, %v", tt.b, tt.left, h, err)
		}
	}
}

// body is the fixed head of an A-ASSOCIATE followed by items.
func body(t testing.TB, items string) []byte {
	return append(append([]byte{0, 1}, make([]byte, fixedBytes-2)...), fromHex(t, items)...)
}

func TestParseIsLenient(t *testing.T) {
	for name, tt := range map[string]struct {
		items string
		check func(*Associate) bool
	}{
		"unknown items are passed over":          {"99000002ffff 100000033 12e32 7f000000", func(a *Associate) bool { return a.Application == "1.2" }},
		"unknown items of a context are too":     {"2000000f 01000000 77000000 30000003312e32", func(a *Associate) bool { return a.Contexts[0].Abstract == "1.2" }},
		"unknown user items are too":             {"5000000c 5a000000 5100000400000007", func(a *Associate) bool { return a.User.MaxLength == 7 }},
		"UIDs padded with NUL or space":          {"10000004312e3200 2000000d 01000000 30000005312e322020", func(a *Associate) bool { return a.Application == "1.2" && a.Contexts[0].Abstract == "1.2" }},
		"no maximum length":                      {"50000000", func(a *Associate) bool { return a.User.MaxLength == 16384 }},
		"no user information":                    {"", func(a *Associate) bool { return a.User.MaxLength == 16384 && a.User.Window == nil }},
		"a maximum length of 0 is unlimited":     {"500000085100000400000000", func(a *Associate) bool { return a.User.MaxLength == 0 }},
		"an even context id":                     {"2000000402000000", func(a *Associate) bool { return a.Contexts[0].ID == 2 }},
		"bytes behind the related classes":       {"50000014 57000010 0003312e31 0003312e32 0000 00000000", func(a *Associate) bool { return a.User.Common[0].ServiceClass == "1.2" }},
		"an identity response in a request":      {"50000008 59000004 00026f6b", func(a *Associate) bool { return string(a.User.IdentityResponse) == "ok" }},
		"extended information without any bytes": {"50000009 56000005 0003312e31", func(a *Associate) bool { return a.User.Extended[0].Class == "1.1" }},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAssociateRQ(body(t, strings.ReplaceAll(tt.items, " ", "")))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(a) {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	contexts := ""
	for i := range 129 {
		contexts += "20000004" + hex.EncodeToString([]byte{byte(i)}) + "000000"
	}
	syntaxes := strings.Repeat("40000000", MaxSyntaxes+1)
	context := "2000" + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(4+len(syntaxes)/2))) + "01000000" + syntaxes
	roles := strings.Repeat("5400000400000000", MaxUserItems+1)
	user := func(items string) string {
		return "5000" + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(len(items)/2))) + items
	}
	related := strings.Repeat("0000", MaxRelated+1)
	common := "5700" + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(6+len(related)/2))) + "00000000" +
		hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(len(related)/2))) + related
	for name, items := range map[string]string{
		"stray bytes":                         "100000",
		"an item longer than the PDU":         "10000005312e32",
		"a context without its head":          "20000003010000",
		"a context id twice":                  "2000000401000000 2000000401000000",
		"an item longer than its context":     "2000000801000000 30000001",
		"129 contexts":                        contexts,
		"too many syntaxes":                   context,
		"a maximum length of three bytes":     user("51000003000000"),
		"a window of three bytes":             user("53000003000000"),
		"a role without roles":                user("540000050003312e31"),
		"a role whose class is cut short":     user("540000040009312e"),
		"an extension without its class":      user("56000001 00"),
		"an identity without secondary field": user("58000005 02010001 75"),
		"an identity that claims 64 KB":       user("58000006 0201ffff 7500"),
		"an identity response cut short":      user("59000003 00026f"),
		"a common extension cut short":        user("57000005 0003312e31"),
		"a related class cut short":           user("57000008 00000000 0002 0009"),
		"too many roles":                      user(roles),
		"too many related classes":            user(common),
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := ParseAssociateRQ(body(t, strings.ReplaceAll(items, " ", ""))); !fault.Is(err, fault.Invalid) {
				t.Errorf("%v; %+v", err, a)
			}
		})
	}
	for _, n := range []int{0, fixedBytes - 1, MaxAssociateBytes + 1} {
		if _, err := ParseAssociateAC(make([]byte, n)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	long := strings.Repeat("1", 65)
	for name, a := range map[string]Associate{
		"a title":                 {Called: "SEVENTEEN_LETTERS"},
		"an application context":  {Application: long},
		"contexts":                {Contexts: make([]Context, 129)},
		"syntaxes":                {Contexts: []Context{{Syntaxes: make([]string, MaxSyntaxes+1)}}},
		"an abstract syntax":      {Contexts: []Context{{Abstract: long}}},
		"an implementation":       {User: User{ImplementationClassUID: long}},
		"a version name":          {User: User{ImplementationVersion: "SEVENTEEN_LETTERS"}},
		"roles":                   {User: User{Roles: make([]Role, MaxUserItems+1)}},
		"a role's class":          {User: User{Roles: []Role{{Class: long}}}},
		"an extension's class":    {User: User{Extended: []Extended{{Class: long}}}},
		"an extension":            {User: User{Extended: []Extended{{Information: make([]byte, 70000)}}}},
		"a related class":         {User: User{Common: []CommonExtended{{Related: []string{long}}}}},
		"related classes":         {User: User{Common: []CommonExtended{{Related: make([]string, MaxRelated+1)}}}},
		"an identity":             {User: User{Identity: &Identity{Primary: make([]byte, 70000)}}},
		"user information in sum": {User: User{Extended: []Extended{{Information: make([]byte, 40000)}, {Information: make([]byte, 40000)}}}},
	} {
		if b, err := a.AppendRQ(nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %d bytes", name, err, len(b))
		}
	}
}

func FuzzParseAssociate(f *testing.F) {
	for _, name := range []string{"echoscu-rq.hex", "getscu-rq.hex", "storescu-identity-rq.hex", "storescp-ac.hex"} {
		f.Add(captured(f, name)[HeaderBytes:])
	}
	f.Add(fromHex(f, everythingHex)[HeaderBytes:])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range []struct {
			parse  func([]byte) (*Associate, error)
			encode func(*Associate, []byte) ([]byte, error)
		}{{ParseAssociateRQ, (*Associate).AppendRQ}, {ParseAssociateAC, (*Associate).AppendAC}} {
			a, err := x.parse(b)
			if err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Fatalf("kind %v: %v", fault.KindOf(err), err)
				}
				continue
			}
			once, err := x.encode(a, nil)
			if err != nil {
				continue // longer than we would say it
			}
			again, err := x.parse(once[HeaderBytes:])
			if err != nil {
				t.Fatalf("its own encoding: %v", err)
			}
			twice, err := x.encode(again, nil)
			if err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("encoded %x, then %x, %v", once, twice, err)
			}
		}
	})
}
