package scp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// archive keeps instances in memory and serves them all, whatever is asked.
type archive struct {
	provider
	t            *testing.T
	destinations map[string]string // AE title → address
	matches      int               // answers to a C-FIND

	mu       sync.Mutex // guards what is below
	asked    []*FindRequest
	requests []*assoc.Request
	canceled bool
}

func (m *archive) Admit(_ context.Context, r *assoc.Request) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, r)
	return &Session{Echo: m, Store: m, Find: m, Move: m, Get: m, Commit: m}, nil
}

func (m *archive) Find(ctx context.Context, r *FindRequest) (*Matches, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r)
	return &Matches{Datasets: func(yield func(*dicom.Dataset, error) bool) {
		for n := range m.matches {
			if ctx.Err() != nil {
				m.noteCanceled()
				yield(nil, ctx.Err())
				return
			}
			d := answer(n)
			d.Set(tagLevel, dict.CS, "STUDY")
			d.Set(tagStudyUID, dict.UI, fmt.Sprintf("1.2.%d", n))
			if !yield(d, nil) {
				if ctx.Err() != nil { // the cancel came while this one was on its way
					m.noteCanceled()
				}
				return
			}
		}
	}}, nil
}

func (m *archive) noteCanceled() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.canceled = true
}

// all yields what was stored.
func (m *archive) all() (int, iter.Seq2[scu.Instance, error]) {
	kept := m.taken()
	return len(kept), func(yield func(scu.Instance, error) bool) {
		for _, in := range kept {
			open := func(_ context.Context, syntax string) (io.ReadCloser, error) { return in.open(syntax) }
			if !yield(scu.Instance{Class: in.class, UID: in.instance, Syntax: in.syntax, Open: open}, nil) {
				return
			}
		}
	}
}

// open returns the data set in a syntax.
func (in received) open(syntax string) (io.ReadCloser, error) {
	if syntax == in.syntax {
		return io.NopCloser(bytes.NewReader(in.data)), nil
	}
	from, _ := dict.Syntax(in.syntax)
	to, _ := dict.Syntax(syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(in.data), from, dicom.DefaultLimits)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := h.Convert(&b, bytes.NewReader(in.data), to); err != nil {
		return nil, err
	}
	return io.NopCloser(&b), nil
}

func (m *archive) Get(context.Context, *RetrieveRequest) (*Retrieval, error) {
	n, instances := m.all()
	return &Retrieval{Total: n, Instances: instances}, nil
}

func (m *archive) Move(_ context.Context, r *RetrieveRequest) (*Retrieval, error) {
	addr, known := m.destinations[r.Destination]
	if !known {
		return nil, dimse.DestinationUnknown()
	}
	n, instances := m.all()
	return &Retrieval{Total: n, Instances: instances, Connect: func(ctx context.Context) (Destination, error) {
		var kinds []scu.Kind
		for _, in := range m.taken() {
			kinds = append(kinds, scu.Kind{Class: in.class, Syntax: in.syntax})
		}
		s := scu.NewSender(scu.Target{Addr: addr, Called: r.Destination, Calling: "PELAGO"}, kinds, 0)
		return s, s.Connect(ctx)
	}}, nil
}

// start serves an archive on loopback and returns the host and port.
func (m *archive) start(t *testing.T, config *tls.Config) (host, port string) {
	t.Helper()
	m.t = t
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ = net.SplitHostPort(listener.Addr().String())
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	server := &Server{Admit: m}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	return host, port
}

// synthetic returns small instances in the three uncompressed syntaxes.
func synthetic(n int) []dimsetest.Instance {
	all := make([]dimsetest.Instance, n)
	for i := range all {
		all[i] = dimsetest.CT(7, i)
		all[i].Rows, all[i].Columns = 16, 16
		all[i].Syntax = []string{dict.ExplicitLittleEndian, dict.ImplicitLittleEndian, dict.ExplicitBigEndian}[i%3]
	}
	return all
}

// fill puts instances into an archive.
func (m *archive) fill(all []dimsetest.Instance) {
	for _, in := range all {
		m.stored = append(m.stored, received{class: in.SOPClassUID, instance: in.SOPInstanceUID, syntax: in.Syntax, data: in.Dataset()})
	}
}

// same reports whether files hold the instances' pixels, each once.
func same(t *testing.T, dir string, all []dimsetest.Instance) {
	t.Helper()
	got := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		meta, body, err := dicom.OpenFile(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		data, err := io.ReadAll(body)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		got[meta.Instance] = canonical(t, data, meta.Syntax)
	}
	if len(paths) != len(all) || len(got) != len(all) {
		t.Errorf("%d files of %d instances, want %d", len(paths), len(got), len(all))
	}
	for _, in := range all {
		if !bytes.Equal(got[in.SOPInstanceUID], canonical(t, in.Dataset(), in.Syntax)) {
			t.Errorf("instance %s differs", in.SOPInstanceUID)
		}
	}
}

