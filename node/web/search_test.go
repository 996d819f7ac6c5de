package web

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
)

// keys lists matching keys as TAG=values, items in brackets.
func keys(ds *dicom.Dataset) string {
	var list []string
	for i := range ds.Elements {
		e := &ds.Elements[i]
		switch {
		case e.Tag == 0x00080005:
		case len(e.Items) > 0:
			list = append(list, fmt.Sprintf("%08X[%s]", uint32(e.Tag), keys(e.Items[0])))
		default:
			list = append(list, fmt.Sprintf("%08X=%s", uint32(e.Tag), strings.Join(ds.Strings(e.Tag), "|")))
		}
	}
	return strings.Join(list, " ")
}

func TestSearchQueryString(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"keyword", "PatientName=*DOE*", "00100010=*DOE*"},
		{"tag in either case", "0020000d=1.2&00100020=x", "00100020=x 0020000D=1.2"},
		{"OHIF's UIDs with backslashes", "StudyInstanceUID=1.2%5C3.4", "0020000D=1.2|3.4"},
		{"UIDs with commas and repeated", "StudyInstanceUID=1.2,3.4&StudyInstanceUID=5.6", "0020000D=1.2|3.4|5.6"},
		{"OHIF's modalities with commas", "ModalitiesInStudy=CT,MR", "00080061=CT|MR"},
		{"a name keeps its comma", "PatientName=Doe,John", "00100010=Doe,John"},
		{"a date range", "StudyDate=20200101-20201231", "00080020=20200101-20201231"},
		{"path of tags", "00400275.00400009=step", "00400275[00400009=step]"},
		{"path of keywords", "RequestAttributesSequence.ScheduledProcedureStepID=a&RequestAttributesSequence.RequestedProcedureID=b", "00400275[00400009=a 00401001=b]"},
		{"empty and star match all", "PatientID=&AccessionNumber=*", "00080050= 00100020="},
		{"numbers of binary VRs", "Rows=512", "00280010=512"},
		{"a private attribute is text", "00091002=x", "00091002=x"},
		{"UTF-8", "PatientName=M%C3%BCller", "00100010=Müller"},
		{"the accept parameter is no key", "accept=application/dicom%2Bjson", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			values, err := url.ParseQuery(test.in)
			if err != nil {
				t.Fatal(err)
			}
			q, none, _, err := searchQuery(query.Study, values)
			if err != nil || none {
				t.Fatalf("%v %t", err, none)
			}
			if got := keys(q.Keys); got != test.want {
				t.Errorf("keys %s, want %s", got, test.want)
			}
			if !q.Relational || !q.CombinedDateTime || !q.FoldText || q.Timezone {
				t.Errorf("options %+v", q)
			}
		})
	}
}

func TestSearchRefusesWhatItCannotRead(t *testing.T) {
	s := newSite(t, Options{})
	for _, in := range []string{
		"NoSuchKeyword=1", "limit=x", "limit=-1", "offset=1.5", "fuzzymatching=maybe", "0010=1",
		"00020010=1.2", "00100000=1", "PatientName.PatientID=x", "RequestAttributesSequence=x",
		"Rows=many", "includefield=NoSuchKeyword", "PixelData=x", "PatientName=%zz",
		strings.Repeat("RequestAttributesSequence.", 9) + "PatientID=x",
	} {
		if body := s.body(s.get("/dicom-web/studies?"+in, ""), 400); len(body) == 0 || len(body) > 200 {
			t.Errorf("%s: body %q", in, body)
		}
	}
	if len(s.engine.asked) != 0 {
		t.Errorf("%d questions reached the engine", len(s.engine.asked))
	}
}

