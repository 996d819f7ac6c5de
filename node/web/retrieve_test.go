package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/archive"
)

const ctFolder = "ct/same-image-many-syntaxes/"

// dataSetOf returns the syntax and data set of a Part 10 file.
func dataSetOf(t testing.TB, file []byte) (dicom.Meta, []byte) {
	t.Helper()
	meta, body, err := dicom.OpenFile(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return meta, data
}

// everySample stores each valid sample through STOW in a site of its own, since
// some share their UIDs, and hands it over.
func everySample(t *testing.T, use func(t *testing.T, s *site, f samples.File, ref archive.Ref, data []byte)) {
	tried := 0
	for _, f := range samples.All(t) {
		file, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if len(file) > 4<<20 {
			continue
		}
		probe := newMemory()
		meta, body, err := dicom.OpenFile(bytes.NewReader(file))
		if err != nil {
			continue
		}
		if _, err := probe.Store(t.Context(), archive.Incoming{Syntax: meta.Syntax, Body: body}); err != nil {
			continue // broken on purpose, or no instance: TestStoreRefuses has these
		}
		if strings.Contains(f.Name, "series-") && !strings.Contains(f.Name, "01.dcm") {
			continue // one of a long series is enough
		}
		tried++
		t.Run(f.Name, func(t *testing.T) {
			s := newSite(t, Options{})
			res := s.stowParts("/dicom-web/studies", file)
			s.body(res, 200)
			if len(s.memory.instances) != 1 {
				t.Fatalf("%d instances", len(s.memory.instances))
			}
			_, data := dataSetOf(t, file)
			use(t, s, f, s.memory.instances[0].ref, data)
		})
	}
	if tried < 100 {
		t.Errorf("only %d samples were tried", tried)
	}
}

func TestEveryValidSampleGoesThroughSTOWAndWADOByteForByte(t *testing.T) {
	everySample(t, func(t *testing.T, s *site, f samples.File, ref archive.Ref, data []byte) {
		check := func(file []byte) {
			t.Helper()
			meta, got := dataSetOf(t, file)
			if !bytes.Equal(got, data) || meta.Syntax != ref.Syntax || meta.Instance != ref.SOP || meta.Class != ref.Class {
				t.Errorf("%d bytes of %s came back as %d of %s", len(data), ref.Syntax, len(got), meta.Syntax)
			}
		}
		path := instancePath(ref)
		res := s.get(path, `multipart/related; type="application/dicom"; transfer-syntax=*`)
		parts := s.parts(res, 200)
		if len(parts) != 1 || parts[0].fields["content-type"] != "application/dicom; transfer-syntax="+ref.Syntax {
			t.Fatalf("%d parts, %v", len(parts), parts[0].fields)
		}
		if parts[0].fields["content-location"] != s.server.URL+path {
			t.Errorf("Content-Location %q", parts[0].fields["content-location"])
		}
		check([]byte(parts[0].body))
		if res.ContentLength < 0 {
			t.Error("the length of stored bytes was not told")
		}
		check(s.body(s.get(path, "application/dicom; transfer-syntax=*"), 200))
		check(s.body(s.get(path, "application/dicom; transfer-syntax="+ref.Syntax), 200))
		check(s.body(s.get("/wado?requestType=WADO&objectUID="+ref.SOP+"&contentType=application%2Fdicom&transferSyntax="+ref.Syntax, ""), 200))

		// Metadata of everything is valid JSON, and each BulkDataURI leads to its value.
		s.followBulk(ref)
	})
}

// followBulk gets the metadata and every URI in it.
func (s *site) followBulk(ref archive.Ref) {
	s.t.Helper()
	var sets []map[string]any
	if err := json.Unmarshal(s.body(s.get(instancePath(ref)+"/metadata", "application/dicom+json"), 200), &sets); err != nil || len(sets) != 1 {
		s.t.Fatalf("metadata: %v, %d data sets", err, len(sets))
	}
	if got := sets[0]["00083002"].(map[string]any)["Value"].([]any)[0]; got != ref.Syntax {
		s.t.Errorf("available syntax %v", got)
	}
	if _, ok := sets[0]["00020010"]; ok {
		s.t.Error("group 0002 in the metadata")
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if uri, ok := v["BulkDataURI"].(string); ok {
				path, ok := strings.CutPrefix(uri, s.server.URL)
				if !ok {
					s.t.Errorf("%s is not absolute", uri)
				}
				if _, err := s.memory.instances[0].header.Frames(); err != nil && strings.HasSuffix(path, "/7FE00010") && s.memory.instances[0].header.Syntax.Encapsulated {
					return // frames that cannot be told apart
				}
				if len(s.body(s.get(path, ""), 200)) == 0 {
					s.t.Errorf("%s is empty", uri)
				}
			}
			for _, child := range v {
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	walk(sets[0])
}

func TestRetrieveConvertsBetweenUncompressedSyntaxes(t *testing.T) {
	for _, file := range []string{"CTImage_LittleEndianImplicit_1.2.840.10008.1.2.dcm", "CTImage_BigEndianExplicit_1.2.840.10008.1.2.2.dcm", "CTImage_DeflatedExplicitVRLittleEndian_1.2.840.10008.1.2.1.99.dcm"} {
		s := newSite(t, Options{})
		ref := s.put(ctFolder + file)
		for accept, want := range map[string]string{
			`multipart/related; type="application/dicom"`:                                                  dict.ExplicitLittleEndian,
			`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2`:               dict.ImplicitLittleEndian,
			`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.2`:             dict.ExplicitBigEndian,
			`multipart/related; type=application/dicom;transfer-syntax=1.2.840.10008.1.2.4.90, */*; q=0.1`: dict.ExplicitLittleEndian,
			`*/*`: dict.ExplicitLittleEndian,
		} {
			parts := s.parts(s.get(instancePath(ref), accept), 200)
			meta, got := dataSetOf(t, []byte(parts[0].body))
			if meta.Syntax != want || parts[0].fields["content-type"] != "application/dicom; transfer-syntax="+want {
				t.Errorf("%s as %s: %s", file, accept, meta.Syntax)
			}
			syntax, _ := dict.Syntax(meta.Syntax)
			h, err := dicom.ReadHeader(bytes.NewReader(got), syntax, dicom.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			var a, b bytes.Buffer
			values, err := (&openKept{memory: s.memory, kept: s.memory.instances[0]}).Values()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(h.Canonical(&a, bytes.NewReader(got)), s.memory.instances[0].header.Canonical(&b, values)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Errorf("%s as %s is another data set", file, accept)
			}
		}
	}
}

func TestRetrieveNegotiation(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage_JPEGLSLossless_1.2.840.10008.1.2.4.80.dcm")
	const jpegLS = "1.2.840.10008.1.2.4.80" // there is no decoder for it
	for _, test := range []struct {
		accept string
		status int
		syntax string
	}{
		{`multipart/related; type="application/dicom"`, 200, jpegLS},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80`, 200, jpegLS},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1`, 406, ""},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90`, 406, ""},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1, multipart/related; type="application/dicom"; transfer-syntax=*; q=0.1`, 200, jpegLS},
		{`image/png`, 406, ""},
		{`multipart/related; type="image/jpeg"`, 406, ""},
	} {
		res := s.get(instancePath(ref), test.accept)
		if test.status != 200 {
			s.body(res, test.status)
			continue
		}
		if meta, _ := dataSetOf(t, []byte(s.parts(res, 200)[0].body)); meta.Syntax != test.syntax {
			t.Errorf("%s: %s", test.accept, meta.Syntax)
		}
	}
	s.body(s.get("/wado?requestType=WADO&studyUID="+ref.Study+"&seriesUID="+ref.Series+"&objectUID="+ref.SOP+"&transferSyntax=1.2.840.10008.1.2.1", ""), 406)
	for query, status := range map[string]int{
		"requestType=WADO&objectUID=1.2.3": 404, "objectUID=" + ref.SOP: 400, "requestType=WADO": 400,
		"requestType=WADO&anonymize=yes&objectUID=" + ref.SOP:          406,
		"requestType=WADO&contentType=text/html&objectUID=" + ref.SOP:  406,
		"requestType=WADO&objectUID=" + ref.SOP + "&studyUID=" + "9.9": 404,
	} {
		s.body(s.get("/wado?"+query, ""), status)
	}
	s.body(s.get("/dicom-web/studies/1.2.3", ""), 404)
	s.body(s.get("/dicom-web/studies/"+strings.Repeat("1", 65), ""), 400)
	s.body(s.get("/dicom-web/studies/1.2.3/nothing", ""), 404)
	if res := s.do("DELETE", "/dicom-web/studies/1.2.3", "", nil); res.StatusCode != 405 {
		t.Errorf("DELETE: %d", res.StatusCode)
	}
}

// putSeries stores n small synthetic instances of one series.
func (s *site) putSeries(n int) []archive.Ref {
	refs := make([]archive.Ref, n)
	for i := range refs {
		ds := synthetic("1.2.3", "1.2.3.4", fmt.Sprintf("1.2.3.4.%05d", i))
		refs[i] = s.putSet(ds)
	}
	return refs
}

func TestAvailabilityIsKnownBeforeTheHeader(t *testing.T) {
	const accept = `multipart/related; type="application/dicom"; transfer-syntax=*`
	s := newSite(t, Options{Limits: Limits{HeldOpen: 2}})
	refs := s.putSeries(5)
	if parts := s.parts(s.get(seriesPath(refs[0]), accept), 200); len(parts) != 5 {
		t.Fatalf("%d parts", len(parts))
	}
	s.memory.fail[refs[1].SOP] = fault.New(fault.Unavailable, "away")
	s.memory.fail[refs[4].SOP] = fault.New(fault.Corrupt, "rotten")
	res := s.get("/dicom-web/studies/1.2.3", accept)
	if parts := s.parts(res, 206); len(parts) != 3 || !strings.Contains(res.Header.Get("Warning"), "2 of 5") {
		t.Errorf("%d parts, %q", len(parts), res.Header.Get("Warning"))
	}
	if e := s.events.last(t); e.Status != 206 || e.Instances != 3 || e.Failed != 2 {
		t.Errorf("%+v", e)
	}
	res = s.get("/dicom-web/studies/1.2.3/metadata", "")
	var sets []any
	if err := json.Unmarshal(s.body(res, 206), &sets); err != nil || len(sets) != 3 || res.Header.Get("ETag") != "" {
		t.Errorf("%v, %d data sets, %v", err, len(sets), res.Header)
	}
	for _, ref := range refs {
		s.memory.fail[ref.SOP] = fault.New(fault.Unavailable, "away")
	}
	if res := s.get(seriesPath(refs[0]), accept); res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	} else {
		s.body(res, 503)
	}
	s.body(s.get(seriesPath(refs[0])+"/metadata", ""), 503)
}

func TestWhatIsKnownByNumberOnlyIsPartialContent(t *testing.T) {
	const accept = `multipart/related; type="application/dicom"; transfer-syntax=*`
	s := newSite(t, Options{})
	refs := s.putSeries(4)
	whole := s.get("/dicom-web/studies/1.2.3/metadata", "")
	s.body(whole, 200)
	s.memory.missing = 3
	res := s.get(seriesPath(refs[0]), accept)
	if parts := s.parts(res, 206); len(parts) != 4 || !strings.Contains(res.Header.Get("Warning"), "3 of 7") {
		t.Errorf("%d parts, %q", len(parts), res.Header.Get("Warning"))
	}
	if e := s.events.last(t); e.Instances != 4 || e.Failed != 3 {
		t.Errorf("%+v", e)
	}
	for _, header := range [][]string{nil, {"If-None-Match", whole.Header.Get("ETag")}} {
		res = s.get("/dicom-web/studies/1.2.3/metadata", "", header...)
		var sets []any
		if err := json.Unmarshal(s.body(res, 206), &sets); err != nil || len(sets) != 4 || res.Header.Get("ETag") != "" || res.Header.Get("Warning") == "" {
			t.Errorf("%v, %d data sets, %v", err, len(sets), res.Header)
		}
	}
	if res := s.get("/dicom-web/studies/9.9.9", accept); res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	} else {
		s.body(res, 503)
	}
	s.memory.missing = 0
	s.body(s.get("/dicom-web/studies/1.2.3/metadata", ""), 200)
}

