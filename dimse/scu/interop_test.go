package scu_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
	"pelago/dimse/scu"
)

// startTool runs a server program of dcmtk on a free port until the test ends, and
// returns its address once it accepts connections.
func startTool(t *testing.T, name string, args func(port string) []string) string {
	t.Helper()
	path := dimsetest.Tool(t, name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	var log bytes.Buffer
	cmd := exec.Command(path, args(port)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%.4000s", name, log.String())
		}
	})
	addr := net.JoinHostPort("127.0.0.1", port)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		<-tick.C
	}
	t.Fatalf("%s does not listen", name)
	return ""
}

// file is a Part 10 file as an instance.
type file struct {
	scu.Instance
	data []byte
}

func load(t *testing.T, path string) (file, error) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(b)
}

func parse(b []byte) (file, error) {
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return file{}, err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return file{}, err
	}
	in := scu.Instance{Class: meta.Class, UID: meta.Instance, Syntax: meta.Syntax}
	in.Open = func(_ context.Context, syntax string) (io.ReadCloser, error) {
		if syntax != meta.Syntax {
			return nil, fault.New(fault.Unsupported, "not converted in this test")
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	return file{in, data}, nil
}

func TestInteropStoreToStorescpByteForByte(t *testing.T) {
	dir := t.TempDir()
	addr := startTool(t, "storescp", func(port string) []string {
		return []string{"+B", "+xa", "-od", dir, port}
	})
	var files []file
	var kinds []scu.Kind
	seen := map[string]bool{}
	for _, s := range samples.All(t) {
		if s.Dcmdump != "ok" || s.Bytes > 1<<20 {
			continue
		}
		f, err := load(t, s.Path)
		if err != nil || !dict.IsStorageClass(f.Class) || f.UID == "" || seen[f.UID] || len(f.data)%2 == 1 {
			continue
		}
		seen[f.UID] = true
		files, kinds = append(files, f), append(kinds, scu.Kind{Class: f.Class, Syntax: f.Syntax})
	}
	sender := scu.NewSender(scu.Target{Addr: addr, Called: "STORESCP", Calling: "PELAGO"}, kinds, 0)
	stored := map[string][]byte{}
	for _, f := range files {
		status, err := sender.Store(t.Context(), f.Instance, scu.Originator{})
		if fault.Is(err, fault.Unsupported) {
			continue // a class or syntax that this dcmtk does not know
		}
		if err != nil || status != 0 {
			t.Errorf("%s in %s: %v %v", f.UID, f.Syntax, status, err)
			continue
		}
		stored[f.UID] = f.data
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(stored) < 20 {
		t.Errorf("only %d of %d instances were taken", len(stored), len(files))
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		got, err := load(t, path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.data, stored[got.UID]) {
			t.Errorf("%s: %d bytes arrived otherwise than the %d sent", got.UID, len(got.data), len(stored[got.UID]))
		}
		delete(stored, got.UID)
	}
	if len(stored) > 0 {
		t.Errorf("%d instances are missing", len(stored))
	}
}

// qrscp starts dcmqrscp with one storage area and the AEs that it may send to.
func qrscp(t *testing.T, aes ...string) scu.Target {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "dcmqrscp.cfg")
	text := fmt.Sprintf("MaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\n%s\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"+
		"AETable BEGIN\nQRSCP %s RW (100, 1024mb) ANY\nAETable END\n", strings.Join(aes, "\n"), store)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startTool(t, "dcmqrscp", func(port string) []string { return []string{"-c", config, port} })
	return scu.Target{Addr: addr, Called: "QRSCP", Calling: "PELAGO"}
}

// open dials until the test ends.
func open(t *testing.T, target scu.Target, p scu.Proposal) *scu.Client {
	t.Helper()
	c, err := scu.Dial(t.Context(), target, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Release(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Release: %v", err)
		}
	})
	return c
}