func TestOHIFWorklistSearch(t *testing.T) {
	s := newSite(t, Options{AE: "PELAGO"})
	study := dicom.NewDataset()
	study.Set(tagStudy, dict.UI, "1.2.3")
	study.Set(0x00100010, dict.PN, "Müller^Änne")
	study.Set(0x00080061, dict.CS, "CT", "SR")
	study.SetUint(0x00201208, dict.US, 0)
	study.Put(dicom.Element{Tag: 0x00201208, VR: dict.IS, Value: []byte("12")})
	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(nil, study)}, nil
	}
	res := s.get("/dicom-web/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"+
		"&PatientName=*doe*&00100020=*12*&AccessionNumber=*A1*&StudyDescription=*head*&ModalitiesInStudy=CT%2CMR&StudyDate=20200101-20201231", "application/dicom+json")
	if !isType(res, "application/dicom+json") {
		t.Errorf("Content-Type %q", res.Header.Get("Content-Type"))
	}
	var answer []map[string]struct {
		VR    string `json:"vr"`
		Value []any
	}
	if err := json.Unmarshal(s.body(res, 200), &answer); err != nil || len(answer) != 1 {
		t.Fatalf("%v %v", err, answer)
	}
	got := answer[0]
	if v := got["00081190"].Value; len(v) != 1 || v[0] != s.server.URL+"/dicom-web/studies/1.2.3" || got["00081190"].VR != "UR" {
		t.Errorf("RetrieveURL %v", got["00081190"])
	}
	if v := got["00080061"].Value; !reflect.DeepEqual(v, []any{"CT", "SR"}) {
		t.Errorf("modalities %v", v)
	}
	if v := got["00201208"].Value; !reflect.DeepEqual(v, []any{float64(12)}) {
		t.Errorf("instances %v", v)
	}
	if v := got["00100010"].Value; !reflect.DeepEqual(v, []any{map[string]any{"Alphabetic": "Müller^Änne"}}) {
		t.Errorf("name %v", v)
	}
	q := s.engine.last()
	if want := "00080020=20200101-20201231 00080050=*A1* 00080061=CT|MR 00081030=*head* 00100010=*doe* 00100020=*12*"; keys(q.Keys) != want {
		t.Errorf("keys %s", keys(q.Keys))
	}
	if q.Level != query.Study || q.Limit != 101 || q.Offset != 0 || q.Fuzzy {
		t.Errorf("%+v", q)
	}
	for _, tag := range []dict.Tag{0x00081030, 0x00080060, 0x00080090, 0x00100030, 0x00201206, 0x00201208, 0x00080061, 0x0020000D} {
		if !slices.Contains(q.Return, tag) {
			t.Errorf("%s is not asked for", tag)
		}
	}
	if e := s.events.last(t); e.Action != ActionSearch || e.Instances != 1 || e.Status != 200 || !strings.Contains(e.Query, "PatientName=*doe*") {
		t.Errorf("audit %+v", e)
	}
}

func TestOHIFSeriesSearch(t *testing.T) {
	s := newSite(t, Options{})
	series := dicom.NewDataset()
	series.Set(tagSeries, dict.UI, "1.2.3.4")
	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(nil, series)}, nil
	}
	body := s.body(s.get("/dicom-web/studies/1.2.3/series?includefield=0008103E%2C00080021", "application/json"), 200)
	if !strings.Contains(string(body), `"00081190":{"vr":"UR","Value":["`+s.server.URL+`/dicom-web/studies/1.2.3/series/1.2.3.4"]}`) {
		t.Errorf("%s", body)
	}
	q := s.engine.last()
	if q.Level != query.Series || keys(q.Keys) != "0020000D=1.2.3" {
		t.Errorf("%+v %s", q.Level, keys(q.Keys))
	}
	if !slices.Contains(q.Return, 0x0008103E) || !slices.Contains(q.Return, 0x00080021) || slices.Contains(q.Return, 0x00100010) {
		t.Errorf("%v", q.Return)
	}
}

func TestSearchResources(t *testing.T) {
	s := newSite(t, Options{})
	for _, test := range []struct {
		path  string
		level query.Level
		keys  string
		tag   dict.Tag // asked for only because the level above is open
		open  bool
	}{
		{"/studies", query.Study, "", 0x00100010, true},
		{"/series", query.Series, "", 0x00100010, true},
		{"/instances", query.Image, "", 0x00100010, true},
		{"/studies/1.2/series", query.Series, "0020000D=1.2", 0x00100010, false},
		{"/studies/1.2/instances", query.Image, "0020000D=1.2", 0x0008103E, true},
		{"/studies/1.2/series/3.4/instances", query.Image, "0020000D=1.2 0020000E=3.4", 0x0008103E, false},
	} {
		if body := s.body(s.get("/dicom-web"+test.path, ""), 200); string(body) != "[]" {
			t.Errorf("%s: %s, want []", test.path, body)
		}
		q := s.engine.last()
		if q.Level != test.level || keys(q.Keys) != test.keys || slices.Contains(q.Return, test.tag) != test.open {
			t.Errorf("%s: %v %s %v", test.path, q.Level, keys(q.Keys), q.Return)
		}
	}
	s.body(s.get("/dicom-web/studies?includefield=all&fuzzymatching=true&limit=5&offset=10", ""), 200)
	if q := s.engine.last(); !q.All || !q.Fuzzy || q.Limit != 5 || q.Offset != 10 {
		t.Errorf("%+v", q)
	}
	asked := len(s.engine.asked)
	if body := s.body(s.get("/dicom-web/studies?limit=0", ""), 200); string(body) != "[]" || len(s.engine.asked) != asked {
		t.Errorf("limit=0: %s", body)
	}
}

