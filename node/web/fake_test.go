package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dicomxml"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/archive"
	"pelago/query"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an archive in memory: data sets as they came.
type memory struct {
	mu        sync.Mutex
	instances []*kept
	opened    int                              // and not closed
	headers   int                              // calls of Headers
	fail      map[string]error                 // by SOP Instance UID: of Open and Headers
	read      func(sop string, at int64) error // failures of the bytes
	missing   int                              // instances that are known by number only
	warnings  []string
	incoming  []archive.Incoming
	began     chan struct{} // holds a token once a store has begun
}

type kept struct {
	ref    archive.Ref
	data   []byte
	header *dicom.Header
	record []byte // durable form of the header
}

func newMemory() *memory { return &memory{fail: map[string]error{}, began: make(chan struct{}, 1)} }

// Store takes the whole body in, as the archive does, and keeps nothing by half.
func (m *memory) Store(ctx context.Context, in archive.Incoming) (archive.Stored, error) {
	select {
	case m.began <- struct{}{}:
	default:
	}
	syntax, _ := dict.Syntax(in.Syntax)
	var data bytes.Buffer
	tee := io.TeeReader(in.Body, &data)
	header, err := dicom.ReadHeader(tee, syntax, dicom.DefaultLimits)
	if err != nil {
		return archive.Stored{}, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return archive.Stored{}, err
	}
	ds := header.Dataset
	ref := archive.Ref{
		Study: ds.String(tagStudy), Series: ds.String(tagSeries), SOP: ds.String(tagSOPInstance),
		Class: ds.String(tagSOPClass), Syntax: in.Syntax, Bytes: int64(data.Len()),
	}
	if dict.IsNonPatient(ref.Class) && ref.Study == "" {
		ref.Study, ref.Series = "2.25.1", "2.25.2"
	}
	if ref.SOP == "" || ref.Class == "" || ref.Study == "" || ref.Series == "" || in.Study != "" && in.Study != ref.Study {
		return archive.Stored{Ref: ref}, fault.New(fault.Mismatch, "a required UID is missing or differs")
	}
	record, err := header.AppendBinary(nil)
	if err != nil {
		return archive.Stored{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	in.Body = nil
	m.incoming = append(m.incoming, in)
	for _, k := range m.instances {
		if k.ref.SOP == ref.SOP {
			if bytes.Equal(k.data, data.Bytes()) {
				return archive.Stored{Ref: k.ref, Outcome: archive.Same}, nil
			}
			return archive.Stored{Ref: ref, Outcome: archive.Quarantined}, nil
		}
	}
	ref.Number = uint64(len(m.instances) + 1)
	m.instances = append(m.instances, &kept{ref: ref, data: data.Bytes(), header: header, record: record})
	return archive.Stored{Ref: ref, Warnings: m.warnings}, nil
}

func (m *memory) Select(ctx context.Context, study, series, instance string) iter.Seq2[archive.Ref, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refs []archive.Ref
	for _, k := range m.instances {
		if (study == "" || k.ref.Study == study) && (series == "" || k.ref.Series == series) && (instance == "" || k.ref.SOP == instance) {
			refs = append(refs, k.ref)
		}
	}
	sort.Slice(refs, func(i, j int) bool {
		return refs[i].Study+"\x00"+refs[i].Series+"\x00"+refs[i].SOP < refs[j].Study+"\x00"+refs[j].Series+"\x00"+refs[j].SOP
	})
	missing := m.missing
	return func(yield func(archive.Ref, error) bool) {
		if len(refs)+missing == 0 {
			yield(archive.Ref{}, fault.New(fault.NotFound, "none"))
			return
		}
		if missing > 0 && !yield(archive.Ref{}, fault.New(fault.Unavailable, "%w", &archive.Missing{Study: study, Instances: missing})) {
			return
		}
		for _, ref := range refs {
			if !yield(ref, nil) {
				return
			}
		}
	}
}

func (m *memory) kept(ref archive.Ref) (*kept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail[ref.SOP]; err != nil {
		return nil, err
	}
	return m.instances[ref.Number-1], nil
}

func (m *memory) Open(ctx context.Context, ref archive.Ref) (archive.Instance, error) {
	k, err := m.kept(ref)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	return &openKept{memory: m, kept: k}, nil
}

// Prefetch has nothing to ready.
func (m *memory) Prefetch(context.Context, archive.Ref) {}

// Headers parses the record each time, which is what the archive pays at worst.
func (m *memory) Headers(ctx context.Context, ref archive.Ref) (*dicom.Header, error) {
	k, err := m.kept(ref)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.headers++
	m.mu.Unlock()
	return dicom.ParseHeader(k.record)
}

type openKept struct {
	memory *memory
	*kept
	closed bool
}

func (o *openKept) Ref() archive.Ref      { return o.ref }
func (o *openKept) Header() *dicom.Header { return o.header }
func (o *openKept) Stored() io.ReaderAt   { return failingReader{o, bytes.NewReader(o.data)} }
func (o *openKept) Hash() [32]byte        { return blake3.Sum256(o.ref2()) }

// ref2 stands for the bytes, so that a benchmark does not hash them each time.
func (o *openKept) ref2() []byte { return fmt.Append(nil, o.ref.SOP, len(o.data)) }

func (o *openKept) Values() (io.ReaderAt, error) {
	if !o.header.Syntax.Deflated {
		return o.Stored(), nil
	}
	inflated, err := io.ReadAll(dicom.NewInflater(bytes.NewReader(o.data), dicom.DefaultLimits))
	if err != nil {
		return nil, err
	}
	return bytes.NewReader(inflated), nil
}

func (o *openKept) Close() error {
	if o.closed {
		panic("closed twice")
	}
	o.closed = true
	o.memory.mu.Lock()
	defer o.memory.mu.Unlock()
	o.memory.opened--
	return nil
}

type failingReader struct {
	o *openKept
	r io.ReaderAt
}

func (f failingReader) ReadAt(p []byte, off int64) (int, error) {
	if f.o.memory.read != nil {
		if err := f.o.memory.read(f.o.ref.SOP, off); err != nil {
			return 0, err
		}
	}
	return f.r.ReadAt(p, off)
}

// answering is an engine that gives a prepared answer and keeps the question.
type answering struct {
	mu     sync.Mutex
	asked  []query.Query
	answer func(query.Query) (*query.Answer, error)
}

func (a *answering) Find(ctx context.Context, q query.Query) (*query.Answer, error) {
	a.mu.Lock()
	a.asked = append(a.asked, q)
	a.mu.Unlock()
	if a.answer == nil {
		return &query.Answer{Matches: func(func(*dicom.Dataset, error) bool) {}}, nil
	}
	return a.answer(q)
}

func (a *answering) last() query.Query { return a.asked[len(a.asked)-1] }

// matches yields data sets, then an error if there is one.
func matches(err error, sets ...*dicom.Dataset) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		for _, ds := range sets {
			if !yield(ds, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// site is a served handler over the fakes.
type site struct {
	t      testing.TB
	memory *memory
	engine *answering
	server *httptest.Server
	events *events
	client *http.Transport // takes what comes: nothing is uncompressed behind the test's back
}

type events struct {
	mu   sync.Mutex
	list []Event
}

func (e *events) Audit(_ context.Context, ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) last(t testing.TB) Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == 0 {
		t.Fatal("no audit event")
	}
	return e.list[len(e.list)-1]
}

func newSite(t testing.TB, options Options) *site {
	t.Helper()
	s := &site{t: t, memory: newMemory(), engine: &answering{}, events: &events{},
		client: &http.Transport{DisableCompression: true}}
	if options.Audit == nil {
		options.Audit = s.events
	}
	h, err := New(s.memory, s.memory, s.engine, options)
	if err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewUnstartedServer(nil)
	s.server.Config = NewServer(h, ServerOptions{})
	s.server.Start()
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.server.Close()
		if n := s.memory.opened; n != 0 {
			t.Errorf("%d instances were left open", n)
		}
	})
	return s
}

// get asks with an Accept value, "" for none.
func (s *site) get(path, accept string, more ...string) *http.Response {
	s.t.Helper()
	return s.do("GET", path, accept, nil, more...)
}

func (s *site) do(method, path, accept string, body io.Reader, more ...string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequest(method, s.server.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	for i := 0; i+1 < len(more); i += 2 {
		r.Header.Add(more[i], more[i+1])
	}
	res, err := s.client.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	return res
}

// body reads the whole answer, which must have the status.
func (s *site) body(res *http.Response, status int) []byte {
	s.t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s: %v", res.Request.URL, err)
	}
	if res.StatusCode != status {
		s.t.Fatalf("%s %s: %d, want %d: %s", res.Request.Method, res.Request.URL, res.StatusCode, status, trimText(string(b), 300))
	}
	return b
}

// parts reads a multipart answer with our own reader.
func (s *site) parts(res *http.Response, status int) []gotPart {
	s.t.Helper()
	b := s.body(res, status)
	kind, _ := parseContentType(res.Header.Get("Content-Type"))
	if kind.kind != typeMultipart || kind.root() == "" {
		s.t.Fatalf("Content-Type %q", res.Header.Get("Content-Type"))
	}
	parts, err := readParts(bytes.NewReader(b), kind.get("boundary"), Limits{})
	if err != nil {
		s.t.Fatal(err)
	}
	return parts
}

// put stores a sample file and returns its reference.
func (s *site) put(name string) archive.Ref {
	s.t.Helper()
	f, err := os.Open(samplePath(s.t, name))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	meta, body, err := dicom.OpenFile(f)
	if err != nil {
		s.t.Fatal(err)
	}
	stored, err := s.memory.Store(context.Background(), archive.Incoming{Syntax: meta.Syntax, Body: body})
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	return stored.Ref
}

// putSet stores a built data set in explicit little endian.
func (s *site) putSet(ds *dicom.Dataset) archive.Ref {
	s.t.Helper()
	stored, err := s.memory.Store(context.Background(), archive.Incoming{
		Syntax: dict.ExplicitLittleEndian, Body: bytes.NewReader(encode(s.t, ds)),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return stored.Ref
}

func encode(t testing.TB, ds *dicom.Dataset) []byte {
	t.Helper()
	little, _ := dict.Syntax(dict.ExplicitLittleEndian)
	b, err := ds.Encode(nil, little)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// synthetic returns a data set with the four UIDs.
func synthetic(study, series, sop string) *dicom.Dataset {
	ds := dicom.NewDataset()
	ds.Set(tagSOPClass, dict.UI, "1.2.840.10008.5.1.4.1.1.7")
	ds.Set(tagSOPInstance, dict.UI, sop)
	ds.Set(tagStudy, dict.UI, study)
	ds.Set(tagSeries, dict.UI, series)
	return ds
}

func samplePath(t testing.TB, name string) string {
	t.Helper()
	all := samples.All(t)
	i := slices.IndexFunc(all, func(f samples.File) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no sample %s", name)
	}
	return all[i].Path
}

// instancePath is the path of an instance's resources.
func instancePath(ref archive.Ref) string {
	return instanceURL("/dicom-web", ref.Study, ref.Series, ref.SOP)
}

func seriesPath(ref archive.Ref) string { return instanceURL("/dicom-web", ref.Study, ref.Series, "") }

// isType reports an answer's media type, whatever its parameters.
func isType(res *http.Response, kind string) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), kind)
}

// blockingEngine says when it is asked and answers when it is told.
type blockingEngine struct{ inside, leave chan struct{} }

func (b *blockingEngine) Find(context.Context, query.Query) (*query.Answer, error) {
	close(b.inside)
	<-b.leave
	return &query.Answer{Matches: matches(nil)}, nil
}

// multipartOf joins parts of one media type.
func multipartOf(kind string, bodies ...[]byte) (contentType string, body []byte) {
	m := newMultipartWriter()
	var b bytes.Buffer
	for _, part := range bodies {
		b.Write(m.head(kind, ""))
		b.Write(part)
	}
	b.Write(m.tail())
	return m.contentType(kind), b.Bytes()
}

// stow posts a body of a type.
func (s *site) stow(path, contentType string, body []byte, more ...string) *http.Response {
	s.t.Helper()
	return s.do("POST", path, "", bytes.NewReader(body), append(more, "Content-Type", contentType)...)
}

// stowParts posts Part 10 files as a multipart.
func (s *site) stowParts(path string, files ...[]byte) *http.Response {
	s.t.Helper()
	kind, body := multipartOf(typeDICOM, files...)
	return s.stow(path, kind, body)
}

func xmlOf(t testing.TB, ds *dicom.Dataset, o dicomjson.Options) []byte {
	t.Helper()
	b, err := dicomxml.AppendDataset(nil, ds, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newTLSServer lends the certificate of the standard library.
func newTLSServer(t testing.TB) *httptest.Server {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}
