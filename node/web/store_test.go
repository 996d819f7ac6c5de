package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/archive"
)

// outcome is a store response as JSON.
type outcome struct {
	stored, warned, failed map[string]string // SOP Instance UID → RetrieveURL, Warning or Failure Reason
	retrieve               string
}

func (s *site) outcome(res *http.Response, status int) outcome {
	s.t.Helper()
	type item map[string]struct{ Value []any }
	var answer item
	body := s.body(res, status)
	if err := json.Unmarshal(body, &answer); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
	o := outcome{map[string]string{}, map[string]string{}, map[string]string{}, ""}
	text := func(it item, tag string) string {
		if v := it[tag].Value; len(v) > 0 {
			if f, ok := v[0].(float64); ok {
				return fmt.Sprintf("%04X", int(f))
			}
			return fmt.Sprint(v[0])
		}
		return ""
	}
	items := func(tag string) []item {
		b, _ := json.Marshal(answer[tag].Value)
		var list []item
		if err := json.Unmarshal(b, &list); err != nil {
			s.t.Fatal(err)
		}
		return list
	}
	for _, it := range items("00081199") {
		sop := text(it, "00081155")
		o.stored[sop] = text(it, "00081190")
		if w := text(it, "00081196"); w != "" {
			o.warned[sop] = w
		}
	}
	for _, it := range items("00081198") {
		o.failed[text(it, "00081155")] = text(it, "00081197")
	}
	o.retrieve = text(answer, "00081190")
	return o
}

// part10 returns a synthetic instance as a file.
func part10(t testing.TB, ds *dicom.Dataset) []byte {
	return append(dicom.AppendMeta(nil, dicom.Meta{
		Class: ds.String(tagSOPClass), Instance: ds.String(tagSOPInstance), Syntax: dict.ExplicitLittleEndian,
	}), encode(t, ds)...)
}

func TestStoreAnswers(t *testing.T) {
	one := part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1"))
	two := part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.2"))
	elsewhere := part10(t, synthetic("9.9.9", "9.9.9.4", "9.9.9.4.1"))
	other := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")
	other.Set(0x00100020, dict.LO, "other")
	conflict := part10(t, other)
	noStudy := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.3")
	noStudy.Remove(tagStudy)
	broken := two[:len(two)-3]

	for _, test := range []struct {
		name   string
		path   string
		files  [][]byte
		status int
		stored string // SOP Instance UIDs with blanks between
		failed string // SOP Instance UID=reason
		warned string
	}{
		{"all stored", "/studies", [][]byte{one, two}, 200, "1.2.3.4.1 1.2.3.4.2", "", ""},
		{"again", "/studies", [][]byte{one, one}, 200, "1.2.3.4.1", "", ""},
		{"another under its UID", "/studies", [][]byte{one, conflict}, 202, "1.2.3.4.1", "", "1.2.3.4.1=B000"},
		{"some", "/studies/1.2.3", [][]byte{one, elsewhere}, 202, "1.2.3.4.1", "9.9.9.4.1=A900", ""},
		{"none", "/studies/1.2.3", [][]byte{elsewhere}, 409, "", "9.9.9.4.1=A900", ""},
		{"a broken part fails alone", "/studies", [][]byte{broken, one}, 202, "1.2.3.4.1", "1.2.3.4.2=C000", ""},
		{"no Study Instance UID", "/studies", [][]byte{part10(t, noStudy)}, 409, "", "1.2.3.4.3=A900", ""},
		{"no DICOM", "/studies", [][]byte{[]byte("this is not DICOM")}, 409, "", "=C000", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, Options{})
			o := s.outcome(s.stowParts("/dicom-web"+test.path, test.files...), test.status)
			for _, sop := range strings.Fields(test.stored) {
				if want := s.server.URL + "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/" + sop; o.stored[sop] != want {
					t.Errorf("%s: retrieve URL %q, want %q", sop, o.stored[sop], want)
				}
			}
			if len(o.stored) != len(strings.Fields(test.stored)) {
				t.Errorf("stored %v", o.stored)
			}
			for want, got := range map[string]map[string]string{test.failed: o.failed, test.warned: o.warned} {
				if sop, reason, ok := strings.Cut(want, "="); ok && (len(got) != 1 || got[sop] != reason) || !ok && len(got) > 0 {
					t.Errorf("%v, want %q", got, want)
				}
			}
			if test.status < 300 && o.retrieve != s.server.URL+"/dicom-web/studies/1.2.3" {
				t.Errorf("study URL %q", o.retrieve)
			}
			if e := s.events.last(t); e.Action != ActionStore || e.Status != test.status || e.Failed != len(o.failed) {
				t.Errorf("audit %+v", e)
			}
		})
	}
}