func TestSearchSaysWhatMustBeSaidOfTheAnswer(t *testing.T) {
	s := newSite(t, Options{AE: "PELAGO A"})
	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(nil), Staleness: 1420 * time.Millisecond, Unheard: []string{"east", "west"}, Silent: func() []string { return []string{"north", "so\"uth"} }, Ignored: []dict.Tag{0x00101010}}, nil
	}
	res := s.get("/dicom-web/studies?multiplevaluematching=true", "")
	s.body(res, 200)
	want := []string{
		`299 PELAGO_A "what other sites stored in the last 1.5s may be missing"`,
		`299 PELAGO_A "these sites have not been heard lately, what they stored since may be missing: east, west"`,
		`299 PELAGO_A "the matching key (0010,1010) could not be used"`,
		`299 PELAGO_A "multiplevaluematching is not supported"`,
		`299 PELAGO_A "these sites did not answer, their matches may be missing: north, so_uth"`,
	}
	if got := res.Header.Values("Warning"); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// What a site's silence takes from an answer is known at its end only, and said
// before it, however long it is.
func TestSilentSitesAreNamedBeforeTheAnswer(t *testing.T) {
	long := make([]*dicom.Dataset, 40)
	for i := range long {
		long[i] = dicom.NewDataset()
		long[i].Set(tagStudy, dict.UI, fmt.Sprintf("1.2.%d", i))
		long[i].Set(0x00081030, dict.LO, strings.Repeat("x", 8<<10))
	}
	broken := fault.New(fault.Corrupt, "x")
	for _, test := range []struct {
		name   string
		sets   []*dicom.Dataset
		fails  error
		silent []string
		accept string
		status int
		found  int
	}{
		{"nobody is silent", long[:1], nil, nil, "", 200, 1},
		{"one is, nothing matches", nil, nil, []string{"north"}, "", 200, 0},
		{"one is, something matches", long[:1], nil, []string{"north"}, "", 200, 1},
		{"one is, more matches than are held in memory", long, nil, []string{"north"}, "", 200, 40},
		{"the same as XML", long, nil, []string{"north"}, typeXML, 200, 40},
		{"nothing as XML", nil, nil, []string{"north"}, typeXML, 204, 0},
		{"it fails after more than is held", long, broken, []string{"north"}, "", 500, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, Options{TempDir: t.TempDir()})
			ended := false
			s.engine.answer = func(query.Query) (*query.Answer, error) {
				return &query.Answer{
					Matches: func(yield func(*dicom.Dataset, error) bool) {
						matches(test.fails, test.sets...)(yield)
						ended = true
					},
					Silent: func() []string {
						if !ended {
							return nil
						}
						return test.silent
					},
				}, nil
			}
			res := s.get("/dicom-web/studies", test.accept)
			body := string(s.body(res, test.status))
			warned := strings.Contains(strings.Join(res.Header.Values("Warning"), " "), "north")
			if warned != (test.silent != nil && test.fails == nil) {
				t.Errorf("warnings %q", res.Header.Values("Warning"))
			}
			if test.fails != nil {
				return
			}
			if n := strings.Count(body, "1.2."); n != 2*test.found && n != 3*test.found { // the UID and its URL
				t.Errorf("%d UIDs in the answer, want those of %d studies", n, test.found)
			}
			if test.accept == "" && !json.Valid([]byte(body)) {
				t.Error("no JSON")
			}
			if length := res.Header.Get("Content-Length"); test.status == 200 && length != fmt.Sprint(len(body)) {
				t.Errorf("length %s of %d bytes", length, len(body))
			}
		})
	}
}

