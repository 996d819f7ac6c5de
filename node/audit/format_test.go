package audit

import (
	"bytes"
	"encoding/xml"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s", name, got)
	}
}

// oneOfEach is an event of every kind.
func oneOfEach() []Event {
	scanner := Peer{AE: "CT1", Address: "10.1.0.5"}
	station := Peer{AE: "WS1", Address: "ws1.example"}
	user := Peer{User: "ann", Address: "10.1.0.9"}
	node := Peer{AE: "PELAGO"}
	subject := Subject{
		Patient: Patient{ID: "P1", Issuer: "NORTH", Name: "Doe^Jane"},
		Studies: []Study{{UID: "1.2.3", Accessions: []string{"A1"}, Classes: []Class{{UID: "1.2.840.10008.5.1.4.1.1.2", Count: 2, Instances: []string{"1.2.3.1", "1.2.3.2"}}}}},
	}
	events := []Event{
		Started(node, user), Stopped(node, Peer{}),
		LogUsed(user, "/api/audit", Success),
		Transferring(node, station, user, subject),
		Transferred(Create, scanner, node, Peer{}, subject, Success),
		Transferred(Read, node, station, Peer{}, subject, Minor),
		Accessed(user, Read, subject, Success),
		Deleted(user, subject, Success),
		Exported(user, node, "/media/usb", subject, Success),
		Imported(user, node, "/media/cd", subject, Serious),
		Attached(Peer{User: "node-2"}, Success), Detached(Peer{User: "node-2"}, Success),
		Queried(station, node, "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2", []byte("\x10\x00\x20\x00"), Success),
		Searched(user, node, "/dicom-web/studies?PatientID=P1", Success),
		Associated(scanner, node, Minor, "calling AE title not recognized"),
		LoggedIn(user, node, Serious, "wrong password"), LoggedOut(user, node),
		Alert(RestrictedFunction(), user, node, Minor, "delete", "no right"),
	}
	for i := range events {
		events[i].Time = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	}
	return events
}

func TestGoldenXML(t *testing.T) {
	var all bytes.Buffer
	for _, e := range oneOfEach() {
		b, err := e.XML(Source{Site: "north", ID: "node-1"})
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(b, "\n\r") {
			t.Errorf("more than a line: %s", b)
		}
		all.Write(append(b, '\n'))
		checkSchema(t, b)
	}
	golden(t, "messages.xml", all.Bytes())
}

// checkSchema checks what PS3.15 A.5.1 makes mandatory, independently of the
// types that encode it.
func checkSchema(t *testing.T, message []byte) {
	t.Helper()
	mandatory := map[string][]string{
		"EventIdentification":             {"EventDateTime", "EventOutcomeIndicator"},
		"EventID":                         {"csd-code", "codeSystemName", "originalText"},
		"EventTypeCode":                   {"csd-code", "codeSystemName", "originalText"},
		"RoleIDCode":                      {"csd-code", "codeSystemName", "originalText"},
		"ParticipantObjectIDTypeCode":     {"csd-code", "codeSystemName", "originalText"},
		"ActiveParticipant":               {"UserID", "UserIsRequestor"},
		"AuditSourceIdentification":       {"AuditSourceID"},
		"ParticipantObjectIdentification": {"ParticipantObjectID"},
		"ParticipantObjectDetail":         {"type", "value"},
		"SOPClass":                        {"NumberOfInstances"},
	}
	seen := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(message))
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		seen[start.Name.Local]++
		have := map[string]string{}
		for _, a := range start.Attr {
			have[a.Name.Local] = a.Value
		}
		for _, name := range mandatory[start.Name.Local] {
			if have[name] == "" {
				t.Errorf("%s without %s: %s", start.Name.Local, name, message)
			}
		}
	}
	if seen["EventIdentification"] != 1 || seen["EventID"] != 1 || seen["ActiveParticipant"] == 0 || seen["AuditSourceIdentification"] != 1 {
		t.Errorf("incomplete: %s", message)
	}
	if n := seen["ParticipantObjectIdentification"]; seen["ParticipantObjectName"]+seen["ParticipantObjectQuery"] != n {
		t.Errorf("an object needs a name or a query: %s", message)
	}
}

func TestCharactersThatXMLCannotHoldAreReplaced(t *testing.T) {
	e := LoggedIn(Peer{User: "a\"<&\x00\x1b\xff"}, Peer{AE: "B"}, Success, "]]>")
	b, err := e.XML(Source{ID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	var back xMessage
	if err := xml.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Participants[0].UserID; got != "a\"<&\ufffd\ufffd\ufffd" {
		t.Errorf("%q", got)
	}
}

func TestGoldenSegment(t *testing.T) {
	b := encodeHeader(7)
	for i, e := range oneOfEach()[:3] {
		body, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		b = appendRecord(b, Cursor(7+i), body)
	}
	golden(t, "segment-v1.aud", b)
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, fs, "d/"+segmentName(7), b)
	l, _ := running(t, Options{FS: fs, Dir: "d"})
	n := 0
	next, err := l.Read(t.Context(), 7, func(e Entry) error {
		if e.Lost != 0 || e.Event.ID != oneOfEach()[n].ID {
			t.Errorf("event %d: %+v", e.Number, e)
		}
		n++
		return nil
	})
	if err != nil || n != 3 || next != 10 || l.Next() != 10 {
		t.Errorf("%d events, next %d, %v", n, next, err)
	}
}

// FuzzOpen reads any bytes as a segment: no panic, no allocation by a claimed
// length, and the log goes on behind what it found.
func FuzzOpen(f *testing.F) {
	whole := encodeHeader(1)
	for i := range 3 {
		body, _ := encode(eventOf(i))
		whole = appendRecord(whole, Cursor(1+i), body)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(append(bytes.Clone(whole), strings.Repeat(recordMagic, 20)...))
	f.Add([]byte(segmentMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("d", 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, fs, "d/"+segmentName(1), b)
		l, err := Open(Options{FS: fs, Dir: "d"})
		if err != nil {
			return
		}
		_ = l.Close()
		l, _ = running(t, Options{FS: fs, Dir: "d"})
		end := l.Next()
		if end == 0 {
			return // the highest number there is
		}
		record(t, l, 77, 78)
		flush(t, l)
		if got, _ := readAll(t, l, end); len(got) != 1 || got[0] != 77 {
			t.Fatalf("read %v behind the end", got)
		}
	})
}