func TestInteropDcmqrscp(t *testing.T) {
	target := qrscp(t)
	if err := open(t, target, scu.ProposeEcho()).Echo(t.Context()); err != nil {
		t.Fatal(err)
	}
	var files []file
	var kinds []scu.Kind
	for n := range 8 {
		in := dimsetest.CT(uint64(n/4+1), n)
		in.Rows, in.Columns = 16, 16
		f, err := parse(in.File())
		if err != nil {
			t.Fatal(err)
		}
		files, kinds = append(files, f), append(kinds, scu.Kind{Class: f.Class, Syntax: f.Syntax})
	}
	sender := scu.NewSender(target, kinds, 0)
	for _, f := range files {
		if status, err := sender.Store(t.Context(), f.Instance, scu.Originator{}); err != nil || status != 0 {
			t.Fatalf("store: %v %v", status, err)
		}
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Error(err)
	}

	identifier := dicom.NewDataset()
	identifier.Set(0x0020000D, dict.UI)
	identifier.Set(0x00100010, dict.PN)
	query := scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: identifier}
	finder := open(t, target, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
	studies := 0
	for d, err := range finder.Find(t.Context(), query) {
		if err != nil {
			t.Fatal(err)
		}
		if d.String(0x0020000D) == "" {
			t.Error("a match without a study")
		}
		studies++
	}
	if studies != 2 {
		t.Errorf("found %d studies, want 2", studies)
	}
	for range finder.Find(t.Context(), query) {
		break // cancels
	}

	identifier.Set(0x0020000D, dict.UI, dimsetest.CT(1, 0).StudyInstanceUID)
	getter := open(t, target, scu.ProposeGet(dimse.StudyRoot, kinds[:1]))
	got := map[string][]byte{}
	var final scu.Progress
	for p, err := range getter.Get(t.Context(), query, func(_ context.Context, in *scu.Incoming) error {
		b, err := io.ReadAll(in.Data)
		got[in.Instance] = b
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
		final = p
	}
	if !final.Final || final.Status != 0 || final.Completed != 4 || len(got) != 4 {
		t.Errorf("C-GET: %+v, %d instances", final, len(got))
	}
	for _, f := range files[:4] {
		if len(got[f.UID]) == 0 {
			t.Errorf("%s did not come", f.UID)
		}
	}

	mover := open(t, target, scu.ProposeMove(dimse.StudyRoot))
	for p, err := range mover.Move(t.Context(), "NOBODY", query) {
		if !p.Final || p.Status != 0xA801 || !fault.Is(err, fault.NotFound) {
			t.Errorf("C-MOVE to nobody: %+v %v", p, err)
		}
	}
}

func TestInteropMoveFromDcmqrscp(t *testing.T) {
	s := &storer{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := serveTCP(t, s, listener)
	defer stop()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	target := qrscp(t, "receiver = (RECEIVER, 127.0.0.1, "+port+")")
	in := dimsetest.CT(1, 0)
	in.Rows, in.Columns = 16, 16
	f, err := parse(in.File())
	if err != nil {
		t.Fatal(err)
	}
	sender := scu.NewSender(target, []scu.Kind{{Class: f.Class, Syntax: f.Syntax}}, 0)
	if _, err := sender.Store(t.Context(), f.Instance, scu.Originator{}); err != nil {
		t.Fatal(err)
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Error(err)
	}
	identifier := dicom.NewDataset()
	identifier.Set(0x0020000D, dict.UI, in.StudyInstanceUID)
	c := open(t, target, scu.ProposeMove(dimse.StudyRoot))
	var final scu.Progress
	for p, err := range c.Move(t.Context(), "RECEIVER", scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: identifier}) {
		if err != nil {
			t.Fatal(err)
		}
		final = p
	}
	if final.Completed != 1 || s.stored[f.Class] != 1 {
		t.Errorf("C-MOVE: %+v, %d arrived", final, s.stored[f.Class])
	}
}

func TestInteropTLSToStorescp(t *testing.T) {
	dir := t.TempDir()
	ca := dimsetest.NewAuthority(t)
	crt, key := ca.IssueFiles(t, dir, "storescp")
	trusted := ca.WriteFile(t, dir, "ca")
	addr := startTool(t, "storescp", func(port string) []string {
		return []string{"+tls", key, crt, "+cf", trusted, "--ignore", port}
	})
	target := scu.Target{Addr: addr, Called: "STORESCP", Calling: "PELAGO", TLS: &tls.Config{
		RootCAs: ca.Pool, Certificates: []tls.Certificate{ca.Issue(t)}, MinVersion: tls.VersionTLS12,
	}}
	c, err := scu.Dial(t.Context(), target, scu.ProposeEcho())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Echo(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Release(t.Context()); err != nil { // storescp serves one at a time
		t.Error(err)
	}
	target.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if _, err := scu.Dial(t.Context(), target, scu.ProposeEcho()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with a CA that is not ours: %v", err)
	}
}