func TestAnswersThatWaitAreBounded(t *testing.T) {
	s := newSite(t, Options{TempDir: t.TempDir(), Limits: Limits{Spool: 100 << 10}})
	one := dicom.NewDataset()
	one.Set(tagStudy, dict.UI, "1.2")
	one.Set(0x00081030, dict.LO, strings.Repeat("x", 60<<10))
	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(nil, one, one, one), Silent: func() []string { return nil }}, nil
	}
	s.body(s.get("/dicom-web/studies", ""), 507)
}

func TestSearchForms(t *testing.T) {
	s := newSite(t, Options{})
	sets := make([]*dicom.Dataset, 3)
	for i := range sets {
		sets[i] = dicom.NewDataset()
		sets[i].Set(tagStudy, dict.UI, fmt.Sprintf("1.2.%d", i))
	}
	s.engine.answer = func(query.Query) (*query.Answer, error) { return &query.Answer{Matches: matches(nil, sets...)}, nil }

	t.Run("compressed JSON", func(t *testing.T) {
		res := s.get("/dicom-web/studies", "", "Accept-Encoding", "gzip, deflate, br")
		if res.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%v", res.Header)
		}
		z, err := gzip.NewReader(strings.NewReader(string(s.body(res, 200))))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil || !json.Valid(plain) || strings.Count(string(plain), "0020000D") != 3 {
			t.Errorf("%v %s", err, plain)
		}
	})
	t.Run("XML", func(t *testing.T) {
		res := s.get("/dicom-web/studies", `multipart/related; type="application/dicom+xml"`)
		parts := s.parts(res, 200)
		if len(parts) != 3 || parts[0].fields["content-type"] != typeXML || !strings.Contains(parts[2].body, "1.2.2") {
			t.Errorf("%q", parts)
		}
	})
	t.Run("no match as XML has no parts", func(t *testing.T) {
		s.engine.answer = nil
		if body := s.body(s.get("/dicom-web/studies", typeXML), 204); len(body) != 0 {
			t.Errorf("%s", body)
		}
	})
	t.Run("another type", func(t *testing.T) { s.body(s.get("/dicom-web/studies", "image/png"), 406) })
}

func TestSearchFailures(t *testing.T) {
	s := newSite(t, Options{})
	one := dicom.NewDataset()
	one.Set(tagStudy, dict.UI, "1.2")
	long := dicom.NewDataset()
	long.Set(tagStudy, dict.UI, "1.2")
	long.Set(0x00081030, dict.LO, strings.Repeat("x", 80<<10))

	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return nil, fault.New(fault.Mismatch, "StudyDate is no date")
	}
	s.body(s.get("/dicom-web/studies?StudyDate=x", ""), 400)

	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return nil, fault.New(fault.Unavailable, "path /var/secret")
	}
	res := s.get("/dicom-web/studies", "")
	if body := s.body(res, 503); res.Header.Get("Retry-After") == "" || strings.Contains(string(body), "secret") {
		t.Errorf("%v %s", res.Header, body)
	}

	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(fault.New(fault.Corrupt, "x"), one)}, nil
	}
	s.body(s.get("/dicom-web/studies", ""), 500) // early enough for its own status

	s.engine.answer = func(query.Query) (*query.Answer, error) {
		return &query.Answer{Matches: matches(fault.New(fault.Corrupt, "x"), long, long, one)}, nil
	}
	res = s.get("/dicom-web/studies", "")
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a broken answer of %d bytes looks whole", len(b))
	}
}

func FuzzSearchQuery(f *testing.F) {
	for _, s := range []string{"PatientName=*doe*&limit=1", "00400275.00400009=x&includefield=all,00080060", "Rows=1&Rows=2,3", "StudyInstanceUID=1%5C2&0020000D=3", "SelectorATValue=00100010", "%=%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q, _, _, err := searchQuery(query.Image, values)
		if err != nil {
			if !fault.Is(err, fault.Invalid) || len(err.Error()) > 300 {
				t.Fatalf("%v", err)
			}
			return
		}
		little, _ := dict.Syntax(dict.ExplicitLittleEndian)
		if _, err := q.Keys.Encode(nil, little); err != nil {
			t.Fatalf("keys of %q cannot be sent on: %v", raw, err)
		}
	})
}