func TestStoreForms(t *testing.T) {
	file := part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1"))
	bare := encode(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1"))
	s := newSite(t, Options{Issuer: "HOSPITAL", Charset: "ISO_IR 100"})
	kind, body := multipartOf(typeDICOM, file)
	boundary, _ := parseContentType(kind)
	for _, test := range []struct {
		name, kind string
		body       []byte
		status     int
	}{
		{"OHIF", kind, body, 200},
		{"type and boundary unquoted", "multipart/related; type=application/dicom; boundary=" + boundary.get("boundary"), body, 200},
		{"boundary quoted, no type", `multipart/related; boundary="` + boundary.get("boundary") + `"`, body, 200},
		{"line feeds alone", "multipart/related; type=application/dicom; boundary=b", append(append([]byte("--b\nContent-Type: application/dicom\n\n"), file...), "\n--b--\n"...), 200},
		{"parts without a type", "multipart/related; type=application/dicom; boundary=b", append(append([]byte("--b\r\n\r\n"), file...), "\r\n--b--"...), 200},
		{"alone", "application/dicom", file, 200},
		{"no preamble, no group 0002", "application/dicom", bare, 200},
		{"alone and no DICOM", "application/dicom", []byte("x"), 400},
		{"alone and cut short", "application/dicom", file[:len(file)-2], 400},
		{"a part of another type", "multipart/related; type=application/dicom; boundary=b", []byte("--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--"), 409},
		{"another type", "image/png", []byte("x"), 415},
		{"no type", "", []byte("x"), 415},
		{"a multipart of another type", `multipart/related; type="image/png"; boundary=b`, []byte("--b--"), 415},
		{"no boundary", `multipart/related; type="application/dicom"`, body, 400},
		{"another boundary", `multipart/related; type="application/dicom"; boundary=other`, body, 400},
		{"no part", `multipart/related; type="application/dicom"; boundary=b`, []byte("--b--\r\n"), 400},
		{"empty", `multipart/related; type="application/dicom"; boundary=b`, nil, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := s.stow("/dicom-web/studies", test.kind, test.body)
			s.body(res, test.status)
			if in := s.memory.incoming; test.status == 200 {
				last := in[len(in)-1]
				if last.Sender.Issuer != "HOSPITAL" || last.Sender.Charset != "ISO_IR 100" || last.Sender.Remote == "" || last.Class != "" {
					t.Errorf("%+v", last)
				}
			}
		})
	}
	t.Run("the answer as XML", func(t *testing.T) {
		res := s.do("POST", "/dicom-web/studies", "application/dicom+xml", bytes.NewReader(body), "Content-Type", kind)
		if b := s.body(res, 200); !isType(res, typeXML) || !strings.Contains(string(b), "1.2.3.4.1") {
			t.Errorf("%q %s", res.Header.Get("Content-Type"), b)
		}
	})
	t.Run("an answer that is not to be had is refused before anything is stored", func(t *testing.T) {
		before := len(s.memory.incoming)
		s.body(s.do("POST", "/dicom-web/studies", "image/png", bytes.NewReader(body), "Content-Type", kind), 415)
		if len(s.memory.incoming) != before {
			t.Error("stored")
		}
	})
	t.Run("a compressed body", func(t *testing.T) {
		s.body(s.stow("/dicom-web/studies", kind, body, "Content-Encoding", "gzip"), 415)
	})
}