func TestALaterFailureCutsTheConnection(t *testing.T) {
	s := newSite(t, Options{})
	var refs []archive.Ref
	for i := range 3 { // larger than what the server holds back before it sends
		ds := synthetic("1.2.3", "1.2.3.4", fmt.Sprintf("1.2.3.4.%d", i))
		ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: make([]byte, 64<<10)})
		refs = append(refs, s.putSet(ds))
	}
	s.memory.read = func(sop string, _ int64) error {
		if sop == refs[2].SOP {
			return fault.New(fault.Corrupt, "rotten")
		}
		return nil
	}
	for _, accept := range []string{`multipart/related; type="application/dicom"; transfer-syntax=*`, `multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2`} {
		res := s.get(seriesPath(refs[0]), accept)
		b, err := io.ReadAll(res.Body)
		if res.StatusCode != 200 || err == nil {
			t.Errorf("%s: %d, %d bytes look whole", accept, res.StatusCode, len(b))
		}
		kind, _ := parseContentType(res.Header.Get("Content-Type"))
		if bytes.Contains(b, []byte("--"+kind.get("boundary")+"--")) {
			t.Error("the closing boundary was sent")
		}
		if e := s.events.last(t); e.Status != 0 || e.Kind != fault.Corrupt {
			t.Errorf("audit %+v", e)
		}
	}
}