// canonical returns the canonical form of a data set.
func canonical(t *testing.T, data []byte, uid string) []byte {
	t.Helper()
	syntax, _ := dict.Syntax(uid)
	h, err := dicom.ReadHeader(bytes.NewReader(data), syntax, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := h.Canonical(&b, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInteropEchoscu(t *testing.T) {
	host, port := new(archive).start(t, nil)
	dimsetest.Run(t, "echoscu", "-v", host, port)
	dimsetest.Run(t, "echoscu", "--propose-pc", "128", "--propose-ts", "38", host, port)
}

func TestInteropStoreFromDcmtk(t *testing.T) {
	all := synthetic(9)
	dir := dimsetest.WriteFiles(t, all...)
	for name, send := range map[string]func(m *archive, host, port string){
		"storescu": func(_ *archive, host, port string) { dimsetest.Run(t, "storescu", "+sd", host, port, dir) },
		"dcmsend":  func(_ *archive, host, port string) { dimsetest.Run(t, "dcmsend", "+sd", host, port, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			m := &archive{}
			host, port := m.start(t, nil)
			send(m, host, port)
			taken := m.taken()
			if len(taken) != len(all) {
				t.Fatalf("%d instances arrived, want %d", len(taken), len(all))
			}
			arrived := map[string]received{}
			for _, in := range taken {
				arrived[in.instance] = in
			}
			for _, in := range all {
				got := arrived[in.SOPInstanceUID]
				if got.class != in.SOPClassUID || !bytes.Equal(canonical(t, got.data, got.syntax), canonical(t, in.Dataset(), in.Syntax)) {
					t.Errorf("%s arrived otherwise, in %s", in.SOPInstanceUID, got.syntax)
				}
			}
		})
	}
}

func TestInteropFindscu(t *testing.T) {
	m := &archive{matches: 25}
	host, port := m.start(t, nil)
	dir := t.TempDir()
	for _, model := range []string{"-S", "-P", "-O"} {
		dimsetest.Run(t, "findscu", model, "-X", "-od", dir, "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=M*", "-k", "StudyInstanceUID", host, port)
		files, _ := filepath.Glob(filepath.Join(dir, "rsp*.dcm"))
		if len(files) != 25 {
			t.Errorf("%s: %d responses, want 25", model, len(files))
		}
	}
	out := dimsetest.Run(t, "dcmdump", "+U8", filepath.Join(dir, "rsp0003.dcm"))
	if !strings.Contains(out, "[Müller^2]") || !strings.Contains(out, "[1.2.2]") {
		t.Errorf("the third response:\n%s", out)
	}
	if r := m.asked[0]; r.Identifier.String(tagPatientName) != "M*" || r.Root != dimse.StudyRoot {
		t.Errorf("asked %+v", r)
	}
}

func TestInteropFindscuCancels(t *testing.T) {
	m := &archive{matches: 1 << 30}
	host, port := m.start(t, nil)
	out, _ := dimsetest.TryRun(t, "findscu", "-v", "-S", "--cancel", "3", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName", host, port)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.canceled || !strings.Contains(out, "Cancel") {
		t.Errorf("canceled: %v\n%.2000s", m.canceled, out)
	}
}

func TestInteropGetscu(t *testing.T) {
	all := synthetic(9)
	for _, model := range []string{"-S", "-P", "-O"} {
		m := &archive{}
		m.fill(all)
		host, port := m.start(t, nil)
		dir := t.TempDir()
		dimsetest.Run(t, "getscu", model, "-od", dir, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID="+all[0].StudyInstanceUID, host, port)
		same(t, dir, all)
	}
}

func TestInteropMovescu(t *testing.T) {
	all := synthetic(9)
	m := &archive{}
	m.fill(all)
	own := freePort(t)
	m.destinations = map[string]string{"MOVER": "127.0.0.1:" + own}
	host, port := m.start(t, nil)
	dir := t.TempDir()
	move := func(destination string) (string, error) {
		return dimsetest.TryRun(t, "movescu", "-d", "-S", "+xa", "-aet", "MOVER", "-aem", destination, "+P", own, "-od", dir,
			"-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID="+all[0].StudyInstanceUID, host, port)
	}
	out, err := move("MOVER")
	if err != nil || !strings.Contains(out, "Number of Completed Sub-operations     : 9") && !strings.Contains(out, "Completed Suboperations       : 9") {
		t.Errorf("movescu: %v\n%s", err, out)
	}
	same(t, dir, all)
	if out, err := move("NOBODY"); err == nil && !strings.Contains(strings.ToLower(out), "a801") {
		t.Errorf("unknown destination: %v\n%s", err, out)
	}
}

// freePort returns a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestInteropTLS(t *testing.T) {
	dir := t.TempDir()
	ca := dimsetest.NewAuthority(t)
	ca.WriteFile(t, dir, "ca")
	ca.IssueFiles(t, dir, "client")
	file := func(name string) string { return filepath.Join(dir, name) }

	m := &archive{}
	host, port := m.start(t, &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Issue(t)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool,
	})
	secured := []string{"+tls", file("client.key"), file("client.crt"), "+cf", file("ca.crt")}
	dimsetest.Run(t, "echoscu", append(secured, host, port)...)
	dimsetest.Run(t, "storescu", append(secured, host, port, filepath.Join(dimsetest.WriteFiles(t, synthetic(1)...), synthetic(1)[0].SOPInstanceUID+".dcm"))...)
	if len(m.taken()) != 1 {
		t.Errorf("%d instances over TLS", len(m.taken()))
	}
	for _, r := range m.requests {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != "client" {
			t.Error("the admitter does not see the client's certificate")
		}
	}
	if out, err := dimsetest.TryRun(t, "echoscu", "+tla", "-ic", host, port); err == nil {
		t.Errorf("without a certificate: %s", out)
	}
	if out, err := dimsetest.TryRun(t, "echoscu", "-ta", "5", host, port); err == nil {
		t.Errorf("without TLS: %s", out)
	}
	if n := len(m.requests); n != 2 {
		t.Errorf("%d associations were asked for, want 2", n)
	}
}