// refusing fails every store with one kind.
type refusing struct {
	kind fault.Kind
}

func (r refusing) Store(_ context.Context, in archive.Incoming) (archive.Stored, error) {
	_, err := io.Copy(io.Discard, in.Body)
	return archive.Stored{}, errors.Join(fault.New(r.kind, "refused"), err)
}

func TestStoreStatusOfEveryKind(t *testing.T) {
	want := map[fault.Kind][2]string{
		fault.Other: {"500", "0110"}, fault.Invalid: {"409", "C000"}, fault.Mismatch: {"409", "A900"},
		fault.Unsupported: {"409", "0122"}, fault.Denied: {"403", "0124"}, fault.NotFound: {"409", "0112"},
		fault.Conflict: {"409", "0111"}, fault.Full: {"507", "A700"}, fault.Unavailable: {"503", "A700"},
		fault.Corrupt: {"500", "0110"}, fault.Canceled: {"409", "C000"}, fault.Protocol: {"409", "C000"},
	}
	for _, kind := range fault.Kinds() {
		s := newSite(t, Options{})
		h, err := New(s.memory, refusing{kind}, s.engine, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.server.Config.Handler = h
		res := s.stowParts("/dicom-web/studies", part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")))
		var status int
		fmt.Sscan(want[kind][0], &status)
		if o := s.outcome(res, status); o.failed["1.2.3.4.1"] != want[kind][1] {
			t.Errorf("%v: %v, want %s", kind, o.failed, want[kind][1])
		}
	}
}

func TestABodyCutShortStoresNothingByHalf(t *testing.T) {
	s := newSite(t, Options{})
	one := part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1"))
	two := part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.2"))
	kind, body := multipartOf(typeDICOM, one, two)
	end := bytes.LastIndex(body, []byte("\r\n--"))
	for _, cut := range []int{end, end + 2, end - 1, end - 20, end - len(two) + 10} {
		s.memory.instances = nil
		o := s.outcome(s.stow("/dicom-web/studies", kind, body[:cut]), 202)
		if len(s.memory.instances) != 1 || len(o.stored) != 1 || len(o.failed) != 1 {
			t.Errorf("cut at %d: %d stored, %+v", cut, len(s.memory.instances), o)
		}
	}
	// The first part cut at each byte: nothing is stored, and it is a bad request.
	first := bytes.Index(body, one)
	for cut := range first + len(one) + 1 {
		s.memory.instances = nil
		res := s.stow("/dicom-web/studies", kind, body[:cut])
		b, _ := io.ReadAll(res.Body)
		if len(s.memory.instances) != 0 || res.StatusCode != 400 && res.StatusCode != 409 {
			t.Fatalf("cut at %d: %d, %d stored: %s", cut, res.StatusCode, len(s.memory.instances), b)
		}
	}
}

func TestASenderThatDisappears(t *testing.T) {
	s := newSite(t, Options{})
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	kind, body := multipartOf(typeDICOM, part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")))
	fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body)*100, body[:len(body)-10])
	<-s.memory.began
	conn.Close()
	s.server.Close() // waits for the handler
	if len(s.memory.instances) != 0 {
		t.Errorf("%d instances of a sender that left in the middle", len(s.memory.instances))
	}
}

func TestASenderThatStalls(t *testing.T) {
	s := newSite(t, Options{Limits: Limits{Stall: time.Second}})
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kind, body := multipartOf(typeDICOM, part10(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")))
	fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body[:len(body)-200])
	answer, err := io.ReadAll(conn) // ends when the server gives up on us
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 4") {
		t.Errorf("%v %q", err, answer)
	}
	if len(s.memory.instances) != 0 {
		t.Error("stored by half")
	}
}

func TestStoreRefusesBrokenSamples(t *testing.T) {
	s := newSite(t, Options{})
	refused := 0
	for _, f := range samples.All(t) {
		if f.Dcmdump == "ok" || strings.HasPrefix(f.Dcmdump, "ok,") || f.Bytes > 1<<20 {
			continue
		}
		file, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.memory.instances)
		res := s.stowParts("/dicom-web/studies", file)
		body, _ := io.ReadAll(res.Body)
		switch after := len(s.memory.instances); res.StatusCode {
		case 200, 202: // some files that dcmdump refuses are read more leniently
			if after == before && res.StatusCode == 200 && !strings.Contains(string(body), "00081199") {
				t.Errorf("%s: %d and nothing stored", f.Name, res.StatusCode)
			}
		case 409, 400:
			refused++
			if after != before {
				t.Errorf("%s: %d, and stored", f.Name, res.StatusCode)
			}
		default:
			t.Errorf("%s: %d %s", f.Name, res.StatusCode, body)
		}
	}
	if refused == 0 {
		t.Error("no broken sample was refused")
	}
}