func TestHeadTellsWithoutSending(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage.dcm")
	for _, path := range []string{instancePath(ref), instancePath(ref) + "/metadata", instancePath(ref) + "/frames/1", instancePath(ref) + "/bulkdata/7FE00010", "/dicom-web/studies"} {
		res := s.do("HEAD", path, "", nil)
		if res.StatusCode != 200 || len(s.body(res, 200)) != 0 {
			t.Errorf("HEAD %s: %d", path, res.StatusCode)
		}
	}
}

func TestMetadata(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage.dcm")
	path := seriesPath(ref) + "/metadata"
	res := s.get(path, "application/dicom+json", "Accept-Encoding", "gzip")
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Error("not compressed")
	}
	s.body(res, 200)
	res = s.get(path, "application/json")
	first := s.body(res, 200)
	tag := res.Header.Get("ETag")
	if tag == "" || !isType(res, "application/json") {
		t.Errorf("%v", res.Header)
	}
	read := s.memory.headers
	if again := s.body(s.get(path, "application/json"), 200); !bytes.Equal(first, again) || s.memory.headers != read {
		t.Errorf("made again: %d header reads", s.memory.headers-read)
	}
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if body := s.body(s.get(path, "application/json", "If-None-Match", match), 304); len(body) != 0 {
			t.Errorf("If-None-Match %s: %s", match, body)
		}
	}
	s.body(s.get(path, "application/json", "If-None-Match", `"other"`), 200)
	other := s.get(path, "application/json", "X-Forwarded-Host", "pacs.example", "X-Forwarded-Proto", "https")
	if body := s.body(other, 200); other.Header.Get("ETag") == tag || !strings.Contains(string(body), `"https://pacs.example/dicom-web/studies/`) {
		t.Error("links of one client were sent to another")
	}
	xml := s.parts(s.get(path, `multipart/related; type="application/dicom+xml"`), 200)
	if len(xml) != 1 || !strings.Contains(xml[0].body, "NativeDicomModel") || !strings.Contains(xml[0].body, s.server.URL+instancePath(ref)+"/bulkdata/7FE00010") {
		t.Errorf("XML %q", xml)
	}
	s.body(s.get(path, "image/png"), 406)
	s.putSeries(1)
	if s.get(path, "application/json").Header.Get("ETag") != tag {
		t.Error("another study changed the tag")
	}
}

func TestRetrieveStopsWhenTheClientIsGone(t *testing.T) {
	s := newSite(t, Options{})
	big := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	big.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: make([]byte, 32<<20)})
	ref := s.putSet(big)
	res := s.get(instancePath(ref), "application/dicom; transfer-syntax=*")
	if _, err := io.CopyN(io.Discard, res.Body, 1000); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	s.client.CloseIdleConnections()
	s.server.Close() // waits for the handler, which must see that nobody reads
	if e := s.events.last(t); e.Status != 0 {
		t.Errorf("%+v", e)
	}
}

func TestTooManyRequestsAtOnceAreToldToWait(t *testing.T) {
	s := newSite(t, Options{Limits: Limits{Searches: 1, Wait: 1}})
	inside, leave := make(chan struct{}), make(chan struct{})
	s.engine.answer = nil
	blocking := &blockingEngine{inside: inside, leave: leave}
	h, err := New(s.memory, s.memory, blocking, Options{Limits: Limits{Searches: 1, Wait: 1}})
	if err != nil {
		t.Fatal(err)
	}
	s.server.Config.Handler = h
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err := http.Get(s.server.URL + "/dicom-web/studies")
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}()
	<-inside
	s.body(s.get("/dicom-web/studies", ""), 503)
	close(leave)
	<-done
	http.DefaultClient.CloseIdleConnections()
}