// A Failure Reason is a number for many things; the words say which it is, once
// for all instances that it holds for.
func TestStoreSaysInWordsWhatIsWrong(t *testing.T) {
	s := newSite(t, Options{})
	file := func(ds *dicom.Dataset) []byte {
		return append(dicom.AppendMeta(nil, dicom.Meta{Class: "1.2", Instance: "1.2", Syntax: dict.ExplicitLittleEndian}), encode(t, ds)...)
	}
	lacking := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	lacking.Remove(tagSeries)
	good := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.6")
	res := s.stowParts("/dicom-web/studies", file(lacking))
	s.body(res, 409)
	if got := res.Header.Values("Warning"); len(got) != 1 || !strings.Contains(got[0], `"not stored: a required UID is missing or differs"`) {
		t.Errorf("Warning %q", got)
	}
	short := file(good)
	res = s.stowParts("/dicom-web/studies", file(lacking), file(lacking), short[:len(short)-3], file(good))
	s.body(res, 202)
	if got := res.Header.Values("Warning"); len(got) != 2 || !strings.Contains(got[0], `"2 not stored: `) || !strings.Contains(got[1], `"1 not stored: `) {
		t.Errorf("Warning %q", got)
	}
}

func TestStoreOfMetadataAndBulkData(t *testing.T) {
	pixels := bytes.Repeat([]byte{1, 2, 3}, 1001) // odd length
	nested := bytes.Repeat([]byte{7}, 3000)
	want := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")
	want.Set(0x00100010, dict.PN, "Müller^Änne")
	item := dicom.NewDataset()
	item.Remove(0x00080005)
	item.Put(dicom.Element{Tag: 0x54001010, VR: dict.OW, Value: nested})
	want.SetSequence(0x54000100, item)
	want.Put(dicom.Element{Tag: tagPixels, VR: dict.OW, Value: append(bytes.Clone(pixels), 0)})
	refer := dicomjson.Options{AvailableSyntax: dict.ExplicitLittleEndian, BulkURI: func(path string, _ *dicom.Element) string { return "bulk/" + path }}
	asJSON, err := dicomjson.AppendDataset([]byte("["), want, refer)
	if err != nil {
		t.Fatal(err)
	}
	asJSON = append(asJSON, ']')
	bulk := "--b\r\nContent-Type: application/octet-stream\r\nContent-Location: bulk/7FE00010\r\n\r\n" + string(pixels) +
		"\r\n--b\r\nContent-Location: %s/bulk/54000100/1/54001010\r\n\r\n" + string(nested) + "\r\n--b--"

	store := func(t *testing.T, kind string, meta []byte, rest string, status int) *site {
		s := newSite(t, Options{TempDir: t.TempDir()})
		body := "--b\r\nContent-Type: " + kind + "\r\n\r\n" + string(meta) + "\r\n" + strings.ReplaceAll(rest, "%s", s.server.URL+"/dicom-web")
		o := s.outcome(s.stow("/dicom-web/studies", `multipart/related; type="`+kind+`"; boundary=b`, []byte(body)), status)
		if status == 200 && len(o.stored) != 1 {
			t.Fatalf("%+v", o)
		}
		return s
	}
	check := func(t *testing.T, s *site) {
		t.Helper()
		got := s.memory.instances[0]
		if !bytes.Equal(got.data, encode(t, want)) {
			t.Errorf("another data set: %d bytes, want %d", len(got.data), len(encode(t, want)))
		}
	}
	t.Run("JSON", func(t *testing.T) { check(t, store(t, typeJSON, asJSON, bulk, 200)) })
	t.Run("XML", func(t *testing.T) {
		asXML := xmlOf(t, want, refer)
		check(t, store(t, typeXML, asXML, bulk, 200))
	})
	t.Run("bulk data that never comes fails that instance", func(t *testing.T) {
		s := store(t, typeJSON, asJSON, "--b--", 409)
		if len(s.memory.instances) != 0 {
			t.Error("stored")
		}
	})
	t.Run("frames of a compressed image", func(t *testing.T) {
		ds := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.1")
		ds.Set(0x00280008, dict.IS, "2")
		ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: make([]byte, 2000)})
		meta, err := dicomjson.AppendDataset(nil, ds, refer)
		if err != nil {
			t.Fatal(err)
		}
		part := "--b\r\nContent-Type: image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90\r\nContent-Location: bulk/7FE00010\r\n\r\n"
		s := store(t, typeJSON, meta, part+"odd\r\n"+part+"even\r\n--b--", 200)
		frames, err := s.memory.instances[0].header.Frames()
		if err != nil || frames.Count != 2 || s.memory.instances[0].ref.Syntax != "1.2.840.10008.1.2.4.90" {
			t.Fatalf("%v %+v", err, frames)
		}
		if b, err := frames.ReadFrame(nil, bytes.NewReader(s.memory.instances[0].data), 1); err != nil || !strings.HasPrefix(string(b), "odd") {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("broken metadata", func(t *testing.T) {
		s := newSite(t, Options{TempDir: t.TempDir()})
		for _, meta := range []string{"", "[", `{"x":1}`, `[]`} {
			s.body(s.stow("/dicom-web/studies", `multipart/related; type="application/dicom+json"; boundary=b`,
				[]byte("--b\r\nContent-Type: application/dicom+json\r\n\r\n"+meta+"\r\n--b--")), 400)
		}
	})
	t.Run("more bulk data than may wait", func(t *testing.T) {
		s := newSite(t, Options{TempDir: t.TempDir(), Limits: Limits{Spool: 1000}})
		s.body(s.stow("/dicom-web/studies", `multipart/related; type="application/dicom+json"; boundary=b`,
			[]byte("--b\r\nContent-Type: application/dicom+json\r\n\r\n"+string(asJSON)+"\r\n"+bulk)), 507)
	})
}

func TestANodeThatTakesNothingInSaysSoOnce(t *testing.T) {
	shut := true
	s := newSite(t, Options{Takes: func() error {
		if !shut {
			return nil
		}
		return fault.New(fault.Unavailable, "%w", &archive.Closed{Why: "this node is closed"})
	}})
	res := s.stowParts("/dicom-web/studies", []byte("one"), []byte("two"))
	if body := s.body(res, http.StatusServiceUnavailable); string(body) != "this node is closed\n" || res.Header.Get("Retry-After") != "" {
		t.Errorf("%q, %v", body, res.Header)
	}
	if e := s.events.last(t); e.Action != ActionStore || e.Status != http.StatusServiceUnavailable || e.Kind != fault.Unavailable {
		t.Errorf("audited as %+v", e)
	}
	if len(s.memory.incoming) > 0 {
		t.Error("the archive was asked")
	}
	offered := func() bool {
		return bytes.Contains(s.body(s.get("/dicom-web/", typePlainJSON), http.StatusOK), []byte(`"POST"`))
	}
	if offered() {
		t.Error("the capabilities offer storing")
	}
	if shut = false; !offered() {
		t.Error("the capabilities leave storing out")
	}
}
